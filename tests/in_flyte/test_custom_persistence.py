"""A scheme that Flyte does not know, by a plugin of another package: volumes, files and directories on an FTP server.

docs/custom-persistence.md is about it, and shows the code that runs here.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import textwrap
import uuid
from pathlib import Path

import fsspec
import pytest
from file_kit import rich_tree, shown
from flytekit import task, workflow
from flytekit.core.context_manager import FlyteContextManager
from flytekit.core.data_persistence import FileAccessProvider
from flytekit.core.type_engine import TypeEngine
from flytekit.models.literals import LiteralMap
from flytekit.types.directory import FlyteDirectory
from flytekit.types.file import FlyteFile
from ftp_kit import PLUGIN, ftp_server, install
from v2_kit import Local, flyte

from volume_core import ROVolume, RWVolume, StorageError, Volume
from volume_core.fs import url_of
from volume_core.plugins import manager
from volume_core.testing.stores import RawDirectory, StoreContract

DOCS = Path(__file__).parents[2] / "docs" / "custom-persistence.md"
env = flyte.TaskEnvironment(name="custom-persistence")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """Where the plugin is installed."""
    return install(tmp_path_factory.mktemp("installed") / "site")


@pytest.fixture(scope="module", autouse=True)
def plugin(site):
    """The plugin, in this process too, which may have loaded its entry points before."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        from labftp import files, hooks

        if "labftp" not in manager.plugins().names():
            manager.register(hooks, "labftp")
        fsspec.register_implementation("labftp", files.LabFtpFileSystem, clobber=True)
        yield
        for client in files._clients.values():
            client.close()
        manager.plugins().unregister(hooks)
        sys.modules["fsspec.registry"]._registry.pop("labftp")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """(host:port, the directory that is served)."""
    root = tmp_path_factory.mktemp("ftp") / "root"
    with ftp_server(root) as address:
        yield address, root


@pytest.fixture
def place(served, monkeypatch, tmp_path) -> tuple[str, Path]:
    """A directory of the server that is this test's: its URL, and where it lies."""
    address, root = served
    monkeypatch.setenv("LABFTP_USER", "lab")
    monkeypatch.setenv("LABFTP_PASSWORD", "secret")
    monkeypatch.setenv("VOLUME_DRIVER", "copy")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # flytekit caches below it
    name = uuid.uuid4().hex
    (root / name).mkdir()
    return f"labftp://{address}/{name}", root / name


# -- the store, and volumes in it


class TestLabFtpStore(StoreContract):
    conditions = False
    listed = 300

    @pytest.fixture
    def raw(self, place):
        return RawDirectory(place[1])

    @pytest.fixture
    def store(self, place):
        store = manager.plugins().open_store(place[0], {})
        yield store
        store.close()


def test_a_server_that_is_away_is_worth_another_try(tmp_path):
    from labftp.store import LabFtpStore

    with ftp_server(tmp_path / "root") as address:
        store = LabFtpStore(f"labftp://{address}/x")
    with pytest.raises(StorageError, match=f"cannot read labftp://{address}/x/a: ") as caught:
        store.get("a")

    assert caught.value.transient


@task
def make(bucket: str, text: str) -> RWVolume:
    """A volume there."""
    volume = Volume.new("data", bucket)
    path = volume.mount_sync()
    (path / "run.sh").write_text(text)
    (path / "run.sh").chmod(0o755)
    (path / "empty").mkdir()
    return volume


@task
def change(data: RWVolume) -> RWVolume:
    """A fork of it."""
    (data.mount_sync() / "more").write_text("1")
    return data


@task
def names(data: ROVolume) -> list[str]:
    """What is in it."""
    return sorted(entry.path for entry in data.listdir_sync("/", recursive=True))


@task
def hand_on(data: ROVolume) -> FlyteDirectory:
    """It, for a task that knows no volumes."""
    return data.as_directory()


@task
def describe(data: FlyteDirectory) -> dict[str, str]:
    """What the directory is once it was downloaded."""
    return shown(Path(os.fspath(data)))


def test_tasks_keep_their_volumes_there(place):
    @workflow
    def wf(bucket: str) -> tuple[list[str], ROVolume, dict[str, str]]:
        data = change(data=make(bucket=bucket, text="echo"))
        return names(data=data), data, describe(data=hand_on(data=data))

    found, version, directory = wf(bucket=place[0])

    assert ["empty", "more", "run.sh"] == found
    assert version.locator.startswith(f"{place[0]}/versions/data/") and not version.verify_sync()
    assert {"empty": "directory 755", "more": "file 644: 1", "run.sh": "file 755: echo"} == directory
    assert (place[1] / "versions" / "data").is_dir()
    with fsspec.open(url_of(version.locator, "run.sh")) as file:
        assert b"echo" == file.read()


def test_without_compare_and_swap_there_are_versions_and_no_heads(place):
    first = Volume.new("data", place[0]).commit_sync()

    assert first == Volume.from_locator_sync(first.locator)
    with pytest.raises(StorageError, match="cannot have named heads"):
        Volume.from_name_sync("data", place[0], create_if_missing=True)


MOUNT = """
import sys
from volume_core import Volume
version = Volume.from_locator_sync(sys.argv[1])
with version.mounted_sync(sys.argv[2], driver="kernel") as path:
    print((path / "run.sh").read_text(), oct((path / "run.sh").stat().st_mode))
fork = version.fork_sync("mine")
with fork.mounted_sync(sys.argv[2], driver="kernel") as path:
    (path / "new").write_text("new")
print(fork.committed.locator)
"""


@pytest.mark.fuse
def test_a_mount_server_finds_the_store_by_the_entry_point(place, site, tmp_path):
    version = make.task_function(bucket=place[0], text="echo").finalize_sync()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), *filter(None, sys.path)])}
    command = [sys.executable, "-c", MOUNT, version.locator, str(tmp_path / "mnt")]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert 0 == ran.returncode, ran.stderr
    first, locator = ran.stdout.splitlines()

    assert "echo 0o100755" == first
    assert ["empty", "new", "run.sh"] == names.task_function(data=Volume.from_locator_sync(locator))


# -- files and directories


@task
def read(file: FlyteFile) -> str:
    """The file's text."""
    with open(file) as opened:
        return opened.read()


@task
def stream(file: FlyteFile) -> str:
    """The same, without a download."""
    with file.open("r") as opened:
        return opened.read()


@task
def upload(local: str, url: str) -> FlyteDirectory:
    """Put a directory."""
    return FlyteDirectory(local, remote_directory=url)


@task
def listing(data: FlyteDirectory) -> list[str]:
    """List a directory."""
    return sorted(entry.remote_source for entry in FlyteDirectory.listdir(data)) + sorted(
        name for _, name in data.crawl()
    )


def test_flytekit_lists_gets_puts_and_makes_paths(place, tmp_path):
    url, root = place
    (root / "d" / "e").mkdir(parents=True)
    (root / "d" / "e" / "file").write_text("there")
    (tmp_path / "local" / "sub").mkdir(parents=True)
    (tmp_path / "local" / "sub" / "file").write_text("put")

    assert "there" == read(file=f"{url}/d/e/file") == stream(file=f"{url}/d/e/file")
    assert {"e": "directory 755", "e/file": "file 644: there"} == describe(data=f"{url}/d")
    assert [f"{url}/d/e", "e/file"] == listing(data=f"{url}/d")

    assert {"sub": "directory 755", "sub/file": "file 644: put"} == describe(
        data=upload(local=str(tmp_path / "local"), url=f"{url}/uploaded")
    )
    assert "put" == (root / "uploaded" / "sub" / "file").read_text()

    access = FileAccessProvider(str(tmp_path / "sandbox"), f"{url}/raw")
    assert access.exists(f"{url}/d/e/file") and not access.exists(f"{url}/nothing")
    made = access.get_random_remote_path("x/model.bin")
    assert made.startswith(f"{url}/raw/") and made.endswith("/model.bin")
    assert f"{url}/raw/a/b" == access.join(access.raw_output_prefix, "a", "b")
    assert b"bytes" == fsspec.open(access.put_raw_data(b"bytes")).open().read()


CONTAINER = """
from flytekit import task
from flytekit.types.file import FlyteFile

@task
def make(file: FlyteFile) -> FlyteFile:
    with open(file) as opened, open("made", "w") as made:
        made.write(opened.read().upper())
    return FlyteFile("made")
"""


def test_in_a_container_whose_raw_data_lies_there(place, site, tmp_path):
    url, root = place
    home = tmp_path / "container"
    home.mkdir()
    (home / "program.py").write_text(textwrap.dedent(CONTAINER))
    (root / "in").write_text("text")
    context = FlyteContextManager.current_context()
    literal = TypeEngine.to_literal(
        context, FlyteFile.from_source(f"{url}/in"), FlyteFile, TypeEngine.to_literal_type(FlyteFile)
    )
    (home / "inputs.pb").write_bytes(LiteralMap({"file": literal}).to_flyte_idl().SerializeToString())
    command = [
        str(Path(sys.executable).with_name("pyflyte-execute")),
        *("--inputs", str(home / "inputs.pb"), "--output-prefix", f"{url}/meta"),
        *("--raw-output-data-prefix", f"{url}/raw", "--checkpoint-path", f"{url}/checkpoint"),
        *("--prev-checkpoint", '""', "--resolver", "flytekit.core.python_auto_container.default_task_resolver"),
        *("--", "task-module", "program", "task-name", "make"),
    ]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(home), str(site), *filter(None, sys.path)])}
    ran = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=120, check=False)

    assert (root / "meta" / "outputs.pb").exists(), ran.stdout + ran.stderr
    [made] = [path for path in (root / "raw").rglob("*") if path.is_file()]
    assert "TEXT" == made.read_text()


@env.task
async def use(data: flyte.io.Dir, file: flyte.io.File) -> list[str]:
    """Each way of asking that flyte 2 has."""
    assert await data.exists() and not await flyte.io.File(path=f"{data.path}/nothing").exists()
    async with file.open("rb") as opened:
        text = (await opened.read()).decode()
    async with flyte.io.File(path=f"{data.path}/written").open("wb") as opened:
        await opened.write(b"written")
    return [text, *sorted([found.path async for found in data.walk()]), *sorted(shown(Path(await data.download())))]


@env.task
async def put(local: str, url: str) -> flyte.io.Dir:
    """Put a directory."""
    return await flyte.io.Dir.from_local(local, url)


@env.task
async def keep(bucket: str) -> RWVolume:
    """A volume there."""
    volume = Volume.new("data", bucket)
    (await volume.mount() / "x").write_text("1")
    return volume


@env.task
async def look(data: ROVolume) -> list[str]:
    """What is in it."""
    return [entry.path for entry in await data.listdir("/")]


@env.task
async def keep_and_look(bucket: str) -> list[str]:
    """From one task to the next."""
    return await look(await keep(bucket))


def test_flyte_2_lists_gets_puts_and_opens(place, tmp_path, monkeypatch):
    url, root = place
    run = Local(tmp_path / "flyte", monkeypatch)
    (root / "d").mkdir()
    (root / "d" / "file").write_text("there")
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "file").write_text("put")

    found = run(use, data=flyte.io.Dir(path=f"{url}/d"), file=flyte.io.File(path=f"{url}/d/file"))
    assert ["there", f"{url}/d/file", f"{url}/d/written", "file", "written"] == found
    run(put, local=str(tmp_path / "local"), url=f"{url}/uploaded")
    assert "put" == (root / "uploaded" / "file").read_text()
    assert ["x"] == run(keep_and_look, bucket=url)


def test_the_file_system_by_itself(place, tmp_path):
    url, root = place
    fs = fsspec.filesystem("labftp")
    fs.pipe({f"{url}/a": b"0123", f"{url}/d/b": b"b"})
    with fs.open(f"{url}/w", "wb", block_size=5) as file:
        file.write(b"written in")
        file.write(b" parts")
    fs.cp(f"{url}/d", f"{url}/copied", recursive=True)

    assert [b"12", b"3", b""] == [fs.cat_file(f"{url}/a", *each) for each in [(1, 3), (-1, None), (9, 12)]]
    assert "written in parts" == (root / "w").read_text() and b"b" == fs.cat(f"{url}/copied/b")
    assert b"in parts" == fs.open(f"{url}/w").read()[8:]
    with pytest.raises(FileNotFoundError):
        fs.info(f"{url}/nothing")
    with pytest.raises(FileExistsError):
        fs.pipe_file(f"{url}/a", b"", mode="create")
    fs.rm(f"{url}/d", recursive=True)
    assert ["a", "copied", "w"] == sorted(name.rpartition("/")[2] for name in fs.ls(url, detail=False))


def test_what_a_plain_file_system_loses_a_volume_on_it_keeps(place, tmp_path):
    url, _ = place
    tree = rich_tree(tmp_path / "tree")
    (tree / "nowhere").unlink()  # fsspec itself stops at this
    volume = Volume.new("data", url)
    with volume.batch_upload_sync() as batch:
        batch.put_directory(tree, "/")

    plain = describe(data=upload(local=str(tree), url=f"{url}/plain"))
    kept = describe(data=url_of(batch.version.locator))

    assert shown(tree) == kept
    assert ("file 644: #!/bin/sh\n", "file 644: #!/bin/sh\n") == (plain["bin/run.sh"], plain["to_file"])


# -- the page


def test_the_page_shows_the_code_that_runs_here():
    blocks = re.findall(r"```(?:python|toml)\n# (\S+)\n\n?(.*?)```", DOCS.read_text(), re.DOTALL)

    assert ["pyproject.toml", "labftp/hooks.py", "labftp/store.py", "labftp/files.py"] == [name for name, _ in blocks]
    for name, code in blocks:
        assert code.strip() == (PLUGIN / name).read_text().strip(), name


def test_coroutines_share_the_connections(place):
    url, _ = place

    async def work() -> list[bytes]:
        fs = fsspec.filesystem("labftp", asynchronous=True)
        await asyncio.gather(*[fs._pipe_file(f"{url}/{number}", b"%d" % number) for number in range(30)])
        return await asyncio.gather(*[fs._cat_file(f"{url}/{number}") for number in range(30)])

    assert [b"%d" % number for number in range(30)] == asyncio.run(work())

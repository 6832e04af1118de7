"""FlyteFile and FlyteDirectory on `vol://`: what is in a volume comes to a task, and goes on from one, as it is."""

from __future__ import annotations

import asyncio
import importlib
import os
import stat
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import flytekit
import pytest
from file_kit import made, rich_tree, shown
from flytekit import dynamic, eager, task, workflow
from flytekit.core.context_manager import FlyteContextManager
from flytekit.core.data_persistence import FileAccessProvider
from flytekit.core.type_engine import TypeEngine
from flytekit.models.literals import LiteralMap
from flytekit.types.directory import FlyteDirectory
from flytekit.types.file import FlyteFile

import volume_flyte
from volume_core import ROVolume, RWVolume, Volume, VolumeError
from volume_core.fs import VolumeFileSystem, url_of
from volume_flyte.v1 import files


@pytest.fixture(autouse=True)
def own_instances():
    """Another test's file systems have its stores."""
    VolumeFileSystem.clear_instance_cache()
    yield
    VolumeFileSystem.clear_instance_cache()


@pytest.fixture
def version(tmp_path) -> ROVolume:
    """A version of the volume "data" that holds what copies are apt to lose."""
    return made("data", rich_tree(tmp_path / "tree"))


def commits(name: str) -> int:
    """How many versions the head's line has."""
    return len(Volume.from_name_sync(name).committed.log_sync())


@task
def describe(data: FlyteDirectory) -> dict[str, str]:
    """What the directory is once it was downloaded."""
    return shown(Path(os.fspath(data)))


@task
def read(file: FlyteFile) -> str:
    """The file's text, and whether it can be run."""
    with open(file) as opened:
        return f"{opened.read()} {os.access(file, os.X_OK)}"


@task
def stream(file: FlyteFile) -> str:
    """The file's text, which is not downloaded."""
    with file.open("r") as opened:
        return opened.read()


@task
def upload(local: str, url: str) -> FlyteDirectory:
    """Upload a directory to where *url* says."""
    return FlyteDirectory(local, remote_directory=url)


@task
def upload_file(local: str, url: str) -> FlyteFile:
    """Upload a file to where *url* says."""
    return FlyteFile(local, remote_path=url)


@task
def names(data: FlyteDirectory) -> list[str]:
    """What is in a directory that is not downloaded."""
    listed = [entry.remote_source for entry in FlyteDirectory.listdir(data)]
    crawled = [f"{name}" for _, name in data.crawl()]
    return sorted(listed) + sorted(crawled)


def test_a_directory_of_a_version_comes_to_a_task_as_it_is(version, tmp_path):
    for url in (url_of(version.locator), "vol://data", f"vol://data~{version.version[:12]}"):
        assert shown(tmp_path / "tree") == describe(data=url)
    assert shown(tmp_path / "tree" / "bin") == describe(data="vol://data/bin")


def test_what_is_uploaded_is_one_version_with_all_that_was_there(tmp_path):
    tree = rich_tree(tmp_path / "tree")

    @workflow
    def wf(local: str) -> dict[str, str]:
        return describe(data=upload(local=local, url="vol://results/run-1"))

    assert shown(tree) == wf(local=str(tree))
    assert 1 == commits("results")
    assert shown(tree) == wf(local=str(tree)), "the same place again"
    assert 1 == commits("results"), "where nothing is new there is no new version"


def test_what_one_task_uploads_the_next_one_lists(tmp_path):
    """The trap of `asynchronous=True, loop=...`: flytekit uploads through one instance, and looks through another."""
    tree = rich_tree(tmp_path / "tree")
    upload(local=str(tree / "bin"), url="vol://results/one")
    assert ["vol://results/one/run.sh", "run.sh"] == names(data="vol://results/one")

    upload(local=str(tree / "bin"), url="vol://results/two")
    upload_file(local=str(tree / "bin" / "run.sh"), url="vol://results/two/more.sh")

    assert ["vol://results/two/more.sh", "vol://results/two/run.sh", "more.sh", "run.sh"] == names(
        data="vol://results/two"
    )
    assert 3 == commits("results")


def test_a_file_keeps_its_mode_and_can_be_read_without_a_download(version, tmp_path):
    assert "#!/bin/sh\n True" == read(file=url_of(version.locator, "bin/run.sh"))
    assert "plain False" == read(file="vol://data/plain")
    assert "plain" == stream(file="vol://data/plain")

    upload_file(local=str(tmp_path / "tree" / "bin" / "run.sh"), url="vol://results/again.sh")
    assert "#!/bin/sh\n True" == read(file="vol://results/again.sh")


def test_a_link_that_leads_out_is_neither_read_nor_written_through(tmp_path):
    (tmp_path / "secret").write_text("not yours")
    tree = rich_tree(tmp_path / "tree")
    (tree / "out").symlink_to(tmp_path / "secret")

    found = describe(data=upload(local=str(tree), url="vol://results/run"))

    assert f"link to {tmp_path}/secret" == found["out"]
    assert not any(b"not yours" in data for data in stored(tmp_path))
    assert "not yours" == (tmp_path / "secret").read_text()


def stored(tmp_path: Path) -> list[bytes]:
    """Every object of the default store."""
    store = tmp_path / "volume-state" / "store"
    return [path.read_bytes() for path in store.rglob("*") if path.is_file()]


def test_raw_data_may_lie_in_a_volume(tmp_path):
    tree = rich_tree(tmp_path / "tree")
    access = FileAccessProvider(str(tmp_path / "sandbox"), "vol://raw/of/a/run")

    directory = access.put_raw_data(str(tree), upload_prefix="one", file_name="tree")
    file = access.put_raw_data(b"bytes", upload_prefix="two", file_name="b")
    access.get_data(directory, str(tmp_path / "again"), is_multipart=True)

    assert ("vol://raw/of/a/run/one/tree/", "vol://raw/of/a/run/two/b") == (directory, file)
    assert shown(tree) == shown(tmp_path / "again")
    assert access.exists(file) and not access.exists("vol://raw/of/a/run/three")
    assert access.get_random_remote_path("x/y.txt").startswith("vol://raw/of/a/run/")
    assert access.join("vol://raw", "a", "b") == "vol://raw/a/b"


CONTAINER = """
import os
from flytekit import task
from flytekit.types.directory import FlyteDirectory

@task
def make(data: FlyteDirectory) -> FlyteDirectory:
    os.makedirs("made/empty")
    with open(os.path.join(data, "bin", "run.sh")) as file, open("made/copy.sh", "w") as copy:
        copy.write(file.read())
    os.chmod("made/copy.sh", 0o755)
    os.symlink("copy.sh", "made/link")
    return FlyteDirectory("made")
"""


def test_in_a_container_whose_raw_data_lies_in_a_volume(version, tmp_path):
    home = tmp_path / "container"
    home.mkdir()
    (home / "program.py").write_text(textwrap.dedent(CONTAINER))
    context = FlyteContextManager.current_context()
    value = FlyteDirectory.from_source(url_of(version.locator))
    literal = TypeEngine.to_literal(context, value, FlyteDirectory, TypeEngine.to_literal_type(FlyteDirectory))
    (home / "inputs.pb").write_bytes(LiteralMap({"data": literal}).to_flyte_idl().SerializeToString())
    command = [
        str(Path(sys.executable).with_name("pyflyte-execute")),
        *("--inputs", str(home / "inputs.pb"), "--output-prefix", str(home / "out")),
        *("--raw-output-data-prefix", "vol://raw/attempt-0", "--checkpoint-path", str(home / "checkpoint")),
        *("--prev-checkpoint", '""', "--resolver", "flytekit.core.python_auto_container.default_task_resolver"),
        *("--", "task-module", "program", "task-name", "make"),
    ]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(home), *filter(None, sys.path)])}
    ran = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert (home / "out" / "outputs.pb").exists(), ran.stdout + ran.stderr

    [directory] = VolumeFileSystem().ls("raw/attempt-0", detail=False)
    found = describe(data=f"vol://{directory}")
    assert {"copy.sh": "file 755", "empty": "directory 755", "link": "link to copy.sh"} == {
        name: text.partition(": ")[0] for name, text in found.items()
    }
    assert 1 == commits("raw")


@task
def write(text: str) -> RWVolume:
    """A volume with one file in it."""
    volume = Volume.new("written")
    path = volume.mount_sync(driver="copy")
    (path / "bin").mkdir()
    (path / "bin" / "run.sh").write_text(text)
    (path / "bin" / "run.sh").chmod(0o755)
    return volume


@task
def as_directory(data: ROVolume, path: str) -> FlyteDirectory:
    """Hand on a directory of a volume to a task that knows no volumes."""
    return data.as_directory(path)


@task
def as_file(data: ROVolume) -> FlyteFile:
    """Hand on a file."""
    found = data.as_file("bin/run.sh")
    assert "echo" == Path(found).read_text(), "it can be used at once"
    return found


@task
def unfinished() -> FlyteDirectory:
    """Hand on what a writer has written and not committed."""
    volume = Volume.new("unfinished")
    (volume.mount_sync(driver="copy") / "x").write_text("1")
    try:
        return volume.as_directory()
    finally:
        volume.close_sync()


@task
async def from_a_coroutine() -> FlyteDirectory:
    """As above, in flytekit's loop."""
    version = Volume.from_name_sync("data").committed
    return version.as_directory("bin")


@eager
async def eagerly() -> dict[str, str]:
    """Hand it from task to task."""
    return describe(data=await from_a_coroutine())


def test_a_volume_is_handed_on_as_a_directory_or_a_file():
    @workflow
    def wf() -> tuple[dict[str, str], str]:
        data = write(text="echo")
        return describe(data=as_directory(data=data, path="bin")), read(file=as_file(data=data))

    assert ({"run.sh": "file 755: echo"}, "echo True") == wf()


def test_a_writer_is_committed_before_it_is_handed_on_as_a_directory():
    found = unfinished()

    assert ["x"] == os.listdir(found)
    assert found.remote_source.startswith("vol://file+") and "/-/unfinished~" in found.remote_source
    assert 1 == commits("unfinished")


def test_in_a_coroutine_and_in_a_dynamic_task(version):
    @dynamic
    def dynamically() -> dict[str, str]:
        data = Volume.from_name_sync("data").committed
        return describe(data=data.as_directory("bin"))

    assert {"run.sh": "file 755: #!/bin/sh\n"} == asyncio.run(eagerly()) == dynamically()


def test_outside_a_task_the_program_says_which_sdk_it_means(version):
    with pytest.raises(VolumeError, match="no engine's task runs here"):
        version.as_directory()
    assert {"run.sh": "file 755: #!/bin/sh\n"} == describe(data=files.as_directory(version, "bin"))
    assert "plain" == stream(file=files.as_file(version, "plain"))
    with warnings.catch_warnings():  # flyte defines models in a way that pydantic warns of
        warnings.simplefilter("ignore")
        importlib.import_module("flyte")
    with pytest.raises(VolumeError, match=r"both flytekit and flyte are imported.*volume_flyte\.v1\.files"):
        volume_flyte.as_directory(version)


def test_the_one_sdk_that_is_imported_is_meant(version, tmp_path):
    script = (
        "import sys, flytekit, volume_flyte\n"
        "from volume_core import Volume\n"
        "version = Volume.from_locator_sync(sys.argv[1])\n"
        "print(type(volume_flyte.as_directory(version, 'bin')).__name__)\n"
        "print(open(volume_flyte.as_file(version, 'plain')).read(), 'flyte' in sys.modules)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", script, version.locator]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)

    assert ["FlyteDirectory", "plain False"] == ran.stdout.splitlines(), ran.stderr


def test_a_directory_at_a_symlink_is_the_one_thing_flytekit_refuses(tmp_path):
    """The trap of a top-level symlink: flytekit does not upload one that it is to find a place for."""
    tree = rich_tree(tmp_path / "tree")
    (tmp_path / "named").symlink_to(tree)
    access = FileAccessProvider(str(tmp_path / "sandbox"), "vol://raw/of/a/run")

    with pytest.raises(flytekit.exceptions.user.FlyteAssertion, match="is a symlink"):
        access.put_raw_data(str(tmp_path / "named"))
    assert shown(tree) == describe(data=upload(local=str(tmp_path / "named"), url="vol://results/run"))
    assert stat.S_ISLNK((tmp_path / "named").lstat().st_mode)

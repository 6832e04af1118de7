"""File and Dir of flyte 2 on `vol://`: opened by coroutines, downloaded and uploaded as they are."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import flyte
import pytest
from file_kit import made, rich_tree, shown
from v2_kit import Local

from volume_core import ROVolume, RWVolume, Volume, VolumeError
from volume_core.fs import VolumeFileSystem, url_of
from volume_flyte.v2 import files

flyte_io = flyte.io
Dir, File = flyte_io.Dir, flyte_io.File
env = flyte.TaskEnvironment(name="files")


@pytest.fixture(autouse=True)
def own_instances():
    """Another test's file systems have its stores."""
    VolumeFileSystem.clear_instance_cache()
    yield
    VolumeFileSystem.clear_instance_cache()


@pytest.fixture
def run(tmp_path, monkeypatch) -> Local:
    return Local(tmp_path / "flyte", monkeypatch)


@pytest.fixture
def version(tmp_path) -> ROVolume:
    """A version of the volume "data" that holds what copies are apt to lose."""
    return made("data", rich_tree(tmp_path / "tree"))


def commits(name: str) -> int:
    """How many versions the head's line has."""
    return len(Volume.from_name_sync(name).committed.log_sync())


@env.task
async def describe(data: Dir) -> dict[str, str]:
    """What the directory is once it was downloaded."""
    return shown(Path(await data.download()))


@env.task
def describe_sync(data: Dir) -> dict[str, str]:
    """The same in a task that is no coroutine."""
    return shown(Path(data.download_sync()))


@env.task
async def read(file: File) -> str:
    """The file's text, opened by a coroutine."""
    async with file.open("rb") as opened:
        return bytes(await opened.read(3) + await opened.read()).decode()


@env.task
async def look(data: Dir) -> list[str]:
    """Which files are in it, told by each way of asking."""
    walked = sorted([found.path async for found in data.walk()])
    assert walked == sorted(found.path for found in data.walk_sync())
    listed = sorted(found.name for found in await data.list_files())
    assert await data.exists() and not await Dir.from_existing_remote(f"{data.path}nothing").exists()
    assert await data.get_file("nothing") is None and (await data.get_file("plain")).name == "plain"
    return [*walked, *listed]


@env.task
async def upload(local: str, url: str) -> Dir:
    """Upload a directory."""
    return await Dir.from_local(local, url)


@env.task
def upload_sync(local: str, url: str) -> Dir:
    """The same in a task that is no coroutine."""
    return Dir.from_local_sync(local, url)


def test_a_directory_of_a_version_is_downloaded_as_it_is(run, version, tmp_path):
    for url in (url_of(version.locator), "vol://data", f"vol://data~{version.version[:12]}/"):
        data = Dir.from_existing_remote(url)
        assert shown(tmp_path / "tree") == run(describe, data=data) == run(describe_sync, data=data)


def test_a_directory_is_looked_through_without_a_download(run, version):
    found = run(look, data=files.as_directory(version))
    root = url_of(version.locator)

    assert {"bin/run.sh", "plain", "again", "private"} <= {path.removeprefix(f"{root}/") for path in found}
    assert all(path.startswith(f"{root}/") for path in found if "://" in path)


def test_a_file_is_opened_by_a_coroutine(run, version):
    """The trap of OnlyAsyncIOSupportedError: flyte opens no file of a file system that has no coroutines."""
    assert "plain" == run(read, file=files.as_file(version, "plain"))
    assert "#!/bin/sh\n" == run(read, file=File.from_existing_remote("vol://data/to_file"))


def test_an_upload_is_one_version_with_all_that_was_there(run, tmp_path):
    tree = rich_tree(tmp_path / "tree")

    first = run(upload, local=str(tree), url="vol://results/one")
    second = run(upload_sync, local=f"{tree}/bin/", url="vol://results/two")
    assert 2 == commits("results")
    assert shown(tree) == run(describe, data=first)
    assert {"run.sh": "file 755: #!/bin/sh\n"} == run(describe, data=second)

    run(upload, local=f"{tree}/", url="vol://results/one")
    run(upload_sync, local=f"{tree}/", url="vol://results/one")
    assert 2 == commits("results"), "what is there already is no new version"


def test_a_file_goes_there_and_back_with_its_mode(run, tmp_path):
    tree = rich_tree(tmp_path / "tree")

    async def there_and_back() -> list[int]:
        file = await File.from_local(tree / "bin" / "run.sh", "vol://results/run.sh")
        hashed = await File.from_local(tree / "plain", "vol://results/plain", hash_method="by-hand")
        found = [os.stat(await file.download()).st_mode, os.stat(file.download_sync(tmp_path / "x")).st_mode]
        assert hashed.hash == "by-hand" and await hashed.exists() and hashed.exists_sync()
        return [mode & 0o777 for mode in found]

    assert [0o755, 0o755] == asyncio.run(there_and_back())
    assert 2 == commits("results")


def test_what_a_coroutine_writes_is_a_version_when_it_is_closed(run):
    async def write() -> str:
        async with File(path="vol://results/a/b").open("wb") as opened:
            await opened.write(b"first ")
            await opened.write(b"second")
        with File(path="vol://results/c").open_sync("wb") as opened:
            opened.write(b"third")
        return (await File(path="vol://results/a/b").download()) + File(path="vol://results/c").download_sync()

    asyncio.run(write())

    assert 2 == commits("results")
    fs = VolumeFileSystem()
    assert [b"first second", b"third"] == [fs.cat("results/a/b"), fs.cat("results/c")]


def test_flyte_closes_what_an_error_interrupted_and_so_it_is_written(run):
    """The trap of `File.open`: it does not tell the file of an error.  To write all or nothing, upload a local file."""

    async def write() -> None:
        async with File(path="vol://results/half").open("wb") as opened:
            await opened.write(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(write())

    assert b"half" == VolumeFileSystem().cat("results/half")


def test_many_files_are_read_at_once(run, tmp_path):
    (tmp_path / "many").mkdir()
    for number in range(100):
        (tmp_path / "many" / f"{number:03}").write_bytes(b"%03d" % number)
    data = files.as_directory(made("many", tmp_path / "many"))

    async def read_all() -> list[bytes]:
        async def read_one(file: File) -> bytes:
            async with file.open() as opened:
                return await opened.read()

        return await asyncio.gather(*[read_one(file) async for file in data.walk()])

    assert [b"%03d" % number for number in range(100)] == asyncio.run(read_all())


def test_raw_data_may_lie_in_a_volume(tmp_path, monkeypatch):
    """What flyte uploads by itself then is a version of it."""
    tree = rich_tree(tmp_path / "tree")
    run = Local(tmp_path / "flyte", monkeypatch)

    @env.task
    async def make(local: str) -> Dir:
        return await Dir.from_local(local)

    @env.task
    async def put_and_get(local: str) -> dict[str, str]:
        return await describe(data=await make(local=local))

    context = flyte.with_runcontext(mode="local", raw_data_path="vol://raw/of/a/run")
    context._metadata_path = str(run.directory / "metadata")

    assert shown(tree) == context.run(put_and_get, local=str(tree)).outputs()[0]
    assert 1 == commits("raw")
    assert all(path.startswith("raw/of/a/run/") for path in VolumeFileSystem().find("raw"))


@env.task
async def write(text: str) -> RWVolume:
    """A volume with one file in it."""
    volume = Volume.new("written")
    path = await volume.mount()
    (path / "bin").mkdir()
    (path / "bin" / "run.sh").write_text(text)
    (path / "bin" / "run.sh").chmod(0o755)
    return volume


@env.task
async def hand_on(text: str) -> tuple[Dir, File]:
    """A volume, to tasks that know no volumes."""
    data: ROVolume = await (await write(text)).commit()
    return data.as_directory("bin"), data.as_file("bin/run.sh")


@env.task
async def receive(text: str) -> tuple[dict[str, str], str]:
    """Hand it from task to task."""
    directory, file = await hand_on(text)
    return await describe(directory), await read(file)


@env.task
def unfinished() -> Dir:
    """What a writer has written and not committed, in a task that is no coroutine."""
    volume = Volume.new("unfinished")
    (volume.mount_sync() / "x").write_text("1")
    try:
        return volume.as_directory()
    finally:
        volume.close_sync()


def test_a_volume_is_handed_on_as_a_directory_or_a_file(run):
    assert ({"run.sh": "file 755: echo"}, "echo") == run(receive, text="echo")


def test_a_writer_is_committed_before_it_is_handed_on_as_a_directory(run):
    found = run(unfinished)

    assert {"x": "file 644: 1"} == run(describe, data=found)
    assert found.path.startswith("vol://file+") and "/-/unfinished~" in found.path
    assert 1 == commits("unfinished")


def test_a_download_goes_into_the_directory_that_it_is_given(run, version, tmp_path):
    """As one from a bucket does; fsspec alone puts it below, by its name, where the directory is there."""
    (tmp_path / "there").mkdir()

    async def download() -> tuple[str, str]:
        directory = files.as_directory(version, "bin")
        return await directory.download(tmp_path / "there"), directory.download_sync(tmp_path / "new")

    there, new = asyncio.run(download())
    assert ["run.sh"] == os.listdir(there) == os.listdir(new)


def test_outside_a_task_the_program_says_which_sdk_it_means(run, version):
    with pytest.raises(VolumeError, match="no engine's task runs here"):
        version.as_directory()
    directory = files.as_directory(version, "bin")

    assert (f"{url_of(version.locator, 'bin')}/", "bin") == (directory.path, directory.name)
    assert url_of(version.locator, "plain") == files.as_file(version, "plain").path


def test_the_one_sdk_that_is_imported_is_meant(version):
    script = (
        "import sys, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "import flyte, volume_flyte\n"
        "from volume_core import Volume\n"
        "version = Volume.from_locator_sync(sys.argv[1])\n"
        "found = volume_flyte.as_directory(version, 'bin'), volume_flyte.as_file(version, 'plain')\n"
        "print(*[type(each).__module__ for each in found], 'flytekit' in sys.modules)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", script, version.locator]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)

    assert ["flyte.io._dir flyte.io._file False"] == ran.stdout.splitlines(), ran.stderr

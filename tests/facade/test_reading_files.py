"""Files of a version without a mount: listed, described, walked, read."""

from __future__ import annotations

import asyncio
import gc
import io
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from facade_kit import committed, eventually

from volume_core import FileEntryType, NoSuchPathError, NotFoundError, Volume, VolumeError
from volume_core.format.entries import CHUNK_BYTES
from volume_core.parts.state import State

ODD = "odd\n" + os.fsdecode(b"\xff\xfe") + "é" * 120
BIG = os.urandom(2 * CHUNK_BYTES + 12345)


@pytest.fixture
def version(tmp_path):
    """A version with something of each kind in it."""
    volume = Volume.new("data")
    with volume.mounted_sync(driver="copy") as path:
        (path / "d" / "e").mkdir(parents=True)
        (path / "d" / "a.txt").write_text("a")
        (path / "d" / "e" / "b.txt").write_text("bb")
        (path / "link").symlink_to("d/e")
        (path / ODD).write_text("odd")
        (path / "big").write_bytes(BIG)
        (path / "empty").touch()
        os.mkfifo(path / "fifo")
        os.chmod(path / "d" / "a.txt", 0o640)
        os.utime(path / "d" / "a.txt", ns=(1, 1_700_000_000_123_456_789))
    return volume.committed


def paths(entries) -> list[str]:
    return [entry.path for entry in entries]


TOP = ["big", "d", "empty", "fifo", "link", ODD]
BELOW_D = ["d/a.txt", "d/e", "d/e/b.txt"]


def test_a_directory_is_listed_by_name(version):
    assert TOP == paths(version.listdir_sync("/"))
    assert TOP == paths(version.listdir_sync())
    assert ["d/a.txt", "d/e"] == paths(version.listdir_sync("/d/"))
    assert BELOW_D == paths(version.listdir_sync("d", recursive=True)) == paths(version.iterdir_sync("d"))


def test_a_path_through_a_link_is_shown_as_it_was_given(version):
    assert ["link/b.txt"] == paths(version.listdir_sync("link"))
    assert ["d/e/b.txt"] == paths(version.listdir_sync("link/../e"))


def test_a_file_lists_as_itself_and_a_pattern_as_its_matches(version):
    assert ["d/a.txt"] == paths(version.listdir_sync("d/a.txt"))
    assert ["d/a.txt", "d/e/b.txt"] == paths(version.listdir_sync("**/*.txt"))
    assert [ODD] == paths(version.listdir_sync("odd*"))


def test_what_exists_as_it_is_written_is_no_pattern():
    version = committed(files={"a[1].txt": "literal", "a1.txt": "other"})

    assert ["a[1].txt"] == paths(version.listdir_sync("a[1].txt"))
    assert ["a1.txt"] == paths(version.listdir_sync("a[1]*"))


@pytest.mark.parametrize("path", ["gone", "d/gone", "d/a.txt/x", "*.gone", "gone/**"])
def test_what_is_not_there_is_an_error_that_names_it(version, path):
    with pytest.raises(NoSuchPathError, match="/"):
        version.listdir_sync(path)
    with pytest.raises(FileNotFoundError):
        version.stat_sync(path)
    with pytest.raises(NotFoundError, match="there is no such path in file://"):
        version.read_file_sync(path)
    assert not version.exists_sync(path)


def test_an_entry_says_what_the_file_is(version):
    entry = version.stat_sync("d/a.txt")

    assert ("d/a.txt", FileEntryType.FILE, 1_700_000_000, 1) == entry[:4]
    assert (1_700_000_000_123_456_789, 0o640, os.getuid(), os.getgid(), None) == entry[4:]
    assert {"big": 1, "d": 2, "empty": 1, "fifo": 4, "link": 3, ODD: 1} == {
        each.name: each.type for each in version.listdir_sync()
    }


def test_stat_follows_a_link_unless_told_not_to(version):
    assert ("d/e", FileEntryType.DIRECTORY) == version.stat_sync("link")[:2]
    link = version.stat_sync("link", follow=False)
    assert ("link", FileEntryType.SYMLINK, "d/e") == (link.path, link.type, link.target)
    assert "" == version.stat_sync("/").path


def test_walk_is_os_walk(version, tmp_path):
    with version.mounted_sync(driver="copy") as path:
        for top in ("", "d"):
            expected = [(os.path.relpath(where, path), sorted(d), sorted(f)) for where, d, f in os.walk(path / top)]
            found = [(os.path.relpath(f"/{where}", "/"), d, f) for where, d, f in version.walk_sync(top or "/")]
            assert sorted(expected) == sorted(found)


def test_walk_can_be_pruned(version):
    tops = []
    for top, directories, _ in version.walk_sync("/"):
        tops.append(top)
        directories.clear()

    assert ["/"] == tops
    with pytest.raises(VolumeError, match="no directory"):
        next(version.walk_sync("big"))


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, None), (1, None), (CHUNK_BYTES - 1, 2), (CHUNK_BYTES, CHUNK_BYTES), (len(BIG), None), (1 << 40, 5), (7, 0)],
)
def test_a_file_is_read_in_blocks_from_anywhere(version, offset, length):
    blocks = list(version.read_file_sync("big", offset=offset, length=length))
    end = None if length is None else offset + length

    assert BIG[offset:end] == b"".join(blocks)
    assert all(0 < len(block) <= CHUNK_BYTES for block in blocks)


def test_a_file_can_be_read_into_a_file_object(version):
    out = io.BytesIO()

    assert len(BIG) == version.read_file_into_fileobj_sync("big", out)
    assert BIG == out.getvalue()
    assert [] == list(version.read_file_sync("empty"))
    assert b"bb" == b"".join(version.read_file_sync("link/b.txt"))


@pytest.mark.parametrize("path", ["d", "fifo"])
def test_what_is_no_file_cannot_be_read(version, path):
    with pytest.raises(VolumeError, match="not a file"):
        version.read_file_sync(path)
    with pytest.raises(ValueError, match="negative"):
        version.read_file_sync("big", offset=-1)


def test_a_writer_shows_its_last_commit():
    volume = Volume.new("line")
    assert [] == volume.listdir_sync("/")
    with pytest.raises(NoSuchPathError, match="of which nothing is committed"):
        volume.stat_sync("a")
    path = volume.mount_sync(driver="copy")
    (path / "a").write_text("one")
    volume.commit_sync()
    (path / "b").write_text("not committed")
    reading = volume.read_file_sync("a")
    listing = volume.iterdir_sync("/")
    assert ["a"] == paths(volume.listdir_sync("/"))
    first = next(listing)
    volume.commit_sync()

    assert ["a", "b"] == paths(volume.listdir_sync("/"))
    assert ["a"] == paths([first, *listing])  # goes on with the version that it began with
    assert b"one" == b"".join(reading)
    volume.abandon_sync()


def descriptors() -> list[str]:
    """The layers of this test's own state that this process has open: an instance of another test may have its own."""
    found = []
    for each in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{each}"))
        except OSError:
            continue
    return [each for each in found if each.startswith(f"{State.default().root}/") and "/layers/" in each]


def test_a_handle_keeps_nothing_open_once_it_is_closed_or_collected(version):
    version.listdir_sync()
    reading = version.read_file_sync("big")
    next(reading)
    assert descriptors()
    version.close_sync()
    assert b"".join(reading) == BIG[CHUNK_BYTES:]
    assert [] == descriptors()

    version.listdir_sync()
    again = Volume.from_locator_sync(version.locator)
    again.listdir_sync()
    version.close_sync()
    assert descriptors()
    del again
    gc.collect()
    assert eventually(lambda: [] == descriptors())


def test_threads_look_into_one_handle_at_once(version):
    def look(_number: int) -> object:
        return paths(version.iterdir_sync("/")), b"".join(version.read_file_sync("big"))

    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(look, range(32)))

    assert all(results[0] == each for each in results)
    assert BIG == results[0][1]


def test_looking_goes_on_while_the_handle_commits_and_closes():
    volume = Volume.new("line")
    with volume.batch_upload_sync() as batch:
        batch.put_file(io.BytesIO(BIG), "big")
    failures: list[Exception] = []
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            try:
                assert "big" in paths(volume.listdir_sync())
                assert BIG[7:9] == b"".join(volume.read_file_sync("big", offset=7, length=2))
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(15):
        with volume.batch_upload_sync() as batch:
            batch.put_file(io.BytesIO(b"x"), str(number))
        volume.close_sync()
    stop.set()
    for thread in threads:
        thread.join()

    assert [] == failures


def test_a_forked_child_looks_by_itself(version):
    held = threading.Event()
    release = threading.Event()

    def hold() -> None:
        with version._browsers()._lock:  # as another thread may at the moment of a fork
            held.set()
            release.wait()

    version.listdir_sync()
    reading = version.read_file_sync("big")
    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = os.fork()
    if not child:
        os._exit(0 if TOP == paths(version.listdir_sync()) and BIG == b"".join(reading) else 1)
    release.set()
    thread.join()

    assert 0 == os.waitpid(child, 0)[1]
    assert TOP == paths(version.listdir_sync())


def test_all_of_it_can_be_awaited(version):
    async def look() -> None:
        assert TOP == paths(await version.listdir("/"))
        assert BELOW_D == paths([entry async for entry in version.iterdir("d")])
        assert 1 == (await version.stat("d/a.txt")).size
        assert await version.exists("d")
        assert BIG == b"".join([block async for block in version.read_file("big")])
        out = io.BytesIO()
        assert len(BIG) == await version.read_file_into_fileobj("big", out)
        tops = []
        async for top, directories, _ in version.walk("/"):
            tops.append(top)
            directories.clear()
        assert ["/"] == tops
        with pytest.raises(NoSuchPathError):
            _ = [block async for block in version.read_file("gone")]

    asyncio.run(look())


def test_leaving_a_loop_early_gives_back_what_it_held(version):
    async def leave() -> None:
        walking = version.walk("/")
        async for _ in walking:
            break
        await walking.aclose()
        async for _ in version.read_file("big"):
            break

    asyncio.run(leave())
    version.close_sync()

    assert [] == descriptors()

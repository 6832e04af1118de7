"""Files put, removed and copied without a mount: each batch one commit, whole or not at all."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import socket
import threading
import time
from pathlib import Path

import pytest
from facade_kit import committed, contents, objects, write

from volume_core import BusyError, ConflictError, ExistsError, NoSuchPathError, ROVolume, Volume, VolumeError
from volume_core.format.entries import CHUNK_BYTES
from volume_core.parts import editing
from volume_core.testing.oracle import assert_same_tree, describe
from volume_core.testing.planting import plant

BIG = os.urandom(CHUNK_BYTES + 4321)


@pytest.fixture
def volume():
    """A writer of a volume with two files in it."""
    return committed().fork_sync("line")


def shown(volume) -> list[str]:
    return [entry.path for entry in volume.iterdir_sync("/")]


def text(volume, path: str) -> bytes:
    return b"".join(volume.read_file_sync(path))


def whole(version: ROVolume) -> bool:
    """Whether a version is sound and says what is in it."""
    entries = list(version.iterdir_sync("/"))
    assert [] == version.verify_sync()
    inodes = 1 + len(entries)
    return (sum(entry.size for entry in entries), inodes) == (version.used_bytes, version.inode_count)


def test_a_batch_has_the_message_and_labels_of_one_version(volume):
    with volume.batch_upload_sync(message="checked", labels={"rows": "7"}) as batch:
        batch.put_file(io.BytesIO(b"1"), "new")
    [entry] = batch.version.log_sync(limit=1)
    assert ("checked", {"rows": "7"}) == (entry.volume.message, dict(entry.labels))
    with volume.batch_upload_sync(labels={"rows": "8"}) as nothing:
        pass
    assert batch.version == nothing.version


def test_a_batch_makes_the_first_version_of_a_volume(tmp_path):
    (tmp_path / "big").write_bytes(BIG)
    os.chmod(tmp_path / "big", 0o604)
    os.utime(tmp_path / "big", ns=(0, 1_650_000_000_000_000_001))
    volume = Volume.new("data")
    before_ns = time.time_ns()
    with volume.batch_upload_sync(message="first") as batch:
        batch.put_file(tmp_path / "big", "/deep/er/big")
        batch.put_file(str(tmp_path / "big"), "in/")
        batch.put_file(io.BytesIO(b"hello"), "hello.txt")
        batch.put_file(io.BytesIO(b"#!"), "script", mode=0o100755)
        with pytest.raises(VolumeError, match="when its block has ended"):
            _ = batch.version
        assert volume.index is None

    assert (batch.version.index, "first") == (volume.index, batch.version.message)
    assert ["deep", "deep/er", "deep/er/big", "hello.txt", "in", "in/big", "script"] == shown(volume)
    entry = volume.stat_sync("in/big")
    assert (len(BIG), 1_650_000_000_000_000_001, 0o604, os.getuid()) == (
        entry.size, entry.mtime_ns, entry.mode, entry.uid,
    )  # fmt: skip
    hello = volume.stat_sync("hello.txt")
    assert (0o644, 0o755) == (hello.mode, volume.stat_sync("script").mode)
    assert before_ns <= hello.mtime_ns <= time.time_ns()
    assert (BIG, b"hello") == (text(volume, "deep/er/big"), text(volume, "hello.txt"))
    assert whole(batch.version)


def test_a_directory_is_put_with_all_that_a_mounted_tree_would_keep(tmp_path):
    (tmp_path / "source").mkdir()
    source = plant(tmp_path / "source")
    volume = Volume.new("data")
    with volume.batch_upload_sync() as batch:
        batch.put_directory(source, "/")
    with volume.batch_upload_sync() as batch:
        batch.put_directory(source, "/again/below")

    with batch.version.mounted_sync(driver="copy") as path:
        expected = describe(source)
        assert_same_tree(expected, path / "again" / "below")
    assert [] == batch.version.verify_sync()


def test_only_what_is_new_is_uploaded(volume, tmp_path):
    (tmp_path / "one").write_bytes(BIG)
    with volume.batch_upload_sync() as batch:
        batch.put_file(tmp_path / "one", "one")
    before = objects()
    with volume.batch_upload_sync() as batch:
        batch.put_file(tmp_path / "one", "two")

    assert whole(batch.version)
    assert {"layers", "versions"} == {name.partition("/")[0] for name in objects() - before}


def test_without_recursive_the_directories_of_a_directory_are_left_out(volume, tmp_path):
    source = tmp_path / "source"
    write(source, {"x": "1", "sub/y": "2"})
    (source / "link").symlink_to("x")
    with volume.batch_upload_sync() as batch:
        batch.put_directory(source, "put", recursive=False)

    assert ["put/link", "put/x"] == [entry.path for entry in volume.listdir_sync("put")]
    assert b"1" == text(volume, "put/link")


@pytest.mark.loud
def test_sockets_are_left_out_with_a_warning(volume, tmp_path, caplog, monkeypatch):
    source = tmp_path / "s"
    write(source, {"x": "1"})
    monkeypatch.chdir(source)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket")
        with volume.batch_upload_sync() as batch:
            batch.put_directory(".", "put")

    assert ["put/x"] == [entry.path for entry in volume.listdir_sync("put")]
    assert "socket" in caplog.text


def test_what_exists_is_an_error_that_names_it_unless_forced(volume, tmp_path):
    source = tmp_path / "source"
    write(source, {"a.txt": "new", "d/b.txt": "new", "d/c.txt": "new"})
    before, index = objects(), volume.index
    with pytest.raises(FileExistsError) as raised, volume.batch_upload_sync() as batch:
        batch.put_directory(source, "/")
    assert ("a.txt", "d/b.txt") == raised.value.paths
    with pytest.raises(ExistsError, match=r"/a\.txt: there already"), volume.batch_upload_sync() as batch:
        batch.put_file(io.BytesIO(b"new"), "a.txt")
    assert (before, index) == (objects(), volume.index)

    with volume.batch_upload_sync(force=True) as batch:
        batch.put_directory(source, "/")
    assert {"a.txt": "new", "d/b.txt": "new", "d/c.txt": "new"} == contents(batch.version)


@pytest.mark.parametrize("force", [False, True])
def test_a_directory_is_never_replaced_by_a_file_nor_a_file_by_a_directory(volume, tmp_path, force):
    write(tmp_path / "source", {"a.txt/x": "1"})
    with pytest.raises(ExistsError, match="/d: is a directory"), volume.batch_upload_sync(force) as batch:
        batch.put_file(io.BytesIO(b""), "d")
    with pytest.raises(ExistsError, match=r"/a\.txt"), volume.batch_upload_sync(force) as batch:
        batch.put_directory(tmp_path / "source", "/")
    with pytest.raises(ExistsError, match="no directory"), volume.batch_upload_sync(force) as batch:
        batch.put_file(io.BytesIO(b""), "a.txt/x")


def test_an_error_in_the_block_publishes_and_reads_nothing(volume):
    class Unread(io.BytesIO):
        def readinto(self, _buffer):
            raise AssertionError("it was read")

    before = objects()
    with pytest.raises(KeyError), volume.batch_upload_sync() as batch:  # noqa: PT012 -- what the block raises
        batch.put_file(Unread(), "x")
        raise KeyError

    assert before == objects()


@pytest.mark.parametrize("what", ["gone", "unreadable", "directory", "fifo", "text", "closed"])
def test_a_source_that_cannot_be_read_publishes_nothing(volume, tmp_path, monkeypatch, what):
    def fails(*_arguments):
        raise OSError(errno.EIO, "Input/output error")

    source = tmp_path / "source"
    file: object = source
    if what == "directory":
        source.mkdir()
    elif what == "fifo":
        os.mkfifo(source)
    elif what == "text":
        file = io.StringIO("text")
    elif what == "closed":
        file = io.BytesIO()
        file.close()
    elif what == "unreadable":
        source.write_text("on a bad sector")
        monkeypatch.setattr(editing.Packer, "read", fails)
    index = volume.index
    with pytest.raises((VolumeError, TypeError, ValueError)) as raised, volume.batch_upload_sync() as batch:  # noqa: PT012 -- two notes
        batch.put_file(io.BytesIO(BIG), "first")
        batch.put_file(file, "x")

    assert index == volume.index
    assert str(raised.value)
    assert [] == [name for name in objects() if name.startswith("intents/")]


def test_a_file_that_keeps_changing_is_named(volume, tmp_path, monkeypatch):
    path = tmp_path / "restless"
    path.write_bytes(BIG)
    read = editing.Packer.read

    def read_while_written(self, fd, size):
        found = read(self, fd, size)
        with path.open("r+b") as file:
            file.write(os.urandom(8))
        return found

    monkeypatch.setattr(editing.Packer, "read", read_while_written)
    index = volume.index
    with pytest.raises(BusyError, match="restless") as raised, volume.batch_upload_sync() as batch:
        batch.put_file(path, "x")

    assert ((str(path),), index) == (raised.value.paths, volume.index)


def test_a_file_that_changes_once_is_read_again(volume, tmp_path, monkeypatch):
    path = tmp_path / "restless"
    path.write_bytes(b"old")
    read, changes = editing.Packer.read, [b"new"]

    def read_and_change(self, fd, size):
        found = read(self, fd, size)
        if changes:
            path.write_bytes(changes.pop())
        return found

    monkeypatch.setattr(editing.Packer, "read", read_and_change)
    with volume.batch_upload_sync() as batch:
        batch.put_file(path, "x")

    assert b"new" == text(batch.version, "x")


def test_a_batch_that_changes_nothing_gives_the_version_before(volume):
    index = volume.index
    with volume.batch_upload_sync(force=True) as batch:
        batch.make_directory("d")
    assert index == volume.index == batch.version.index

    new = Volume.new("empty")
    with new.batch_upload_sync() as batch:
        pass
    assert [] == batch.version.listdir_sync()


def test_a_batch_does_what_it_holds_in_order(volume):
    with volume.batch_upload_sync() as batch:
        batch.put_file(io.BytesIO(b"1"), "x/one")
        batch.copy(["x/one", "a.txt"], "d")
        batch.move("d", "moved")
        batch.remove("x", recursive=True)
        batch.make_directory("d/new")

    assert ["a.txt", "d", "d/new", "moved", "moved/a.txt", "moved/b.txt", "moved/one"] == shown(volume)
    assert (b"1", b"b") == (text(volume, "moved/one"), text(volume, "moved/b.txt"))
    assert whole(batch.version)


def test_removing_is_a_commit(volume):
    before = volume.committed
    version = volume.remove_file_sync("/d/b.txt", message="gone")
    assert (["a.txt", "d"], "gone") == (shown(version), version.message)
    with pytest.raises(VolumeError, match="recursive=True"):
        volume.remove_file_sync("d")
    version = volume.remove_file_sync("d", recursive=True)
    with pytest.raises(NoSuchPathError):
        volume.remove_file_sync("d")

    assert ["a.txt"] == shown(version)
    assert ["a.txt", "d", "d/b.txt"] == shown(before)
    assert 3 == len([entry for entry in version.log_sync() if entry.volume.name in ("line", "data")])
    assert whole(version)


def test_copying_is_a_commit_that_moves_no_data(volume):
    before = objects()
    version = volume.copy_files_sync(["d"], "/copy", recursive=True)
    volume.copy_files_sync(["a.txt"], "copy/")

    assert ["a.txt", "copy", "copy/a.txt", "copy/b.txt", "d", "d/b.txt"] == shown(volume)
    assert not [name for name in objects() - before if name.startswith("packs/")]
    assert volume.stat_sync("d/b.txt").mtime_ns == volume.stat_sync("copy/b.txt").mtime_ns
    assert whole(version)
    assert whole(volume.committed)


def test_odd_names_are_names_like_any_other(volume, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    names = [os.fsdecode(b"\xff\xfe not text"), "new\nline", "é" * 127, " ", "*", "a\\b"]
    for name in names:
        (source / name).write_text(name.encode("utf-8", "surrogateescape").hex())
    with volume.batch_upload_sync() as batch:
        batch.put_directory(source, "odd")
        for name in names:
            batch.put_file(source / name, f"one/{name}")
    for name in names:
        assert name.encode("utf-8", "surrogateescape").hex().encode() == text(volume, f"odd/{name}")
        volume.remove_file_sync(f"one/{name}")

    assert sorted(names) == sorted(entry.name for entry in volume.listdir_sync("odd"))
    assert [] == volume.listdir_sync("one")


def test_a_mounted_writer_is_not_written_behind_its_back(volume):
    volume.mount_sync(driver="copy")
    with pytest.raises(BusyError, match="write there and commit"):
        volume.remove_file_sync("a.txt")
    with pytest.raises(BusyError, match="write there"), volume.batch_upload_sync() as batch:
        batch.put_file(io.BytesIO(), "x")
    volume.unmount_sync()
    with pytest.raises(BusyError, match="not committed yet"):
        volume.copy_files_sync(["a.txt"], "b.txt")
    volume.close_sync()

    assert ["b.txt"] == [entry.path for entry in volume.copy_files_sync(["a.txt"], "b.txt").listdir_sync("b.txt")]


def test_two_batches_from_two_handles_each_are_whole(tmp_path):
    version = committed()
    handles = [version.fork_sync(f"line-{number}") for number in range(4)]
    barrier = threading.Barrier(len(handles))
    made: dict[str, ROVolume] = {}

    def put(volume) -> None:
        with volume.batch_upload_sync() as batch:
            for number in range(50):
                batch.put_file(io.BytesIO(f"{volume.name}{number}".encode()), f"new/{number}")
            barrier.wait()
        made[volume.name] = batch.version

    threads = [threading.Thread(target=put, args=(each,)) for each in handles]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for name, found in made.items():
        assert whole(found)
        assert {f"{name}{number}" for number in range(50)} < set(contents(found).values())


def test_batches_of_one_handle_from_several_threads_follow_one_another():
    volume = Volume.new("data")

    def put(number: int) -> None:
        with volume.batch_upload_sync() as batch:
            batch.put_file(io.BytesIO(b"%d" % number), str(number))

    threads = [threading.Thread(target=put, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(map(str, range(8))) == shown(volume)
    assert 8 == len(volume.committed.log_sync())


def test_edits_that_were_overtaken_are_not_published(volume):
    editing = volume.begin_editing()
    editing.session.edits.remove(b"a.txt")
    volume.remove_file_sync("d", recursive=True)
    with pytest.raises(ConflictError, match="make them again"):
        editing.commit()

    assert ["a.txt"] == shown(volume)


def test_all_of_it_can_be_awaited(tmp_path):
    async def change() -> None:
        volume = Volume.new("data")
        async with volume.batch_upload() as batch:
            batch.put_file(io.BytesIO(b"1"), "a/one")
        assert batch.version.index == volume.index
        await volume.copy_files(["a"], "b", recursive=True)
        await volume.remove_file("a", recursive=True)
        assert ["b", "b/one"] == [entry.path async for entry in volume.iterdir("/")]
        with pytest.raises(FileExistsError):
            async with volume.batch_upload() as batch:
                batch.put_file(io.BytesIO(b"1"), "b/one")

    asyncio.run(change())


def test_progress_is_told(volume, tmp_path):
    (tmp_path / "big").write_bytes(BIG)
    done: list[int] = []
    with volume.batch_upload_sync(advance=done.append) as batch:
        batch.put_file(tmp_path / "big", "big")

    assert len(BIG) <= sum(done) < len(BIG) + 4096


def test_path_objects_and_bytes_of_a_relative_path_are_taken_from_where_the_batch_was_noted(
    volume, tmp_path, monkeypatch
):
    (tmp_path / "here").write_text("here")
    monkeypatch.chdir(tmp_path)
    with volume.batch_upload_sync() as batch:
        batch.put_file(Path("here"), Path("there"))
        monkeypatch.chdir("/")

    assert b"here" == text(volume, "there")

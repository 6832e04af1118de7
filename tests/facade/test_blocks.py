"""One writer's block: checkpoints while it lasts, its end after a fork, and the volume as a path."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path

import pytest
from facade_kit import committed, contents, eventually, mounts_below, read, working_copies, write

from volume_core import BusyError, InvalidNameError, StorageError, Volume, VolumeError
from volume_core.facade.writers import Writer


def test_a_mounted_volume_is_a_path(driver):
    writer = committed().fork_sync("writer")
    for volume in (writer.committed, writer):
        with volume.mounted_sync(driver=driver) as path:
            assert os.fspath(path) == os.fspath(volume)
            assert path == Path(volume) == volume / ""
            assert path / "d" / "b.txt" == volume / "d" / "b.txt" == volume / Path("d/b.txt")
            with open(volume / "a.txt") as file:
                assert "a" == file.read()
            assert {"a.txt", "d"} == set(os.listdir(volume))
            with pytest.raises(InvalidNameError, match="leads out"):
                volume / "/etc/passwd"
        for use in (os.fspath, lambda volume: volume / "a.txt", open, Path):
            with pytest.raises(VolumeError, match=r"not mounted.*mount\(\)"):
                use(volume)


def test_below_a_root_that_was_chosen_a_volumes_path_is_its_name_where_that_is_free(driver, tmp_path, monkeypatch):
    monkeypatch.setenv("VOLUME_MOUNT_ROOT", str(tmp_path / "volumes"))
    first = Volume.new("data")
    with first.mounted_sync(driver=driver) as path:
        write(path, {"a": "1"})
        returned = str(path / "a")
    assert str(tmp_path / "volumes/data/a") == returned
    with first.committed.mounted_sync(driver=driver), first.committed.fork_sync("data").mounted_sync() as other:
        assert "1" == Path(returned).read_text()
        assert re.fullmatch(r"data-[0-9a-f]{8}", other.name)
        assert {"a": "1"} == read(other)
    write(tmp_path / "volumes/data", {"mine": ""})
    with first.committed.mounted_sync(driver=driver) as path:
        assert "data" != path.name
    assert {"mine": ""} == read(tmp_path / "volumes/data")


def test_without_one_each_mount_has_a_path_that_was_never_used(driver, tmp_path, monkeypatch):
    monkeypatch.delenv("VOLUME_MOUNT_ROOT")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    version, seen = committed(), set()
    for _ in range(3):
        with version.mounted_sync(driver=driver) as path:
            seen.add(path)

    assert {tmp_path / "home" / "volumes"} == {path.parent for path in seen}
    assert 3 == len(seen)


def test_many_at_once_get_paths_of_their_own(driver):
    volumes = [Volume.new("data") for _ in range(6)]
    started, errors = threading.Barrier(len(volumes)), []

    def mount(volume, number):
        try:
            started.wait(60)
            write(volume.mount_sync(driver=driver), {"number": str(number)})
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=mount, args=(volume, n)) for n, volume in enumerate(volumes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert [] == errors
    assert len(volumes) == len({volume.mount_path for volume in volumes})
    assert 1 == sum(volume.mount_path.name == "data" for volume in volumes)
    assert [{"number": str(n)} for n in range(6)] == [contents(volume.finalize_sync()) for volume in volumes]


def test_checkpoints_are_committed_while_the_body_runs(driver):
    volume = Volume.new("data")
    with volume.mounted_sync(driver=driver, checkpoint_every=0.05, message="saved") as path:
        write(path, {"a": "1"})
        assert eventually(lambda: volume.index is not None)
        first = volume.committed
        write(path, {"b": "2"})
        assert eventually(lambda: volume.committed != first)
        second = volume.committed
        threading.Event().wait(0.3)
        assert second == volume.committed, "nothing changed"
    assert second == volume.committed
    assert {"a": "1", "b": "2"} == contents(second)
    assert {"saved"} == {entry.volume.message for entry in second.log_sync()}


@pytest.mark.loud
@pytest.mark.parametrize("error", [BusyError("a is busy", ["a"]), StorageError("gone"), OSError("full"), KeyError("?")])
def test_a_checkpoint_that_fails_ends_nothing(driver, monkeypatch, caplog, error):
    commit, fails = Writer.commit, [error, error]

    def failing(*args, **kwargs):
        if fails:
            raise fails.pop()
        return commit(*args, **kwargs)

    monkeypatch.setattr(Writer, "commit", failing)
    volume = Volume.new("data")
    with volume.mounted_sync(driver=driver, checkpoint_every=0.05) as path:
        write(path, {"a": "1"})
        assert eventually(lambda: volume.index is not None)
    assert 2 == len(re.findall("no checkpoint of volume data", caplog.text))
    assert {"a": "1"} == contents(volume.committed)


def test_checkpoints_end_before_the_last_commit_and_after_an_error(driver, monkeypatch):
    committing, commit = [], Writer.commit

    def noted(*args, **kwargs):
        committing.append(threading.current_thread().name)
        return commit(*args, **kwargs)

    monkeypatch.setattr(Writer, "commit", noted)
    volume = Volume.new("data")
    with volume.mounted_sync(driver=driver, checkpoint_every=0.01) as path:
        write(path, {"a": "1"})
        assert eventually(lambda: len(committing) > 2)
    assert ["MainThread"] == [name for name in committing if name != "volume-checkpoints"]
    assert "MainThread" == committing[-1]

    with pytest.raises(KeyError, match="x"), volume.mounted_sync(driver=driver, checkpoint_every=0.01):
        raise KeyError("x")
    assert not [thread for thread in threading.enumerate() if thread.name == "volume-checkpoints"]


FORKING = """
import os, sys, threading
from volume_core import Volume, mounts
volume, version = Volume.new("data"), Volume.from_locator_sync(sys.argv[2])
try:
    with mounts({sys.argv[3]: version}, driver=sys.argv[1]):
        with volume.mounted_sync(driver=sys.argv[1], checkpoint_every=0.02, on_terminate="commit") as path:
            (path / "a").write_text("1")
            child = os.fork()
            if child == 0:
                (path / "b").write_text("2")
                raise KeyError("the child's own")
            os.waitpid(child, 0)
            print(sorted(os.listdir(path)), sorted(os.listdir(sys.argv[3])), flush=True)
except BaseException as error:
    print(type(error).__name__, getattr(error, "__notes__", []), threading.active_count(), flush=True)
    os._exit(0)
print(volume.committed.locator)
"""


def test_a_forked_child_that_leaves_the_block_leaves_it_to_its_parent(driver, python, tmp_path):
    ran = python(FORKING, driver, committed("source").locator, str(tmp_path / "in"))
    child, parent, locator = ran.stdout.splitlines()

    assert "KeyError [] 1" == child
    assert "['a', 'b'] ['a.txt', 'd']" == parent
    assert {"a": "1", "b": "2"} == contents(Volume.from_locator_sync(locator))
    assert "" == ran.stderr
    assert [] == mounts_below(tmp_path) == working_copies()

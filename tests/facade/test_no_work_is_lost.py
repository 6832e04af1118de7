"""What comes between a write, a commit and the end of a handle: other writers, full disks, other boots, deletions."""

from __future__ import annotations

import errno
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from facade_kit import committed, contents, objects, read, working_copies, write

from volume_core import NotFoundError, Volume, VolumeError
from volume_core.facade.writers import Writer
from volume_core.format.names import version_name
from volume_core.parts import workcopies
from volume_core.parts.state import State
from volume_core.parts.workcopies import WorkingCopy


@pytest.mark.parametrize("is_new", [True, False])
def test_what_is_written_while_a_handle_closes_is_kept(driver, monkeypatch, is_new):
    volume = Volume.new("data") if is_new else committed(files={"a": "1"}).fork_sync("data")
    path = volume.mount_sync(driver=driver)
    unmount = Writer.unmount

    def late(self, *, lazy):
        write(path, {"late": "another program's"})
        unmount(self, lazy=lazy)

    with monkeypatch.context() as patched:
        patched.setattr(Writer, "unmount", late)
        work_id = volume.close_sync()

    assert [work_id] == working_copies()
    assert "another program's" == contents(Volume.recover_sync(work_id).finalize_sync())["late"]


def test_what_may_be_torn_is_said_so_however_often_it_is_recovered(driver):
    volume = Volume.new("data")
    write(volume.mount_sync(driver=driver), {"a": "1"})
    work_id = volume.close_sync()
    workcopies.load(State.default(), work_id).update(boot_id="another boot")
    looked_at = Volume.recover_sync(work_id, allow_torn=True)
    looked_at.mount_sync()
    assert work_id == looked_at.close_sync()
    [entry] = Volume.recover_sync(work_id).finalize_sync().log_sync()

    assert (".",) == entry.torn


def test_a_copy_is_recovered_as_its_last_holder_left_it(monkeypatch):
    volume = Volume.new("data")
    write(volume.mount_sync(driver="copy"), {"a": "1"})
    work_id = volume.close_sync()
    lock = WorkingCopy.lock

    def held_by_another_until_now(copy):
        monkeypatch.setattr(WorkingCopy, "lock", lock)
        other = Volume.recover_sync(work_id)
        other.commit_sync("theirs")
        write(other.mount_sync(), {"b": "2"})
        assert work_id == other.close_sync()
        return lock(copy)

    monkeypatch.setattr(WorkingCopy, "lock", held_by_another_until_now)
    version = Volume.recover_sync(work_id).finalize_sync("ours")

    assert ["ours", "theirs"] == [entry.volume.message for entry in version.log_sync()]
    assert {"a": "1", "b": "2"} == contents(version)


@pytest.mark.fuse
@pytest.mark.loud
def test_a_version_that_is_published_is_returned_though_the_cache_is_full(driver, tmp_path, caplog):
    cache = tmp_path / "full"
    cache.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", cache], check=True)
    try:
        volume = Volume.new("data")
        write(volume.mount_sync(driver=driver, meta_dir=cache), {f"a file of number {n}": "1" for n in range(500)})
        version = volume.commit_sync()
        volume.abandon_sync()
    finally:
        subprocess.run(["umount", cache], check=True)

    assert 500 == len(contents(version))
    assert version.locator == volume.index
    assert "No space left" in caplog.text


@pytest.mark.loud
def test_a_version_that_is_published_is_returned_though_nothing_can_be_noted_here(driver, monkeypatch, caplog):
    def full(*_args, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    volume = Volume.new("data")
    path = volume.mount_sync(driver=driver)
    write(path, {"a": "1"})
    with monkeypatch.context() as patched:
        patched.setattr("volume_core.facade.worktrees.save", full)
        patched.setattr(WorkingCopy, "update", full)
        first = volume.commit_sync()
    write(path, {"b": "2"})
    second = volume.finalize_sync()

    assert [second, first] == [entry.volume for entry in second.log_sync()]
    assert {"a": "1", "b": "2"} == contents(second)
    assert "No space left" in caplog.text


def test_a_line_does_not_begin_where_the_version_was_deleted():
    base = committed()
    fork = base.fork_sync("line")
    Path(State.default().root / "store" / version_name(base.name, base.version)).unlink()
    before = objects()

    with pytest.raises(NotFoundError, match="deleted"):
        fork.commit_sync(even_if_unchanged=True)
    assert before == objects()


def test_a_line_may_begin_with_bytes_that_are_no_text():
    line = committed().fork_sync("line").commit_sync("caf\udce9", labels={"\udce9": "x"}, even_if_unchanged=True)

    assert "caf\\udce9" == line.message
    assert {"\\udce9": "x"} == line.log_sync()[0].labels


WRITE_UNTIL_KILLED = """
import sys
from volume_core import Volume
volume = Volume.new("data")
path = volume.mount_sync(driver=sys.argv[1])
(path / "a").write_text("1")
print(volume.status_sync().working_copy, flush=True)
sys.stdin.read()
"""


def test_a_copy_is_recovered_while_its_mount_is_being_taken_down(any_driver):
    """Right after its owner was killed a mount may still be there, and be gone at any later moment."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITE_UNTIL_KILLED, any_driver], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        work_id = owner.stdout.readline().strip()
        owner.kill()
        owner.wait()
        recovered = Volume.recover_sync(work_id)
    assert recovered.mount_path is None
    write(recovered.mount_sync(), {"b": "2"})

    assert {"a": "1", "b": "2"} == contents(recovered.finalize_sync())


@pytest.mark.loud
def test_finalize_returns_its_version_though_nothing_can_be_compared_after_it(driver, monkeypatch, caplog):
    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    volume = Volume.new("data")
    write(volume.mount_sync(driver=driver), {"a": "1"})
    with monkeypatch.context() as patched:
        patched.setattr("volume_core.facade.worktrees.WorkTree.changed_paths", full)
        version = volume.finalize_sync()
    [work_id] = working_copies()

    assert work_id in caplog.text
    assert {"a": "1"} == contents(version)
    assert version == Volume.recover_sync(work_id).finalize_sync()
    assert [] == working_copies()


def test_a_tree_that_was_moved_unnoticed_is_not_taken_for_what_is_mounted_there_now(tmp_path, monkeypatch):
    place = tmp_path / "place"
    volume = Volume.new("data")
    write(volume.mount_sync(place, driver="copy"), {"a": "mine"})
    update = WorkingCopy.update

    def full_when_moved(copy, **changes):
        if changes == {"tree": None}:
            raise OSError(errno.ENOSPC, "No space left on device")
        update(copy, **changes)

    with monkeypatch.context() as patched:
        patched.setattr(WorkingCopy, "update", full_when_moved)
        work_id = volume.close_sync()
    other = Volume.new("other")
    write(other.mount_sync(place, driver="copy"), {"a": "another's"})
    version = Volume.recover_sync(work_id).finalize_sync()

    assert {"a": "mine"} == contents(version)
    assert {"a": "another's"} == contents(other.finalize_sync())


@pytest.mark.fuse
def test_a_version_holds_what_fuse_overlayfs_shows():
    volume = committed(files={"d/of the base": "x"}).fork_sync("fork")
    path = volume.mount_sync(driver="fuse-overlay")
    shutil.rmtree(path / "d")
    write(path, {"d/new": "y"})
    (path / "d").rename(path / "moved")
    shown = read(path)
    version = volume.finalize_sync()

    assert shown == contents(version)
    assert shown.items() >= {"moved/new": "y"}.items()


def test_a_setting_that_cannot_be_read_stops_a_commit_before_it_publishes(monkeypatch):
    volume = Volume.new("data")
    write(volume.mount_sync(driver="copy"), {"a.txt": "a"})
    monkeypatch.setenv("VOLUME_UPPER_LIMIT", "a lot")

    with pytest.raises(VolumeError, match="VOLUME_UPPER_LIMIT"):
        volume.commit_sync()

    assert not [name for name in objects() if "versions/" in name]

    monkeypatch.delenv("VOLUME_UPPER_LIMIT")
    version = volume.finalize_sync()

    assert {"a.txt": "a"} == contents(version)

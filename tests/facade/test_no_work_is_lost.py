"""What comes between a write, a commit and the end of a handle: other writers, full disks, other boots, deletions."""

from __future__ import annotations

import errno
import subprocess
from pathlib import Path

import pytest
from facade_kit import committed, contents, objects, working_copies, write

from volume_core import NotFoundError, Volume
from volume_core.format.names import version_name
from volume_core.parts import workcopies
from volume_core.parts.state import State
from volume_core.parts.workcopies import WorkingCopy
from volume_core.writers import Writer


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
        patched.setattr("volume_core.worktrees.save", full)
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

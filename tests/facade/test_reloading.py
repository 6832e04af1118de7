"""Volumes opened by name: reloaded under a mount, and locked."""

from __future__ import annotations

import os

import pytest
from facade_kit import contents, working_copies, write

from volume_core import BusyError, ConflictError, Volume, VolumeError


@pytest.fixture
def shared(driver):
    """A named volume with two files, and a way to open it as another writer would."""
    with Volume.from_name_sync("shared", create_if_missing=True).mounted_sync(driver=driver) as path:
        write(path, {"a.txt": "a", "d/b.txt": "b"})
    return lambda **options: Volume.from_name_sync("shared", **options)


def head():
    return Volume.from_name_sync("shared").committed


def test_reload_shows_the_newest_head(shared, driver):
    one, other = shared(), shared()
    path = one.mount_sync(driver=driver)
    write(other.mount_sync(driver=driver), {"new.txt": "n", "a.txt": "changed"})
    newest = other.finalize_sync()
    assert not (path / "new.txt").exists()

    assert newest == one.reload_sync()
    assert ("n", "changed") == ((path / "new.txt").read_text(), (path / "a.txt").read_text())
    assert path == one.mount_path
    assert newest == one.commit_sync()
    one.abandon_sync()
    assert [] == working_copies()


def test_what_is_not_committed_survives_a_reload(shared, driver):
    one, other = shared(), shared()
    path = one.mount_sync(driver=driver)
    write(path, {"mine.txt": "m", "d/b.txt": "mine", "e/f/g.txt": "deep"})
    (path / "a.txt").unlink()
    os.symlink("mine.txt", path / "link")
    write(other.mount_sync(driver=driver), {"new.txt": "n"})
    other.finalize_sync()

    one.reload_sync()
    expected = {"mine.txt": "m", "d/b.txt": "mine", "e/f/g.txt": "deep", "new.txt": "n", "link": "m"}
    assert expected == {str(p.relative_to(path)): p.read_text() for p in path.rglob("*") if p.is_file()}
    assert one.status_sync().changed
    version = one.finalize_sync()
    assert {"mine.txt", "d/b.txt", "e/f/g.txt", "new.txt"} <= set(contents(version))
    assert "a.txt" not in contents(version)
    assert version == head()
    assert [] == working_copies()


def test_a_reload_while_files_are_open_names_them_and_changes_nothing(shared, driver):
    one, other = shared(), shared()
    path = one.mount_sync(driver=driver)
    write(path, {"mine.txt": "m"})
    write(other.mount_sync(driver=driver), {"new.txt": "n"})
    other.finalize_sync()
    with open(path / "mine.txt"):
        with pytest.raises(BusyError) as caught:
            one.reload_sync()
        assert any("mine.txt" in each for each in caught.value.paths)
    assert "m" == (path / "mine.txt").read_text()
    assert not (path / "new.txt").exists()
    one.reload_sync()
    assert "n" == (path / "new.txt").read_text()
    one.abandon_sync()


def test_a_reload_that_conflicts_leaves_the_mount_as_it_was(shared, driver):
    one, other = shared(on_conflict="error"), shared()
    path = one.mount_sync(driver=driver)
    write(path, {"a.txt": "mine"})
    write(other.mount_sync(driver=driver), {"a.txt": "theirs"})
    other.finalize_sync()

    with pytest.raises(ConflictError, match=r"a\.txt"):
        one.reload_sync()
    assert "mine" == (path / "a.txt").read_text()
    assert path == one.mount_path
    assert 1 == len(working_copies())
    one.abandon_sync()


def test_only_what_was_opened_by_name_reloads():
    with pytest.raises(VolumeError, match="not opened by name"):
        Volume.new("x").reload_sync()


def test_a_reload_without_a_mount_is_the_newest_version(shared, driver):
    one, other = shared(), shared()
    write(other.mount_sync(driver=driver), {"new.txt": "n"})
    newest = other.finalize_sync()

    assert newest == one.reload_sync()
    assert newest == one.committed


def test_a_lock_is_for_one_at_a_time(shared, driver):
    one, other = shared(), shared()
    path = one.mount_sync(driver=driver, lock=True)
    with pytest.raises(ConflictError, match="is locked by"):
        other.mount_sync(driver=driver, lock=True, lock_timeout=0)
    assert other.mount_path is None
    assert 1 == len(working_copies())
    write(path, {"one": "1"})
    one.finalize_sync()
    with other.mounted_sync(driver=driver, lock=True, lock_timeout=0) as path:
        assert "1" == (path / "one").read_text(), "who gets the lock begins where the head stands"
        write(path, {"other": "2"})

    assert {"one", "other"} <= set(contents(head()))
    with shared().mounted_sync(driver=driver, lock=True, lock_timeout=0):
        pass  # given back by who had it


def test_whoever_lost_the_lock_commits_nothing_and_keeps_the_work(shared, driver):
    one = shared()
    write(one.mount_sync(driver=driver, lock=True), {"one": "1"})
    before = head()
    lease = one._handle.held.lease
    lease._lost = True  # stopped for longer than it lives
    with pytest.raises(ConflictError, match="lock"):
        one.commit_sync()

    assert before == head()
    assert "1" == (one.mount_path / "one").read_text()
    kept = one.close_sync()
    assert "1" == contents(Volume.recover_sync(kept).finalize_sync())["one"]


def test_a_reload_keeps_the_lock(shared, driver):
    one, other = shared(), shared()
    write(one.mount_sync(driver=driver, lock=True), {"mine": "m"})
    write(other.mount_sync(driver=driver), {"new": "n"})
    other.finalize_sync()
    one.reload_sync()
    assert "n" == (one.mount_path / "new").read_text()
    with pytest.raises(ConflictError, match="is locked by"):
        other.mount_sync(driver=driver, lock=True, lock_timeout=0)
    one.finalize_sync()
    other.mount_sync(driver=driver, lock=True, lock_timeout=0)
    other.abandon_sync()


def test_only_what_was_opened_by_name_is_locked():
    with pytest.raises(VolumeError, match="not opened by name"):
        Volume.new("x").mount_sync(driver="copy", lock=True)

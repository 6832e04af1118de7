"""Every call of a named volume's commit to its store fails once: nobody's work is lost, and none lands twice."""

from __future__ import annotations

import contextlib
import itertools
import os

import pytest

from volume_core import BusyError, ConflictError, StorageError, Volume
from volume_core.facade.browsing import browse
from volume_core.format.entries import Kind
from volume_core.parts.leases import HeldLease
from volume_core.storage.memory import MemoryStore
from volume_core.testing.faulty import Crashed, FaultyStore
from volume_core.testing.strict import StrictStore

pytestmark = pytest.mark.faults

KINDS = {"plain": False, "merged": True}  # merged: the head has moved, also since a commit before


@pytest.fixture
def store(request, monkeypatch):
    memory = MemoryStore(request.node.nodeid)
    monkeypatch.setenv("VOLUME_BUCKET", memory.url)
    monkeypatch.setenv("VOLUME_MOUNT_ROOT", str(request.getfixturevalue("tmp_path") / "mounts"))
    yield StrictStore(memory)
    memory.clear()


def write(volume, files):
    path = volume.mount_path or volume.mount_sync(driver="copy")
    for name, text in files.items():
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text(text)


def by_another(files):
    other = Volume.from_name_sync("shared")
    write(other, files)
    return other.finalize_sync("theirs")


def head():
    return Volume.from_name_sync("shared").committed


def files_of(version):
    """What a version holds, read without a mount."""
    with browse(version._existing()) as browser:
        nodes = [node for node in browser.view.walk() if node.row.kind == Kind.FILE]
        return {os.fsdecode(node.path): b"".join(browser.stream(node)).decode() for node in nodes}


def messages(version):
    return [entry.volume.message for entry in version.log_sync()]


def prepared(name, merged):
    """A writer with work in hand; where *merged*, the head has moved since its last commit but one."""
    volume = Volume.from_name_sync(name, create_if_missing=True)
    write(volume, {"base": "b", "mine": "0", "doomed": "d"})
    volume.commit_sync("base")
    if merged:
        by_another({"theirs": "1"})
        write(volume, {"mine": "1"})
        volume.commit_sync("first")
        by_another({"theirs": "2"})
    write(volume, {"mine": "2", "d/new": "n"})
    (volume.mount_path / "doomed").unlink()
    return volume


def died(volume):
    """Leave what a killed process leaves: the working copy, and nobody who has it."""
    writer = volume._handle.held
    volume._handle.let_go()
    writer.hand_over()
    return writer.work_id


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("fault", "persistent"),
    [("transient", False), ("transient", True), ("crash", True)],
    ids=["once", "for ever", "killed"],
)
def test_a_failed_commit_loses_nothing_and_lands_once(store, kind, persistent, after, fault):
    merged = KINDS[kind]
    expected = {"base": "b", "mine": "2", "d/new": "n"} | ({"theirs": "2"} if merged else {})
    for fail_at in itertools.count(1):
        volume = prepared("shared", merged)
        before = messages(head())
        volume._handle.held.line.place._store = faulty = FaultyStore(store, fail_at, persistent, after, fault)
        version = None
        try:
            version = volume.commit_sync("mine")
        except (StorageError, Crashed):
            assert faulty.faults
        volume._handle.held.line.place._store = store
        if fault == "crash" and version is None:
            volume = Volume.recover_sync(died(volume))
        # All or nothing, whatever the head names.
        seen = files_of(head())
        assert seen in (expected, seen | {"doomed": "d"})
        again = volume.finalize_sync("mine")

        assert again == head()
        assert expected == files_of(again)
        assert ["mine", *before] == messages(again), f"call {fail_at} of {faulty.calls}"
        assert [] == again.verify_sync()
        if version is not None:
            assert version == again
        Volume.delete_sync("shared")
        if not faulty.faults:
            break


@pytest.mark.parametrize("merged", [False, True])
def test_what_landed_unseen_is_not_written_over_what_another_made_of_it(store, merged):
    """The swap was won, its answer lost, and another changed the same file before this writer tried again."""
    volume = prepared("shared", merged)
    calls = 0
    while True:
        calls += 1
        probe = FaultyStore(store, calls, True, after=True, kind="crash", operations=frozenset({"swap"}))
        volume._handle.held.line.place._store = probe
        with contextlib.suppress(Crashed):
            volume.commit_sync("mine")
        volume._handle.held.line.place._store = store
        if head().message == "mine":
            break
    volume = Volume.recover_sync(died(volume))
    by_another({"mine": "theirs"})
    write_path = volume.mount_sync(driver="copy")
    (write_path / "more").write_text("m")
    version = volume.finalize_sync("more")

    assert ("theirs", "m") == (files_of(version)["mine"], files_of(version)["more"])
    assert ["more", "theirs", "mine"] == messages(version)[:3]


def test_no_disk_for_what_was_captured_fails_a_merged_commit_before_it_lands(store, monkeypatch):
    from volume_core.facade import worktrees

    volume = prepared("shared", merged=True)
    before = head()
    real = worktrees.save

    def full(path, captured, locator=""):
        raise OSError(28, os.strerror(28), str(path))

    monkeypatch.setattr(worktrees, "save", full)
    with pytest.raises(OSError, match="No space"):
        volume.commit_sync("mine")
    assert before == head()
    monkeypatch.setattr(worktrees, "save", real)
    assert volume.finalize_sync("mine") == head()
    assert ["mine", "theirs"] == messages(head())[:2]


def test_a_lock_that_is_lost_stops_a_commit_before_the_head(store):
    volume = prepared("shared", merged=False)
    before = head()
    lease = volume._handle.held.lease = HeldLease(store, "shared").acquire()
    lease._lost = True  # as if this process had been stopped for longer than it lives

    with pytest.raises(ConflictError, match=r"the lock of 'shared' in .* was lost"):
        volume.commit_sync("mine")
    assert before == head()
    assert 1 == len(list(store.names("versions/shared/")))
    volume.abandon_sync()


def test_a_reload_that_fails_has_the_tree_where_it_was(store, monkeypatch):
    from volume_core.facade import reloading

    volume = prepared("shared", merged=True)
    path = volume.mount_path

    def full(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(reloading, "replay", full)
    with pytest.raises(OSError, match="No space"):
        volume.reload_sync()
    assert path == volume.mount_path
    assert "2" == (path / "mine").read_text()
    monkeypatch.undo()
    assert volume.status_sync().changed
    with open(path / "mine"), pytest.raises(BusyError):
        volume.reload_sync()
    volume.abandon_sync()

"""A named volume's writer goes on after what it could not see: what landed is not committed over others' work."""

from __future__ import annotations

import contextlib
import io
import os

import pytest
from test_named_sweep import by_another, died, files_of, head, messages, prepared, write

from volume_core import BusyError, ConflictError, RWVolume, StorageError, Volume
from volume_core.facade import worktrees
from volume_core.parts import landing, publishing
from volume_core.parts.heads import read_head
from volume_core.parts.workcopies import WorkingCopy
from volume_core.storage.memory import MemoryStore
from volume_core.testing.faulty import Crashed, FaultyStore
from volume_core.testing.strict import StrictStore

pytestmark = pytest.mark.faults


@pytest.fixture
def store(request, monkeypatch, tmp_path):
    memory = MemoryStore(request.node.nodeid)
    monkeypatch.setenv("VOLUME_BUCKET", memory.url)
    monkeypatch.setenv("VOLUME_MOUNT_ROOT", str(tmp_path / "mounts"))
    yield StrictStore(memory)
    memory.clear()


def landed_unseen(volume, store, monkeypatch, error=Crashed):
    """Commit *volume*; the head moves, and then its writer hears nothing more."""
    real = landing.move_head

    def moved(*args, **options):
        real(*args, **options)
        raise error("after the head had moved")

    monkeypatch.setattr(landing, "move_head", moved)
    with contextlib.suppress(error):
        volume.commit_sync("mine")
    monkeypatch.setattr(landing, "move_head", real)
    assert "mine" == head().message


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("error", [Crashed, StorageError])
def test_a_reload_does_not_take_what_landed_for_work_that_did_not(store, monkeypatch, merged, error):
    volume = prepared("shared", merged)
    landed_unseen(volume, store, monkeypatch, error)
    if error is Crashed:
        volume = Volume.recover_sync(died(volume))
        volume.mount_sync(driver="copy")
    by_another({"mine": "theirs", "doomed": "again"})
    path = volume.mount_path
    volume.reload_sync()

    assert ("theirs", "again") == ((path / "mine").read_text(), (path / "doomed").read_text())
    assert volume.finalize_sync() == head()
    assert ["theirs", "mine"] == messages(head())[:2]


def test_a_writer_never_goes_back_to_an_older_commit_of_its_own(store, monkeypatch):
    """Where what the last commits captured could not be kept, an older one is no news."""
    volume = prepared("shared", merged=True)
    volume.commit_sync("mine")
    real = worktrees.save

    def full(path, captured, locator=""):
        if not locator.endswith("#merged"):
            raise OSError(28, os.strerror(28), str(path))
        real(path, captured, locator)

    volume.reload_sync()
    write(volume, {"mine": "3"})
    volume.commit_sync("kept")
    monkeypatch.setattr(worktrees, "save", full)
    write(volume, {"mine": "4"})
    with pytest.MonkeyPatch.context() as quiet:
        quiet.setattr(worktrees.log, "warning", lambda *_: None)
        volume.commit_sync("not kept")
        by_another({"mine": "theirs"})
        write(volume, {"more": "m"})
        volume.commit_sync("more")

    assert ("theirs", "m") == (files_of(head())["mine"], files_of(head())["more"])
    volume.abandon_sync()


def test_one_manifest_of_two_writers_is_deleted_by_neither(store, monkeypatch):
    """Two writers that make the same change at the same instant make the same version."""
    monkeypatch.setattr(publishing, "iso_utc", lambda _ns: "2030-01-01T00:00:00.000000Z")
    one = prepared("shared", merged=False)
    one.finalize_sync("base")
    first, second = Volume.from_name_sync("shared"), Volume.from_name_sync("shared")
    first.mount_sync(driver="copy")
    second.mount_sync(driver="copy")
    for volume in (first, second):
        os.chmod(volume.mount_path / "base", 0o600)
    real = landing.read_head

    def raced(*args):
        found = real(*args)
        monkeypatch.setattr(landing, "read_head", real)
        first.commit_sync("same")
        return found

    monkeypatch.setattr(landing, "read_head", raced)
    second.commit_sync("same")

    assert head() == first.committed == second.committed
    assert [] == head().verify_sync()
    first.abandon_sync()
    second.abandon_sync()


def test_a_batch_whose_answer_was_lost_is_not_made_twice(store):
    volume = prepared("shared", merged=False)
    volume.finalize_sync("base")
    for calls in range(1, 40):
        volume._handle.place._store = FaultyStore(store, calls, True, after=True)
        with contextlib.suppress(StorageError), volume.batch_upload_sync(force=True, message="mine") as batch:
            batch.put_file(io.BytesIO(b"mine"), "batched")
        volume._handle.place._store = store
        if head().message == "mine":
            break
    by_another({"batched": "theirs"})
    volume.remove_file_sync("base", message="next")

    assert "theirs" == files_of(head())["batched"]
    assert ["next", "theirs", "mine", "base"] == messages(head())[:4]


def test_a_version_that_shows_the_same_lands_on_the_newest_head(store):
    volume = prepared("shared", merged=False)
    volume.commit_sync("mine")
    by_another({"theirs": "t"})
    made = volume.commit_sync("mark", even_if_unchanged=True)

    assert made == head()
    assert ["mark", "theirs", "mine"] == messages(made)[:3]
    assert "t" == files_of(made)["theirs"]
    assert len(list(store.names("versions/shared/"))) == len(messages(made))
    volume.abandon_sync()


def test_whoever_lost_the_lock_puts_nothing_on_the_head(store):
    volume = Volume.from_name_sync("shared", create_if_missing=True)
    volume.commit_sync("empty")
    volume.mount_sync(driver="copy", lock=True)
    lease = volume._handle.held.lease
    lease._lost = True
    with pytest.raises(ConflictError, match="was lost"):
        volume.commit_sync("mark", even_if_unchanged=True)

    assert "empty" == head().message
    assert 1 == len(list(store.names("versions/shared/")))
    volume.abandon_sync()


def test_a_lock_is_not_had_by_asking_for_it_when_it_is_mounted_without(store):
    volume = prepared("shared", merged=False)
    with pytest.raises(BusyError, match="mounted without its lock"):
        volume.mount_sync(driver="copy", lock=True)
    volume.abandon_sync()


def test_a_mount_that_died_is_made_again_with_the_lock_it_had(store):
    volume = Volume.from_name_sync("shared", create_if_missing=True)
    volume.commit_sync("empty")
    volume.mount_sync(driver="copy", lock=True)
    held = volume._handle.held
    lease = held.lease
    held.take_down(lazy=True)
    for options in ({"lock": True, "lock_timeout": 0}, {}):
        volume.mount_sync(driver="copy", **options)
        assert lease is held.lease
        held.take_down(lazy=True)
    volume.abandon_sync()
    with Volume.from_name_sync("shared").mounted_sync(driver="copy", lock=True, lock_timeout=0):
        assert 2 == read_head(store, "shared").fence


def test_a_torn_working_copy_is_still_torn_after_a_reload(store, monkeypatch):
    volume = prepared("shared", merged=False)
    work_id = died(volume)
    real = WorkingCopy.same_boot
    monkeypatch.setattr(WorkingCopy, "same_boot", property(lambda _self: False))
    recovered = Volume.recover_sync(work_id, allow_torn=True)
    monkeypatch.setattr(WorkingCopy, "same_boot", real)
    recovered.mount_sync(driver="copy")
    by_another({"theirs": "t"})
    recovered.reload_sync()

    [entry] = recovered.finalize_sync("torn").log_sync(limit=1)
    assert (".",) == entry.torn


def test_an_ephemeral_volume_goes_also_where_its_mount_cannot_be_abandoned(store, monkeypatch):
    def busy(_self):
        raise OSError(16, os.strerror(16))

    monkeypatch.setattr(RWVolume, "abandon_sync", busy)
    with pytest.raises(OSError, match="busy"), Volume.ephemeral() as volume:
        volume.commit_sync("x")
    assert [] == Volume.list_sync()


def test_nothing_is_published_where_there_can_be_no_head(store):
    volume = prepared("shared", merged=False)
    before = {info.name for info in store.names("")}
    place = volume._handle.held.line.place
    place._store = _Unconditional(store)
    with pytest.raises(StorageError, match="named heads"):
        volume.commit_sync("mine")
    place._store = store

    assert before >= {info.name for info in store.names("versions/")}
    volume.abandon_sync()


class _Unconditional(FaultyStore):
    """A store whose server ignores conditions."""

    @property
    def honours_conditions(self) -> bool:
        return False

    def get(self, name: str) -> bytes:
        data = super().get(name)
        return data.replace(b"true", b"false") if name == "format.json" else data


@pytest.mark.parametrize("after", [False, True])
def test_a_reload_whose_last_word_cannot_be_written_leaves_the_older_copy_to_be_recovered(store, monkeypatch, after):
    volume = prepared("shared", merged=True)
    path, work_id, real = volume.mount_path, volume.status_sync().working_copy, WorkingCopy.update
    failed = []

    def update(copy, **changes):
        if "reloaded" in changes.get("notes", {}) and not failed:
            failed.append(copy)
            if after:
                real(copy, **changes)
            raise OSError(28, os.strerror(28))
        real(copy, **changes)

    monkeypatch.setattr(WorkingCopy, "update", update)
    with pytest.raises(OSError, match="No space"):
        volume.reload_sync()
    monkeypatch.setattr(WorkingCopy, "update", real)

    assert failed
    assert (path, "2") == (volume.mount_path, (path / "mine").read_text())
    assert work_id == died(volume)
    recovered = Volume.recover_sync(work_id)
    assert "2" == files_of(recovered.finalize_sync("mine"))["mine"]
    assert "theirs" in files_of(head())

"""How far a commit is: bytes count once the store has them, and the whole is what the scan found."""

from __future__ import annotations

import os
import threading

import pytest
from commit_kit import noise

from volume_core import Volume
from volume_core.errors import StorageError
from volume_core.format.entries import CHUNK_BYTES
from volume_core.format.names import PACKS
from volume_core.parts.progress import Progress
from volume_core.plugins.hookspecs import hookimpl
from volume_core.plugins.manager import register
from volume_core.storage.memory import MemoryStore
from volume_core.testing.lines import Line


class Holding(MemoryStore):
    """A store that keeps the first pack back until it is told to go on."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.holding, self.go_on = threading.Event(), threading.Event()

    def put_new(self, name, data):
        if name.startswith(PACKS):
            self.holding.set()
            assert self.go_on.wait(20)
        super().put_new(name, data)


@pytest.fixture
def store(request):
    store = Holding(request.node.nodeid)
    yield store
    store.go_on.set()
    store.clear()


def commit_in_thread(line: Line, progress: Progress) -> threading.Thread:
    thread = threading.Thread(target=line.commit, kwargs={"progress": progress})
    thread.start()
    return thread


def test_what_was_read_is_not_done_before_the_store_has_it(store, tmp_path):
    line = Line(store, tmp_path / "line")
    (line.tree / "large").write_bytes(noise(2 * CHUNK_BYTES))
    (line.tree / "small").write_bytes(b"few")
    progress = Progress("v")
    thread = commit_in_thread(line, progress)
    assert store.holding.wait(20)
    assert (progress.total_bytes, progress.done_bytes) == (2 * CHUNK_BYTES + 3, 0)
    store.go_on.set()
    thread.join(20)
    assert progress.done_bytes == progress.total_bytes == 2 * CHUNK_BYTES + 3


def test_what_the_store_has_already_and_holes_are_done_when_they_are_read(store, tmp_path):
    line = Line(store, tmp_path / "line")
    (line.tree / "first").write_bytes(noise(CHUNK_BYTES))
    store.go_on.set()
    line.commit()
    store.go_on.clear()
    store.holding.clear()
    (line.tree / "again").write_bytes(noise(CHUNK_BYTES))
    with (line.tree / "sparse").open("wb") as file:
        file.truncate(3 * CHUNK_BYTES)
    (line.tree / "zz-new").write_bytes(b"new")
    progress = Progress("v")
    thread = commit_in_thread(line, progress)
    assert store.holding.wait(20)
    assert (progress.total_bytes, progress.done_bytes) == (4 * CHUNK_BYTES + 3, 4 * CHUNK_BYTES)
    store.go_on.set()
    thread.join(20)
    assert progress.done_bytes == progress.total_bytes


def test_what_has_not_changed_since_the_last_commit_is_not_counted(store, tmp_path):
    line = Line(store, tmp_path / "line")
    (line.tree / "first").write_bytes(noise(CHUNK_BYTES))
    store.go_on.set()
    line.commit()
    (line.tree / "second").write_bytes(b"few")
    progress = Progress("v")
    line.commit(progress=progress)
    assert progress.total_bytes == 3


@pytest.fixture
def heard():
    """What volume_committing was told."""
    told: list[Progress] = []

    class Plugin:
        @hookimpl
        def volume_committing(self, progress, action):
            assert action is None
            assert not progress.wait(0)
            told.append(progress)

    forget = register(Plugin())
    yield told
    forget()


def test_plugins_are_told_of_a_commit_before_it_begins_and_can_wait_for_its_end(heard, tmp_path):
    volume = Volume.new("data", str(tmp_path / "store"))
    with volume.mounted_sync(driver="copy") as path:
        (path / "a").write_bytes(b"content")
    [progress] = heard
    assert progress.wait(0)
    assert (progress.volume, progress.total_bytes, progress.done_bytes) == ("data", 7, 7)


def test_a_commit_that_fails_has_ended_too(heard, tmp_path):
    directory = tmp_path / "store"
    volume = Volume.new("data", str(directory))
    path = volume.mount_sync(driver="copy")
    (path / "a").write_bytes(b"content")
    directory.write_text("a file where the store was")
    with pytest.raises(StorageError):
        volume.commit_sync()
    [progress] = heard
    assert progress.wait(0)
    os.unlink(directory)
    volume.abandon_sync()

"""What the tests of the flytekit half share: filling a volume, looking into one, counting commits."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

from volume_core import ROVolume, RWVolume, Volume, hookimpl
from volume_core.plugins import manager
from volume_core.storage.opening import open_store
from volume_core.testing.faulty import WRITES, FaultyStore

_filled: list[RWVolume] = []


def abandon_all() -> None:
    """Drop what a test has written and not committed, so that nobody has to say that it is kept."""
    while _filled:
        _filled.pop().abandon_sync()


def fill(volume: RWVolume, **files: str) -> RWVolume:
    """Write *files* (names and text) into *volume*, and leave them there: nothing is committed."""
    root = volume.mount_sync(driver="copy")
    _filled.append(volume)
    for name, text in files.items():
        (root / name).write_text(text)
    return volume


def made(name: str, **files: str) -> ROVolume:
    """Return a version of *name* with *files*."""
    return fill(Volume.new(name), **files).finalize_sync()


def contents(volume: ROVolume | RWVolume) -> dict[str, str]:
    """Return the files in the root of what *volume* has committed, and their text."""
    found = [entry.path.strip("/") for entry in volume.listdir_sync("/")]
    return {name: b"".join(volume.read_file_sync(name)).decode() for name in found}


class Commits:
    """The versions that this process has committed, and by which task."""

    def __init__(self) -> None:
        self.versions: list[ROVolume] = []
        self.actions: list[object] = []

    @hookimpl
    def volume_committed(self, version, action) -> None:
        """Note it."""
        self.versions.append(version)
        self.actions.append(action)


@contextmanager
def counted() -> Iterator[Commits]:
    """Give the commits of the statements within."""
    commits = Commits()
    remove = manager.register(commits)
    try:
        yield commits
    finally:
        remove()


@contextmanager
def failing(kind: str = "transient", operations: frozenset[str] = WRITES) -> Iterator[None]:
    """Have every store that is opened within fail in *operations*; kind "os" is an error of the machine."""

    def volume_open_store(url):
        inner = open_store(url)
        return Broken(inner) if kind == "os" else FaultyStore(inner, 1, True, kind=kind, operations=operations)

    remove = manager.register(SimpleNamespace(volume_open_store=hookimpl(volume_open_store)), "failing")
    try:
        yield
    finally:
        remove()


class Broken(FaultyStore):
    """A store on a disk that is full."""

    def put_new(self, name: str, data: bytes | memoryview) -> None:
        """Fail."""
        raise OSError(errno.ENOSPC, "No space left on device", name)

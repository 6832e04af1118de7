"""What the tests of the flytekit half share: filling a volume, looking into one, counting commits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from volume_core import ROVolume, RWVolume, Volume, hookimpl
from volume_core.plugins import manager


def fill(volume: RWVolume, **files: str) -> RWVolume:
    """Write *files* (names and text) into *volume*, and leave them there: nothing is committed."""
    root = volume.mount_sync(driver="copy")
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

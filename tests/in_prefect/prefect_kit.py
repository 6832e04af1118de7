"""Small things that several tests of the adapter ask for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from volume_core import ROVolume, RWVolume, Volume
from volume_core.parts.heads import read_head
from volume_core.parts.state import State
from volume_core.parts.workcopies import survey


def written(volume: RWVolume, files: Mapping[str, str]) -> RWVolume:
    """Write *files* into *volume*, mounted by the copy driver, and leave it mounted and uncommitted."""
    root = volume.mount_sync(driver="copy")
    for name, text in files.items():
        (root / name).write_text(text)
    return volume


def made(name: str = "data", **files: str) -> ROVolume:
    """A version of the volume *name* that holds *files*."""
    volume = written(Volume.new(name), files)
    return volume.finalize_sync()


def texts(version: ROVolume) -> dict[str, str]:
    """The files at the root of *version*."""
    return {name: b"".join(version.read_file_sync(name)).decode() for name in sorted(names(version))}


def names(version: ROVolume) -> list[str]:
    """The names at the root of *version*."""
    return [entry.name for entry in version.listdir_sync("/")]


def head_of(version: ROVolume) -> str | None:
    """The id of the version that the head of *version*'s volume names."""
    head = read_head(version._place().store(), version.name)
    return head.version if head is not None else None


def mounts_below(directory: Path) -> list[str]:
    """What is mounted below *directory*, in the order it was mounted."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in points if point.startswith(f"{directory}/")]


def working_copies() -> list[str]:
    """The ids of the working copies of this state directory."""
    return [copy.id for copy in survey(State.default()).copies]

"""Small things that several tests of the facade ask for."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from volume_core import ROVolume, RWVolume, Volume
from volume_core.parts.state import State


def mounts_below(directory: Path) -> list[str]:
    """What is mounted below *directory*, in the order it was mounted."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in points if point.startswith(f"{directory}/")]


def eventually(happened: Callable[[], bool], timeout_s: float = 20.0) -> bool:
    """Whether *happened* becomes true within a time that only a failure needs."""
    deadline = time.monotonic() + timeout_s
    while not happened():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def committed(name: str = "data", files: dict[str, str] | None = None, **options):
    """A version of a new volume with *files* in it."""
    volume = Volume.new(name)
    with volume.mounted_sync(driver="copy", message="made for a test", **options) as path:
        write(path, files or {"a.txt": "a", "d/b.txt": "b"})
    return volume.committed


def write(path: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)


def read(path: Path) -> dict[str, str]:
    """Every file below *path*, by its relative name."""
    return {str(each.relative_to(path)): each.read_text() for each in sorted(path.rglob("*")) if each.is_file()}


def objects() -> set[str]:
    """Every file of the default store."""
    root = State.default().root / "store"
    found = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    return {name for name in found if not name.startswith(".store/")}  # what locks a swap is no object


def working_copies() -> list[str]:
    """The ids of all working copies."""
    work = State.default().work
    return sorted(each.name for each in work.iterdir() if not each.name.startswith(".")) if work.is_dir() else []


def contents(volume: RWVolume | Volume) -> dict[str, str]:
    """Every file of a version, read from a mount of its own."""
    with volume.mounted_sync(driver="copy") as path:
        return read(path)


def following(
    version: ROVolume, change: dict[str, str] | Callable[[Path], object], name: str | None = None
) -> ROVolume:
    """The version of the volume *name* (default: the same) that *change* makes of *version*: files to write, or
    what a function does to a mount."""
    if callable(change):
        writer = version.fork_sync(name or version.name)
        with writer.mounted_sync(driver="copy") as path:
            change(path)
        return writer.committed
    with TemporaryDirectory() as place:
        write(Path(place), change)
        with version.fork_sync(name or version.name).batch_upload_sync(force=True) as batch:
            batch.put_directory(place, "/")
        return batch.version

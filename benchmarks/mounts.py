"""What a mount costs against the local disk that it writes on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.figures import (
    Figure,
    forget_cached_names,
    make_files,
    read_small,
    read_through,
    seconds,
    speed,
    walk,
)
from volume_core.volumes import ROVolume, Volume

CREATED = 5_000
WALKED = 20_000
READ = 10_000
LARGE_BYTES = 256 << 20


@contextmanager
def writer(home: Path) -> Iterator[Path]:
    """A new volume, mounted for writing by the kernel driver."""
    volume = Volume.new("bench", bucket=f"file://{home}/store")
    try:
        yield volume.mount_sync(driver="kernel")
    finally:
        volume.abandon_sync()


def version_of(home: Path, fill) -> ROVolume:
    """A version whose tree *fill(path)* wrote."""
    volume = Volume.new("bench", bucket=f"file://{home}/store")
    fill(volume.mount_sync(driver="kernel"))
    return volume.finalize_sync()


def once(root: Path, work) -> float:
    """Seconds of *work* in a directory of its own below *root*."""
    place = root / "once"
    place.mkdir()
    try:
        return seconds(lambda: work(place))
    finally:
        shutil.rmtree(place)


def create_small(home: Path) -> Figure:
    """Create files of 4 KiB through the overlay of a fork of a version."""
    base = version_of(home, lambda path: make_files(path, 100))
    volume = base.fork_sync("bench")
    path, local = volume.mount_sync(driver="kernel"), home / "local"
    local.mkdir()
    try:
        return speed(
            f"create {CREATED} files of 4 KiB",
            0.5,
            lambda: once(path, lambda place: make_files(place, CREATED)),
            lambda: once(local, lambda place: make_files(place, CREATED)),
        )
    finally:
        volume.abandon_sync()


def write_large(home: Path) -> Figure:
    """Write one file from beginning to end."""
    block = os.urandom(1 << 20)

    def fill(place: Path) -> None:
        with open(place / "large", "wb", buffering=0) as file:
            for _ in range(LARGE_BYTES >> 20):
                file.write(block)

    local = home / "local"
    local.mkdir()
    with writer(home) as path:
        return speed("sequential write", 0.9, lambda: once(path, fill), lambda: once(local, fill))


@contextmanager
def beside_local(home: Path, fill) -> Iterator[tuple[ROVolume, Path]]:
    """A version, and the same tree on the local disk."""
    local = home / "local"
    local.mkdir()
    fill(local)
    yield version_of(home, lambda path: shutil.copytree(local, path, dirs_exist_ok=True)), local


def walk_cold_and_warm(home: Path) -> Iterator[Figure]:
    """Walk and stat a read-only mount, the first time and again."""
    with beside_local(home, lambda path: make_files(path, WALKED)) as (version, local):

        def cold_local() -> float:
            forget_cached_names()
            return seconds(lambda: walk(local))

        def cold_ours() -> float:
            with version.mounted_sync() as path:
                return seconds(lambda: walk(path))

        yield speed(f"walk + stat of {WALKED} files, cold", 0.4, cold_ours, cold_local)
        with version.mounted_sync() as path:
            walk(path)
            walk(local)
            ours = lambda: seconds(lambda: walk(path))  # noqa: E731 - a name for each side of the pair
            yield speed(f"walk + stat of {WALKED} files, warm", 0.8, ours, lambda: seconds(lambda: walk(local)))


def read_large(home: Path) -> Figure:
    """Read one file again whose pages the kernel has."""

    def fill(path: Path) -> None:
        (path / "large").write_bytes(os.urandom(LARGE_BYTES))

    with beside_local(home, fill) as (version, local), version.mounted_sync() as path:
        read_through(path / "large")
        read_through(local / "large")
        return speed(
            "sequential read, warm",
            0.8,
            lambda: seconds(lambda: read_through(path / "large")),
            lambda: seconds(lambda: read_through(local / "large")),
        )


def read_first(home: Path) -> Figure:
    """Read small files in listing order for the first time, after a walk as a program does."""
    with beside_local(home, lambda path: make_files(path, READ)) as (version, local):
        read_small(local)

        def ours() -> float:
            with version.mounted_sync() as path:
                walk(path)
                return seconds(lambda: read_small(path))

        return speed(f"first read of {READ} files of 4 KiB", 0.4, ours, lambda: seconds(lambda: read_small(local)))


def figures(home: Path) -> Iterator[Figure]:
    """Every figure of this page, each in a directory of its own."""
    for number, measure in enumerate((create_small, write_large, walk_cold_and_warm, read_large, read_first)):
        place = home / f"mounts-{number}"
        place.mkdir()
        found = measure(place)
        yield from [found] if isinstance(found, Figure) else found
        shutil.rmtree(place)

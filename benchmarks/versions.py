"""What the life cycle costs: commit, mount, fork, and a server's memory."""

from __future__ import annotations

import os
import shutil
import statistics
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import Figure, make_files, seconds, walk
from volume_core.volumes import ROVolume, Volume

COMMITTED = 50_000
MOUNTED = 100_000
ROUNDS = 3


def new_volume(home: Path) -> object:
    """A writable volume in a store of its own below *home*."""
    return Volume.new("bench", bucket=f"file://{home}/store")


def commit_many(home: Path) -> Iterator[Figure]:
    """Commit 50,000 files of 4 KiB into a store on the local disk."""
    speeds, objects = [], 0
    for number in range(ROUNDS):
        volume = Volume.new("bench", bucket=f"file://{home}/store-{number}")
        make_files(volume.mount_sync(driver="kernel"), COMMITTED)
        os.sync()  # what the files cost to write back is not what the commit costs
        speeds.append(COMMITTED / seconds(volume.commit_sync))
        objects = sum(len(files) for _, _, files in os.walk(home / f"store-{number}"))
        volume.abandon_sync()
        shutil.rmtree(home / f"store-{number}")
    yield Figure(f"commit of {COMMITTED} files of 4 KiB", statistics.median(speeds), 10_000, "files/s", "into file://")
    yield Figure("objects that commit wrote", objects, 30, "objects", "", lower_is_better=True)


def large_version(home: Path) -> ROVolume:
    """A version of 100,000 files."""
    volume = Volume.new("bench", bucket=f"file://{home}/store")
    make_files(volume.mount_sync(driver="kernel"), MOUNTED, size_bytes=64)
    return volume.finalize_sync()


def server_memory_bytes(path: Path) -> int:
    """Resident bytes of the server of the mount at *path*: the process that holds its /dev/fuse and most memory."""
    largest = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            if b"volume_core.mount.server" in command:
                resident_pages = int((process / "statm").read_text().split()[1])
                largest = max(largest, resident_pages * os.sysconf("SC_PAGE_SIZE"))
        except OSError:
            continue  # it ended
    return largest


def mount_and_fork(home: Path) -> Iterator[Figure]:
    """Mount and fork a version of 100,000 files whose index is cached."""
    version = large_version(home)
    times = []
    for _ in range(5):
        again = Volume.from_locator_sync(version.locator)
        times.append(seconds(again.mount_sync))
        again.unmount_sync()
    detail = "index cached"
    yield Figure(f"mount of a {MOUNTED}-file version", statistics.median(times), 0.5, "s", detail, lower_is_better=True)
    forks = statistics.median(seconds(lambda: version.fork_sync("other")) for _ in range(5))
    yield Figure("fork", forks, 0.05, "s", f"of {MOUNTED} files", lower_is_better=True)
    with version.mounted_sync() as path:
        walk(path)
        memory_mib = server_memory_bytes(path) / (1 << 20)
    yield Figure("server memory", memory_mib, 120, "MiB", f"after a walk of {MOUNTED} files", lower_is_better=True)


def figures(home: Path) -> Iterator[Figure]:
    """Every figure of this page, each in a directory of its own."""
    for number, measure in enumerate((commit_many, mount_and_fork)):
        place = home / f"versions-{number}"
        place.mkdir()
        yield from measure(place)
        shutil.rmtree(place)

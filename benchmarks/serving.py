"""What a request costs the FUSE server, against one written with pyfuse3 that does the same reads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.figures import Figure, make_files, read_small, walk
from benchmarks.mounts import version_of
from volume_core.format.manifest import Manifest
from volume_core.format.names import Locator, version_name
from volume_core.mount import syscalls
from volume_core.parts.indexes import IndexCache
from volume_core.storage.opening import open_store

FILES = 10_000
DEADLINE_S = 60


class Served(NamedTuple):
    """What one server did for one walk and one reading of every file."""

    requests: int
    cpu_s: float
    requests_of_reading: int

    @property
    def microseconds_a_request(self) -> float:
        """User and system time of the server over the requests it answered."""
        return self.cpu_s / self.requests * 1e6


def serve(kind: str, mountpoint: Path, store: str, indexes: list[Path], push: bool, read: bool) -> dict[str, float]:
    """Start a server, walk its tree, read every file if asked to, and return what it reports."""
    command = [sys.executable, str(Path(__file__).with_name("serving_child.py")), kind, str(mountpoint), store]
    mountpoint.mkdir(exist_ok=True)
    device = mountpoint.stat().st_dev
    child = subprocess.Popen([*command, "01"[push], *map(str, indexes)], stdout=subprocess.PIPE, text=True)
    end = time.monotonic() + DEADLINE_S
    while os.stat(mountpoint).st_dev == device:
        if child.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"the {kind} server does not serve")
        time.sleep(0.01)
    walk(mountpoint)
    if read:
        read_small(mountpoint)
    syscalls.unmount(str(mountpoint), lazy=True)
    out, _ = child.communicate(timeout=DEADLINE_S)
    return json.loads(out)


def measured(kind: str, home: Path, store: str, indexes: list[Path], push: bool = False) -> Served:
    """The costs of one server: of a walk, and of a walk and reading."""
    walked = serve(kind, home / "mounted", store, indexes, push, read=False)
    both = serve(kind, home / "mounted", store, indexes, push, read=True)
    return Served(int(both["requests"]), both["cpu_s"], int(both["requests"] - walked["requests"]))


def figures(home: Path) -> Iterator[Figure]:
    """CPU against pyfuse3, and requests a small file.

    pyfuse3 must be asked to open and to release each file, which are cheap requests: by the request it looks
    cheaper than it is, so the same reads are also compared as a whole.
    """
    version = version_of(home, lambda path: make_files(path, FILES))
    address = Locator.parse(version.locator)
    store = open_store(address.store)
    manifest = Manifest.from_bytes(address.version, store.get(version_name(address.volume, address.version)))
    indexes = list(IndexCache(home / "indexes").fetch(store, manifest.stack))
    pairs = []
    for _ in range(3):
        ours = measured("ours", home, address.store, indexes)
        pairs.append((ours, measured("pyfuse3", home, address.store, indexes)))
    ours, other = sorted(pairs, key=lambda pair: pair[0].cpu_s / pair[1].cpu_s)[len(pairs) // 2]
    ratio = ours.microseconds_a_request / other.microseconds_a_request
    detail = f"{ours.microseconds_a_request:.0f} us against pyfuse3's {other.microseconds_a_request:.0f} us"
    yield Figure("CPU a request", ratio, 0.5, "x", detail, lower_is_better=True)
    detail = f"{ours.cpu_s:.2f} s in {ours.requests} requests against {other.cpu_s:.2f} s in {other.requests}"
    yield Figure(f"CPU of a walk and {FILES} reads", ours.cpu_s / other.cpu_s, 0.5, "x", detail, lower_is_better=True)
    pushed = measured("ours", home, address.store, indexes, push=True)
    each = pushed.requests_of_reading / FILES
    yield Figure("requests a small file, read through", each, 0.5, "requests", "with push", lower_is_better=True)

"""One server process that counts: ours, or one written with pyfuse3 over the same view and the same reader.

usage: python benchmarks/serving_child.py ours|pyfuse3 MOUNTPOINT STORE_URL PUSH(0|1) INDEX...

Serves until it is unmounted, then prints {"requests": n, "cpu_s": user + system seconds of serving}.
Both answer with the same infinite time-outs; pyfuse3 hands its read and readdir a file handle and no node, so its
open and opendir must be asked for.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from volume_core.mount import server, syscalls


def cpu_s() -> float:
    """User and system seconds of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def report(requests: int, since_s: float) -> None:
    """Print what the parent reads."""
    print(json.dumps({"requests": requests, "cpu_s": cpu_s() - since_s}), flush=True)


def serve_ours(mountpoint: str, store: str, push: bool, indexes: list[str]) -> None:
    """Serve with the server that a mount has, counting what it reads from the kernel."""
    fd = os.open(syscalls.FUSE_DEVICE, os.O_RDWR)
    flags = syscalls.MS_RDONLY | syscalls.MS_NOSUID | syscalls.MS_NODEV
    options = f"fd={fd},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions"
    syscalls.mount("bench", mountpoint, "fuse.bench", flags, options)
    requests = 0
    readv: Callable[..., int] = os.readv

    def counted(source: int, buffers: tuple[bytearray, ...]) -> int:
        nonlocal requests
        requests += 1
        return readv(source, buffers)

    os.readv = counted  # type: ignore[assignment]
    since_s = cpu_s()
    server.run(server.Config(fd, tuple(map(Path, indexes)), store, push=push))
    report(requests - 1, since_s)  # the last one learns of the unmount


if __name__ == "__main__":
    kind, where, url, pushing, *paths = sys.argv[1:]
    if kind == "ours":
        serve_ours(where, url, pushing == "1", paths)
        os._exit(0)  # as the server does
    from benchmarks.pyfuse3_server import serve

    report(*serve(where, url, paths, cpu_s))

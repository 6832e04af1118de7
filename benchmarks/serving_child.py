"""One server process that counts: ours, or one written with pyfuse3 over the same view and the same reader.

usage: python benchmarks/serving_child.py ours|pyfuse3 MOUNTPOINT STORE_URL PUSH(0|1) INDEX...

Serves until it is unmounted, then prints {"requests": n, "cpu_s": user + system seconds of serving}.
Both answer with the same infinite time-outs; pyfuse3 hands its read and readdir a file handle and no node, so its
open and opendir must be asked for.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from volume_core.format.entries import Kind
from volume_core.mount import server, syscalls
from volume_core.parts.indexes import open_view
from volume_core.parts.reading import Reader
from volume_core.storage.opening import open_store

FOREVER_S = 365 * 86_400


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


def serve_pyfuse3(mountpoint: str, store: str, indexes: list[str]) -> None:
    """Serve the same with pyfuse3."""
    import pyfuse3
    import trio

    view = open_view(tuple(map(Path, indexes)))
    reader = Reader(open_store(store), None)
    formats = {Kind.DIRECTORY: 0o040000, Kind.FILE: 0o100000, Kind.SYMLINK: 0o120000}

    class Operations(pyfuse3.Operations):
        requests = 0

        def __init__(self) -> None:
            super().__init__()
            self.nodes = {1: view.root}

        def attributes(self, node):
            self.nodes[node.number] = node
            found = pyfuse3.EntryAttributes()
            found.st_ino = node.number
            found.st_mode = formats[Kind(node.row.kind)] | node.row.mode
            found.st_size = node.row.size
            found.st_nlink = 1
            found.st_mtime_ns = node.row.mtime_ns
            found.st_uid, found.st_gid = node.row.uid, node.row.gid
            found.entry_timeout = found.attr_timeout = FOREVER_S
            return found

        async def lookup(self, parent_inode, name, ctx=None):
            self.requests += 1
            node = view.lookup(self.nodes[parent_inode], name)
            if node is None:
                missing = pyfuse3.EntryAttributes()
                missing.st_ino, missing.entry_timeout = 0, FOREVER_S
                return missing
            return self.attributes(node)

        async def getattr(self, inode, ctx=None):
            self.requests += 1
            return self.attributes(self.nodes[inode])

        async def opendir(self, inode, ctx):
            self.requests += 1
            return inode

        async def readdir(self, fh, start_id, token):
            self.requests += 1
            listing = view.listing(self.nodes[fh])
            for position, node in enumerate(listing[start_id:], start_id + 1):
                if not pyfuse3.readdir_reply(token, node.name, self.attributes(node), position):
                    return

        async def releasedir(self, fh):
            self.requests += 1

        async def open(self, inode, flags, ctx):
            self.requests += 1
            return pyfuse3.FileInfo(fh=inode, keep_cache=True)

        async def read(self, fh, off, size):
            self.requests += 1
            return reader.read_local(view.extents(self.nodes[fh]), off, size)

        async def flush(self, fh):
            raise pyfuse3.FUSEError(errno.ENOSYS)

        async def release(self, fh):
            self.requests += 1

        async def forget(self, inode_list):
            pass

    operations = Operations()
    options = {*pyfuse3.default_options, "fsname=bench", "allow_other", "default_permissions", "ro"}
    pyfuse3.init(operations, mountpoint, options)
    since_s = cpu_s()
    trio.run(pyfuse3.main)
    report(operations.requests, since_s)
    pyfuse3.close(unmount=False)


if __name__ == "__main__":
    kind, where, url, pushing, *paths = sys.argv[1:]
    if kind == "ours":
        serve_ours(where, url, pushing == "1", paths)
        os._exit(0)  # as the server does
    serve_pyfuse3(where, url, paths)

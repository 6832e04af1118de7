"""The yardstick: a read-only server written with pyfuse3 over our view and our reader.

It answers with the same infinite time-outs as ours.  pyfuse3 hands read and readdir a file handle and no
node, so open and opendir must be asked for.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pyfuse3
import trio

from volume_core.format.entries import Kind
from volume_core.parts.indexes import open_view
from volume_core.parts.reading import Reader
from volume_core.storage.opening import open_store

FOREVER_S = 365 * 86_400
FORMATS = {Kind.DIRECTORY: 0o040000, Kind.OPAQUE: 0o040000, Kind.FILE: 0o100000, Kind.SYMLINK: 0o120000}


class Operations(pyfuse3.Operations):
    """Answers from one view, and counts the requests."""

    requests = 0

    def __init__(self, view, reader) -> None:
        super().__init__()
        self.view = view
        self.reader = reader
        self.nodes = {1: view.root}

    def attributes(self, node):
        self.nodes[node.number] = node
        found = pyfuse3.EntryAttributes()
        found.st_ino = node.number
        found.st_mode = FORMATS[Kind(node.row.kind)] | node.row.mode
        found.st_size = node.row.size
        found.st_nlink = 1
        found.st_mtime_ns = node.row.mtime_ns
        found.st_uid, found.st_gid = node.row.uid, node.row.gid
        found.entry_timeout = found.attr_timeout = FOREVER_S
        return found

    async def lookup(self, parent_inode, name, ctx=None):
        self.requests += 1
        node = self.view.lookup(self.nodes[parent_inode], name)
        if node is not None:
            return self.attributes(node)
        missing = pyfuse3.EntryAttributes()
        missing.st_ino, missing.entry_timeout = 0, FOREVER_S
        return missing

    async def getattr(self, inode, ctx=None):
        self.requests += 1
        return self.attributes(self.nodes[inode])

    async def opendir(self, inode, ctx):
        self.requests += 1
        return inode

    async def readdir(self, fh, start_id, token):
        self.requests += 1
        listing = self.view.listing(self.nodes[fh])
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
        return self.reader.read_local(self.view.extents(self.nodes[fh]), off, size)

    async def flush(self, fh):
        raise pyfuse3.FUSEError(errno.ENOSYS)

    async def release(self, fh):
        self.requests += 1

    async def forget(self, inode_list):
        """Nodes are kept: forgetting would only make the yardstick slower."""


def serve(mountpoint: str, store: str, indexes: list[str], cpu_s: Callable[[], float]) -> tuple[int, float]:
    """Serve until unmounted; return the requests, and what *cpu_s* said when serving began."""
    operations = Operations(open_view(tuple(map(Path, indexes))), Reader(open_store(store), None))
    options = {*pyfuse3.default_options, "fsname=bench", "allow_other", "default_permissions", "ro"}
    pyfuse3.init(operations, mountpoint, options)
    since_s = cpu_s()
    trio.run(pyfuse3.main)
    pyfuse3.close(unmount=False)
    return operations.requests, since_s

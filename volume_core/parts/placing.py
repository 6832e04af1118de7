"""One path of a tree made from a version's entry: where its name lies, its bytes, its xattrs.

What hydrating, which makes whole trees, and replaying, which changes one, have in common.

Always true: holes stay holes; a path of any length is reached; an xattr that the file system or this user
cannot keep is left out, any other failure is raised.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from typing import Protocol

from volume_core.format.entries import Entry, Extent, Kind, split
from volume_core.parts.dialects import belongs_to_tree
from volume_core.parts.trees import PATH_PIECE_BYTES, open_below

WHOLE_FILE_BYTES = 4 << 20  # up to here a file is read in one piece, else streamed
BLOCK_BYTES = 4 << 20
DEVICES = {Kind.CHAR: stat.S_IFCHR, Kind.BLOCK: stat.S_IFBLK}


class Content(Protocol):
    """Where the bytes come from: `parts.reading.Reader`.  Called from several threads at once."""

    def read(self, extents: tuple[Extent, ...], offset: int, size: int) -> bytes:
        """Return *size* bytes from *offset* of what *extents* name."""
        ...

    def stream(self, extents: tuple[Extent, ...], block_bytes: int) -> Iterator[bytes]:
        """Yield all that *extents* name, in order, in blocks."""
        ...


@contextlib.contextmanager
def at(root_fd: int, path: bytes) -> Iterator[tuple[int, bytes]]:
    """Give (directory descriptor, name) that lead to *path* in one call, however long it is."""
    if len(path) <= PATH_PIECE_BYTES:
        yield root_fd, path
        return
    directory, name = split(path)
    fd = open_below(root_fd, directory)
    try:
        yield fd, name
    finally:
        os.close(fd)


def write_content(fd: int, entry: Entry, content: Content) -> None:
    """Write the bytes of the file *entry* to the empty file *fd*."""
    if not entry.size:
        return
    if entry.size <= WHOLE_FILE_BYTES and all(extent.chunk for extent in entry.content):
        _write_all(fd, content.read(entry.content, 0, entry.size), 0)
        return
    os.ftruncate(fd, entry.size)
    for offset, extents in _data_runs(entry.content):
        position = offset
        for block in content.stream(extents, BLOCK_BYTES):
            position = _write_all(fd, block, position)


def _data_runs(content: Sequence[Extent]) -> Iterator[tuple[int, tuple[Extent, ...]]]:
    """Yield (offset, extents) of each run of data between holes."""
    offset = start = 0
    run: list[Extent] = []
    for extent in content:
        if extent.chunk is None and run:
            yield start, tuple(run)
            run = []
        elif extent.chunk is not None:
            start = start if run else offset
            run.append(extent)
        offset += extent.length
    if run:
        yield start, tuple(run)


def _write_all(fd: int, data: bytes, position: int) -> int:
    """Write *data* at *position* and return where it ends."""
    with memoryview(data) as view:
        written = 0
        while written < len(data):
            written += os.pwrite(fd, view[written:], position + written)
    return position + len(data)


def set_xattrs(target: int | bytes, wanted: tuple[tuple[bytes, bytes], ...]) -> tuple[tuple[bytes, bytes], ...]:
    """Set what can be set of an open file, or of a path, itself if it is a symlink; return it."""
    if not wanted or not hasattr(os, "setxattr"):
        return ()
    got = []
    for name, value in wanted:
        try:
            os.setxattr(target, name, value, follow_symlinks=isinstance(target, int))
        except OSError as error:
            if error.errno not in _XATTR_REFUSED:
                raise
        else:
            got.append((name, value))
    return tuple(got)


def get_xattrs(target: int | bytes) -> tuple[tuple[bytes, bytes], ...]:
    """Return the xattrs, sorted, that belong to a version of an open file, or of a path, itself if it is a symlink."""
    if not hasattr(os, "listxattr"):
        return ()
    follow = isinstance(target, int)
    names = sorted(os.fsencode(n) for n in os.listxattr(target, follow_symlinks=follow) if belongs_to_tree(n))
    return tuple((name, os.getxattr(target, name, follow_symlinks=follow)) for name in names)


_XATTR_REFUSED = frozenset((errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.ENOSPC, errno.E2BIG, errno.ERANGE))

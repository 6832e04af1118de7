"""What a tree is made of: the value of one path, and where a file's bytes lie.

Always true: an Entry is a complete description of one path, independent of the layer it came
from; paths, names and targets are bytes, for a name on Linux is any bytes but "/" and NUL; the
root directory's path is b"", and no path begins or ends with "/".
"""

from __future__ import annotations

import enum
from typing import NamedTuple

# A file's content is cut at multiples of this offset, so an overwrite in place changes few chunks.
CHUNK_BYTES = 4 << 20
# A time is 64 bits with a sign, in nanoseconds: from 1677 to 2262.  Some file systems go further.
TIME_NS_MIN, TIME_NS_MAX = -(1 << 63), (1 << 63) - 1


class Kind(enum.IntEnum):
    """What lies at a path.  DO NOT CHANGE THESE NUMBERS: they are in every layer index."""

    FILE = 1
    DIRECTORY = 2
    OPAQUE = 3  # a directory that cuts off what older layers hold below it
    SYMLINK = 4
    FIFO = 5
    CHAR = 6
    BLOCK = 7
    WHITEOUT = 8  # hides the path, and all below it, in older layers


class Codec(enum.IntEnum):
    """How a chunk's bytes lie in its pack.  DO NOT CHANGE THESE NUMBERS: on disk."""

    NONE = 0
    ZSTD = 1


class ChunkRef(NamedTuple):
    """Where the bytes of one chunk lie: `length` stored bytes at `offset` of `pack`.

    `digest` (32 bytes) is of the `raw_length` bytes before compression by `codec`.
    """

    digest: bytes
    pack: bytes
    offset: int
    length: int
    raw_length: int
    codec: int = Codec.NONE


class Extent(NamedTuple):
    """`length` consecutive bytes of a file: a hole (`chunk` None), or bytes of a chunk from `chunk_offset`."""

    length: int
    chunk: ChunkRef | None
    chunk_offset: int = 0


class Entry(NamedTuple):
    """The value of one path.

    `mode` is permission bits (0o7777) only; `size` is a file's length in bytes, else 0;
    `target` is a symlink's; `rdev` a device's; `xattrs` pairs sorted by name; `hardlink` is not 0
    for a file with several names, and equal for those names within one layer; `content` covers
    `size` bytes exactly, in order.  `mtime_ns` is within TIME_NS_MIN and TIME_NS_MAX.
    """

    kind: Kind
    mode: int = 0
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    size: int = 0
    target: bytes = b""
    rdev: int = 0
    hardlink: int = 0
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    content: tuple[Extent, ...] = ()

    @property
    def is_directory(self) -> bool:
        """Whether paths may lie below this one."""
        return self.kind in (Kind.DIRECTORY, Kind.OPAQUE)


WHITEOUT = Entry(Kind.WHITEOUT)


def join(directory: bytes, name: bytes) -> bytes:
    """Return the path of *name* in *directory* (b"" is the root)."""
    return directory + b"/" + name if directory else name


def split(path: bytes) -> tuple[bytes, bytes]:
    """Return (directory, name) of *path*; the inverse of join.  The root has no name: (b"", b"")."""
    directory, _, name = path.rpartition(b"/")
    return directory, name

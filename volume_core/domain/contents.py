"""What a program reads in a tree, as one digest: equal trees have equal digests, however they came to be.

Counted is, of each path: its kind and permission bits; a file's bytes; where a symlink leads; a device's
number; extended attributes of the `user.` namespace, which are what programs store for themselves.

Not counted is who made it and when (owner, times, and the other attribute namespaces, which hold labels,
capabilities and access lists of the machine that it was made on), nor how it is stored: whether two names
are one inode, and which zeros are holes.  `cp -r` changes those, and a reader of files sees no difference.

What is hashed, in the order of View.walk (a directory before what is in it, names in byte order), numbers
little-endian.  DO NOT CHANGE: engines' caches hold digests.  Another rule takes another first line.

    the line `volume content 1`, then for each path
    kind u8 (Kind; never OPAQUE), permission bits u16 (0 of a symlink), length of the path u32, the path,
    number of xattrs u32, for each: length u32, name, length u32, value
    FILE: size u64, then for each run of equal cells: their number u64, the BLAKE3 digest of one's bytes
    SYMLINK: length u32, target; CHAR and BLOCK: number u64

A cell is 4 MiB of a file (CHUNK_BYTES), the last one what is left.

Always true: no file's bytes are asked for but those of cells that are holes in part, for a chunk's digest
is that of its cell; memory does not grow with the tree.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from volume_core.domain.view import Node, View
from volume_core.format.digests import digest, digest_of
from volume_core.format.entries import CHUNK_BYTES, Extent, Kind
from volume_core.format.layer import unpack_xattrs

# Returns the bytes that extents describe: at most CHUNK_BYTES.
Read = Callable[[tuple[Extent, ...]], bytes]
Run = tuple[int, bytes]  # so many cells, and the digest of each

_HEADER = b"volume content 1\n"
_COUNTED_XATTRS = b"user."
_HEAD = struct.Struct("<BHI")
_NUMBER = struct.Struct("<I")
_LONG = struct.Struct("<Q")
_RUN = struct.Struct("<Q32s")
_NO_XATTRS = _NUMBER.pack(0)
# What most files are: no attributes, one chunk.
_SMALL_FILE = struct.Struct("<IQQ32s")

_FILE, _SYMLINK, _DIRECTORY = int(Kind.FILE), int(Kind.SYMLINK), int(Kind.DIRECTORY)
_DIRECTORIES = frozenset((_DIRECTORY, int(Kind.OPAQUE)))
_DEVICES = frozenset((int(Kind.CHAR), int(Kind.BLOCK)))
_BLOCK_RECORDS = 1024


def content_digest(view: View, read: Read) -> str:
    """Return the digest of the tree that *view* shows, as 64 hexadecimal digits.

    *read* is asked for the bytes of cells that are holes in part; what it raises is passed on.
    """
    return digest_of(_blocks(_records(view, read))).hex()


def _blocks(records: Iterator[bytes]) -> Iterator[bytes]:
    yield _HEADER
    while block := b"".join(islice(records, _BLOCK_RECORDS)):
        yield block


def _records(view: View, read: Read) -> Iterator[bytes]:
    root = view.root.row
    yield _head(b"", _DIRECTORY, root.mode, root.xattrs)
    waiting = [(view.root, view.told(view.root))]
    while waiting:
        directory, children = waiting[-1]
        above = directory.path + b"/" if directory.path else b""
        for name, kind, mode, size, target, rdev, xattrs, chunk in children:
            path = above + name
            if kind == _FILE:
                if chunk is not None and xattrs is None:
                    yield _HEAD.pack(_FILE, mode, len(path)) + path + _SMALL_FILE.pack(0, size, 1, chunk)
                    continue
                yield _head(path, kind, mode, xattrs) + _LONG.pack(size)
                if size:
                    yield from _content(view, _found(view, directory, name), read)
            elif kind in _DIRECTORIES:
                yield _head(path, _DIRECTORY, mode, xattrs)
                node = _found(view, directory, name)
                waiting.append((node, view.told(node)))
                break
            elif kind == _SYMLINK:
                yield _head(path, kind, 0, xattrs) + _text(target or b"")
            else:
                yield _head(path, kind, mode, xattrs) + (_LONG.pack(rdev) if kind in _DEVICES else b"")
        else:
            waiting.pop()


def _found(view: View, directory: Node, name: bytes) -> Node:
    node = view.lookup(directory, name)
    assert node is not None
    return node


def _head(path: bytes, kind: int, mode: int, xattrs: bytes | None) -> bytes:
    return _HEAD.pack(kind, mode, len(path)) + path + (_xattrs(xattrs) if xattrs else _NO_XATTRS)


def _xattrs(packed: bytes) -> bytes:
    counted = [pair for pair in unpack_xattrs(packed) if pair[0].startswith(_COUNTED_XATTRS)]
    return _NUMBER.pack(len(counted)) + b"".join(_text(part) for pair in counted for part in pair)


def _text(data: bytes) -> bytes:
    return _NUMBER.pack(len(data)) + data


def _one_chunk(extent: Extent) -> bytes | None:
    """The digest of a chunk of which *extent* is all; None where it is a hole or a part."""
    length, chunk, _ = extent
    return chunk.digest if chunk is not None and chunk.raw_length == length <= CHUNK_BYTES else None


def _content(view: View, file: Node, read: Read) -> Iterator[bytes]:
    for run in _joined(_runs(view.extents(file), read)):
        yield _RUN.pack(*run)


def _joined(runs: Iterable[Run]) -> Iterator[Run]:
    """Runs as long as they can be: so a hole of many cells is one, and so are as many cells of stored zeros."""
    count, last = 0, b""
    for more, found in runs:
        if found != last and count:
            yield count, last
            count = 0
        count, last = count + more, found
    if count:
        yield count, last


def _runs(extents: Iterable[Extent], read: Read) -> Iterator[Run]:
    """The cells of a file, in order."""
    cell: list[Extent] = []
    room = CHUNK_BYTES
    for extent in extents:
        length, chunk, offset = extent
        while length:
            if chunk is None and not cell and length >= CHUNK_BYTES:
                yield length // CHUNK_BYTES, _zeros(CHUNK_BYTES)
                length %= CHUNK_BYTES
                continue
            part = min(length, room)
            cell.append(Extent(part, chunk, offset))
            length, offset, room = length - part, offset + part, room - part
            if not room:
                yield 1, _cell(cell, read)
                cell, room = [], CHUNK_BYTES
    if cell:
        yield 1, _cell(cell, read)


def _cell(extents: list[Extent], read: Read) -> bytes:
    if len(extents) == 1 and (one := _one_chunk(extents[0])) is not None:
        return one
    if all(extent.chunk is None for extent in extents):
        return _zeros(sum(extent.length for extent in extents))
    return digest(read(tuple(extents)))


@functools.lru_cache(maxsize=64)
def _zeros(length: int) -> bytes:
    return digest(bytes(length))

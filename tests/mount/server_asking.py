"""Requests asked without a kernel, of real layers: for the tests of every opcode."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from server_kit import write_index

from volume_core.format.entries import ChunkRef, Entry, Extent, Kind
from volume_core.mount import protocol as fuse
from volume_core.mount.requests import Refused, Requests, Totals
from volume_core.parts.indexes import open_view

DIRECTORY = Entry(Kind.DIRECTORY, 0o755)


def chunk(number: int, length: int) -> ChunkRef:
    return ChunkRef(number.to_bytes(32), b"p" * 32, 32, length, length)


def file(size: int = 0, number: int = 1, **more: object) -> Entry:
    content = (Extent(size, chunk(number, size)),) if size else ()
    return Entry(Kind.FILE, 0o644, size=size, content=content, **more)


def request(opcode: int, body: bytes = b"") -> tuple[bytearray, int]:
    data = bytearray(40) + body
    return data, len(data)


class Asked:
    """Requests about the layers that *stacks* describe, oldest first."""

    def __init__(self, home: Path, *stacks: dict[bytes, Entry], local: bytes | None = None) -> None:
        self.read: list[tuple[tuple[Extent, ...], int, int]] = []
        self.touched: list[bytes] = []
        self.local = local
        self.layers = [write_index(home, {b"": DIRECTORY, **rows}) for rows in stacks]
        self.requests = self.again()

    def again(self) -> Requests:
        """What another server of the same stack would be."""
        return Requests(
            open_view(self.layers), Totals(10_000, 12), self.read_local, lambda node: self.touched.append(node.path)
        )

    def read_local(self, extents: tuple[Extent, ...], offset: int, size: int) -> bytes | None:
        self.read.append((extents, offset, size))
        return None if self.local is None else self.local[offset : offset + size]

    def __call__(self, opcode: int, number: int = 1, body: bytes = b"", requests: Requests | None = None):
        return (requests or self.requests).handlers[opcode](number, *request(opcode, body))

    def errno(self, opcode: int, number: int = 1, body: bytes = b"") -> int:
        with pytest.raises(Refused) as refused:
            self(opcode, number, body)
        return refused.value.number

    def number(self, path: bytes) -> int:
        number = 1
        for name in path.split(b"/"):
            number = struct.unpack_from("<Q", self(fuse.LOOKUP, number, name + b"\0"))[0]
        return number

    def attributes(self, path: bytes) -> dict[str, int]:
        answer = self(fuse.GETATTR, self.number(path), bytes(16))
        names = "ino size blocks atime mtime ctime atimensec mtimensec ctimensec mode nlink uid gid rdev blksize flags"
        return dict(zip(names.split(), struct.unpack_from("<QQQqqqIIIIIIIIII", answer, 16), strict=True))

    def page(self, number: int, offset: int, size: int, requests: Requests | None = None, plus: bool = True):
        """One answer of READDIRPLUS (READDIR): [(name, ino, following, node of the entry)]."""
        opcode = fuse.READDIRPLUS if plus else fuse.READDIR
        data = self(opcode, number, struct.pack("<QQI4xQII", 0, offset, size, 0, 0, 0), requests)
        assert len(data) <= size
        found = []
        while data:
            node = struct.unpack_from("<Q", data)[0] if plus else 0
            data = data[128:] if plus else data
            ino, following, length, _ = fuse.DIRENT.unpack_from(data)
            found.append((data[24 : 24 + length], ino, following, node))
            data = data[24 + length + 7 & ~7 :] if length % 8 else data[24 + length :]
        return found

    def listing(self, number: int, size: int = 4096, fresh: bool = False, plus: bool = True):
        """All pages; *fresh* asks another server for each."""
        found, offset = [], 0
        while page := self.page(number, offset, size, self.again() if fresh else None, plus):
            found += page
            offset = page[-1][2]
        return found


def names_of(listing) -> list[bytes]:
    return [name for name, *_ in listing]

"""Packs made by hand, so that a fault of packing cannot hide one of reading; and places to read them from."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Sequence
from pathlib import Path

from volume_core.format import zstd
from volume_core.format.digests import digest
from volume_core.format.entries import CHUNK_BYTES, ChunkRef, Codec, Extent
from volume_core.format.names import pack_name
from volume_core.format.pack import header
from volume_core.parts.caching import PackCache
from volume_core.parts.reading import SMALL_BYTES, Reader
from volume_core.storage.local import LocalStore
from volume_core.storage.memory import MemoryStore
from volume_core.storage.protocol import Store
from volume_core.testing.faulty import FaultyStore
from volume_core.testing.strict import StrictStore

PLACES = ("local", "cached", "memory")
LIMIT_BYTES = 1 << 30


class Place:
    """A store, a way to read it, and a hand in the bytes that lie there."""

    def __init__(self, kind: str, root: Path) -> None:
        self.kind = kind
        self.cache_dir = root / "cache"
        self.store: Store = LocalStore(root / "store") if kind == "local" else StrictStore(MemoryStore(str(root)))
        self.faulty = FaultyStore(self.store)
        self.readers: list[Reader] = []

    def reader(self) -> Reader:
        cache = PackCache(self.cache_dir, LIMIT_BYTES) if self.kind == "cached" else None
        self.readers.append(Reader(self.faulty, cache))
        return self.readers[-1]

    def damage(self, chunk: ChunkRef, change) -> None:
        """Let *change* alter the bytes of the pack in the store."""
        name = pack_name(chunk.pack.hex())
        data = bytearray(self.store.get(name))
        change(data)
        if isinstance(self.store, LocalStore):
            path = self.store.local_root / name
            path.unlink()
            path.write_bytes(data)
        else:
            self.store.put(name, bytes(data))

    def lose(self, chunk: ChunkRef) -> None:
        self.store.delete(pack_name(chunk.pack.hex()))

    def gets(self) -> int:
        return sum(call.operation == "get_range" for call in self.faulty.calls)


def put_pack(store: Store, chunks: Sequence[bytes], codec: Codec = Codec.NONE) -> list[ChunkRef]:
    """Store *chunks* end to end in one pack; return where each lies."""
    data = bytearray(header(os.urandom(24)))
    places = []
    for raw in chunks:
        stored = raw if codec is Codec.NONE else zstd.compress(raw, 1)
        places.append((digest(raw), len(data), len(stored), len(raw)))
        data += stored
    pack = digest(data)
    store.put_new(pack_name(pack.hex()), bytes(data))
    return [ChunkRef(name, pack, offset, length, raw, codec) for name, offset, length, raw in places]


def whole(*chunks: ChunkRef) -> tuple[Extent, ...]:
    """A file of these chunks, each of them whole."""
    return tuple(Extent(chunk.raw_length, chunk) for chunk in chunks)


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def flip(chunk: ChunkRef, at: int = 0):
    def change(data: bytearray) -> None:
        data[chunk.offset + at] ^= 0x10

    return change


SIZES = (1, 100, 4096, SMALL_BYTES, SMALL_BYTES + 1, 300_000)


class Gated(FaultyStore):
    """Answers when the gate is open."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.gate = threading.Event()
        self.asked = threading.Semaphore(0)

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        self.asked.release()
        assert self.gate.wait(10)
        return super().get_range(name, offset, length)


def settle(reader: Reader) -> None:
    """Wait until nothing is being fetched ahead."""
    ahead = reader._ahead
    pool, ahead._pool = ahead._pool, None
    if pool is not None:
        pool.shutdown()


def packs_of(store: Store, count: int) -> tuple[Extent, ...]:
    """A file of *count* packs with three large chunks each."""
    refs = []
    for number in range(count):
        refs += put_pack(store, [noise(CHUNK_BYTES, 10 * number + seed) for seed in range(3)])
    return whole(*refs)

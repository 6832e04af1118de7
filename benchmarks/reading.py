"""What reading costs between a file's extents and its bytes: no kernel, no server, only the Reader."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.figures import Figure, seconds, speed
from volume_core.format import zstd
from volume_core.format.digests import digest
from volume_core.format.entries import CHUNK_BYTES, ChunkRef, Codec, Extent
from volume_core.format.names import pack_name
from volume_core.format.pack import header
from volume_core.parts.caching import PackCache
from volume_core.parts.reading import Reader
from volume_core.storage.local import LocalStore
from volume_core.storage.protocol import Store
from volume_core.testing.slow import SlowStore

SMALL = 4096
COUNT = 4000
BLOCK = 1 << 20
LARGE_PACKS = 6
LATENCY_S = 0.03
ROUNDS = 5

Files = list[tuple[Extent, ...]]


def put_pack(store: Store, chunks: list[bytes], codec: Codec) -> list[ChunkRef]:
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


def small_files(store: Store, codec: Codec = Codec.NONE) -> Files:
    """COUNT files of 4 KiB in one pack."""
    chunks = put_pack(store, [os.urandom(SMALL // 2) * 2 for _ in range(COUNT)], codec)
    return [(Extent(SMALL, chunk),) for chunk in chunks]


def each_us(read: Callable[[], object]) -> float:
    """Microseconds for each of COUNT small files, the median of some rounds."""
    return statistics.median(seconds(read) for _ in range(ROUNDS)) / COUNT * 1e6


def small(home: Path) -> Iterator[Figure]:
    """Small files, beyond what the same preads cost."""
    store = LocalStore(home / "store")
    files = small_files(store)
    packed = small_files(store, Codec.ZSTD)
    pack = os.open(home / "store" / pack_name(files[0][0].chunk.pack.hex()), os.O_RDONLY)
    offsets = [extents[0].chunk.offset for extents in files]
    bare = each_us(lambda: [os.pread(pack, SMALL, offset) for offset in offsets])
    os.close(pack)
    far = SlowStore(store, latency_s=0)
    for name, wanted_us, origin, cache, some in (
        ("local store", 10, store, None, files),
        ("cache", 10, far, PackCache(home / "cache", 1 << 30), files),
        ("local store, zstd", 25, store, None, packed),
    ):
        with Reader(origin, cache) as reader:
            reader.read(some[0], 0, SMALL)
            for extents in some:  # brings the windows of a far store
                reader.read(extents, 0, SMALL)
            found = each_us(lambda: [reader.read_local(extents, 0, SMALL) for extents in some])  # noqa: B023
        detail = f"{found:.1f} us with the pread's {bare:.1f}"
        yield Figure(f"a 4 KiB file out of a pack, {name}", found - bare, wanted_us, "us", detail, lower_is_better=True)


def large(home: Path) -> Iterator[Figure]:
    """A large file, block by block, against bare preads of the same bytes."""
    store = LocalStore(home / "store")
    extents: tuple[Extent, ...] = ()
    for _ in range(LARGE_PACKS):
        for chunk in put_pack(store, [os.urandom(CHUNK_BYTES) for _ in range(4)], Codec.NONE):
            extents += (Extent(CHUNK_BYTES, chunk),)
    size = len(extents) * CHUNK_BYTES
    packs = {e.chunk.pack: os.open(home / "store" / pack_name(e.chunk.pack.hex()), os.O_RDONLY) for e in extents}

    def bare() -> None:
        for extent in extents:
            for offset in range(0, CHUNK_BYTES, BLOCK):
                os.pread(packs[extent.chunk.pack], BLOCK, extent.chunk.offset + offset)

    def blocks(reader: Reader) -> float:
        start = time.perf_counter()
        for offset in range(0, size, BLOCK):
            reader.read(extents, offset, BLOCK)
        return time.perf_counter() - start

    def first() -> float:
        with Reader(store) as reader:
            return blocks(reader)

    yield speed("a large file out of packs, first read", 0.15, first, lambda: seconds(bare), ROUNDS)
    with Reader(store) as reader:
        blocks(reader)
        yield speed(
            "a large file out of packs, verified before", 0.8, lambda: blocks(reader), lambda: seconds(bare), ROUNDS
        )
    for descriptor in packs.values():
        os.close(descriptor)
    yield from ahead(home, store, extents)


def ahead(home: Path, store: Store, extents: tuple[Extent, ...]) -> Iterator[Figure]:
    """The same file from far away: what fetching ahead hides of the waiting."""
    windows = len(extents) + LARGE_PACKS
    with Reader(SlowStore(store, latency_s=LATENCY_S), PackCache(home / "far", 1 << 30)) as reader:
        start = time.perf_counter()
        for offset in range(0, len(extents) * CHUNK_BYTES, BLOCK):
            reader.read(extents, offset, BLOCK)
        found = time.perf_counter() - start
    detail = f"{found:.2f} s for {windows} windows of 4 MiB, {LATENCY_S * 1000:.0f} ms away"
    yield Figure("windows at once, reading on in a large file", windows * LATENCY_S / found, 2, "x", detail)


def figures(home: Path) -> Iterator[Figure]:
    """All of this page."""
    yield from small(home / "small")
    yield from large(home / "large")

"""Packing: every byte of a file is in a pack of the store, once, where the extents say."""

from __future__ import annotations

import errno
import os
import random
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volume_core.errors import StorageError
from volume_core.format import zstd
from volume_core.format.digests import digest, hex_digest
from volume_core.format.entries import CHUNK_BYTES, ChunkRef, Codec, Entry, Extent, Kind
from volume_core.format.pack import HEADER_BYTES, PACK_BYTES, check_header
from volume_core.parts import packing
from volume_core.parts.packing import BUFFER_BYTES, Packer, cells
from volume_core.storage.local import LocalStore
from volume_core.storage.memory import MemoryStore
from volume_core.storage.protocol import Store
from volume_core.testing.faulty import FaultyStore
from volume_core.testing.strict import StrictStore

MIB = 1 << 20
BLOCK = 4096


@pytest.fixture
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    memory = MemoryStore(request.node.nodeid)
    yield StrictStore(memory)
    memory.clear()


@pytest.fixture
def write(tmp_path: Path) -> Iterator[Callable[[bytes], int]]:
    """Write a file; return a descriptor to read it by."""
    opened: list[int] = []

    def make(data: bytes = b"", size: int | None = None, at: int = 0) -> int:
        path = tmp_path / f"file{len(opened)}"
        with path.open("wb") as file:
            file.truncate(size if size is not None else at + len(data))
            file.seek(at)
            file.write(data)
        opened.append(os.open(path, os.O_RDWR))
        return opened[-1]

    yield make
    for fd in opened:
        os.close(fd)


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def content(store: Store, extents: tuple[Extent, ...]) -> bytes:
    """What the packs of *store* hold for *extents*, read without any code under test."""
    parts = []
    for extent in extents:
        if extent.chunk is None:
            parts.append(bytes(extent.length))
            continue
        chunk = extent.chunk
        pack = chunk.pack.hex()
        raw = store.get(f"packs/{pack[:2]}/{pack}")[chunk.offset : chunk.offset + chunk.length]
        if chunk.codec == Codec.ZSTD:
            raw = zstd.decompress(raw, chunk.raw_length)
        assert (chunk.raw_length, chunk.digest) == (len(raw), digest(raw))
        parts.append(raw[extent.chunk_offset : extent.chunk_offset + extent.length])
    return b"".join(parts)


def sealed(packer: Packer, extents: tuple[Extent, ...]) -> tuple[Extent, ...]:
    return packer.seal(Entry(Kind.FILE, content=extents)).content


def packs(store: Store) -> list[str]:
    return [found.name for found in store.names("packs/")]


def packed(store: Store, fd: int, size: int, **options: object) -> tuple[Extent, ...]:
    with Packer(store, **options) as packer:  # type: ignore[arg-type]
        extents = packer.read(fd, size)
        packer.finish()
        return sealed(packer, extents)


@pytest.mark.parametrize(
    "size",
    [1, BLOCK, BLOCK + 1, packing.SMALL_BYTES, packing.SMALL_BYTES + 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES],
)
def test_a_file_is_cut_at_the_grid_and_comes_back(store, write, size):
    data = noise(size)

    extents = packed(store, write(data), size)

    assert data == content(store, extents)
    assert [min(CHUNK_BYTES, size - at) for at in range(0, size, CHUNK_BYTES)] == [e.length for e in extents]


def test_an_empty_file_and_one_that_is_a_hole_need_no_chunk(store, write):
    with Packer(store) as packer:
        assert () == packer.read(write(), 0)
        assert (Extent(BLOCK, None),) == packer.read(write(size=BLOCK), BLOCK)
        assert (Extent(1 << 40, None),) == packer.read(write(size=1 << 40), 1 << 40)
        packer.finish()

    assert [] == packs(store)


def test_a_small_file_with_a_hole_keeps_it(store, write):
    data = noise(BLOCK)

    extents = packed(store, write(data, size=8 * BLOCK, at=4 * BLOCK), 8 * BLOCK)

    assert [(4 * BLOCK, False), (BLOCK, True), (3 * BLOCK, False)] == [(e.length, e.chunk is not None) for e in extents]
    assert bytes(4 * BLOCK) + data + bytes(3 * BLOCK) == content(store, extents)


def test_the_data_of_one_cell_is_one_chunk_whatever_holes_lie_between(store, write):
    fd = write(size=3 * CHUNK_BYTES)
    for at in (BLOCK, 9 * BLOCK, 2 * CHUNK_BYTES - BLOCK):
        os.pwrite(fd, noise(BLOCK, at), at)
    os.pwrite(fd, noise(2 * BLOCK), 2 * CHUNK_BYTES - BLOCK)  # over a border of the grid

    extents = packed(store, fd, 3 * CHUNK_BYTES)

    chunks = {e.chunk for e in extents if e.chunk}
    assert os.pread(fd, 3 * CHUNK_BYTES, 0) == content(store, extents)
    assert sorted(c.raw_length for c in chunks) == [BLOCK, BLOCK, 2 * BLOCK]
    assert 4 * BLOCK == sum(e.length for e in extents if e.chunk)


def test_one_byte_at_the_end_of_a_tebibyte_is_found_at_once(store, write):
    size = 1 << 40
    fd = write(b"!", at=size - 1)

    extents = packed(store, fd, size)

    assert [size - BLOCK, BLOCK] == [e.length for e in extents]
    assert b"!" == content(store, extents[1:])[-1:]


@given(blocks=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 6)), max_size=8), tail=st.integers(0, BLOCK))
def test_any_layout_of_holes_comes_back_as_it_was(tmp_path_factory, blocks, tail):
    """The grid is one of a few blocks here, so that files of a few blocks cross it often."""
    path = tmp_path_factory.mktemp("sparse") / "file"
    with path.open("wb") as file:
        for at, count in blocks:
            file.seek(at * BLOCK)
            file.write(noise(count * BLOCK, at))
        file.truncate(46 * BLOCK + tail)
    written = {block for at, count in blocks for block in range(at, at + count)}
    store = MemoryStore(str(path))

    with pytest.MonkeyPatch.context() as patch, path.open("rb") as file:
        patch.setattr(packing, "CHUNK_BYTES", 4 * BLOCK)
        extents = packed(store, file.fileno(), 46 * BLOCK + tail)

    position, kept = 0, set()
    for extent in extents:
        if extent.chunk:
            kept |= set(range(position // BLOCK, -(-(position + extent.length) // BLOCK)))
        position += extent.length
    assert path.read_bytes() == content(store, extents)
    assert written == kept


def test_a_file_system_that_knows_no_holes_is_all_data(store, write, monkeypatch):
    def refuse(*_: object) -> int:
        raise OSError(errno.EINVAL, "no SEEK_DATA here")

    monkeypatch.setattr(os, "lseek", refuse)
    data = noise(CHUNK_BYTES + BLOCK)

    assert data == content(store, packed(store, write(data), len(data)))


def test_cells_never_cross_the_grid(write):
    fd = write(noise(2 * CHUNK_BYTES + 5), at=CHUNK_BYTES // 2)

    found = list(cells(fd, CHUNK_BYTES // 2 + 2 * CHUNK_BYTES + 5))

    half = CHUNK_BYTES // 2
    assert [[(half, half)], [(CHUNK_BYTES, CHUNK_BYTES)], [(2 * CHUNK_BYTES, half + 5)]] == found


def test_equal_chunks_are_stored_once(store, write):
    data = noise(BLOCK)
    with Packer(store) as packer:
        found = [packer.read(write(data), BLOCK) for _ in range(3)]
        refs = packer.finish()

        assert 1 == len(refs)
        assert 1 == len({sealed(packer, extents) for extents in found})
        assert HEADER_BYTES + BLOCK == packer.bytes_written


def test_what_the_base_knows_is_not_stored_again(store, write):
    """One block of a large file is overwritten: only its cell goes out."""
    size = 5 * CHUNK_BYTES
    fd = write(noise(size))
    before = packed(store, fd, size)
    known = {e.chunk.digest: e.chunk for e in before if e.chunk}
    os.pwrite(fd, b"changed", 2 * CHUNK_BYTES + 17)

    with Packer(store, known.get) as packer:
        extents = packer.read(fd, size)
        new = packer.finish()
        after = sealed(packer, extents)

    assert 1 == len(new)
    assert [True, True, False, True, True] == [a == b for a, b in zip(after, before, strict=True)]
    assert os.pread(fd, size, 0) == content(store, after)


def test_a_pack_is_named_by_its_bytes_and_holds_its_chunks_in_order_without_gaps(store, write):
    with Packer(store, compression="none") as packer:
        found = [packer.read(write(noise(MIB, seed)), MIB) for seed in range(40)]
        packer.finish()
        chunks = [sealed(packer, extents)[0].chunk for extents in found]
        names = packs(store)

        assert packer.packs_written == len(names) == 3
        assert packer.bytes_written == sum(found.size_bytes for found in store.names("packs/"))
    for name in names:
        data = store.get(name)
        check_header(name, data)
        assert name.endswith(hex_digest(data))
        position = HEADER_BYTES
        for chunk in chunks:
            if chunk.pack.hex() in name:
                assert position == chunk.offset
                position += chunk.length
        assert len(data) == position
        assert position < PACK_BYTES + CHUNK_BYTES
    assert [0, 0, 1] == sorted(len(store.get(name)) < PACK_BYTES for name in names)
    order = list(dict.fromkeys(chunk.pack for chunk in chunks))
    assert chunks == sorted(chunks, key=lambda c: (order.index(c.pack), c.offset))


def test_the_same_content_never_makes_the_same_pack_twice(store, write):
    fd = write(b"content")
    for _ in range(2):
        packed(store, fd, 7)

    assert 2 == len(packs(store))


TEXT = b"the quick brown fox jumps over the lazy dog; " * 4000


@pytest.mark.parametrize(
    ("compression", "data", "codec"),
    [
        ("none", TEXT, Codec.NONE),
        ("zstd", TEXT, Codec.ZSTD),
        ("zstd", TEXT[:100], Codec.ZSTD),
        ("zstd", noise(70_000), Codec.NONE),
        ("zstd", b"x", Codec.NONE),
        ("auto", TEXT, Codec.ZSTD),
        ("auto", TEXT[:5000], Codec.ZSTD),
        ("auto", noise(70_000), Codec.NONE),
        ("auto", noise(70_000) + bytes(500_000), Codec.NONE),  # its first 64 KiB do not shrink
        ("auto", TEXT[:1000] + noise(6000), Codec.NONE),  # shrinks, but not by a fifth
    ],
)
def test_compression_is_kept_only_where_it_pays(store, write, compression, data, codec):
    extents = packed(store, write(data), len(data), compression=compression)

    chunk = extents[0].chunk
    assert data == content(store, extents)
    assert codec == chunk.codec
    assert (chunk.length < chunk.raw_length) == (codec == Codec.ZSTD)


def test_auto_compresses_nothing_that_goes_to_a_local_disk(tmp_path, write):
    extents = packed(LocalStore(tmp_path / "store"), write(TEXT), len(TEXT), compression="auto")

    assert Codec.NONE == extents[0].chunk.codec


@pytest.mark.parametrize(("had", "said"), [(0, 10), (10, BLOCK), (BLOCK, CHUNK_BYTES), (BLOCK, 3 * CHUNK_BYTES)])
def test_a_file_shorter_than_said_ends_in_a_hole(store, write, had, said):
    data = noise(had)

    extents = packed(store, write(data), said)

    assert data + bytes(said - had) == content(store, extents)


def test_a_file_that_shrinks_between_two_reads_is_what_was_read_and_a_hole(store, write):
    size = 3 * CHUNK_BYTES
    data = noise(size)
    fd = write(data)

    def shrink(_digest: bytes) -> ChunkRef | None:  # asked about the first chunk, before the second is read
        os.ftruncate(fd, CHUNK_BYTES + 100)
        return None

    extents = packed(store, fd, size, known=shrink)

    assert data[: CHUNK_BYTES + 100] + bytes(2 * CHUNK_BYTES - 100) == content(store, extents)


def test_a_file_that_grew_is_read_as_far_as_said(store, write):
    data = noise(2 * CHUNK_BYTES)

    assert data[:BLOCK] == content(store, packed(store, write(data), BLOCK))


def test_several_threads_may_read_at_once(store, write):
    files = [(write(noise(300_000, seed)), noise(300_000, seed)) for seed in range(16)]
    with Packer(store) as packer, ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda file: packer.read(file[0], len(file[1])), files))
        packer.finish()
        for extents, (_, data) in zip(found, files, strict=True):
            assert data == content(store, sealed(packer, extents))


def test_nothing_is_sent_before_a_pack_is_full_or_finish_is_called(store, write):
    with Packer(store) as packer:
        packer.read(write(b"content"), 7)

    assert [] == packs(store)


def test_before_upload_is_called_before_each_pack(store, write):
    called: list[int] = []
    with Packer(store, before_upload=lambda: called.append(len(packs(store)))) as packer:
        for seed in range(2):
            packer.read(write(noise(10, seed)), 10)
            packer.finish()

    assert [0, 1] == called


def test_finish_may_be_called_again_after_more_files(store, write):
    with Packer(store) as packer:
        first = packer.read(write(b"first"), 5)
        packer.finish()
        second = packer.read(write(b"second"), 6)
        again = packer.read(write(b"first"), 5)
        packer.finish()

        assert b"first" == content(store, sealed(packer, first)) == content(store, sealed(packer, again))
        assert b"second" == content(store, sealed(packer, second))
        assert 2 == packer.packs_written


def test_a_failed_upload_is_raised_by_the_next_call_and_no_other_begins(store, write):
    faulty = FaultyStore(store, 1, persistent=True)
    fd = write(noise(PACK_BYTES))
    with Packer(faulty, max_uploads=1) as packer:
        packer.read(fd, PACK_BYTES)
        _poll(lambda: packer._failure)
        with pytest.raises(StorageError, match="injected"):
            packer.read(fd, 10)
        with pytest.raises(StorageError, match="injected"):
            packer.finish()

    assert 1 == len(faulty.calls)
    assert [] == packs(store)


def test_a_failure_of_the_last_pack_is_raised_by_finish(store, write):
    with Packer(FaultyStore(store, 1)) as packer:
        packer.read(write(b"content"), 7)
        with pytest.raises(StorageError, match="injected"):
            packer.finish()


class GatedStore:
    """Uploads wait at a gate; counts how many wait at once."""

    url = "gated://"
    local_root = None

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.lock = threading.Lock()
        self.waiting = 0
        self.most = 0
        self.stored = 0

    def put_new(self, name: str, data: bytes | memoryview) -> None:
        with self.lock:
            self.waiting += 1
            self.most = max(self.most, self.waiting)
        assert self.gate.wait(30)
        with self.lock:
            self.waiting -= 1
            self.stored += len(data)


def _poll(condition: Callable[[], object], seconds: float = 20) -> None:
    done = threading.Event()
    for _ in range(int(seconds * 200)):
        if condition():
            return
        done.wait(0.005)
    raise AssertionError("it did not come to pass in time")


def test_memory_is_bounded_while_the_store_is_slower_than_the_disk(tmp_path):
    """Twelve packs' worth is read, two may be under way, one may fill: the reader waits with the third."""
    size = 12 * PACK_BYTES
    path = tmp_path / "large"
    with path.open("wb") as file:
        for at in range(0, size, CHUNK_BYTES):
            file.write(at.to_bytes(8, "big") * (CHUNK_BYTES // 8))
    store = GatedStore()
    tracemalloc.start()
    try:
        with path.open("rb") as file, Packer(store, compression="none", max_uploads=2) as packer:
            reader = threading.Thread(target=packer.read, args=(file.fileno(), size))
            reader.start()
            _poll(lambda: store.waiting == 2 and not packer._buffers._left)
            store.gate.set()
            reader.join(60)
            packer.finish()
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert not reader.is_alive()
    assert 2 == store.most
    assert size + 12 * HEADER_BYTES == store.stored
    assert peak_bytes < 3 * BUFFER_BYTES + 8 * MIB

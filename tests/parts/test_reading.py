"""Reading: from wherever the bytes lie they come back right, and are verified no more often than needed."""

from __future__ import annotations

import contextlib
import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packed import (
    SIZES,
    flip,
    noise,
    put_pack,
    whole,
)

from volume_core.format import zstd
from volume_core.format.entries import CHUNK_BYTES, Codec, Extent
from volume_core.format.names import pack_name
from volume_core.parts import caching, reading
from volume_core.parts.caching import WINDOW_BYTES
from volume_core.parts.reading import SMALL_BYTES, Reader
from volume_core.storage.memory import MemoryStore

# What is there comes back.


@pytest.mark.parametrize("codec", Codec)
def test_any_part_of_any_file_is_read_as_it_was_written(place, codec):
    chunks = [noise(size, size) for size in SIZES]
    refs = put_pack(place.store, chunks, codec)
    content = b"".join(chunks[:3]) + bytes(5000) + chunks[5][1000:9000] + chunks[4]
    extents = (*whole(*refs[:3]), Extent(5000, None), Extent(8000, refs[5], 1000), Extent(len(chunks[4]), refs[4]))
    reader = place.reader()
    source = random.Random(1)
    for _ in range(200):
        offset, size = source.randrange(len(content) + 10), source.randrange(100_000)

        assert content[offset : offset + size] == reader.read(extents, offset, size)
        assert content[offset : offset + size] == reader.read_local(extents, offset, size)
    assert content == b"".join(reader.stream(extents, 7777))
    assert content == b"".join(reader.stream(extents))


@given(st.lists(st.tuples(st.integers(1, 50), st.booleans()), max_size=40), st.data())
@settings(max_examples=60)
def test_many_extents_are_found_by_search_as_by_walking(parts, data):
    store = MemoryStore("many extents")
    content, extents = b"", ()
    for number, (length, is_hole) in enumerate(parts):
        raw = bytes(length) if is_hole else noise(length, number)
        content += raw
        extents += (Extent(length, None),) if is_hole else whole(*put_pack(store, [raw]))
    with Reader(store) as reader:
        for _ in range(5):
            offset = data.draw(st.integers(0, len(content) + 5))
            size = data.draw(st.integers(0, len(content) + 5))

            assert content[offset : offset + size] == reader.read(extents, offset, size)


def test_a_much_divided_file_is_searched():
    store = MemoryStore("much divided")
    refs = put_pack(store, [noise(1 + seed % 7, seed) for seed in range(100)])
    content = b"".join(noise(1 + seed % 7, seed) for seed in range(100))
    files = [whole(*refs)] + [whole(*refs[seed:]) for seed in range(70)]
    with Reader(store) as reader:
        for offset in range(0, len(content) + 2, 3):
            assert content[offset : offset + 20] == reader.read(files[0], offset, 20)
        for seed, extents in enumerate(files[1:]):
            assert noise(1 + seed % 7, seed) == reader.read(extents, 0, 1 + seed % 7)
        assert content == reader.read(files[0], 0, 1000)


def test_nothing_is_read_of_nothing(place):
    reader = place.reader()

    assert b"" == reader.read((), 0, 100) == reader.read_local((), 0, 100)
    assert [] == list(reader.stream(()))
    assert bytes(10) == reader.read((Extent(1 << 50, None),), 1 << 49, 10)
    assert b"" == reader.read((Extent(10, None),), 10, 10)


def test_a_chunk_may_lie_in_two_windows(place):
    chunks = [noise(CHUNK_BYTES, seed) for seed in range(3)]
    refs = put_pack(place.store, chunks)
    reader = place.reader()

    assert b"".join(chunks) == b"".join(reader.stream(whole(*refs), 1 << 20))
    for offset in range(0, 3 * CHUNK_BYTES, 777_777):
        assert b"".join(chunks)[offset : offset + 1000] == reader.read(whole(*refs), offset, 1000)


def test_local_reads_never_ask_the_store(far):
    (ref,) = put_pack(far.store, [b"content"])
    reader = far.reader()

    assert reader.read_local(whole(ref), 0, 7) is None
    assert 0 == far.gets()
    assert b"content" == reader.read(whole(ref), 0, 7)
    assert b"content" == reader.read_local(whole(ref), 0, 7)
    assert 1 == far.gets()


def test_a_local_store_is_read_where_it_lies(make_place):
    place = make_place("local")
    (ref,) = put_pack(place.store, [b"content"])

    assert b"content" == place.reader().read_local(whole(ref), 0, 7)
    assert [] == place.faulty.calls
    assert not place.cache_dir.exists()


def test_what_one_reader_fetched_another_finds(make_place):
    place = make_place("cached")
    (ref,) = put_pack(place.store, [b"content"])
    place.reader().read(whole(ref), 0, 7)

    assert b"content" == place.reader().read_local(whole(ref), 0, 7)


def test_a_file_brings_its_neighbours(far):
    refs = put_pack(far.store, [noise(1000, seed) for seed in range(100)])
    reader = far.reader()
    for seed, ref in enumerate(refs):
        assert noise(1000, seed) == reader.read(whole(ref), 0, 1000)

    assert 1 == far.gets()


@pytest.mark.parametrize("codec", Codec)
def test_neighbours_are_read_together(place, codec):
    contents = [noise(1 + 997 * seed % 9000, seed) for seed in range(60)] + [noise(SMALL_BYTES + 1, 99), b"last"]
    refs = put_pack(place.store, contents, codec)
    files = [whole(ref) for ref in refs]
    files[10:10] = [(), (Extent(50, None),), (*whole(refs[3]), Extent(9, None), *whole(refs[5]))]
    wanted = [*contents[:10], b"", bytes(50), contents[3] + bytes(9) + contents[5], *contents[10:]]
    reader = place.reader()
    for extents in files:
        reader.read(extents, 0, 1 << 20)

    assert wanted == list(map(bytes, reader.read_neighbours(files)))
    assert wanted[::-1] == list(map(bytes, reader.read_neighbours(files[::-1])))
    assert [] == reader.read_neighbours([])


def test_a_neighbour_that_is_damaged_or_not_here_is_none(far):
    refs = put_pack(far.store, [noise(1000, seed) for seed in range(5)])
    elsewhere = put_pack(far.store, [b"elsewhere", b"also"])
    far.damage(refs[2], flip(refs[2], 500))
    reader = far.reader()
    reader.read(whole(refs[0]), 0, 1)

    found = reader.read_neighbours([whole(ref) for ref in refs + elsewhere])

    assert [noise(1000, 0), noise(1000, 1), None, noise(1000, 3), noise(1000, 4), None, None] == found


def test_zstd_is_what_the_format_says():
    """The raw bytes are what the digest is of, not the stored ones."""
    store = MemoryStore("codec")
    (ref,) = put_pack(store, [bytes(1000)], Codec.ZSTD)

    assert zstd.compress(bytes(1000), 1) == store.get(pack_name(ref.pack.hex()))[ref.offset :]
    with contextlib.closing(Reader(store)) as reader:
        assert bytes(1000) == reader.read(whole(ref), 0, 1000)


def test_windows_are_a_quarter_of_a_pack():
    assert (16 << 20) == 4 * WINDOW_BYTES


# What is believed, and for how long.


@pytest.fixture
def hashed(monkeypatch):
    """The sizes that were hashed by reading, in order."""
    sizes = []

    def counting(data):
        sizes.append(len(data))
        return original(data)

    original = reading.digest
    monkeypatch.setattr(reading, "digest", counting)
    return sizes


def test_a_large_chunk_is_verified_once_and_a_small_one_always(place, hashed):
    small, large = put_pack(place.store, [noise(SMALL_BYTES), noise(SMALL_BYTES + 1, 1)])
    reader = place.reader()
    for offset in range(0, SMALL_BYTES, 1 << 14):
        assert noise(SMALL_BYTES + 1, 1)[offset : offset + 100] == reader.read(whole(large), offset, 100)
        assert noise(SMALL_BYTES)[offset : offset + 100] == reader.read(whole(small), offset, 100)

    assert [SMALL_BYTES + 1] + [SMALL_BYTES] * 4 == hashed


def test_a_large_packed_chunk_is_unpacked_once(place, hashed):
    chunk = b"text" * SMALL_BYTES
    (ref,) = put_pack(place.store, [chunk], Codec.ZSTD)
    reader = place.reader()
    for offset in range(0, len(chunk), 1 << 14):
        assert chunk[offset : offset + 100] == reader.read(whole(ref), offset, 100)

    assert [len(chunk)] == hashed


def test_unpacked_chunks_take_bounded_memory(place, hashed):
    chunks = [bytes([seed]) * CHUNK_BYTES for seed in range(6)]
    refs = put_pack(place.store, chunks, Codec.ZSTD)
    reader = place.reader()
    for _ in range(2):
        for ref, chunk in zip(refs, chunks, strict=True):
            assert chunk[:10] == reader.read(whole(ref), 0, 10)

    assert 12 == len(hashed)


def test_each_reader_verifies_for_itself(place, hashed):
    (large,) = put_pack(place.store, [noise(SMALL_BYTES + 1, 1)])
    place.reader().read(whole(large), 0, 1)
    place.reader().read(whole(large), 0, 1)

    assert 2 == len(hashed)


@pytest.mark.loud
def test_what_was_verified_of_one_copy_is_not_believed_of_another(make_place):
    place = make_place("cached")
    (ref,) = put_pack(place.store, [noise(300_000)])
    reader = place.reader()
    reader.read(whole(ref), 0, 1)
    path = place.cache_dir / "packs" / ref.pack.hex() / "0"
    data = bytearray(path.read_bytes())
    data[ref.offset + 200_000] ^= 1
    path.unlink()
    path.write_bytes(data)
    place.readers[0]._windows.close()  # as when many others were opened since

    assert noise(300_000)[199_000:201_000] == reader.read(whole(ref), 199_000, 2000)


def test_what_is_verified_is_remembered_within_bounds(monkeypatch):
    monkeypatch.setattr(reading, "_VERIFIED_MAX", 10)
    verified = reading._Verified()
    for number in range(100):
        verified.add((number, 0, 0))

        assert (number, 0, 0) in verified
    assert 5 <= sum((number, 0, 0) in verified for number in range(100)) <= 10


def test_files_open_stay_within_bounds(make_place, monkeypatch):
    place = make_place("local")
    refs = [put_pack(place.store, [noise(100, seed)])[0] for seed in range(40)]
    before = len(os.listdir("/proc/self/fd"))
    reader = place.reader()
    reader._windows = caching.LocalPacks(place.store.local_root, open_max=5)
    for _ in range(2):
        for seed, ref in enumerate(refs):
            assert noise(100, seed) == reader.read_local(whole(ref), 0, 100)

            assert len(os.listdir("/proc/self/fd")) <= before + 6
    reader.close()

    assert before == len(os.listdir("/proc/self/fd"))

"""Reading: from wherever the bytes lie they come back right, or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
import signal
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packed import put_pack, whole

from volume_core.errors import CorruptObjectError, StorageError
from volume_core.format import zstd
from volume_core.format.entries import CHUNK_BYTES, ChunkRef, Codec, Extent
from volume_core.format.names import pack_name
from volume_core.parts import caching, reading
from volume_core.parts.caching import WINDOW_BYTES, PackCache
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


@pytest.fixture
def make_place(tmp_path):
    places = []

    def make(kind: str) -> Place:
        places.append(Place(kind, tmp_path / str(len(places))))
        return places[-1]

    yield make
    for place in places:
        for reader in place.readers:
            reader.close()
        place.store.close()


@pytest.fixture(params=PLACES)
def place(request, make_place):
    return make_place(request.param)


@pytest.fixture(params=["cached", "memory"])
def far(request, make_place):
    """A store that is not local."""
    return make_place(request.param)


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def flip(chunk: ChunkRef, at: int = 0):
    def change(data: bytearray) -> None:
        data[chunk.offset + at] ^= 0x10

    return change


SIZES = (1, 100, 4096, SMALL_BYTES, SMALL_BYTES + 1, 300_000)


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


# What is damaged does not.


@pytest.mark.loud
@pytest.mark.parametrize("codec", Codec)
@pytest.mark.parametrize("size", SIZES)
def test_a_flipped_byte_in_the_store_is_named_and_never_read(place, size, codec):
    before, ref, after = put_pack(place.store, [noise(50), noise(size, 1), noise(50)], codec)
    place.damage(ref, flip(ref, random.Random(size).randrange(ref.length)))
    reader = place.reader()
    for offset in (0, size // 2, size - 1):
        with pytest.raises(CorruptObjectError, match=f"{ref.pack.hex()}.*offset {ref.offset}"):
            reader.read(whole(ref), offset, 1)
        assert reader.read_local(whole(ref), offset, 1) is None
    assert noise(50) == reader.read(whole(before), 0, 50) == reader.read(whole(after), 0, 50)


@pytest.mark.loud
@pytest.mark.parametrize("size", SIZES)
def test_a_cut_pack_is_named_and_never_read(place, size):
    before, ref = put_pack(place.store, [noise(50), noise(size, 1)])

    def cut(data: bytearray) -> None:
        del data[-1:]

    place.damage(ref, cut)
    reader = place.reader()

    with pytest.raises(CorruptObjectError, match=ref.pack.hex()):
        reader.read(whole(ref), 0, size)
    assert noise(50) == reader.read(whole(before), 0, 50)


@pytest.mark.loud
def test_a_pack_that_ends_windows_before_is_named(far):
    refs = put_pack(far.store, [noise(CHUNK_BYTES, seed) for seed in range(3)])

    def cut(data: bytearray) -> None:
        del data[1000:]

    far.damage(refs[2], cut)
    with pytest.raises(CorruptObjectError, match=refs[2].pack.hex()):
        far.reader().read(whole(refs[2]), 0, 10)


def test_a_missing_pack_is_named(place):
    (ref,) = put_pack(place.store, [b"content"])
    place.lose(ref)

    with pytest.raises(CorruptObjectError, match=f"pack {ref.pack.hex()} is missing"):
        place.reader().read(whole(ref), 0, 7)
    assert place.reader().read_local(whole(ref), 0, 7) is None


@pytest.mark.loud
@pytest.mark.parametrize("codec", Codec)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("how", ["flip", "cut", "empty"])
def test_a_damaged_cache_heals_from_the_store(make_place, size, codec, how):
    place = make_place("cached")
    _, ref = put_pack(place.store, [noise(50), noise(size, 1)], codec)
    place.reader().read(whole(ref), 0, size)
    path = place.cache_dir / "packs" / ref.pack.hex() / "0"
    data = bytearray(path.read_bytes())
    if how == "flip":
        data[ref.offset + ref.length // 2] ^= 1
    elif how == "cut":
        del data[-1:]
    else:
        data.clear()
    path.unlink()
    path.write_bytes(data)
    reader = place.reader()

    assert reader.read_local(whole(ref), 0, size) is None
    assert noise(size, 1) == reader.read(whole(ref), 0, size)
    assert 2 == place.gets()
    assert noise(size, 1) == place.reader().read_local(whole(ref), 0, size)


@pytest.mark.loud
def test_a_wrong_answer_of_the_store_is_asked_for_once_more(far):
    (ref,) = put_pack(far.store, [noise(1000)])
    right = far.store.get(pack_name(ref.pack.hex()))
    far.damage(ref, flip(ref))

    class Mended(FaultyStore):
        def get_range(self, name: str, offset: int, length: int) -> bytes:
            answer = super().get_range(name, offset, length)
            far.store.put(name, right)
            return answer

    far.faulty = Mended(far.store)

    assert noise(1000) == far.reader().read(whole(ref), 0, 1000)
    assert 2 == far.gets()


@pytest.mark.loud
def test_a_chunk_that_unpacks_to_more_than_it_says_is_refused(place):
    (ref,) = put_pack(place.store, [bytes(CHUNK_BYTES)], Codec.ZSTD)
    bomb = ref._replace(raw_length=SMALL_BYTES)

    with pytest.raises(CorruptObjectError):
        place.reader().read(whole(bomb), 0, SMALL_BYTES)


@pytest.mark.parametrize(
    "wrong",
    [{"length": 1 << 60}, {"raw_length": 1 << 60}, {"length": 0}, {"raw_length": 0}, {"offset": -1}, {"length": -5}],
    ids=str,
)
def test_a_chunk_that_none_can_be_is_refused_before_anything_is_read(place, wrong):
    (ref,) = put_pack(place.store, [b"content"])
    reader = place.reader()
    extents = (Extent(7, ref._replace(**wrong)),)

    assert reader.read_local(extents, 0, 7) is None
    with pytest.raises(CorruptObjectError):
        reader.read(extents, 0, 7)
    assert 0 == place.gets()


@pytest.mark.loud
@pytest.mark.parametrize("size", SIZES)
def test_an_extent_beyond_its_chunk_gives_no_byte_of_the_next(place, size):
    ref, _ = put_pack(place.store, [noise(size, 1), noise(size, 2)])
    reader = place.reader()
    reader.read(whole(ref), 0, size)

    with pytest.raises(CorruptObjectError):
        reader.read((Extent(size, ref, 1),), 0, size)


@pytest.mark.loud
def test_an_unknown_codec_is_refused(place):
    (ref,) = put_pack(place.store, [b"content"], Codec.ZSTD)

    with pytest.raises(CorruptObjectError):
        place.reader().read(whole(ref._replace(codec=7)), 0, 7)


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


# Many at once.


def test_threads_share_a_fetch_and_read_right_bytes_while_windows_come_and_go(make_place):
    place = make_place("cached")
    chunks = [noise(SMALL_BYTES + seed, seed) for seed in range(150)]
    refs = put_pack(place.store, chunks)
    reader = Reader(place.faulty, PackCache(place.cache_dir, LIMIT_BYTES, open_max=1))
    place.readers.append(reader)
    wrong = []

    def work(seed: int) -> None:
        source = random.Random(seed)
        for _ in range(150):
            number = source.randrange(150)
            offset = source.randrange(SMALL_BYTES)
            if reader.read(whole(refs[number]), offset, 3000) != chunks[number][offset : offset + 3000]:
                wrong.append(number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))

    assert [] == wrong
    assert place.gets() <= 4


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


def test_a_slow_window_is_fetched_once_for_all_who_wait(far):
    refs = put_pack(far.store, [noise(1000, seed) for seed in range(8)])
    far.faulty = Gated(far.store)
    reader = far.reader()
    with ThreadPoolExecutor(8) as pool:
        reads = [pool.submit(reader.read, whole(ref), 0, 1000) for ref in refs]
        assert far.faulty.asked.acquire(timeout=10)
        far.faulty.gate.set()

        assert [noise(1000, seed) for seed in range(8)] == [read.result(10) for read in reads]
    assert 1 == far.gets()


def test_a_failed_fetch_fails_those_who_waited_and_not_those_who_come_later(far):
    (ref,) = put_pack(far.store, [b"content"])
    far.faulty = FaultyStore(far.store, fail_at=1)
    reader = far.reader()

    with pytest.raises(StorageError):
        reader.read(whole(ref), 0, 7)
    assert b"content" == reader.read(whole(ref), 0, 7)


@pytest.mark.loud
@pytest.mark.parametrize("place", ["local", "cached"], indirect=True)
def test_a_disk_that_cannot_be_read_is_a_storage_error(place, monkeypatch):
    (ref,) = put_pack(place.store, [b"content"])
    reader = place.reader()
    reader.read(whole(ref), 0, 7)

    def broken(*_: object) -> bytes:
        raise OSError(errno.EIO, "broken disk")

    with monkeypatch.context() as patched:
        patched.setattr(caching.os, "pread", broken)

        assert reader.read_local(whole(ref), 0, 7) is None
        with pytest.raises(StorageError, match="broken disk"):
            reader.read(whole(ref), 0, 7)
    assert b"content" == reader.read(whole(ref), 0, 7)


def test_a_child_forked_in_the_middle_of_a_fetch_reads_for_itself(make_place):
    place = make_place("cached")
    extents = packs_of(place.store, 2)
    place.faulty = Gated(place.store)
    reader = place.reader()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(reader.read, extents, 0, 100)
        assert place.faulty.asked.acquire(timeout=10)
        with (
            reader._windows._lock,
            reader._ahead._lock,
            reader._raw._lock,
            reader._ends._lock,
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside threads: the very thing
            child = os.fork()
            if not child:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(20)
                with contextlib.suppress(BaseException):
                    place.faulty.gate.set()
                    found = reader.read(extents, 0, 100), reader.read(extents, CHUNK_BYTES * 4, 100)
                    os._exit(0 if found == (noise(100), noise(100, 11)) else 1)
                os._exit(2)
        _, status = os.waitpid(child, 0)
        place.faulty.gate.set()

        assert 0 == os.waitstatus_to_exitcode(status)
        assert noise(100) == waiting.result(10)


# Ahead.


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


def test_a_file_that_is_read_on_is_fetched_ahead(make_place):
    place = make_place("cached")
    extents = packs_of(place.store, 3)
    reader = place.reader()
    steps = []
    for offset in range(0, 9 * CHUNK_BYTES, 1 << 20):
        before = place.gets()
        reader.read(extents, offset, 1 << 20)
        settle(reader)
        steps.append(place.gets() - before)

    assert steps[0] >= 2  # the window that is needed, and one more
    assert 0 == steps[1]
    assert not any(steps[-16:])  # long before the end all of it is here
    assert 12 == sum(steps)  # four windows of each pack, each of them once


def test_a_file_that_is_read_here_and_there_is_not_fetched_ahead(make_place):
    place = make_place("cached")
    extents = packs_of(place.store, 3)
    reader = place.reader()
    for number in (7, 1, 4):
        reader.read(extents, number * CHUNK_BYTES + 100, 10)
        settle(reader)

    assert place.gets() <= 6  # the chunk of each, which may lie in two windows


def test_reading_file_after_file_brings_the_rest_of_the_pack(make_place):
    place = make_place("cached")
    refs = put_pack(place.store, [noise(SMALL_BYTES, seed) for seed in range(240)])
    reader = place.reader()
    steps = []
    for seed, ref in enumerate(refs):
        before = place.gets()
        assert noise(SMALL_BYTES, seed) == reader.read(whole(ref), 0, SMALL_BYTES)
        settle(reader)
        steps.append(place.gets() - before)

    assert [1, 3] == [step for step in steps if step]


def test_an_error_ahead_is_no_error_of_the_read(make_place):
    place = make_place("cached")
    extents = packs_of(place.store, 2)
    place.lose(extents[3].chunk)
    reader = place.reader()
    for offset in range(0, 3 * CHUNK_BYTES, 1 << 20):
        assert (1 << 20) == len(reader.read(extents, offset, 1 << 20))
        settle(reader)

    with pytest.raises(CorruptObjectError, match="missing"):
        reader.read(extents, 3 * CHUNK_BYTES, 10)


def test_a_closed_reader_fetches_nothing_more(make_place):
    place = make_place("cached")
    extents = packs_of(place.store, 2)
    with place.reader() as reader:
        reader.read(extents, 0, 10)
    before = place.gets()
    reader._ahead.want([(extents[4].chunk.pack, 1)])

    assert before == place.gets()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("readahead")]


@pytest.mark.loud  # what is being fetched ahead just then cannot be kept
def test_the_cache_may_vanish_while_it_is_used(make_place):
    place = make_place("cached")
    refs = put_pack(place.store, [noise(SMALL_BYTES, seed) for seed in range(200)])
    reader = place.reader()
    for seed, ref in enumerate(refs):
        if seed % 20 == 0:
            shutil.rmtree(place.cache_dir, ignore_errors=True)
            reader._windows.close()
        assert noise(SMALL_BYTES, seed) == reader.read(whole(ref), 0, SMALL_BYTES)


def test_zstd_is_what_the_format_says():
    """The raw bytes are what the digest is of, not the stored ones."""
    store = MemoryStore("codec")
    (ref,) = put_pack(store, [bytes(1000)], Codec.ZSTD)

    assert zstd.compress(bytes(1000), 1) == store.get(pack_name(ref.pack.hex()))[ref.offset :]
    with contextlib.closing(Reader(store)) as reader:
        assert bytes(1000) == reader.read(whole(ref), 0, 1000)


def test_windows_are_a_quarter_of_a_pack():
    assert (16 << 20) == 4 * WINDOW_BYTES

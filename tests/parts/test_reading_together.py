"""Many who read at once, in threads and in forked children, and what is fetched before it is asked for."""

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

import pytest
from packed import (
    LIMIT_BYTES,
    Gated,
    noise,
    packs_of,
    put_pack,
    settle,
    whole,
)

from volume_core.errors import CorruptObjectError, StorageError
from volume_core.format.entries import CHUNK_BYTES
from volume_core.parts import caching
from volume_core.parts.caching import PackCache
from volume_core.parts.reading import SMALL_BYTES, Reader
from volume_core.testing.faulty import FaultyStore

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

"""The cache of windows: bounded, shared, never half written, and never the reason that a read fails."""

from __future__ import annotations

import errno
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from volume_core.errors import NotFoundError, StorageError
from volume_core.parts import caching
from volume_core.parts.caching import WINDOW_BYTES, FileWindow, LocalPacks, MemoryWindows, PackCache

PACK = b"p" * 32
OTHER = b"o" * 32
SIZE = 1000


def content(number: int) -> bytes:
    return bytes([number % 256]) * SIZE


def fill(cache: PackCache, numbers, pack: bytes = PACK) -> None:
    for number in numbers:
        cache.fetch(pack, number, lambda number=number: content(number))


def here(cache_dir: Path) -> set[tuple[str, int]]:
    """What lies in a cache, seen without it."""
    return {
        (path.parent.name[:2], int(path.name)) for path in (cache_dir / "packs").glob("*/*") if path.suffix != ".tmp"
    }


def age(cache_dir: Path, number: int, seconds: float, pack: bytes = PACK) -> None:
    then = time.time() - seconds
    os.utime(cache_dir / "packs" / pack.hex() / str(number), (then, then))


@pytest.fixture
def cache(tmp_path):
    cache = PackCache(tmp_path, 1 << 30)
    yield cache
    cache.close()


def never() -> bytes:
    raise AssertionError("it was here")


def test_a_window_is_fetched_once_and_found_after(cache, tmp_path):
    assert cache.find(PACK, 3) is None

    window = cache.fetch(PACK, 3, lambda: content(3))

    assert window is cache.find(PACK, 3) is cache.fetch(PACK, 3, never)
    assert content(3)[10:20] == window.read(3 * WINDOW_BYTES + 10, 10)
    assert content(3)[990:] == window.read(3 * WINDOW_BYTES + 990, 100)
    assert b"" == window.read(3 * WINDOW_BYTES + 5000, 100)
    assert content(3) == (tmp_path / "packs" / PACK.hex() / "3").read_bytes()


def test_another_cache_of_the_same_directory_finds_it(cache, tmp_path):
    fill(cache, [0])
    other = PackCache(tmp_path, 1 << 30)

    found = other.find(PACK, 0)

    assert content(0) == found.read(0, SIZE)
    assert found.serial != cache.find(PACK, 0).serial


def test_an_empty_window_says_where_the_pack_ends(cache):
    assert b"" == cache.fetch(PACK, 9, lambda: b"").read(9 * WINDOW_BYTES, 10)
    assert cache.fetch(PACK, 9, never) is not None


def test_the_longest_unused_go_first(tmp_path):
    cache = PackCache(tmp_path, 1 << 30)
    fill(cache, range(10))
    cache.close()
    for number in range(10):
        age(tmp_path, number, 1000 - number)
    cache.find(PACK, 0)  # used again

    cache.trim(4 * SIZE)

    assert {("70", 0), ("70", 7), ("70", 8), ("70", 9)} == here(tmp_path)
    assert 4 * SIZE == cache.size_bytes()


def test_filling_never_takes_more_than_the_limit(tmp_path):
    limit = 40 * SIZE
    cache = PackCache(tmp_path, limit)
    for number in range(200):
        fill(cache, [number], PACK if number % 2 else OTHER)

        assert cache.size_bytes() <= limit
    assert cache.size_bytes() >= limit * 3 // 4


def test_two_that_fill_one_directory_keep_near_its_limit(tmp_path):
    limit = 64 * SIZE
    caches = [PackCache(tmp_path, limit) for _ in range(2)]
    for number in range(300):
        fill(caches[number % 2], [number])

        assert caches[0].size_bytes() <= limit + limit // 16


def test_a_short_lived_process_trims_what_others_left(tmp_path):
    fill(PackCache(tmp_path, 1 << 30), range(50))

    fill(PackCache(tmp_path, 10 * SIZE), [50])

    assert PackCache(tmp_path, 0).size_bytes() <= 10 * SIZE


def test_a_limit_of_nothing_still_reads(tmp_path):
    cache = PackCache(tmp_path, 0)
    for number in range(5):
        window = cache.fetch(PACK, number, lambda number=number: content(number))

        assert content(number) == window.read(number * WINDOW_BYTES, SIZE)
    assert set() == here(tmp_path)


def test_who_has_a_window_reads_on_when_it_is_evicted(cache, tmp_path):
    window = cache.fetch(PACK, 0, lambda: content(0))
    cache.trim(0)
    cache.close()

    assert set() == here(tmp_path)
    assert [] == list((tmp_path / "packs").iterdir())
    assert content(0) == window.read(0, SIZE)
    assert cache.find(PACK, 0) is None


def test_dropping_takes_the_damaged_copy_away_and_no_newer_one(cache, tmp_path):
    old = cache.fetch(PACK, 0, lambda: b"damaged")
    cache.drop(PACK, 0, old)

    assert cache.find(PACK, 0) is None
    assert set() == here(tmp_path)

    new = cache.fetch(PACK, 0, lambda: content(0))
    cache.drop(PACK, 0, old)

    assert new is cache.find(PACK, 0)
    assert {("70", 0)} == here(tmp_path)


def test_what_a_killed_writer_left_is_removed_when_it_is_old(cache, tmp_path):
    fill(cache, [0])
    directory = tmp_path / "packs" / PACK.hex()
    for name, seconds in (("old.tmp", 7200), ("new.tmp", 10)):
        (directory / name).write_bytes(b"half")
        os.utime(directory / name, (time.time() - seconds,) * 2)

    cache.trim()

    assert {"0", "new.tmp"} == {path.name for path in directory.iterdir()}
    assert SIZE == cache.size_bytes()


def test_what_is_no_directory_is_passed_over(cache, tmp_path):
    fill(cache, [0])
    (tmp_path / "packs" / "stray").write_bytes(b"x")

    assert SIZE == cache.size_bytes()


def test_only_as_many_are_open_as_may_be(tmp_path):
    cache = PackCache(tmp_path, 1 << 30, open_max=3)
    before = len(os.listdir("/proc/self/fd"))
    fill(cache, range(20))

    assert before + 3 == len(os.listdir("/proc/self/fd"))
    cache.close()
    assert before == len(os.listdir("/proc/self/fd"))


def test_a_descriptor_is_closed_when_its_last_user_is_gone(tmp_path):
    (tmp_path / "f").write_bytes(b"content")
    descriptor = os.open(tmp_path / "f", os.O_RDONLY)
    window = FileWindow(descriptor, 0)

    assert b"tent" == window.read(3, 10)
    del window
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(descriptor)


@pytest.mark.loud
def test_a_full_disk_makes_reading_slow_and_not_fail(cache, tmp_path, monkeypatch):
    real = os.write

    def full(descriptor: int, data) -> int:
        if len(data) == SIZE:
            return real(descriptor, data[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(caching.os, "write", full)
        window = cache.fetch(PACK, 0, lambda: content(0))

    assert content(0) == window.read(0, SIZE)
    assert window is cache.find(PACK, 0)
    assert [] == list((tmp_path / "packs" / PACK.hex()).iterdir())


@pytest.mark.loud
def test_a_cache_that_cannot_be_made_is_none(tmp_path):
    (tmp_path / "packs").write_bytes(b"a file is in the way")
    cache = PackCache(tmp_path, 1 << 30)

    assert cache.find(PACK, 0) is None
    assert content(0) == cache.fetch(PACK, 0, lambda: content(0)).read(0, SIZE)
    assert 0 == cache.size_bytes()


@pytest.mark.loud
def test_windows_that_cannot_be_removed_fail_no_read(tmp_path, monkeypatch):
    cache = PackCache(tmp_path, SIZE)

    def refuse(path: str) -> None:
        raise PermissionError(errno.EPERM, "not yours", path)

    with monkeypatch.context() as patched:
        patched.setattr(caching.os, "unlink", refuse)
        fill(cache, range(3))

    assert 3 == len(here(tmp_path))


def test_a_directory_removed_under_a_writer_is_made_again(cache, tmp_path, monkeypatch):
    real = caching.tempfile.mkstemp
    removed = []

    def racing(suffix: str, prefix: str, directory: str):
        if not removed:
            removed.append(directory)
            os.rmdir(directory)
        return real(suffix, prefix, directory)

    monkeypatch.setattr(caching.tempfile, "mkstemp", racing)
    fill(cache, [0])

    assert [str(tmp_path / "packs" / PACK.hex())] == removed
    assert {("70", 0)} == here(tmp_path)


def test_an_error_of_fetching_reaches_all_who_wait_and_nobody_after(cache):
    asked, go = threading.Event(), threading.Event()

    def fail() -> bytes:
        asked.set()
        assert go.wait(10)
        raise StorageError("the store is away")

    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(cache.fetch, PACK, 0, fail)
        assert asked.wait(10)
        others = [pool.submit(cache.fetch, PACK, 0, never) for _ in range(3)]
        go.set()
        for waiting in (first, *others):
            error = waiting.exception(10)

            # One that came after the failure was asked for itself.
            assert isinstance(error, StorageError | AssertionError)
    assert isinstance(first.exception(), StorageError)
    assert content(0) == cache.fetch(PACK, 0, lambda: content(0)).read(0, SIZE)


def test_an_interrupted_fetch_is_taken_over_by_one_who_waited(cache):
    asked, go = threading.Event(), threading.Event()

    def interrupted() -> bytes:
        asked.set()
        assert go.wait(10)
        raise KeyboardInterrupt

    def begin() -> bool:
        with pytest.raises(KeyboardInterrupt):
            cache.fetch(PACK, 0, interrupted)
        return True

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(begin)
        assert asked.wait(10)
        second = pool.submit(cache.fetch, PACK, 0, lambda: content(0))
        go.set()

        assert first.result(10)
        assert content(0) == second.result(10).read(0, SIZE)


def test_memory_keeps_the_windows_used_last():
    windows = MemoryWindows(open_max=2)
    for number in range(3):
        windows.fetch(PACK, number, lambda number=number: content(number))
        windows.fetch(PACK, 0, lambda: content(0))

    assert windows.find(PACK, 1) is None
    assert content(2) == windows.find(PACK, 2).read(2 * WINDOW_BYTES, SIZE)
    windows.drop(PACK, 0, windows.find(PACK, 0))
    assert windows.find(PACK, 0) is None


def test_a_pack_of_a_local_store_is_one_window(tmp_path):
    path = tmp_path / "packs" / PACK.hex()[:2] / PACK.hex()
    path.parent.mkdir(parents=True)
    path.write_bytes(b"whole pack")
    packs = LocalPacks(tmp_path)

    window = packs.find(PACK, 0)

    assert b"pack" == window.read(6, 100)
    packs.drop(PACK, 0, window)
    assert path.exists()
    assert window.serial != packs.find(PACK, 0).serial
    with pytest.raises(NotFoundError, match=OTHER.hex()):
        packs.fetch(OTHER, 0, never)


def test_a_pack_that_cannot_be_opened_is_a_storage_error(tmp_path):
    path = tmp_path / "packs" / PACK.hex()[:2] / PACK.hex()
    path.parent.mkdir(parents=True)
    path.symlink_to(path.name)

    with pytest.raises(StorageError, match="cannot be opened"):
        LocalPacks(tmp_path).find(PACK, 0)

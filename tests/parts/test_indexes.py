"""Indexes in the cache: what is handed out is what the manifest names, whatever store and disk hold."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path

import pytest
from packed import put_pack, whole

from volume_core.errors import CorruptObjectError, StorageError
from volume_core.format import zstd
from volume_core.format.digests import digest, hex_digest
from volume_core.format.entries import Entry, Kind
from volume_core.format.manifest import LayerRef
from volume_core.format.names import layer_name
from volume_core.parts.indexes import IndexCache, build_index, open_index, open_layer, open_view, pack_index
from volume_core.storage.local import LocalStore
from volume_core.storage.memory import MemoryStore
from volume_core.storage.protocol import Store
from volume_core.testing.faulty import FaultyStore
from volume_core.testing.strict import StrictStore


def index_of(*names: bytes) -> bytes:
    return build_index([(b"", name, Entry(Kind.FILE)) for name in sorted(names)])


def put_layer(store: Store, index: bytes) -> LayerRef:
    stored, ref = pack_index(index)
    store.put(layer_name(ref.digest), stored)
    return ref


@pytest.fixture(params=["memory", "local"])
def store(request, tmp_path):
    inner = MemoryStore(str(tmp_path)) if request.param == "memory" else LocalStore(tmp_path / "store")
    store = FaultyStore(StrictStore(inner))
    yield store
    store.inner.close()


@pytest.fixture
def cache(tmp_path):
    return IndexCache(tmp_path / "cache")


def left_over(cache: IndexCache) -> list[str]:
    directory = cache._dir
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


def test_a_layer_comes_back_as_the_file_that_was_packed(store, cache):
    index = index_of(b"a", b"b")
    ref = put_layer(store, index)

    (path,) = cache.fetch(store, [ref])

    assert index == path.read_bytes()
    assert (hex_digest(index), len(index), 2) == (ref.index_digest, ref.index_bytes, ref.rows)
    assert [path.name] == left_over(cache)
    assert cache.path(ref) == path


def test_an_index_is_packed_from_a_file_as_from_memory(tmp_path):
    index = index_of(b"a")
    (tmp_path / "index").write_bytes(index)

    assert pack_index(index) == pack_index(tmp_path / "index")


def test_what_is_here_is_not_fetched_again(store, cache):
    ref = put_layer(store, index_of(b"a"))
    store.calls.clear()

    assert cache.fetch(store, [ref]) == cache.fetch(store, [ref])
    assert 1 == len(store.calls)


def test_what_this_process_made_is_not_fetched_at_all(store, cache):
    index = index_of(b"a")
    ref = put_layer(store, index)
    store.calls.clear()

    path = cache.add(ref, index)

    assert (path,) == cache.fetch(store, [ref])
    assert [] == store.calls


def test_a_wrong_index_is_not_taken_in(store, cache):
    ref = put_layer(store, index_of(b"a"))

    with pytest.raises(CorruptObjectError, match=ref.digest):
        cache.add(ref, index_of(b"b"))
    assert [] == left_over(cache)


def test_layers_are_fetched_in_order_once_each_and_at_the_same_time(store, cache):
    refs = [put_layer(store, index_of(b"%d" % number)) for number in range(6)]
    together = threading.Barrier(6, timeout=10)

    class Meeting(FaultyStore):
        def get_range(self, name: str, offset: int, length: int) -> bytes:
            together.wait()
            return super().get_range(name, offset, length)

    paths = cache.fetch(Meeting(store), [*refs, refs[0]])

    assert [ref.index_digest for ref in [*refs, refs[0]]] == [path.stem for path in paths]
    assert () == cache.fetch(store, [])


def test_a_view_opens_what_was_fetched(store, cache):
    refs = [put_layer(store, index_of(b"a", b"b")), put_layer(store, index_of(b"c"))]

    view = open_view(cache.fetch(store, refs))

    assert [b"a", b"b", b"c"] == [node.name for node in view.listing(view.root)]
    view.close()
    open_view([]).close()


def test_a_view_of_which_one_layer_cannot_be_opened_is_none(store, cache, tmp_path):
    (path,) = cache.fetch(store, [put_layer(store, index_of(b"a"))])
    (tmp_path / "broken").write_bytes(b"x" * 5000)

    for wrong in (tmp_path / "broken", tmp_path / "missing"):
        with pytest.raises(CorruptObjectError, match=wrong.name):
            open_view([path, wrong])


@pytest.mark.parametrize("name", ["a b", "per%25cent", "quest?ion", "ha#sh", "\udcff", "a&mode=rw"])
def test_a_cache_may_have_any_name(store, tmp_path, name):
    cache = IndexCache(tmp_path / name)
    (path,) = cache.fetch(store, [put_layer(store, index_of(b"a"))])

    reader = open_layer(path)

    assert 1 == reader.counts()[0]
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader._db.execute("DELETE FROM entry")
    reader.close()


@pytest.mark.parametrize("how", ["flip", "cut", "empty", "longer", "other"])
def test_a_damaged_file_of_the_cache_is_fetched_again(store, cache, how):
    index = index_of(b"a")
    ref = put_layer(store, index)
    (path,) = cache.fetch(store, [ref])
    data = bytearray(index)
    if how == "flip":
        data[len(data) // 2] ^= 1
    path.write_bytes({"cut": index[:-1], "empty": b"", "longer": index + b"\0", "other": index_of(b"b")}.get(how, data))

    assert index == cache.fetch(store, [ref])[0].read_bytes()


def put_aged(store: Store, cache: IndexCache, number: int) -> LayerRef:
    """A layer in the store and in the cache, handed out the longer ago the lower its number."""
    ref = put_layer(store, index_of(b"%d" % number))
    (path,) = cache.fetch(store, [ref])
    age(path, 10_000 - number)
    return ref


def age(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


def test_a_full_cache_gives_up_what_was_handed_out_longest_ago(store, tmp_path):
    cache = IndexCache(tmp_path / "cache")
    refs = [put_aged(store, cache, number) for number in range(6)]
    cache.fetch(store, [refs[0]])  # handed out again
    size = refs[0].index_bytes

    full = IndexCache(tmp_path / "cache", 4 * size)
    full.fetch(store, [put_layer(store, index_of(b"new"))])

    assert [True, False, False, False, True, True] == [full.path(ref).exists() for ref in refs]


def test_what_was_handed_out_just_now_stays_in_the_fullest_cache(store, tmp_path):
    cache = IndexCache(tmp_path / "cache", 0)
    paths = cache.fetch(store, [put_layer(store, index_of(b"%d" % number)) for number in range(4)])

    assert all(path.exists() for path in paths)


HOLDER = """
import sys
from pathlib import Path
from volume_core.parts.indexes import open_view
view = open_view([Path(sys.argv[1])])
print("open", flush=True)
sys.stdin.read()
"""


def test_what_some_process_has_open_stays(store, tmp_path):
    cache = IndexCache(tmp_path / "cache", 0)
    refs = [put_layer(store, index_of(b"%d" % number)) for number in range(4)]
    here, there, closed, never = cache.fetch(store, refs)
    reader = open_layer(here)
    open_layer(closed).close()
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, there], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert "open\n" == holder.stdout.readline()
        for path in (here, there, closed, never):
            age(path, 9999)
        cache.fetch(store, [put_layer(store, index_of(b"new"))])

        assert [True, True, False, False] == [path.exists() for path in (here, there, closed, never)]
        holder.kill()
    reader.close()
    cache.fetch(store, [put_layer(store, index_of(b"newer"))])

    assert not here.exists()
    assert not there.exists()


def test_what_a_killed_writer_left_is_removed_when_it_is_old(store, cache):
    (path,) = cache.fetch(store, [put_layer(store, index_of(b"a"))])
    for name, seconds in (("old.tmp", 7200), ("new.tmp", 10)):
        path.with_name(name).write_bytes(b"half")
        age(path.with_name(name), seconds)

    cache.fetch(store, [put_layer(store, index_of(b"b"))])

    assert ["new.tmp"] == [name for name in left_over(cache) if name.endswith(".tmp")]


def test_no_descriptor_is_left_open(store, cache):
    (path,) = cache.fetch(store, [put_layer(store, index_of(b"a"))])
    before = len(os.listdir("/proc/self/fd"))
    reader = open_layer(path)
    assert 1 == reader.counts()[0]

    reader.close()
    reader.close()

    path.write_bytes(b"no index")
    with pytest.raises(CorruptObjectError):
        open_layer(path)
    path.unlink()
    with pytest.raises(CorruptObjectError):
        open_layer(path)

    assert before == len(os.listdir("/proc/self/fd"))


def refused(cache: IndexCache, store: Store, ref: LayerRef) -> None:
    with pytest.raises(CorruptObjectError, match=ref.digest):
        cache.fetch(store, [ref])
    assert [] == left_over(cache)


def test_any_flipped_byte_of_a_layer_is_found_out(store, cache):
    ref = put_layer(store, index_of(b"a"))
    whole = store.get(layer_name(ref.digest))
    source = random.Random(7)
    for _ in range(60):
        data = bytearray(whole)
        data[source.randrange(len(data))] ^= source.randint(1, 255)
        store.put(layer_name(ref.digest), bytes(data))

        refused(cache, store, ref)


def test_a_cut_a_longer_and_a_missing_layer_are_found_out(store, cache):
    ref = put_layer(store, index_of(b"a"))
    whole = store.get(layer_name(ref.digest))
    for wrong in (whole[:-1], whole[: len(whole) // 2], b"", whole + b"\0"):
        store.put(layer_name(ref.digest), wrong)

        refused(cache, store, ref)
    store.delete(layer_name(ref.digest))
    refused(cache, store, ref)


def crafted(store: Store, stored: bytes, **fields) -> LayerRef:
    ref = LayerRef(hex_digest(stored), len(stored), fields["index_digest"], fields["index_bytes"], 1)
    store.put(layer_name(ref.digest), stored)
    return ref


def test_a_layer_that_unpacks_to_another_index_is_found_out(store, cache):
    index = index_of(b"a")
    stored, ref = pack_index(index)

    refused(cache, store, crafted(store, stored, index_digest="0" * 64, index_bytes=len(index)))
    refused(cache, store, crafted(store, stored, index_digest=ref.index_digest, index_bytes=len(index) + 1))
    refused(cache, store, crafted(store, stored, index_digest=ref.index_digest, index_bytes=len(index) - 1))
    refused(cache, store, crafted(store, stored + b"x", index_digest=ref.index_digest, index_bytes=len(index)))
    refused(cache, store, crafted(store, b"no zstd", index_digest=ref.index_digest, index_bytes=len(index)))


def test_a_bomb_takes_neither_memory_nor_disk(store, cache):
    bomb = zstd.compress(bytes(512 << 20), 1)
    ref = crafted(store, bomb, index_digest="0" * 64, index_bytes=1 << 20)
    tracemalloc.start()
    try:
        refused(cache, store, ref)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 8 << 20


def test_no_more_is_asked_for_than_the_manifest_promises(store, cache):
    ref = put_layer(store, index_of(b"a"))
    store.put(layer_name(ref.digest), store.get(layer_name(ref.digest)) + bytes(50 << 20))
    tracemalloc.start()
    try:
        refused(cache, store, ref)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 8 << 20


def test_an_unsound_index_never_gets_its_name(store, cache):
    index = index_of(b"a")
    connection = sqlite3.connect(":memory:")
    connection.deserialize(index)
    connection.execute("UPDATE entry SET name = x'2e2e2f2e2e2f657463'")
    connection.commit()
    evil = connection.serialize()
    connection.close()

    refused(cache, store, put_layer(store, evil))


def test_a_store_that_fails_leaves_nothing_behind(cache, store):
    ref = put_layer(store, index_of(b"a"))
    failing = FaultyStore(store, fail_at=1)

    with pytest.raises(StorageError):
        cache.fetch(failing, [ref])
    assert [] == left_over(cache)
    assert cache.fetch(failing, [ref])


def test_what_is_no_index_is_not_packed_and_not_opened():
    for data in (b"", b"x" * 5000):
        with pytest.raises(CorruptObjectError):
            pack_index(data)
        with pytest.raises(CorruptObjectError):
            open_index(data)


def test_an_index_in_memory_can_be_opened():
    (ref,) = put_pack(MemoryStore("index in memory"), [b"content"])
    reader = open_index(build_index([(b"", b"f", Entry(Kind.FILE, size=7, content=whole(ref)))]))

    assert ref == reader.chunk(digest(b"content"))
    reader.close()


def test_a_cache_that_takes_nothing_is_named(store, cache):
    ref = put_layer(store, index_of(b"a"))
    cache._dir.parent.mkdir()
    cache._dir.symlink_to("a disk that is not there")

    with pytest.raises(StorageError, match=r"cannot be kept in .*/cache/layers: .*VOLUME_STATE_DIR"):
        cache.fetch(store, [ref])


def test_several_are_fetched_where_no_thread_can_begin(store, cache, monkeypatch):
    refs = [put_layer(store, index_of(name)) for name in (b"a", b"b", b"c")]

    def refuse(_thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)

    assert [ref.index_digest for ref in refs] == [path.stem for path in cache.fetch(store, refs)]

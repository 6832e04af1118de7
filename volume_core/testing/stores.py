"""The suite that every store must pass: inherit from StoreContract and give two fixtures.

    class TestMyStore(StoreContract):
        @pytest.fixture
        def store(self): ...            # an empty store, opened as users open it
        @pytest.fixture
        def raw(self, store): ...       # a mapping of the same objects that does not use it

`raw` (name -> bytes, assignable) is how the suite looks with another eye than the code under test.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from volume_core.errors import ConflictError, InvalidNameError, NotFoundError, StorageError
from volume_core.storage.protocol import Store

Raw = MutableMapping[str, bytes]
MIB = 1 << 20
DATA = bytes(range(256)) * 5
BAD_NAMES = [
    "",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "a/../b",
    "a/./b",
    "a\0b",
    "a\nb",
    "a\\b",
    "\x7f",
    "\udcff",
    "x" * 256,
    "x/" * 500 + "x",
]
ODD_NAMES = [
    "a b",
    "a+b",
    "a%20b",
    "100%",
    "ä/日本/😀",
    "q?x=1&y=2",
    "a#b",
    "tilde~name",
    "(a)'b'!c*",
    'quote"s',
    "a:b@c",
    "[x]{y}|z^`",
    "a=b,c;d$e",
    "<angle>&amp;",
    "...dots",
    "-dash",
    "x" * 200,
    "/".join("abcdefghij"),
]


class RawDirectory(Raw):
    """The files of a directory store, by name; `.store/` left out."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __getitem__(self, name: str) -> bytes:
        try:
            return (self.root / name).read_bytes()
        except FileNotFoundError:
            raise KeyError(name) from None

    def __setitem__(self, name: str, data: bytes) -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_bytes(data)

    def __delitem__(self, name: str) -> None:
        (self.root / name).unlink()

    def __iter__(self) -> Iterator[str]:
        for path in self.root.rglob("*"):
            name = path.relative_to(self.root).as_posix()
            if path.is_file() and not name.startswith(".store/"):
                yield name

    def __len__(self) -> int:
        return sum(1 for _ in self)


class StoreContract:
    """Fixtures to give: `store`, and `raw`."""

    # A slow server's suite may list fewer; it should stay above one page of its listings.
    listed = 1100
    # False where the server is known to ignore conditions: then the swaps must be refused.
    conditions = True

    def test_it_is_a_store_and_knows_its_url(self, store: Store) -> None:
        assert isinstance(store, Store)
        assert "://" in store.url
        assert store.url.endswith("://") or not store.url.endswith("/")

    def test_what_was_put_is_there_whole(self, store: Store, raw: Raw) -> None:
        store.put("packs/a", DATA)

        assert DATA == raw["packs/a"]
        assert DATA == store.get("packs/a")
        assert type(store.get("packs/a")) is bytes

    def test_what_somebody_else_put_is_there(self, store: Store, raw: Raw) -> None:
        raw["heads/x.json"] = b"{}"

        assert b"{}" == store.get("heads/x.json")
        assert 2 == store.info("heads/x.json").size_bytes
        assert ["heads/x.json"] == [found.name for found in store.names("heads/")]

    def test_put_replaces(self, store: Store, raw: Raw) -> None:
        store.put("a", b"a long first value")
        store.put("a", b"short")

        assert b"short" == raw["a"] == store.get("a")

    @pytest.mark.parametrize("size_bytes", [0, 1, 17 * MIB + 3])
    def test_sizes_from_nothing_to_more_than_a_pack(self, store: Store, raw: Raw, size_bytes: int) -> None:
        data = (b"0123456789abcdef" * (size_bytes // 16 + 1))[:size_bytes]
        store.put_new("packs/p", memoryview(data))

        assert size_bytes == store.info("packs/p").size_bytes
        assert data == store.get("packs/p")
        assert data == raw["packs/p"]
        assert data[-2:] == store.get_range("packs/p", max(0, size_bytes - 2), 100)

    def test_a_buffer_may_be_used_again_after_the_call(self, store: Store) -> None:
        buffer = bytearray(b"first")
        store.put("a", memoryview(buffer))
        store.put_new("b", memoryview(buffer))
        buffer[:] = b"other"

        assert b"first" == store.get("a") == store.get("b")

    def test_what_is_not_there_is_not_found(self, store: Store) -> None:
        calls: list[Callable[[], object]] = [
            lambda: store.get("versions/none"),
            lambda: store.get_range("versions/none", 0, 1),
            lambda: store.info("versions/none"),
        ]
        for call in calls:
            with pytest.raises(NotFoundError, match="versions/none"):
                call()
        with pytest.raises(KeyError):
            store.get("versions/none")

        assert [] == list(store.names("versions/"))

    @pytest.mark.parametrize(
        ("offset", "length"),
        [(0, 0), (0, 1), (0, 1280), (0, 1281), (1, 3), (1279, 1), (1279, 2), (1280, 1), (1281, 5), (9999, 9), (700, 0)],
    )
    def test_a_range_is_exact(self, store: Store, offset: int, length: int) -> None:
        store.put("a", DATA)

        assert DATA[offset : offset + length] == store.get_range("a", offset, length)

    def test_a_range_of_nothing(self, store: Store) -> None:
        store.put("empty", b"")

        assert (
            b"" == store.get_range("empty", 0, 10) == store.get_range("empty", 5, 1) == store.get_range("empty", 0, 0)
        )
        with pytest.raises(NotFoundError):
            store.get_range("none", 0, 0)

    @pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, -1)])
    def test_a_negative_range_is_a_mistake(self, store: Store, offset: int, length: int) -> None:
        store.put("a", DATA)

        with pytest.raises(ValueError, match="negative"):
            store.get_range("a", offset, length)

    def test_put_new_never_overwrites(self, store: Store, raw: Raw) -> None:
        store.put_new("packs/a", b"abc")

        with pytest.raises(ConflictError, match="packs/a"):
            store.put_new("packs/a", b"xyz")
        assert b"abc" == raw["packs/a"]

    def test_put_new_of_the_same_bytes_is_success(self, store: Store, raw: Raw) -> None:
        store.put_new("packs/a", b"abc")
        store.put_new("packs/a", memoryview(b"abc"))

        assert b"abc" == raw["packs/a"]

    def test_of_many_creators_one_wins(self, store: Store, raw: Raw) -> None:
        if not self._conditions_are_kept(store):
            return
        values = [bytes([value]) * 1000 for value in range(8)]
        won = _together([partial(store.put_new, "tags/v/t", value) for value in values])

        assert 1 == won.count(True)
        assert values[won.index(True)] == raw["tags/v/t"]

    def test_swap_makes_and_replaces(self, store: Store, raw: Raw) -> None:
        if not self._conditions_are_kept(store):
            return
        store.swap("heads/v.json", None, b"one")
        store.swap("heads/v.json", b"one", b"two")

        assert b"two" == raw["heads/v.json"] == store.get("heads/v.json")

    @pytest.mark.parametrize("old", [None, b"stale", b""])
    def test_a_stale_swap_changes_nothing(self, store: Store, raw: Raw, old: bytes | None) -> None:
        if not self._conditions_are_kept(store):
            return
        store.swap("heads/v.json", None, b"one")

        with pytest.raises(ConflictError, match="heads/v"):
            store.swap("heads/v.json", old, b"two")
        assert b"one" == raw["heads/v.json"]

    def test_swap_of_what_is_gone_is_a_conflict(self, store: Store, raw: Raw) -> None:
        if not self._conditions_are_kept(store):
            return

        with pytest.raises(ConflictError):
            store.swap("heads/v.json", b"one", b"two")
        assert "heads/v.json" not in raw

    def test_swaps_of_many_threads_lose_nothing(self, store: Store, raw: Raw) -> None:
        if not self._conditions_are_kept(store):
            return
        store.swap("heads/n", None, b"0")

        def count() -> None:
            for _ in range(3):
                _increment(store, "heads/n")

        assert [True] * 4 == _together([count] * 4)
        assert b"12" == raw["heads/n"]

    def test_no_reader_sees_a_part(self, store: Store) -> None:
        values = [bytes([65 + value]) * (200_000 + value) for value in range(4)]
        store.put("leases/x", values[0])
        done = threading.Event()
        seen: list[bytes] = []

        def read() -> None:
            while not done.is_set():
                seen.append(store.get("leases/x"))

        def write() -> None:
            for value in values * 2:
                store.put("leases/x", value)
            done.set()

        _together([read, write], finally_=done.set)

        assert set(seen) <= set(values)

    def test_names_by_any_prefix(self, store: Store) -> None:
        names = ["packs/aa/1", "packs/aa/2", "packs/ab/3", "pack", "q"]
        for name in names:
            store.put(name, name.encode())

        def listed(prefix: str) -> list[str]:
            return sorted(found.name for found in store.names(prefix))

        assert sorted(names) == listed("")
        assert ["packs/aa/1", "packs/aa/2"] == listed("packs/aa/") == listed("packs/aa")
        assert ["packs/aa/1", "packs/aa/2", "packs/ab/3"] == listed("packs/a") == listed("packs/")
        assert ["packs/aa/2"] == listed("packs/aa/2")
        assert ["pack", "packs/aa/1", "packs/aa/2", "packs/ab/3"] == listed("pack")
        assert [] == listed("r") == listed("x" * 300 + "/y") == listed("packs/aa/1/") == listed("packs/zz/")

    def test_a_listing_tells_size_and_time(self, store: Store) -> None:
        store.put("a/b", b"12345")
        (found,) = store.names("a/")

        assert found == store.info("a/b")
        assert ("a/b", 5) == found[:2]
        assert abs(found.modified_ns - time.time_ns()) < 60e9

    def test_a_listing_has_no_last_page(self, store: Store) -> None:
        names = [f"layers/{number:05d}" for number in range(self.listed)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda name: store.put(name, b"x"), names))

        assert names == sorted(found.name for found in store.names("layers/"))

    def test_what_was_just_written_or_removed_is_listed_so(self, store: Store, raw: Raw) -> None:
        for number in range(5):
            store.put_new(f"intents/{number}", b"x")
            store.delete(f"intents/{number - 1}")

            assert [f"intents/{number}"] == [found.name for found in store.names("intents/")]
        assert ["intents/4"] == list(raw)

    def test_delete_twice(self, store: Store, raw: Raw) -> None:
        store.put("a/b/c", b"x")
        store.delete("a/b/c")
        store.delete("a/b/c")
        store.delete("never/there")

        assert "a/b/c" not in raw
        with pytest.raises(NotFoundError):
            store.get("a/b/c")
        store.put_new("a/b/c", b"again")

    @pytest.mark.parametrize("name", ODD_NAMES)
    def test_odd_names_are_kept(self, store: Store, raw: Raw, name: str) -> None:
        store.put_new(name, b"one")
        store.put(name, b"two")

        assert [name] == list(raw)
        assert b"two" == store.get(name) == raw[name]
        assert [name] == [found.name for found in store.names("")]
        assert [name] == [found.name for found in store.names(name[:-1])]
        store.delete(name)
        assert [] == list(store.names(""))

    @pytest.mark.parametrize("name", BAD_NAMES)
    def test_names_that_no_store_can_hold(self, store: Store, name: str) -> None:
        calls: list[Callable[[], object]] = [
            lambda: store.get(name),
            lambda: store.get_range(name, 0, 1),
            lambda: store.put_new(name, b"x"),
            lambda: store.put(name, b"x"),
            lambda: store.swap(name, None, b"x"),
            lambda: store.info(name),
            lambda: store.delete(name),
        ]
        for call in calls:
            with pytest.raises(InvalidNameError):
                call()

    def _conditions_are_kept(self, store: Store) -> bool:
        """Return `conditions`; where it is False, see that the store refuses to swap and says so."""
        if not self.conditions:
            with pytest.raises(StorageError) as caught:
                store.swap("heads/refused", None, b"x")
            assert not caught.value.transient
            assert not store.honours_conditions
        return self.conditions


def _increment(store: Store, name: str) -> None:
    while True:
        old = store.get(name)
        try:
            return store.swap(name, old, b"%d" % (int(old) + 1))
        except ConflictError:
            continue


def _together(calls: list[Callable[[], object]], finally_: Callable[[], object] = lambda: None) -> list[bool]:
    """Run *calls* at once; return for each whether it ended without a ConflictError."""
    gate = threading.Barrier(len(calls))

    def run(call: Callable[[], object]) -> bool:
        gate.wait(timeout=10)
        try:
            call()
        except ConflictError:
            return False
        except BaseException:
            finally_()
            raise
        return True

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))

"""Intents: written before anything else, kept alive, never brought back, always gone at the end."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from volume_core.errors import CorruptObjectError, StorageError
from volume_core.format.digests import hex_digest
from volume_core.format.intent import Intent
from volume_core.parts.intents import HeldIntent, iso_utc
from volume_core.storage.memory import MemoryStore
from volume_core.storage.protocol import Store
from volume_core.testing.faulty import WRITES, Call, FaultyStore
from volume_core.testing.strict import StrictStore

BASE = f"memory:///versions/volume/{'b' * 64}.json"


@pytest.fixture
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    memory = MemoryStore(request.node.nodeid)
    yield StrictStore(memory)
    memory.clear()


class Elapsed:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def intents(store: Store) -> list[Intent]:
    return [Intent.from_bytes(found.name, store.get(found.name)) for found in store.names("intents/")]


def poll(condition: Callable[[], object], seconds: float = 20) -> None:
    pause = threading.Event()
    for _ in range(int(seconds * 200)):
        if condition():
            return
        pause.wait(0.005)
    raise AssertionError("it did not come to pass in time")


def test_it_says_what_is_going_on(store):
    with HeldIntent(store, "volume", [BASE, BASE], clock=lambda: 1_700_000_000_123_456_789) as held:
        held.begin()
        (found,) = intents(store)

    moment = "2023-11-14T22:13:20.123456Z"
    assert Intent(found.id, "volume", 1800, moment, moment, (BASE,), 0) == found
    assert held.name == f"intents/{found.id}.json"


def test_a_commit_that_writes_nothing_has_none(store):
    counting = FaultyStore(store)
    with HeldIntent(counting, "volume"):
        pass

    assert [] == counting.calls


def test_the_store_says_what_it_is_before_the_first_intent(store):
    counting = FaultyStore(store, operations=WRITES)
    with HeldIntent(counting, "volume") as held:
        held.begin()

    writes = [call.name for call in counting.calls]
    assert writes.index("format.json") < writes.index(held.name)
    assert Call("delete", held.name) == counting.calls[-1]


def test_many_threads_begin_it_once(store):
    counting = FaultyStore(store)
    with HeldIntent(counting, "volume") as held:
        threads = [threading.Thread(target=held.begin) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert 1 == counting.calls.count(Call("put_new", held.name))


def test_it_is_gone_afterwards_also_when_the_commit_fails(store):
    def fail() -> None:
        with HeldIntent(store, "volume") as held:
            held.begin()
            assert 1 == len(intents(store))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()

    assert [] == intents(store)


def test_its_answer_may_be_lost_and_it_is_removed_all_the_same(store):
    with HeldIntent(store, "warm up the probe") as held:
        held.begin()
    faulty = FaultyStore(store, 1, after=True, operations=frozenset({"put_new"}))
    with pytest.raises(StorageError, match="injected"), HeldIntent(faulty, "volume") as held:
        held.begin()

    assert 1 == faulty.faults
    assert [] == intents(store)


def test_one_that_cannot_be_removed_does_not_fail_the_commit(store):
    with HeldIntent(FaultyStore(store, 1, operations=frozenset({"delete"})), "volume") as held:
        held.begin()

    assert 1 == len(intents(store))


def test_it_is_renewed_while_it_is_held(store):
    with HeldIntent(store, "volume", lifetime_s=1) as held:
        held.begin()
        first = intents(store)[0]
        poll(lambda: intents(store)[0].write >= 2)
        last = intents(store)[0]
        held.check()

    assert (first.id, first.started_at) == (last.id, last.started_at)
    assert first.renewed_at < last.renewed_at


def test_no_thread_outlives_it(store):
    before = threading.active_count()
    with HeldIntent(store, "volume") as held:
        held.begin()
        assert before + 1 == threading.active_count()

    assert before == threading.active_count()


def test_a_commit_that_slept_too_long_may_not_publish(store):
    elapsed = Elapsed()
    with HeldIntent(store, "volume", elapsed_s=elapsed, lifetime_s=600) as held:
        held.begin()
        elapsed.now_s += 599
        held.check()
        held.renew()
        elapsed.now_s += 599
        held.check()
        elapsed.now_s += 1
        with pytest.raises(StorageError, match="nothing was published") as caught:
            held.check()

        assert held.has_lapsed()
        assert caught.value.transient  # the same commit again is right


def test_a_lapsed_one_is_not_renewed(store):
    elapsed = Elapsed()
    with HeldIntent(store, "volume", elapsed_s=elapsed, lifetime_s=600) as held:
        held.begin()
        elapsed.now_s += 600
        held.renew()

        assert 0 == intents(store)[0].write


def test_the_lifetime_counts_from_before_the_store_was_asked(store):
    elapsed = Elapsed()

    class Slow(FaultyStore):
        def put_new(self, name: str, data: bytes | memoryview) -> None:
            super().put_new(name, data)
            if name.startswith("intents/"):
                elapsed.now_s += 600

    with HeldIntent(Slow(store), "volume", elapsed_s=elapsed, lifetime_s=600) as held:
        held.begin()

        assert held.has_lapsed()


@pytest.mark.parametrize("conditions", [True, False])
def test_one_that_somebody_deleted_is_not_brought_back(store, conditions):
    class Store_(FaultyStore):
        honours_conditions = conditions

    with HeldIntent(Store_(store), "volume") as held:
        held.begin()
        store.delete(held.name)
        held.renew()
        with pytest.raises(StorageError, match="lost its intent"):
            held.check()

    assert [] == intents(store)


def test_a_deleted_one_is_noticed_without_any_renewal(store):
    with HeldIntent(store, "volume") as held:
        held.begin()
        store.delete(held.name)
        with pytest.raises(StorageError, match="lost its intent"):
            held.check()


@pytest.mark.parametrize("conditions", [True, False])
@pytest.mark.parametrize("after", [True, False])
def test_a_renewal_that_fails_is_tried_again(store, after, conditions):
    """Also one that took place although its answer was lost."""

    class Store_(FaultyStore):
        honours_conditions = conditions

    faulty = Store_(store, 1, after=after, operations=frozenset({"swap", "put"}))
    with HeldIntent(faulty, "volume") as held:
        held.begin()
        with pytest.raises(StorageError, match="injected"):
            held.renew()
        held.renew()
        held.check()

        assert 2 == intents(store)[0].write  # no two attempts hold the same bytes
        assert 1 == faulty.faults


def test_it_lives_by_the_clock_of_the_store():
    intent = Intent("id", "volume", 10, "", "")

    assert intent.is_live(5_000_000_000, 14_999_999_999)
    assert not intent.is_live(5_000_000_000, 15_000_000_000)


def signed(fields: dict[str, object]) -> bytes:
    def spelled(value: dict[str, object]) -> bytes:
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()

    others = {key: value for key, value in fields.items() if key != "digest"}
    return spelled({**others, "digest": hex_digest(spelled(others))})


def test_any_changed_byte_of_it_is_noticed():
    whole = Intent("id", "volume", 10, "1970", "1970", (BASE,), 7).to_bytes()
    assert whole == signed(json.loads(whole))

    for position in range(len(whole)):
        for damaged in (whole[:position], whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :]):
            with pytest.raises(CorruptObjectError):
                Intent.from_bytes("intents/id.json", damaged)


@pytest.mark.parametrize(
    "change",
    [
        {"format": "volume-intent/2"},
        {"lifetime_s": 0},
        {"lifetime_s": "long"},
        {"versions": None},
        {"surprise": 1},
        {"volume": ...},
        {"format": ...},
    ],
)
def test_what_is_no_intent_of_this_release_is_refused(change):
    fields = {**json.loads(Intent("id", "volume", 10, "", "").to_bytes()), **change}
    data = signed({key: value for key, value in fields.items() if value is not ...})

    with pytest.raises(CorruptObjectError, match="intents/id"):
        Intent.from_bytes("intents/id.json", data)


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"{", b"\xff", b"3"])
def test_no_bytes_crash_the_decoder(data):
    with pytest.raises(CorruptObjectError):
        Intent.from_bytes("intents/id.json", data)


@pytest.mark.parametrize(
    ("time_ns", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (1_700_000_000_000_000_999, "2023-11-14T22:13:20.000000Z"),
        (253_402_300_799_999_999_000, "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_times_are_exact(time_ns, text):
    assert text == iso_utc(time_ns)


def test_the_page_of_the_format_has_every_field():
    page = Path(__file__).parents[2].joinpath("docs/format/intent.md").read_text()

    fields = json.loads(Intent("id", "volume", 10, "", "").to_bytes())
    assert set(fields) == {line.split("`")[1] for line in page.splitlines() if line.startswith("| `")}

"""The one place that retries: how often, how long, and what becomes of a lost answer."""

import logging

import pytest

from volume_core.errors import ConflictError, NotFoundError, StorageError
from volume_core.storage.retrying import Policy, Retrying
from volume_core.testing.faulty import FaultyStore

POLICY = Policy(attempts=5, within_s=100, first_s=1, longest_s=4)


class Clock:
    """Time that passes only when slept."""

    def __init__(self):
        self.now_s = 0.0
        self.slept = []

    def __call__(self):
        return self.now_s

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now_s += seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def retrying(memory, clock):
    """Make a store that fails as told, inside the one that retries; chance always draws the longest wait."""

    def make(*args, policy=POLICY, **kwargs):
        faulty = FaultyStore(memory, *args, **kwargs)
        return Retrying(faulty, policy, clock=clock, sleep=clock.sleep, chance=lambda: 1.0), faulty

    return make


CALLS = {
    "get": lambda store: store.get("there"),
    "get_range": lambda store: store.get_range("there", 1, 2),
    "put_new": lambda store: store.put_new("new", b"x"),
    "put": lambda store: store.put("new", b"x"),
    "swap": lambda store: store.swap("there", b"old", b"new"),
    "info": lambda store: store.info("there")[:2],
    "names": lambda store: sorted(found.name for found in store.names("")),
    "delete": lambda store: store.delete("there"),
}


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("call", CALLS)
def test_a_passing_failure_is_not_seen(memory, retrying, call, after):
    memory.put("there", b"old")
    expected = CALLS[call](FaultyStore(memory))
    memory.clear()
    memory.put("there", b"old")
    store, faulty = retrying(1, after=after, operations=frozenset({call}))

    assert expected == CALLS[call](store)
    assert 1 == faulty.faults
    if call == "swap":
        assert b"new" == memory.get("there")
    if call in {"put", "put_new"}:
        assert b"x" == memory.get("new")


@pytest.mark.parametrize("call", CALLS)
def test_a_lasting_failure_is_raised_after_the_last_try(memory, retrying, clock, call):
    memory.put("there", b"old")
    store, faulty = retrying(1, persistent=True, operations=frozenset({call}))

    with pytest.raises(StorageError, match="injected") as caught:
        CALLS[call](store)
    assert caught.value.transient
    assert POLICY.attempts == faulty.faults
    assert [1, 2, 4, 4] == clock.slept


@pytest.mark.parametrize("call", CALLS)
def test_a_permanent_failure_is_raised_at_once(memory, retrying, clock, call):
    memory.put("there", b"old")
    store, faulty = retrying(1, kind="permanent", operations=frozenset({call}))

    with pytest.raises(StorageError, match="injected") as caught:
        CALLS[call](store)
    assert not caught.value.transient
    assert (1, []) == (faulty.faults, clock.slept)


def test_no_try_begins_after_the_time_is_up(memory, retrying, clock):
    store, faulty = retrying(1, persistent=True, policy=Policy(attempts=100, within_s=10, first_s=1, longest_s=4))

    with pytest.raises(StorageError):
        store.get("a")
    assert [1, 2, 4] == clock.slept
    assert 4 == faulty.faults


def test_a_try_that_took_all_the_time_is_the_last(memory, clock):
    class Hanging:
        url = "slow://"

        def get(self, name):
            clock.now_s += 60
            raise StorageError("timed out", transient=True)

    with pytest.raises(StorageError, match="timed out"):
        Retrying(Hanging(), Policy(within_s=100), clock=clock, sleep=clock.sleep).get("a")
    assert 1 == len(clock.slept)


def test_waits_are_random_up_to_their_bound(memory, clock):
    draws = iter([0.5, 0.0, 0.25, 1.0])
    faulty = FaultyStore(memory, 1, persistent=True)

    with pytest.raises(StorageError):
        Retrying(faulty, POLICY, clock=clock, sleep=clock.sleep, chance=lambda: next(draws, 0)).get("a")
    assert [0.5, 0.0, 1.0, 4.0] == clock.slept


def test_answers_that_are_no_failures_are_not_tried_again(memory, retrying, clock):
    memory.put("there", b"old")
    store, faulty = retrying()

    with pytest.raises(NotFoundError):
        store.get("none")
    with pytest.raises(ConflictError):
        store.put_new("there", b"other")
    with pytest.raises(ConflictError):
        store.swap("there", b"stale", b"other")
    assert (3, []) == (len(faulty.calls), clock.slept)


class TestALostAnswerOfASwap:
    """FaultyStore(after=True): it happened, and the caller was told it failed."""

    def test_our_own_value_is_success(self, memory, retrying, clock):
        memory.put("h", b"old")
        store, faulty = retrying(1, after=True, operations=frozenset({"swap"}))
        store.swap("h", b"old", b"ours")

        assert (1, []) == (len(faulty.calls), clock.slept)
        assert b"ours" == memory.get("h")

    def test_creating_is_decided_too(self, memory, retrying):
        store, _ = retrying(1, after=True, operations=frozenset({"swap"}))
        store.swap("h", None, b"ours")

        assert b"ours" == memory.get("h")

    def test_somebody_elses_value_leaves_it_open(self, memory, retrying):
        """Ours may have been there in between: only the object's own history can tell."""
        memory.put("h", b"old")
        store, faulty = retrying(1, after=True, operations=frozenset({"swap"}))
        swap = faulty.inner.swap
        faulty.inner.swap = lambda *args: (swap(*args), memory.put("h", b"theirs, after ours"))

        with pytest.raises(StorageError, match="answer was lost"):
            store.swap("h", b"old", b"ours")
        assert b"theirs, after ours" == memory.get("h")

    def test_a_late_effect_is_no_conflict_with_ourselves(self, memory, retrying):
        """The first request arrives after we looked, and before our second one."""
        memory.put("h", b"old")
        store, faulty = retrying(1, operations=frozenset({"swap"}))
        store._sleep = lambda _: memory.swap("h", b"old", b"ours")
        store.swap("h", b"old", b"ours")

        assert 2 == len(faulty.calls)
        assert b"ours" == memory.get("h")

    def test_a_conflict_after_an_uncertain_try_stays_uncertain(self, memory, retrying):
        memory.put("h", b"old")
        store, _ = retrying(1, operations=frozenset({"swap"}))
        store._sleep = lambda _: memory.put("h", b"theirs")

        with pytest.raises(StorageError, match="injected"):
            store.swap("h", b"old", b"ours")

    def test_what_cannot_be_read_back_is_raised_as_it_was(self, memory, retrying):
        memory.put("h", b"old")
        store, _ = retrying(1, persistent=True)

        with pytest.raises(StorageError, match="injected: swap"):
            store.swap("h", b"old", b"ours")


def test_creating_what_a_lost_answer_created_is_success_and_others_bytes_are_not(memory, retrying):
    store, _ = retrying(1, after=True)
    store.put_new("a", b"ours")
    store, faulty = retrying(1)
    memory.put("b", b"theirs")

    with pytest.raises(ConflictError):
        store.put_new("b", b"ours")
    assert (b"ours", b"theirs", 2) == (memory.get("a"), memory.get("b"), len(faulty.calls))


def test_a_listing_begun_again_names_nothing_twice(memory, retrying):
    for number in range(20):
        memory.put(f"a/{number}", b"x")
    store, faulty = retrying(1, after=True)

    assert 20 == len(list(store.names("a/")))
    assert 2 == len(faulty.calls)


def test_retries_are_told_to_the_log_as_news_not_as_warnings(memory, retrying, caplog):
    memory.put("there", b"old")
    store, _ = retrying(1)
    with caplog.at_level(logging.INFO, "volume_core"):
        store.get("there")

    assert ["INFO"] == [record.levelname for record in caplog.records]
    assert "try 1 to read memory://" in caplog.text

"""The exclusive lock: one at a time, whatever dies, sleeps or is lost, and however wrong the clocks are."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from heads_kit import VOLUME, version

from volume_core.errors import ConflictError, StorageError
from volume_core.format.lease import Lease
from volume_core.format.names import lock_name
from volume_core.parts.heads import delete_head, move_head, read_head
from volume_core.parts.leases import HeldLease
from volume_core.storage.local import LocalStore
from volume_core.storage.memory import MemoryStore
from volume_core.storage.protocol import Store
from volume_core.storage.retrying import Retrying
from volume_core.testing.faulty import FaultyStore
from volume_core.testing.strict import StrictStore


@pytest.fixture
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    memory = MemoryStore(request.node.nodeid)
    yield StrictStore(memory)
    memory.clear()


class World:
    """A clock that moves only when somebody waits: *on_wait* is what happens meanwhile."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.on_wait = lambda: None

    def elapsed_s(self) -> float:
        return self.now_s

    def sleep(self, pause_s: float) -> None:
        assert pause_s > 0
        self.now_s += pause_s
        self.on_wait()

    def lease(self, store: Store, holder: str, **options: object) -> HeldLease:
        return HeldLease(store, VOLUME, holder=holder, elapsed_s=self.elapsed_s, sleep=self.sleep, **options)


def there(store: Store) -> Lease:
    return Lease.from_bytes("lock", store.get(lock_name(VOLUME)))


def test_one_at_a_time_and_each_with_a_greater_token(store):
    with HeldLease(store, VOLUME, holder="ann").acquire() as ann:
        ann.check()
        with pytest.raises(ConflictError, match="is locked by ann since "):
            HeldLease(store, VOLUME, holder="bob").acquire(0)
        assert "ann" == there(store).holder
    with HeldLease(store, VOLUME, holder="bob").acquire(0) as bob:
        bob.check()
        with pytest.raises(ConflictError, match="bob has it; nothing was published"):
            ann.check()

    assert (1, 2, False) == (ann.token, bob.token, there(store).held)


def test_other_volumes_are_other_locks(store):
    with HeldLease(store, VOLUME).acquire(0), HeldLease(store, "other").acquire(0) as other:
        other.check()


def test_who_holds_it_is_said_by_default(store):
    with HeldLease(store, VOLUME).acquire():
        assert f"(process {os.getpid()})" in there(store).holder


def test_whoever_waits_gets_it_when_it_is_given_back(store):
    world = World()
    ann = world.lease(store, "ann").acquire(0)
    world.on_wait = ann.release

    world.lease(store, "bob").acquire(5).release()

    assert world.now_s < 1005


def test_whoever_waits_in_vain_is_told_by_whom(store):
    world = World()
    with world.lease(store, "ann").acquire(0) as ann:
        world.on_wait = ann.renew
        with pytest.raises(ConflictError, match="locked by ann"):
            world.lease(store, "bob").acquire(500)
        assert 1500 <= world.now_s < 1502


def test_without_a_limit_one_waits_until_the_holder_shows_that_it_lives(store):
    world = World()
    with world.lease(store, "ann").acquire(0) as ann:
        world.on_wait = lambda: ann.renew() if world.now_s > 1010 else None
        with pytest.raises(ConflictError, match="locked by ann"):
            world.lease(store, "bob").acquire()
        assert 1010 < world.now_s < 1013


def test_a_holder_that_does_not_renew_loses_it_after_its_own_lifetime(store):
    world = World()
    ann = world.lease(store, "ann", lifetime_s=300).acquire(0)
    with world.lease(store, "bob", lifetime_s=10).acquire() as bob:
        assert 1300 <= world.now_s < 1302
        assert "bob" == there(store).holder
        bob.check()
        with pytest.raises(ConflictError, match="bob has it"):
            ann.check()
        ann.renew()
        ann.release()
        bob.check()


def test_a_renewal_at_the_last_moment_counts(store):
    world = World()
    with world.lease(store, "ann", lifetime_s=60).acquire(0) as ann:
        before = world.now_s
        world.on_wait = lambda: ann.renew() if before + 58 < world.now_s < before + 60 else None
        with pytest.raises(ConflictError, match="locked by ann"):
            world.lease(store, "bob").acquire(100)
        ann.check()


def test_times_of_day_play_no_part(store):
    """Ann's clock is a day behind, bob's a day ahead."""
    day_ns = 86_400 * 10**9
    with HeldLease(store, VOLUME, holder="ann", clock=lambda: 10 * day_ns).acquire(0) as ann:
        with pytest.raises(ConflictError, match="locked by ann since 1970-01-11"):
            HeldLease(store, VOLUME, holder="bob", clock=lambda: 12 * day_ns).acquire(0)
        ann.check()


def test_it_is_renewed_while_it_is_held(store):
    with HeldLease(store, VOLUME, lifetime_s=1).acquire() as held:
        first = there(store)
        pause = threading.Event()
        for _ in range(4000):
            if there(store).write >= 2:
                break
            pause.wait(0.005)
        last = there(store)
        held.check()

    assert last.write >= 2
    assert first == dataclasses.replace(last, write=0, renewed_at=first.renewed_at)


def test_no_thread_outlives_it(store):
    before = threading.active_count()
    with HeldLease(store, VOLUME).acquire():
        assert before + 1 == threading.active_count()

    assert before == threading.active_count()


def test_a_holder_that_slept_too_long_knows_it_by_itself(store):
    world = World()
    with world.lease(store, "ann").acquire(0) as ann:
        world.now_s += 59
        ann.check()
        world.now_s += 1
        with pytest.raises(ConflictError, match=r"longer than 60 s; nothing was published"):
            ann.check()
        ann.renew()
        assert 0 == there(store).write


def test_a_lock_whose_object_was_deleted_is_lost(store):
    with HeldLease(store, VOLUME).acquire() as held:
        store.delete(lock_name(VOLUME))
        held.renew()
        with pytest.raises(ConflictError, match="was lost"):
            held.check()
        assert [] == list(store.names("leases/"))


def test_a_check_before_it_was_acquired_fails(store):
    with pytest.raises(ConflictError):
        HeldLease(store, VOLUME).check()


def test_a_store_that_ignores_conditions_has_no_locks(store):
    class Ignoring(FaultyStore):
        honours_conditions = False

    with pytest.raises(StorageError, match="cannot have locks"):
        HeldLease(Ignoring(store), VOLUME).acquire()


# -- the token


def test_the_head_refuses_whoever_lost_the_lock_after_its_check(store):
    """Ann is stopped between her check and her last write; bob has the lock by then, but has written nothing."""
    head = move_head(store, VOLUME, None, version(store), "create")
    world = World()
    ann = world.lease(store, "ann").acquire(0)
    read_by_ann = read_head(store, VOLUME)
    ann.check()
    bob = world.lease(store, "bob").acquire()

    with pytest.raises(ConflictError):
        move_head(store, VOLUME, read_by_ann, version(store), "commit", token=ann.token)
    with pytest.raises(ConflictError, match="was lost"):
        move_head(store, VOLUME, read_head(store, VOLUME), version(store), "commit", token=ann.token)
    assert head.history == read_head(store, VOLUME).history
    move_head(store, VOLUME, read_head(store, VOLUME), version(store), "commit", token=bob.token)


def test_the_token_goes_on_from_the_head_where_the_lock_is_gone(store):
    move_head(store, VOLUME, None, version(store), "create")
    for _ in range(3):
        HeldLease(store, VOLUME).acquire(0).release()
    store.delete(lock_name(VOLUME))

    assert 4 == HeldLease(store, VOLUME).acquire(0).token == read_head(store, VOLUME).fence


def test_the_token_goes_on_from_the_lock_where_the_head_is_gone(store):
    move_head(store, VOLUME, None, version(store), "create")
    HeldLease(store, VOLUME).acquire(0).release()
    delete_head(store, VOLUME)

    assert 2 == HeldLease(store, VOLUME).acquire(0).token


def test_many_threads_take_turns(store):
    """Each counts up what it read, under the lock and nothing else: no count is lost."""
    move_head(store, VOLUME, None, version(store), "create")
    store.put("probes/count", b"0")
    tokens: list[int] = []

    def work() -> None:
        for _ in range(3):
            with HeldLease(store, VOLUME, lifetime_s=20).acquire(60) as held:
                count = int(store.get("probes/count"))
                tokens.append(held.token)
                store.put("probes/count", b"%d" % (count + 1))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert b"12" == store.get("probes/count")
    assert list(range(1, 13)) == tokens


# -- faults


@pytest.mark.faults
@pytest.mark.parametrize("behind_retries", [False, True])
@pytest.mark.parametrize("persistent", [False, True], ids=["once", "for ever"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_every_call_of_a_lock_may_fail(request, after, persistent, behind_retries):
    """Acquired, it is held alone; not acquired, it is free at once or lapses; and the next one gets it."""
    for fail_at in itertools.count(1):
        memory = MemoryStore(f"{request.node.nodeid}/{fail_at}")
        store, world = StrictStore(memory), World()
        move_head(store, VOLUME, None, version(store), "create")
        world.lease(store, "before").acquire(0).release()
        faulty = FaultyStore(store, fail_at, persistent, after)
        ann = world.lease(Retrying(faulty, sleep=lambda _: None) if behind_retries else faulty, "ann")
        try:
            ann.acquire(0)
        except StorageError:
            assert faulty.faults
            assert persistent or not behind_retries
        else:
            assert (ann.token, "ann") == (2, there(store).holder)
            with pytest.raises(ConflictError, match="locked by ann"):
                world.lease(store, "bob").acquire(0)
            call_all(ann)
        with world.lease(store, "bob").acquire() as bob:
            bob.check()
            assert bob.token == read_head(store, VOLUME).fence
            with pytest.raises((ConflictError, StorageError)):
                ann.check()
        ann.release()
        memory.clear()
        if not faulty.faults:
            break
    assert fail_at > 8


def call_all(ann: HeldLease) -> None:
    """Renew twice, check and give back: a fault is a StorageError, and never a lock that is thought lost."""
    for call in (ann.renew, ann.renew, ann.check):
        with suppress(StorageError):
            call()
    ann.release()


@pytest.mark.faults
def test_a_renewal_whose_answer_was_lost_is_no_loss(store):
    faulty = FaultyStore(store, 2, after=True, operations=frozenset({"swap"}))
    with HeldLease(faulty, VOLUME).acquire() as held:
        with pytest.raises(StorageError, match="injected"):
            held.renew()
        held.renew()
        held.check()
        assert 2 == there(store).write
        assert 1 == faulty.faults


# -- processes


class Holder:
    """tests/parts/lock_holder.py, started and heard."""

    def __init__(self, directory: Path, lifetime_s: int, offset_s: int) -> None:
        script = Path(__file__).with_name("lock_holder.py")
        command = [sys.executable, str(script), str(directory), str(lifetime_s), str(offset_s)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def hear(self, word: str) -> object:
        said = json.loads(self.process.stdout.readline())
        return said[word]

    def go(self) -> None:
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()

    def send(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)


@contextmanager
def holder(store: LocalStore, lifetime_s: int = 1, offset_s: int = 0) -> Iterator[Holder]:
    started = Holder(store.local_root, lifetime_s, offset_s)
    try:
        yield started
    finally:
        started.process.kill()
        started.process.wait()
        started.process.stdin.close()
        started.process.stdout.close()


@pytest.fixture
def directory(tmp_path) -> LocalStore:
    store = LocalStore(tmp_path / "store")
    move_head(store, VOLUME, None, version(store), "create")
    return store


@pytest.mark.faults
@pytest.mark.parametrize("offset_s", [0, -7200, 7200])
def test_a_holder_that_was_killed_is_succeeded(directory, offset_s):
    """Its clock may be hours before or behind."""
    with holder(directory, offset_s=offset_s) as first:
        assert 1 == first.hear("token")
        first.send(signal.SIGKILL)
        first.process.wait()
        with pytest.raises(ConflictError, match="is locked by"):
            HeldLease(directory, VOLUME).acquire(0)

        assert 2 == HeldLease(directory, VOLUME).acquire().token


@pytest.mark.faults
@pytest.mark.parametrize("offset_s", [0, -7200, 7200])
def test_a_holder_that_lives_is_not(directory, offset_s):
    """For several of its lifetimes."""
    with holder(directory, lifetime_s=2, offset_s=offset_s) as first:
        assert 1 == first.hear("token")
        with pytest.raises(ConflictError, match="is locked by"):
            HeldLease(directory, VOLUME).acquire(5)
        first.go()
        assert first.hear("moved") == read_head(directory, VOLUME).version


@pytest.mark.faults
@pytest.mark.parametrize("wait_out", [False, True], ids=["while another has it", "after another had it"])
def test_a_holder_that_was_stopped_cannot_commit_when_it_comes_back(directory, wait_out):
    with holder(directory) as first:
        assert 1 == first.hear("token")
        first.send(signal.SIGSTOP)
        second = HeldLease(directory, VOLUME).acquire()
        head = read_head(directory, VOLUME)
        if wait_out:
            head = move_head(directory, VOLUME, head, version(directory), "commit", token=second.token)
            second.release()
        first.send(signal.SIGCONT)
        first.go()

        assert "was lost" in first.hear("error")
        assert head == read_head(directory, VOLUME)
        second.release()


@pytest.mark.faults
def test_a_forked_child_holds_nothing(directory):
    with HeldLease(directory, VOLUME).acquire() as held:
        child = os.fork()
        if child == 0:
            try:
                held.release()
                held.check()
                os._exit(1)
            except ConflictError as error:
                os._exit(0 if "was forked from" in str(error) else 2)
        assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        held.check()


def test_a_holder_without_threads_has_one_lifetime(store, monkeypatch):
    """As when the interpreter is ending."""

    def start(_self: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", start)
    with HeldLease(store, VOLUME).acquire() as held:
        held.check()

    assert not there(store).held

"""Heads: one of several movers wins, a lost answer is decided, and nothing is ever guessed."""

from __future__ import annotations

import itertools
import threading
import uuid
from collections.abc import Iterator

import pytest
from heads_kit import VOLUME, Meddling, locator, version

from volume_core.errors import ConflictError, StorageError
from volume_core.format.head import HISTORY_MAX
from volume_core.format.manifest import Action
from volume_core.format.names import head_name, version_name
from volume_core.parts.heads import delete_head, fence_head, is_ancestor, move_head, person, read_head
from volume_core.storage.local import LocalStore
from volume_core.storage.memory import MemoryStore
from volume_core.storage.protocol import Store
from volume_core.storage.retrying import Retrying
from volume_core.testing.faulty import Crashed, FaultyStore
from volume_core.testing.strict import StrictStore


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path) -> Iterator[Store]:
    if request.param == "file":
        yield StrictStore(LocalStore(tmp_path / "store"))
        return
    memory = MemoryStore(request.node.nodeid)
    yield StrictStore(memory)
    memory.clear()


def retrying(store: Store) -> Retrying:
    return Retrying(store, sleep=lambda _: None)


def test_a_volume_without_a_head_has_none(store):
    assert read_head(store, VOLUME) is None


def test_who_moved_it_when_and_from_what(store):
    first, second = version(store), version(store)
    action = Action(engine="engine", run="run")

    head = move_head(store, VOLUME, None, first, "create", by="ann@here", clock=lambda: 0)
    head = move_head(store, VOLUME, head, second, "commit", action=action, clock=lambda: 1_000)

    assert head == read_head(store, VOLUME)
    assert (second, 0) == (head.version, head.fence)
    latest, oldest = head.history
    assert (second, first, "1970-01-01T00:00:00.000001Z", "commit", person(), action) == (
        latest.version, latest.previous, latest.moved_at, latest.why, latest.by, latest.action,
    )  # fmt: skip
    assert (first, None, "ann@here", None) == (oldest.version, oldest.previous, oldest.by, oldest.action)
    assert latest.write_id != oldest.write_id
    assert head.is_all


def test_the_history_is_bounded_and_the_newest_stay(store):
    versions = [version(store) for _ in range(HISTORY_MAX + 5)]
    head = None
    for each in versions:
        head = move_head(store, VOLUME, head, each, "commit")

    assert versions[: -HISTORY_MAX - 1 : -1] == [move.version for move in read_head(store, VOLUME).history]
    assert not head.is_all


def test_of_two_that_read_the_same_head_one_moves_it(store):
    head = move_head(store, VOLUME, None, version(store), "create")
    ours, theirs = version(store), version(store)
    move_head(store, VOLUME, head, theirs, "commit", by="bob@there")

    with pytest.raises(ConflictError, match=rf"moved meanwhile: to {theirs[:12]}, by bob@there .*\(commit\)"):
        move_head(store, VOLUME, head, ours, "commit")
    with pytest.raises(ConflictError, match="moved meanwhile"):
        move_head(store, VOLUME, None, ours, "create")
    assert theirs == read_head(store, VOLUME).version


def test_moves_of_many_threads_lose_nothing(store):
    start = version(store)
    move_head(store, VOLUME, None, start, "create")
    made: list[str] = []

    def work() -> None:
        for _ in range(10):
            while True:
                head = read_head(store, VOLUME)
                ours = version(store, head.version)
                try:
                    move_head(store, VOLUME, head, ours, "commit")
                except ConflictError:
                    continue
                made.append(ours)
                break

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    moved = [move.version for move in read_head(store, VOLUME).history]
    assert {*made, start} == set(moved)
    assert len(moved) == len(made) + 1
    assert all(move.previous == older for move, older in zip(read_head(store, VOLUME).history, moved[1:], strict=False))


def test_a_deleted_head_can_be_made_again(store):
    head = move_head(store, VOLUME, None, version(store), "create")
    delete_head(store, VOLUME)
    delete_head(store, VOLUME)

    with pytest.raises(ConflictError):
        move_head(store, VOLUME, head, version(store), "commit")
    assert move_head(store, VOLUME, None, version(store), "create") == read_head(store, VOLUME)


def test_a_store_that_ignores_conditions_has_no_heads(store):
    class Ignoring(FaultyStore):
        honours_conditions = False

    with pytest.raises(StorageError, match=r"cannot have named heads: .*ignores the conditions") as caught:
        move_head(Ignoring(store), VOLUME, None, version(store), "create")
    assert not caught.value.transient
    assert read_head(store, VOLUME) is None


# -- answers that are lost


@pytest.mark.faults
@pytest.mark.parametrize("behind_retries", [False, True])
@pytest.mark.parametrize("kind", ["transient", "permanent"])
@pytest.mark.parametrize("persistent", [False, True], ids=["once", "for ever"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("exists", [False, True])
def test_every_call_of_a_move_may_fail(store, exists, after, persistent, kind, behind_retries):
    """Told that it moved, it has; told of a conflict, somebody else has; else it may be either, and can be read."""
    for fail_at in itertools.count(1):
        volume = f"volume-{fail_at}"
        found = move_head(store, volume, None, version(store), "create") if exists else None
        ours = version(store)
        faulty = FaultyStore(store, fail_at, persistent, after, kind)
        try:
            moved = move_head(retrying(faulty) if behind_retries else faulty, volume, found, ours, "commit")
        except StorageError:  # and never a ConflictError
            assert faulty.faults
            now = read_head(store, volume)
            assert now == found or ours == now.version
            if after and not persistent:
                pytest.fail("the swap took place, and the next call could see it")
        else:
            assert moved == read_head(store, volume)
        if not faulty.faults:
            assert 2 == fail_at, faulty.calls  # one call: the swap
            break


@pytest.mark.faults
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("exists", [False, True])
def test_whoever_dies_in_a_move_has_moved_it_or_not(store, exists, after):
    """And the next one, who reads it, can move it on."""
    found = move_head(store, VOLUME, None, version(store), "create") if exists else None
    ours = version(store)
    with pytest.raises(Crashed):
        move_head(FaultyStore(store, 1, after=after, kind="crash"), VOLUME, found, ours, "commit")
    now = read_head(store, VOLUME)

    assert ours == now.version if after else found == now
    move_head(store, VOLUME, now, version(store), "commit")


@pytest.mark.faults
@pytest.mark.parametrize("others", [1, 2, HISTORY_MAX + 3])
@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("behind_retries", [False, True])
def test_others_move_on_between_our_lost_swap_and_the_look(store, others, exists, behind_retries):
    """Also so far that the history has forgotten ours: what they committed came from it."""
    found = move_head(store, VOLUME, None, version(store), "create") if exists else None
    ours = version(store, *([found.version] if found else []))

    def meddle() -> None:
        for _ in range(others):
            head = read_head(store, VOLUME)
            move_head(store, VOLUME, head, version(store, head.version), "commit")

    meddling = Meddling(store, head_name(VOLUME), meddle, takes_effect=True)
    moved = move_head(retrying(meddling) if behind_retries else meddling, VOLUME, found, ours, "commit")

    assert meddling.meddled
    assert ours == moved.version
    now = read_head(store, VOLUME)
    assert ours != now.version
    assert is_ancestor(store, locator(store, ours), locator(store, now.version))
    with pytest.raises(ConflictError):  # what came back is what we made it, not where it stands
        move_head(store, VOLUME, moved, version(store), "commit")


@pytest.mark.faults
@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("behind_retries", [False, True])
def test_others_move_it_and_our_swap_had_no_effect(store, exists, behind_retries):
    found = move_head(store, VOLUME, None, version(store), "create") if exists else None

    def meddle() -> None:
        move_head(store, VOLUME, read_head(store, VOLUME), version(store), "commit", by="bob@there")

    meddling = Meddling(store, head_name(VOLUME), meddle, takes_effect=False)
    with pytest.raises(ConflictError, match="by bob@there"):
        move_head(retrying(meddling) if behind_retries else meddling, VOLUME, found, version(store), "commit")


@pytest.mark.faults
@pytest.mark.parametrize("takes_effect", [False, True])
def test_what_nothing_can_tell_is_no_conflict_and_no_success(store, takes_effect):
    """Back to an older version, while others moved it more often than the history holds."""
    old = version(store)
    newer = version(store, old)
    found = move_head(store, VOLUME, move_head(store, VOLUME, None, old, "create"), newer, "commit")

    def meddle() -> None:
        for _ in range(HISTORY_MAX + 1):
            move_head(store, VOLUME, read_head(store, VOLUME), version(store, newer), "set")

    meddling = Meddling(store, head_name(VOLUME), meddle, takes_effect=takes_effect)
    with pytest.raises(StorageError, match="injected"):
        move_head(meddling, VOLUME, found, old, "set")


@pytest.mark.faults
@pytest.mark.parametrize("takes_effect", [False, True])
def test_deleted_between_our_lost_swap_and_the_look(store, takes_effect):
    found = move_head(store, VOLUME, None, version(store), "create")
    meddling = Meddling(store, head_name(VOLUME), lambda: delete_head(store, VOLUME), takes_effect=takes_effect)

    with pytest.raises(StorageError, match="injected"):
        move_head(meddling, VOLUME, found, version(store), "commit")


@pytest.mark.faults
def test_a_conflict_with_ourselves_is_none(store):
    """A proxy between here and the server tried again by itself, and met the first try's object."""

    class Proxy(FaultyStore):
        def swap(self, name: str, old: bytes | None, new: bytes) -> None:
            super().swap(name, old, new)
            super().swap(name, old, new)

    found = move_head(store, VOLUME, None, version(store), "create")

    assert move_head(Proxy(store), VOLUME, found, version(store), "commit") == read_head(store, VOLUME)


# -- fences


def test_a_fenced_head_is_moved_by_the_newest_lock_and_by_who_has_none(store):
    head = move_head(store, VOLUME, None, version(store), "create")
    fence_head(store, VOLUME, 7)
    fence_head(store, VOLUME, 7)
    fenced = read_head(store, VOLUME)

    assert (7, head.history) == (fenced.fence, fenced.history)
    with pytest.raises(ConflictError):  # it was read before
        move_head(store, VOLUME, head, version(store), "commit", token=6)
    with pytest.raises(ConflictError, match=r"lock of 'volume' .* was lost"):
        move_head(store, VOLUME, fenced, version(store), "commit", token=6)
    with pytest.raises(ConflictError, match="taken by somebody else"):
        fence_head(store, VOLUME, 6)
    head = move_head(store, VOLUME, fenced, version(store), "commit", token=7)
    assert 7 == move_head(store, VOLUME, head, version(store), "commit").fence


@pytest.mark.faults
@pytest.mark.parametrize("after", [False, True])
def test_every_call_of_a_fence_may_fail(store, after):
    move_head(store, VOLUME, None, version(store), "create")
    for fail_at in (1, 2, 3):
        faulty = FaultyStore(store, fail_at, after=after)
        try:
            fence_head(faulty, VOLUME, fail_at)
        except StorageError:
            assert faulty.faults
            assert fail_at == 1 or not after
        else:
            assert fail_at == read_head(store, VOLUME).fence
    assert 3 == read_head(store, VOLUME).fence


def test_there_is_nothing_to_fence_before_the_first_commit(store):
    fence_head(store, VOLUME, 1)

    assert read_head(store, VOLUME) is None


# -- ancestry


def test_what_came_from_what(store):
    """root - a - b - merged - tip          (a fork of a, f, is merged as the second parent)
    \\- f -/              other: by itself
    """
    root = version(store)
    a = version(store, root)
    b, f = version(store, a), version(store, a)
    merged = version(store, b, f)
    tip, other = version(store, merged), version(store)

    def came(newer: str) -> set[str]:
        every = {"root": root, "a": a, "b": b, "f": f, "merged": merged, "tip": tip, "other": other}
        return {name for name, each in every.items() if is_ancestor(store, locator(store, each), locator(store, newer))}

    assert {"root", "a", "b", "f", "merged", "tip"} == came(tip)
    assert {"root", "a", "f"} == came(f)
    assert {"root", "a", "b", "f", "merged"} == came(merged)
    assert {"other"} == came(other)


def test_the_usual_questions_cost_little(store):
    root = version(store)
    line = [root]
    for _ in range(20):
        line.append(version(store, line[-1]))
    counting = FaultyStore(store)

    assert is_ancestor(counting, locator(store, line[-1]), locator(store, line[-1]))
    assert 0 == len(counting.calls)
    assert is_ancestor(counting, locator(store, line[-2]), locator(store, line[-1]))
    assert 1 == len(counting.calls)


def test_each_version_is_read_once_however_often_the_lines_meet(store):
    at = version(store)
    for _ in range(15):
        at = version(store, version(store, at), version(store, at))
    counting = FaultyStore(store)

    assert not is_ancestor(counting, locator(store, "0" * 64), locator(store, at))
    assert 1 + 3 * 15 == len(counting.calls)


def test_a_pruned_parent_ends_its_line(store):
    root = version(store)
    pruned = version(store, root)
    tip = version(store, pruned)
    store.delete(version_name(VOLUME, pruned))

    assert is_ancestor(store, locator(store, pruned), locator(store, tip))
    assert not is_ancestor(store, locator(store, root), locator(store, tip))


def test_parents_are_found_where_the_store_has_been_moved_to(tmp_path):
    before = LocalStore(tmp_path / uuid.uuid4().hex)
    root = version(before)
    middle = version(before, root)
    tip = version(before, middle)
    after = LocalStore((tmp_path / "store").parent / "moved")
    (tmp_path / before.local_root.name).rename(tmp_path / "moved")

    assert is_ancestor(after, locator(after, root), locator(after, tip))

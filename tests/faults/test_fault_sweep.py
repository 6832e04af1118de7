"""Every call of a commit to its store fails once: it is all or nothing, and committing again is right."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from committer import PACK_BYTES, change, prepare, touch

from volume_core.errors import StorageError
from volume_core.format.names import Locator
from volume_core.parts import packing
from volume_core.parts.checking import check_version
from volume_core.storage.memory import MemoryStore
from volume_core.storage.protocol import Store
from volume_core.storage.retrying import Retrying
from volume_core.testing.faulty import Crashed, FaultyStore
from volume_core.testing.lines import Line, checkout
from volume_core.testing.oracle import assert_same_tree, describe
from volume_core.testing.strict import StrictStore

pytestmark = pytest.mark.faults

# What a commit costs, so that one more call to the store is seen in review.
FIRST = ["get format", "put format", "put intent", "put pack", "put pack", "put layer"]
LATER = ["get format", "put intent", "put pack", "put pack", "put layer", "put layer"]  # the delta, the merged one
SMALL = ["get format", "put intent", "put pack", "put layer"]
PARENT = ["info parent"]
PUBLISH = ["info intent", "put manifest", "delete intent"]
KINDS = {
    "a first version": ([prepare], len(FIRST + PUBLISH)),
    "a small change": ([prepare, touch], len(SMALL + PARENT + PUBLISH)),
    "one that is compacted": ([prepare, change], len(LATER + PARENT + PUBLISH)),
}


@pytest.fixture
def small_packs(monkeypatch):
    monkeypatch.setattr(packing, "PACK_BYTES", PACK_BYTES)


def versions(store: Store) -> set[str]:
    return {f"{store.url}/{found.name}" for found in store.names("versions/")}


def problems(store: Store, locator: str) -> list[object]:
    found = Locator.parse(locator)
    return list(check_version(store, found.volume, found.version))


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("persistent", [False, True], ids=["once", "for ever"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("fault", ["transient", "permanent", "crash"])
@pytest.mark.usefixtures("small_packs")
def test_a_failed_commit_is_all_or_nothing(tmp_path, request, kind, persistent, after, fault):
    """Fail the 1st call of a commit, then the 2nd, ... until none is left to fail."""
    changes, calls = KINDS[kind]
    for fail_at in itertools.count(1):
        place = tmp_path / str(fail_at)
        memory = MemoryStore(f"{request.node.nodeid}/{fail_at}")
        store = StrictStore(memory)
        line = Line(store, place)
        for apply in changes[:-1]:
            apply(line.tree)
            line.commit()
        old = {locator: describe(line.tree) for locator in versions(store)}
        changes[-1](line.tree)
        faulty = FaultyStore(store, fail_at, persistent, after, fault)

        locator = failed_commit(line, faulty)
        check(line, old, locator, place)
        memory.clear()
        if not faulty.faults:
            break
    assert calls + 1 == fail_at, [f"{operation} {name}" for operation, name in faulty.calls]


def failed_commit(line: Line, faulty: FaultyStore) -> str | None:
    try:
        return line.commit(store=faulty, max_uploads=1).locator
    except (StorageError, Crashed):
        assert faulty.faults
        return None


def check(line: Line, old: dict[str, object], locator: str | None, place: Path) -> None:
    """What was there is there; at most one version came; the same commit again is right."""
    store, tree = line.store, describe(line.tree)
    came = versions(store) - set(old)
    assert versions(store) >= set(old)
    assert len(came) <= 1
    if locator is not None:
        assert {locator} == came
    again = line.commit()
    expected = dict.fromkeys([*came, again.locator], tree) | old
    for number, (found, wanted) in enumerate(expected.items()):
        assert [] == problems(store, found)
        checkout(store, found, place / f"out{number}")
        assert_same_tree(wanted, place / f"out{number}")
    assert (again.changed, again.locator) == ((False, locator) if locator else (True, again.locator))


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.usefixtures("small_packs")
def test_behind_retries_one_failure_of_any_call_is_not_noticed(tmp_path, request, kind, after):
    """Also one whose answer alone was lost: the second try meets the first one's object."""
    changes, calls = KINDS[kind]
    for fail_at in range(1, calls + 1):
        store = MemoryStore(f"{request.node.nodeid}/{fail_at}")
        line = Line(store, tmp_path / str(fail_at))
        for apply in changes[:-1]:
            apply(line.tree)
            line.commit()
        old = versions(store)
        changes[-1](line.tree)
        faulty = FaultyStore(store, fail_at, after=after)

        result = line.commit(store=Retrying(faulty, sleep=lambda _: None), max_uploads=1)

        assert 1 == faulty.faults
        assert {result.locator} == versions(store) - old
        assert [] == problems(store, result.locator)
        assert [] == list(store.names("intents/"))
        store.clear()


@pytest.mark.usefixtures("small_packs")
def test_a_failure_after_the_manifest_is_none(tmp_path, request):
    """The version exists: that its intent could not be removed must not be reported as a failed commit."""
    store = StrictStore(MemoryStore(request.node.nodeid))
    line = Line(store, tmp_path)
    prepare(line.tree)
    faulty = FaultyStore(store, 1, persistent=True, operations=frozenset({"delete"}))

    result = line.commit(store=faulty)

    assert 1 == faulty.faults
    assert {result.locator} == versions(store)
    assert 1 == len(list(store.names("intents/")))

"""A head that an attempt of a task takes back: every call to the store fails once, and others commit meanwhile."""

from __future__ import annotations

import itertools

import pytest

from volume_core import StorageError, Volume
from volume_core.facade.heads import step_back
from volume_core.facade.versions import Place
from volume_core.storage.memory import MemoryStore
from volume_core.testing.faulty import Crashed, FaultyStore
from volume_core.testing.strict import StrictStore

pytestmark = pytest.mark.faults


@pytest.fixture
def store(request, monkeypatch):
    memory = MemoryStore(request.node.nodeid)
    monkeypatch.setenv("VOLUME_BUCKET", memory.url)
    yield StrictStore(memory)
    memory.clear()


def add(name):
    """Commit one more file to the head."""
    volume = Volume.from_name_sync("shared", create_if_missing=True)
    with volume.batch_upload_sync() as batch:
        batch.put_file(__file__, f"/{name}")
    return head()


def head():
    return Volume.from_name_sync("shared").committed


def names(version):
    return sorted(entry.path for entry in version.listdir_sync("/"))


def place_with(store):
    place = Place(store.url)
    place.store()
    place._store = store
    return place


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("fault", "persistent"),
    [("transient", False), ("transient", True), ("crash", True)],
    ids=["once", "for ever", "killed"],
)
def test_a_head_is_back_or_where_it_was_and_can_be_taken_back_again(store, after, fault, persistent):
    for fail_at in itertools.count(1):
        first, second = add("first"), add("second")
        faulty = FaultyStore(store, fail_at, persistent, after, fault)
        try:
            moved = step_back(place_with(faulty), "shared", {second.version}, "rollback")
        except (StorageError, Crashed):
            moved = None
            assert faulty.faults

        assert head() in (first, second)
        assert moved in (None, first.version)
        if moved is not None:
            assert first == head()
        step_back(place_with(store), "shared", {second.version}, "rollback")
        assert first == head(), f"call {fail_at} of {faulty.calls}"
        assert [] == second.verify_sync()
        second.promote_sync()
        assert second == head()
        Volume.delete_sync("shared")
        if not faulty.faults:
            break
    assert fail_at > 3


def test_what_another_commits_between_the_look_and_the_swap_stays_on_the_head(store, monkeypatch):
    add("first")
    second = add("second")
    place = place_with(FaultyStore(store))
    swap, theirs = place._store.swap, []

    def after_another(*arguments, **options):
        if not theirs:
            theirs.append(add("third"))
        return swap(*arguments, **options)

    monkeypatch.setattr(place._store, "swap", after_another)

    assert step_back(place, "shared", {second.version}, "rollback") is None
    assert theirs == [head()]
    assert ["first", "second", "third"] == [name.strip("/") for name in names(head())]

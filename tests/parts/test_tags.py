"""Tags, and what a person may type for a version."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from heads_kit import VOLUME, version

from volume_core.errors import ConflictError, InvalidNameError, NotFoundError, StorageError
from volume_core.format.names import VERSIONS, tag_name
from volume_core.format.tag import Tag
from volume_core.parts.resolving import resolve
from volume_core.parts.tags import create_tag, delete_tag, read_tag, tag_names, tags_of
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


def test_a_tag_is_a_name_for_one_version(store):
    first, second = version(store), version(store)
    made = create_tag(store, VOLUME, "v1", first, "the first", clock=lambda: 0)
    other = create_tag(store, VOLUME, "best", second)

    assert Tag(VOLUME, "v1", first, "1970-01-01T00:00:00.000000Z", "the first") == made
    assert made == read_tag(store, VOLUME, "v1")
    assert [other, made] == tags_of(store, VOLUME)
    assert [] == tags_of(store, "vol")  # not a folder that begins so


def test_once_more_for_the_same_version_is_success_and_for_another_a_conflict(store):
    first, second = version(store), version(store)
    made = create_tag(store, VOLUME, "v1", first, "the first")

    assert made == create_tag(store, VOLUME, "v1", first, "said otherwise")
    with pytest.raises(ConflictError, match=f"of another version, {first[:12]}"):
        create_tag(store, VOLUME, "v1", second)
    assert made == read_tag(store, VOLUME, "v1")


def test_a_deleted_tag_is_gone_and_its_name_free(store):
    first, second = version(store), version(store)
    create_tag(store, VOLUME, "v1", first)
    delete_tag(store, VOLUME, "v1")

    with pytest.raises(NotFoundError, match="no tag 'v1'"):
        delete_tag(store, VOLUME, "v1")
    assert second == create_tag(store, VOLUME, "v1", second).version


@pytest.mark.parametrize("name", ["", "a/b", "-d", ".x", "x" * 129, "naïve", "a\n", "0" * 64, "f" * 64])
def test_what_cannot_be_a_tag(store, name):
    with pytest.raises(InvalidNameError, match="cannot name a tag"):
        create_tag(store, VOLUME, name, version(store))
    with pytest.raises(InvalidNameError, match="cannot name a tag"):
        read_tag(store, VOLUME, name)


@pytest.mark.parametrize("name", ["latest", "1.0", "beef", "F" * 64, "0" * 63, "x" * 128, "_", "a.json"])
def test_what_can(store, name):
    assert [name] == [create_tag(store, VOLUME, name, version(store)).tag] == tag_names(store, VOLUME)


def test_a_message_is_any_text(store):
    made = create_tag(store, VOLUME, "v1", version(store), "grüße \U0001f40b \udcff\n")

    assert "grüße \U0001f40b \\udcff\n" == made.message == read_tag(store, VOLUME, "v1").message


def test_a_store_that_ignores_conditions_has_no_tags(store):
    class Ignoring(FaultyStore):
        honours_conditions = False

    with pytest.raises(StorageError, match="cannot have tags"):
        create_tag(Ignoring(store), VOLUME, "v1", version(store))


@pytest.mark.faults
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_every_call_of_a_tag_may_fail(store, after):
    for fail_at in itertools.count(1):
        name, tagged = f"v{fail_at}", version(store)
        faulty = FaultyStore(store, fail_at, after=after)
        behind = FaultyStore(store, fail_at, after=after)
        try:
            create_tag(faulty, VOLUME, name, tagged)
        except StorageError:
            assert faulty.faults
        create_tag(Retrying(behind, sleep=lambda _: None), VOLUME, f"{name}-retried", tagged)
        assert tagged == create_tag(store, VOLUME, name, tagged).version == resolve(store, VOLUME, f"{name}-retried")
        if not faulty.faults:
            break
    assert 2 == fail_at


# -- what a person types


def named(store: Store, *ids: str) -> None:
    """Objects that look like versions of these ids: resolving asks for names alone."""
    for each in ids:
        store.put_new(f"{VERSIONS}{VOLUME}/{each}.json", b"a manifest")


def test_a_version_is_found_by_its_tag_its_id_and_the_beginning_of_it(store):
    first, second = "abcd1" + "0" * 59, "abcd2" + "0" * 59
    named(store, first, second)
    create_tag(store, VOLUME, "v1", first)

    assert [first, first, first, second] == [
        resolve(store, VOLUME, text) for text in ("v1", first, "abcd1", second[:63])
    ]
    assert "e" * 64 == resolve(store, VOLUME, "e" * 64)  # whether there is one is not asked


def test_a_beginning_of_several_names_them(store):
    first, second = "abcd1" + "0" * 59, "abcd2" + "0" * 59
    named(store, first, second, "abc" + "0" * 61)

    with pytest.raises(InvalidNameError, match=f"beginning of 2 versions .*: {first}, {second}; give more digits"):
        resolve(store, VOLUME, "abcd")


def test_a_tag_goes_before_a_beginning(store):
    first, second = "beef1" + "0" * 59, "beef2" + "0" * 59
    named(store, first, second)
    create_tag(store, VOLUME, "beef", second)

    assert [second, first] == [resolve(store, VOLUME, "beef"), resolve(store, VOLUME, "beef1")]


@pytest.mark.parametrize("text", ["abc", "v2", "ABCD1", "abcd3", "latest"])
def test_what_is_not_there_is_said_with_what_is(store, text):
    named(store, "abcd1" + "0" * 59)
    create_tag(store, VOLUME, "v1", "abcd1" + "0" * 59)

    with pytest.raises(NotFoundError, match=rf"no tag '{text}', .*its tags: v1;"):
        resolve(store, VOLUME, text)


def test_nothing_at_all_is_not_found_either(store):
    with pytest.raises(NotFoundError, match="has no tags"):
        resolve(store, "nothing", "abcd")


@pytest.mark.parametrize("text", ["", "a b", "../x", "tag\n", "v1/v2"])
def test_what_can_be_no_name_is_refused(store, text):
    with pytest.raises(InvalidNameError, match="cannot name a tag or version"):
        resolve(store, VOLUME, text)


def test_other_objects_of_the_folder_are_passed_over(store):
    named(store, "abcd" + "0" * 60)
    store.put_new(f"{VERSIONS}{VOLUME}/abcd.tmp", b"")
    store.put_new(tag_name("other", "abcd"), b"")

    assert "abcd" + "0" * 60 == resolve(store, VOLUME, "abcd")

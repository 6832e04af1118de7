"""Merging versions: whose files are in the result, what is published, and what is not."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from facade_kit import committed, contents, following, objects, write

from volume_core import ConflictError, InvalidNameError, RWVolume, StorageError, Volume, VolumeError
from volume_core.facade import comparing, merging
from volume_core.facade.ancestry import Ancestry
from volume_core.facade.versions import Place, Version
from volume_core.parts import compacting
from volume_core.testing.faulty import FaultyStore

POLICIES = ["ours", "theirs", "last-write-wins", "keep-both"]


def forks(base, *changes):
    """One fork of *base* for each of *changes*: files to write."""
    return [following(base, files, f"fork-{number}") for number, files in enumerate(changes)]


def test_what_each_fork_changed_is_in_the_result():
    base = committed(files={"a": "a", "d/b": "b"})
    made = forks(base, {"one": "1"}, {"d/two": "2"}, {"a": "three"})
    before = objects()
    result = Volume.merge_sync(made, "all", message="together", labels={"k": "v"})
    [entry] = result.log_sync(limit=1)

    assert {"a": "three", "d/b": "b", "d/two": "2", "one": "1"} == contents(result)
    assert ("all", "together", {"k": "v"}) == (result.name, result.message, entry.labels)
    assert tuple(fork.locator for fork in made) == entry.parents
    assert (sum(map(len, ["three", "b", "2", "1"])), 6) == (result.used_bytes, result.inode_count)
    assert {"heads", "layers", "versions"} == {name.partition("/")[0] for name in objects() - before}
    assert [] == result.verify_sync()
    assert base in {each.volume for each in result.log_sync()}


def test_more_forks_than_a_merge_keeps_layers(monkeypatch):
    monkeypatch.setattr(merging, "_STEPS_MAX", 2)
    base = committed(files={"a": "a"})
    made = forks(base, *({f"n{number}": str(number)} for number in range(6)))

    assert {"a": "a", **{f"n{n}": str(n) for n in range(6)}} == contents(Volume.merge_sync(made, "all"))


def test_the_first_volumes_name_is_taken_without_one():
    one, other = forks(committed(), {"one": "1"}, {"two": "2"})

    assert "fork-0" == asyncio.run(Volume.merge([one, other])).name


def test_a_conflict_names_the_paths_and_publishes_nothing():
    made = forks(committed(files={"a": "a", "d/b": "b"}), {"a": "1", "d/b": "1", "x": "1"}, {"a": "2", "d/b": "2"})
    before = objects()

    with pytest.raises(ConflictError, match="2 paths in conflict: /a") as caught:
        Volume.merge_sync(made)
    assert ("a", "d/b") == caught.value.paths
    assert before == objects()


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("ours", {"a": "1", "x": "1", "y": "2"}),
        ("theirs", {"a": "2", "x": "1", "y": "2"}),
        ("last-write-wins", {"a": "2", "x": "1", "y": "2"}),
    ],
)
def test_the_policy_decides(policy, expected):
    made = forks(committed(files={"a": "a"}), {"a": "1", "x": "1"}, {"a": "2", "y": "2"})

    assert expected == contents(Volume.merge_sync(made, on_conflict=policy))


def test_the_last_write_is_the_one_committed_last_wherever_it_stands():
    made = forks(committed(files={"a": "a"}), {"a": "1"}, {"a": "2"})

    assert {"a": "2"} == contents(Volume.merge_sync(made[::-1], on_conflict="last-write-wins"))


def test_both_are_kept_side_by_side():
    made = forks(committed(files={"a.txt": "a"}), {"a.txt": "1"}, {"a.txt": "2"}, {"a.txt": "3"})
    found = contents(Volume.merge_sync(made, on_conflict="keep-both"))

    assert ["1", "2", "3"] == sorted(found.values())
    assert "1" == found["a.txt"]
    assert f"a.conflict-fork-1-{made[1].version[:8]}.txt" in found


def test_a_version_that_came_from_the_others_is_their_merge():
    base = committed()
    after = following(base, {"n": "n"})
    before = objects()

    assert after == Volume.merge_sync([base, after])
    assert after == Volume.merge_sync([after, base, base])
    assert before == objects()


def test_under_another_name_it_is_a_version_of_that():
    base = committed()
    after = following(base, {"n": "n"})
    result = Volume.merge_sync([base, after], "other")

    assert ("other", contents(after)) == (result.name, contents(result))


def test_merging_again_what_was_merged_changes_nothing():
    one, other = forks(committed(), {"one": "1"}, {"two": "2"})
    result = Volume.merge_sync([one, other])

    assert result == Volume.merge_sync([result, one])
    assert result == Volume.merge_sync([other, result])


def test_a_merge_is_an_ancestor_like_any_other():
    one, other = forks(committed(files={"a": "a"}), {"one": "1"}, {"two": "2"})
    both = Volume.merge_sync([one, other], "both")
    left = following(both, {"one": "left"}, "left")
    right = following(other, {"two": "right"}, "right")

    # Without it, what `other` brought would be a change of both sides.
    assert {"a": "a", "one": "left", "two": "right"} == contents(Volume.merge_sync([left, right]))


def test_several_commits_since_the_ancestor_are_merged():
    base = committed(files={"a": "a", "b": "b"})
    one = following(following(base, {"a": "1"}, "one"), {"c": "1"})
    other = following(following(base, lambda path: (path / "b").unlink(), "other"), {"d": "2"})

    assert {"a": "1", "c": "1", "d": "2"} == contents(Volume.merge_sync([one, other]))


def test_after_compaction_as_before(monkeypatch):
    monkeypatch.setattr(compacting, "LAYERS_MAX", 1)
    monkeypatch.setattr(comparing, "_ROWS_FEW", 0)
    base = committed(files={f"d{n}/f": "f" for n in range(9)})
    one = following(following(base, {"d1/f": "1"}, "one"), {"d2/f": "1"})
    other = following(base, lambda path: ((path / "d3" / "f").unlink(), (path / "d3").rmdir()), "other")
    result = Volume.merge_sync([one, other])

    assert {f"d{n}/f": "1" if n in {1, 2} else "f" for n in range(9) if n != 3} == contents(result)
    assert [] == result.verify_sync()


@pytest.mark.fuse
def test_a_directory_emptied_file_by_file_was_not_replaced_though_stacks_were_compacted(monkeypatch):
    # The copy driver cannot tell the two apart: it knows what is there, not what was done.
    monkeypatch.setattr(compacting, "LAYERS_MAX", 1)
    base = committed(files={"a": "a", "d/one": "1", "d/two": "2"})
    writer = base.fork_sync("emptied")
    with writer.mounted_sync(driver="kernel") as path:
        for each in (path / "d").iterdir():
            each.unlink()
    emptied = following(writer.committed, {"a": "b"})
    filled = following(base, {"d/three": "3"}, "filled")

    assert {"a": "b", "d/three": "3"} == contents(Volume.merge_sync([emptied, filled]))
    assert {"a": "b", "d/three": "3"} == contents(Volume.merge_sync([filled, emptied]))


def test_a_merge_that_changes_nothing_of_the_first_still_names_both():
    one, other = forks(committed(files={"a": "a"}), {"a": "1"}, {"a": "2"})
    result = Volume.merge_sync([one, other], on_conflict="ours")
    [entry] = result.log_sync(limit=1)

    assert {"a": "1"} == contents(result)
    assert {one.locator, other.locator} == set(entry.parents)


def test_versions_that_have_nothing_in_common_are_refused():
    with pytest.raises(ConflictError, match="no version in common"):
        Volume.merge_sync([committed("one"), committed("two")])


def test_what_cannot_be_merged_is_said(tmp_path):
    one = committed()
    far = Volume.new("far", bucket=f"file://{tmp_path}/far").commit_sync()

    with pytest.raises(VolumeError, match="at least two"):
        Volume.merge_sync([one])
    with pytest.raises(ConflictError, match="several stores"):
        Volume.merge_sync([one, far])
    with pytest.raises(InvalidNameError, match="on_conflict 'both' is not one of error, ours, "):
        Volume.merge_sync([one, one], on_conflict="both")
    with pytest.raises(InvalidNameError):
        Volume.merge_sync([one, one], "a/b")


def test_a_writer_stands_for_its_last_commit_and_only_if_there_is_nothing_else():
    base = committed(files={"a": "a"})
    other = following(base, {"b": "b"}, "other")
    writer: RWVolume = base.fork_sync("writer")
    path = writer.mount_sync(driver="copy")
    write(path, {"c": "c"})

    with pytest.raises(VolumeError, match="not committed"):
        Volume.merge_sync([writer, other])
    writer.commit_sync()
    assert {"a": "a", "b": "b", "c": "c"} == contents(Volume.merge_sync([writer, other]))
    writer.abandon_sync()


class Watching:
    """A store that keeps the names of what was read."""

    def __init__(self, inner) -> None:
        self.inner = inner
        self.read = []

    def __getattr__(self, name):
        found = getattr(self.inner, name)
        if name not in {"get", "get_range"}:
            return found
        return lambda *arguments: self.read.append(arguments[0]) or found(*arguments)


def test_no_file_data_is_read(monkeypatch):
    made = forks(committed(files={"a": "a"}), {"a": "1", "x": "1"}, {"a": "2", "y": "2"})
    watching = Watching(made[0]._place().store())
    monkeypatch.setattr(Place, "store", lambda _self: watching)
    for policy in POLICIES:
        Volume.merge_sync(made, on_conflict=policy)
    made[0].diff_sync(made[1])
    made[0].revert_sync(to=made[1])

    assert watching.read
    assert [] == [name for name in watching.read if name.startswith("packs/")]


# What they cost: the manifests are known, a merge reads the ancestor's, all layers are cached.
PUBLISH = ["info parent", "info other", "info intent", "put manifest", "delete intent"]
CALLS = {
    "merge": ["get ancestor", "get format", "put intent", "put layer", "put merged layer", *PUBLISH],
    "revert": ["get format", "put intent", "put layer", *PUBLISH],
}


def tried(kind: str, one: Version, other: Version) -> Version:
    return merging.merged([one, other], "all")[0] if kind == "merge" else comparing.reverted(one, other)[0]


@pytest.mark.faults
@pytest.mark.parametrize("kind", CALLS)
@pytest.mark.parametrize("persistent", [False, True], ids=["once", "for ever"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.loud
def test_what_fails_is_all_or_nothing(kind, persistent, after):
    """Fail the 1st call to the store, then the 2nd, ... until none is left to fail."""
    made = forks(committed(files={"a": "a"}), {"x": "1"}, {"y": "2"})
    expected = {"a": "a", "y": "2"} | ({"x": "1"} if kind == "merge" else {})
    for number in itertools.count(1):
        store = FaultyStore(made[0]._place().store(), number, persistent, after)
        place = Place(made[0].store_url)
        place.store = lambda store=store: store
        versions = [Version(*each._existing()[:2], place) for each in made]
        before = {name for name in objects() if name.startswith("versions/")}
        try:
            locators = [str(tried(kind, *versions).locator)]
        except StorageError:
            left = {name for name in objects() if name.startswith("versions/")} - before
            locators = [f"{store.inner.url}/{name}" for name in left]  # stored, and the answer lost: it is whole
            assert after or not left
        for locator in locators:
            version = Volume.from_locator_sync(locator)
            assert expected == contents(version)
            assert [] == version.verify_sync()
        if not store.faults:
            break
    assert number - 1 == len(CALLS[kind]), [call.operation + call.name[:12] for call in store.calls]


# -- ancestors


def ancestor(ones, other):
    found = Ancestry().common([one._existing() for one in ones], other._existing())
    return found and Volume.from_locator_sync(str(found.locator))


def test_the_nearest_common_ancestor_is_found():
    base = committed()
    middle = following(base, {"m": "m"})
    left = following(following(middle, {"l": "l"}, "left"), {"l2": "l"})
    right = following(middle, {"r": "r"}, "right")

    assert middle == ancestor([left], right) == ancestor([right], left)
    assert base == ancestor([left], base)
    assert left == ancestor([left], left)
    assert ancestor([left], committed("other")) is None


def test_where_each_has_merged_the_other_the_newest_is_taken():
    one, other = forks(committed(), {"one": "1"}, {"two": "2"})
    left = Volume.merge_sync([one, other], "left")
    right = Volume.merge_sync([other, one], "right")

    assert other == ancestor([left], right)


def test_clocks_that_are_wrong_do_not_matter(monkeypatch):
    times = iter([9, 1, 8, 2, 7, 3])
    monkeypatch.setattr("volume_core.parts.publishing.iso_utc", lambda _ns: f"2020-01-0{next(times)}T00:00:00.000000Z")
    base = committed()
    middle = following(base, {"m": "m"})
    left = following(following(middle, {"l": "l"}, "left"), {"l2": "l"})
    right = following(middle, {"r": "r"}, "right")

    assert middle == ancestor([left], right) == ancestor([right], left)


def test_what_was_pruned_ends_a_line(own_state):
    base = committed()
    one, other = forks(base, {"one": "1"}, {"two": "2"})
    base._place().store().delete(f"versions/{base.name}/{base.version}.json")

    with pytest.raises(ConflictError, match="still there"):
        Volume.merge_sync([one, other])

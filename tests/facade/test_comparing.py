"""What differs between two versions, and versions that undo others."""

from __future__ import annotations

import asyncio
import os

import pytest
from facade_kit import committed, contents, following, objects, write

from volume_core import ChangeKind, ConflictError, Volume
from volume_core.facade import comparing
from volume_core.format.manifest import shared_layers
from volume_core.parts import compacting
from volume_core.parts.checking import check_version
from volume_core.parts.indexes import IndexCache

FILES = {f"d{number}/f{number}.txt": str(number) for number in range(20)}


def told(before, after) -> dict[str, str]:
    return {found.path: found.kind.value for found in before.diff_sync(after)}


def test_what_differs_is_told_path_by_path():
    before = committed(files={"a.txt": "a", "d/b.txt": "b", "d/c.txt": "c", "e/f.txt": "f"})

    def change(path):
        (path / "a.txt").write_text("other")
        (path / "d" / "b.txt").chmod(0o600)
        (path / "d" / "c.txt").unlink()
        (path / "e" / "f.txt").unlink()
        (path / "e").rmdir()
        write(path, {"new/n.txt": "new"})

    found = {each.path: each for each in before.diff_sync(following(before, change))}

    assert {
        "": ChangeKind.METADATA,  # its time
        "a.txt": ChangeKind.MODIFIED,
        "d": ChangeKind.METADATA,
        "d/b.txt": ChangeKind.METADATA,
        "d/c.txt": ChangeKind.REMOVED,
        "e": ChangeKind.REMOVED,
        "e/f.txt": ChangeKind.REMOVED,
        "new": ChangeKind.ADDED,
        "new/n.txt": ChangeKind.ADDED,
    } == {path: each.kind for path, each in found.items()}
    assert (1, 5) == (found["a.txt"].before.size, found["a.txt"].after.size)
    assert 0o600 == found["d/b.txt"].after.mode != found["d/b.txt"].before.mode
    assert found["new/n.txt"].before is None
    assert found["d/c.txt"].after is None
    assert list(found) == sorted(found)


def test_both_spellings():
    before = committed()
    after = following(before, lambda path: (path / "a.txt").write_text("other"))

    assert before.diff_sync(after) == asyncio.run(before.diff(after))
    assert [] == before.diff_sync(before)


def test_a_name_that_is_no_text_is_one_that_can_be_used():
    before = committed()
    after = following(before, lambda path: open(os.path.join(os.fsencode(path), b"\xff"), "wb").close())

    assert "\udcff" in told(before, after)


@pytest.fixture
def compacted(monkeypatch):
    """Every commit but the first writes a merged layer, so that no two stacks share anything."""
    monkeypatch.setattr(compacting, "LAYERS_MAX", 1)


@pytest.mark.usefixtures("compacted")
@pytest.mark.parametrize("rows_few", [0, 20_000])
def test_where_compaction_left_nothing_in_common_the_answer_is_the_same(monkeypatch, rows_few):
    monkeypatch.setattr(comparing, "_ROWS_FEW", rows_few)
    base = committed(files=FILES)
    one = following(base, lambda path: (path / "d3" / "f3.txt").write_text("one"), "one")
    other = following(base, lambda path: (path / "d5" / "f5.txt").unlink(), "other")
    last = following(other, lambda path: write(path, {"d6/n": "n"}))

    assert not shared_layers(one._existing().manifest.stack, last._existing().manifest.stack)
    found = {path: kind for path, kind in told(one, last).items() if "." in path or "/" in path}
    assert {"d3/f3.txt": "modified", "d5/f5.txt": "removed", "d6/n": "added"} == found


@pytest.mark.usefixtures("compacted")
def test_deltas_say_where_to_look_instead_of_whole_trees(monkeypatch):
    monkeypatch.setattr(comparing, "_ROWS_FEW", 10)
    base = committed(files=FILES)
    after = following(base, lambda path: (path / "d3" / "f3.txt").write_text("one"))
    asked = []
    monkeypatch.setattr(
        comparing.View, "listing", lambda *arguments: asked.append(arguments) or [], raising=True
    )  # a walk of whole trees lists directories

    assert {"d3/f3.txt": "modified"} == told(base, after)
    assert [] == asked


def test_versions_of_two_stores_are_compared(tmp_path):
    one = committed()
    with Volume.new("far", bucket=f"file://{tmp_path}/far").mounted_sync(driver="copy") as path:
        write(path, {"a.txt": "a", "d/b.txt": "other"})
    far = Volume.from_locator_sync(next(str(p) for p in _manifests(tmp_path / "far")))

    assert "modified" == told(one, far)["d/b.txt"]
    assert told(one, far).get("a.txt") in {None, "metadata"}


def _manifests(root):
    return [f"file://{path}" for path in (root / "versions").rglob("*.json")]


# -- reverting


def test_reverting_makes_a_version_that_shows_the_old_tree_and_keeps_the_line():
    old = committed(files=FILES)
    new = following(
        old, lambda path: (write(path, {"d1/f1.txt": "other", "n": "n"}), (path / "d2" / "f2.txt").unlink())
    )
    again = new.revert_sync(to=old, message="back", labels={"why": "wrong"})

    assert contents(old) == contents(again)
    assert (old.used_bytes, old.inode_count) == (again.used_bytes, again.inode_count)
    assert [] == old.diff_sync(again)
    assert [again, new, old] == [entry.volume for entry in again.log_sync()]
    [entry] = again.log_sync(limit=1)
    assert ("back", {"why": "wrong"}, (new.locator,)) == (again.message, entry.labels, entry.parents)
    assert [] == again.verify_sync()
    assert told(new, again) == told(new, old)


def test_reverting_to_what_is_there_is_the_version_itself():
    old = committed()
    before = objects()
    twice = following(following(old, lambda path: write(path, {"n": "n"})), lambda path: (path / "n").unlink())

    assert twice.revert_sync(to=twice) == twice
    assert asyncio.run(old.revert(to=old)) == old
    assert before <= objects()


def test_reverting_writes_one_small_layer_and_a_manifest():
    old = committed(files=FILES)
    new = following(old, lambda path: write(path, {"d1/f1.txt": "other"}))
    before = objects()
    new.revert_sync(to=old)

    assert ["layers", "versions"] == sorted(name.partition("/")[0] for name in objects() - before)


def test_a_version_of_another_store_is_nothing_to_revert_to(tmp_path):
    far = Volume.new("far", bucket=f"file://{tmp_path}/far").commit_sync()

    with pytest.raises(ConflictError, match="several stores"):
        committed().revert_sync(to=far)


def test_indexes_are_verified_once_for_both(monkeypatch):
    old = committed(files=FILES)
    new = following(old, lambda path: write(path, {"n": "n"}))
    fetched = []
    fetch = IndexCache.fetch
    monkeypatch.setattr(IndexCache, "fetch", lambda *a: fetched.append(len(set(a[2]))) or fetch(*a))

    old.diff_sync(new)

    assert [2] == fetched


def test_a_reverted_version_is_whole_in_its_store():
    old = committed()
    again = following(old, lambda path: write(path, {"n": "n"})).revert_sync(to=old)

    assert [] == check_version(again._place().store(), again.name, again.version)

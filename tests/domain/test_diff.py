"""What turns one tree into another, against plain mappings of paths."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from volume_core.domain.diff import ChangeKind, path_changes, rows_between
from volume_core.domain.totals import totals_with
from volume_core.domain.view import View
from volume_core.format.digests import digest
from volume_core.format.entries import WHITEOUT, ChunkRef, Entry, Extent, Kind, join, split
from volume_core.testing.stacks import Fork, Stack, expected_tree, forks, reader_of, shown_tree, stacks

DIRECTORY = Entry(Kind.DIRECTORY, 0o755)
OPAQUE = Entry(Kind.OPAQUE, 0o755)


def file(text: bytes, pack: bytes = b"pack", **attributes) -> Entry:
    chunk = ChunkRef(digest(text), digest(pack), 32, len(text), len(text))
    return Entry(Kind.FILE, 0o644, size=len(text), content=(Extent(len(text), chunk),), **attributes)


def layer(rows: dict[bytes, Entry]) -> list:
    return sorted((*split(path), entry) for path, entry in rows.items())


def view_of(*layers: dict[bytes, Entry]) -> View:
    return View([reader_of(layer(rows)) for rows in layers])


def totals_of(stack: Stack) -> tuple[int, int]:
    """(used_bytes, inode_count) of a plain tree."""
    inodes = {shown.link or path: shown.entry for path, shown in stack.tree.items()}
    return sum(entry.size for entry in inodes.values()), len(inodes)


def on_top(stack: Stack, rows: list) -> View:
    return View([*stack.readers(), reader_of(rows)])


BASE = {
    b"d": DIRECTORY,
    b"d/f": file(b"one"),
    b"d/g": file(b"linked", hardlink=5),
    b"d/deep": DIRECTORY,
    b"d/deep/x": file(b"deep"),
    b"h": file(b"linked", hardlink=5),
}

CASES = {
    "nothing": ({}, {}),
    "a file": ({b"n": file(b"n")}, {b"n": ChangeKind.ADDED}),
    "content": ({b"d/f": file(b"two")}, {b"d/f": ChangeKind.MODIFIED}),
    "the same in another pack": ({b"d/f": file(b"one", b"other")}, {}),
    "mode": ({b"d/f": file(b"one")._replace(mode=0o600)}, {b"d/f": ChangeKind.METADATA}),
    "xattrs": ({b"d/f": file(b"one", xattrs=((b"user.a", b"1"),))}, {b"d/f": ChangeKind.METADATA}),
    "mode of a directory": ({b"d": DIRECTORY._replace(mode=0o700)}, {b"d": ChangeKind.METADATA}),
    "removed": ({b"d/f": WHITEOUT}, {b"d/f": ChangeKind.REMOVED}),
    "a removed directory is told path by path": (
        {b"d/deep": WHITEOUT},
        {b"d/deep": ChangeKind.REMOVED, b"d/deep/x": ChangeKind.REMOVED},
    ),
    "an added directory is told path by path": (
        {b"e": DIRECTORY, b"e/y": file(b"y")},
        {b"e": ChangeKind.ADDED, b"e/y": ChangeKind.ADDED},
    ),
    "a file for a directory": (
        {b"d/deep": file(b"flat")},
        {b"d/deep": ChangeKind.MODIFIED, b"d/deep/x": ChangeKind.REMOVED},
    ),
    "a directory for a file": (
        {b"d/f": DIRECTORY, b"d/f/y": file(b"y")},
        {b"d/f": ChangeKind.MODIFIED, b"d/f/y": ChangeKind.ADDED},
    ),
    "a symlink for a file": (
        {b"d/f": Entry(Kind.SYMLINK, 0o777, target=b"t")},
        {b"d/f": ChangeKind.MODIFIED},
    ),
    "a directory with other things in it": (
        {b"d/deep": OPAQUE, b"d/deep/y": file(b"y")},
        {b"d/deep/x": ChangeKind.REMOVED, b"d/deep/y": ChangeKind.ADDED},
    ),
    "one name of two removed": ({b"h": WHITEOUT}, {b"d/g": ChangeKind.METADATA, b"h": ChangeKind.REMOVED}),
    "a link broken": (
        {b"h": file(b"linked")},
        {b"d/g": ChangeKind.METADATA, b"h": ChangeKind.METADATA},
    ),
    "a third name": (
        {path: file(b"linked", hardlink=1) for path in (b"d/g", b"h", b"i")},
        {b"d/g": ChangeKind.METADATA, b"h": ChangeKind.METADATA, b"i": ChangeKind.ADDED},
    ),
}


@pytest.mark.parametrize("shared", [1, 0])
@pytest.mark.parametrize("case", CASES)
def test_each_kind_of_change_is_told(case, shared):
    upper, expected = CASES[case]
    before, after = view_of(BASE), view_of(BASE, upper)
    found = path_changes(before, rows_between(before, after, shared))

    assert expected == {change.path: change.kind for change in found}
    assert sorted(expected) == [change.path for change in found]
    before.close()
    after.close()


def test_a_change_has_what_was_and_what_is():
    before, after = view_of(BASE), view_of(BASE, {b"d/f": file(b"two"), b"h": WHITEOUT, b"n": file(b"n")})
    found = {change.path: change for change in path_changes(before, rows_between(before, after, 1))}

    assert (file(b"one"), file(b"two")) == found[b"d/f"][2:]
    assert (None, file(b"n")) == found[b"n"][2:]
    assert found[b"h"].after is None
    before.close()
    after.close()


def test_a_renamed_directory_is_a_whiteout_and_rows():
    after = view_of(BASE, {b"d/deep": WHITEOUT, b"e": DIRECTORY, b"e/x": file(b"deep")})
    before = view_of(BASE)

    rows = {join(directory, name): entry for directory, name, entry in rows_between(before, after, 1)}

    assert {b"d/deep": WHITEOUT, b"e": DIRECTORY, b"e/x": file(b"deep")} == rows
    before.close()
    after.close()


class Counting:
    """A layer that says how often it was asked for rows."""

    def __init__(self, rows) -> None:
        self._reader = reader_of(layer(rows))
        self.asked = 0

    def __getattr__(self, name):
        def counted(*args):
            self.asked += 1
            return getattr(self._reader, name)(*args)

        return counted


def test_directories_in_which_nothing_can_differ_are_not_looked_at():
    base = {b"d%d" % d: DIRECTORY for d in range(300)} | {b"d%d/f" % d: file(b"%d" % d) for d in range(300)}
    shared = Counting(base)
    delta = reader_of(layer({b"d7/f": file(b"other")}))

    rows = rows_between(View([shared]), View([shared, delta]), 1)

    assert [(b"d7", b"f", file(b"other"))] == rows
    assert shared.asked < 20


def test_deltas_say_where_to_look_when_nothing_is_shared():
    base = {b"d%d" % d: DIRECTORY for d in range(300)} | {b"d%d/f" % d: file(b"%d" % d) for d in range(300)}
    change = {b"d7/f": file(b"other"), b"d8": WHITEOUT}
    merged = {path: entry for path, entry in {**base, **change}.items() if path not in {b"d8", b"d8/f"}}
    before, after = Counting(base), Counting(merged)

    rows = rows_between(View([before]), View([after]), within=[reader_of(layer(change))])

    assert layer(change) == rows
    assert before.asked + after.asked < 60


# Random stacks.


def assert_turns_into(before: Stack, after: Stack, rows: list) -> None:
    """Whether *rows* on top of *before* are *after*, and no more than that."""
    made = on_top(before, rows)
    was = before.view()

    assert expected_tree(after) == shown_tree(made)
    assert totals_of(after) == totals_with(was, totals_of(before), rows)
    old, new = expected_tree(before), expected_tree(after)
    expected = {path for path in {**old, **new} if old.get(path) != new.get(path)}
    assert sorted(expected) == [change.path for change in path_changes(was, rows)]
    made.close()
    was.close()


@given(stacks(), stacks())
@settings(max_examples=25)
def test_rows_turn_any_tree_into_any_other(one: Stack, other: Stack):
    before, after = one.view(), other.view()
    rows = rows_between(before, after)
    before.close()
    after.close()

    assert_turns_into(one, other, rows)


@given(forks())
@settings(max_examples=40)
def test_rows_turn_one_fork_into_the_other(fork: Fork):
    before, after = fork.ours.view(), fork.theirs.view()
    rows = rows_between(before, after, len(fork.ancestor.layers))
    before.close()
    after.close()

    assert_turns_into(fork.ours, fork.theirs, rows)


@given(forks())
@settings(max_examples=25)
def test_the_way_over_the_ancestor_says_where_to_look(fork: Fork):
    before, after = fork.ours.view(), fork.theirs.view()
    shared = len(fork.ancestor.layers)
    rows = rows_between(before, after, within=[*before.layers[shared:], *after.layers[shared:]])
    before.close()
    after.close()

    assert_turns_into(fork.ours, fork.theirs, rows)


@given(stacks())
@settings(max_examples=40)
def test_equal_trees_differ_in_nothing_whatever_their_stacks(stack: Stack):
    before = stack.view()
    empty = View()
    flat = View([reader_of(rows_between(empty, before))])

    assert [] == rows_between(before, before)
    assert [] == rows_between(before, flat)
    assert [] == rows_between(flat, before)
    before.close()
    flat.close()


def test_a_limit_ends_the_search_and_says_so_by_one_too_many():
    directory = {b"d": DIRECTORY, **{b"d/%02d" % number: file(b"x") for number in range(20)}}
    before = view_of(directory)
    rows = layer({b"d": WHITEOUT, **{b"n%02d" % number: file(b"x") for number in range(20)}})

    everything = path_changes(before, rows)
    assert len(everything) == 41
    assert path_changes(before, rows, 41) == everything
    assert len(path_changes(before, rows, 40)) == 41
    for limit in (0, 1, 5, 21):
        found = path_changes(before, rows, limit)
        assert limit < len(found) <= limit + 2
        assert {change.path for change in found} <= {change.path for change in everything}

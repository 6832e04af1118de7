"""Merging, rule by rule."""

from __future__ import annotations

import pytest

from volume_core.domain.merge import Merge, Policy, Reason, merge
from volume_core.domain.threeway import derived_name
from volume_core.domain.view import View
from volume_core.errors import CorruptObjectError
from volume_core.format.digests import digest
from volume_core.format.entries import WHITEOUT, ChunkRef, Entry, Extent, Kind, join, split
from volume_core.testing.stacks import reader_of, shown_tree

DIRECTORY = Entry(Kind.DIRECTORY, 0o755)
OPAQUE = Entry(Kind.OPAQUE, 0o755)


def file(text: bytes, **attributes) -> Entry:
    chunk = ChunkRef(digest(text), digest(b"pack of " + text), 32, len(text), len(text))
    return Entry(Kind.FILE, **{"mode": 0o644, **attributes}, size=len(text), content=(Extent(len(text), chunk),))


ONE, TWO, THREE = file(b"one"), file(b"two"), file(b"three")
BASE = {
    b"d": DIRECTORY,
    b"d/f": ONE,
    b"d/g": ONE,
    b"d/deep": DIRECTORY,
    b"d/deep/x": ONE,
    b"f": ONE,
    b"h": file(b"linked", hardlink=3),
    b"i": file(b"linked", hardlink=3),
}
MOVED = {b"d": WHITEOUT, b"e": DIRECTORY, b"e/f": ONE, b"e/g": ONE, b"e/deep": DIRECTORY, b"e/deep/x": ONE}
OURS, THEIRS, LAST, BOTH = Policy.OURS, Policy.THEIRS, Policy.LAST_WRITE_WINS, Policy.KEEP_BOTH
GONE = None


def layer(rows: dict[bytes, Entry]) -> list:
    return sorted((*split(path), entry) for path, entry in rows.items())


def merged(ours, theirs, policy: Policy, mark: bytes = b"m") -> tuple[Merge, dict]:
    """The merge of two layers over BASE, and the tree that it makes: path -> (entry, names)."""
    ancestor = View([reader_of(layer(BASE))])
    other = View([*ancestor.layers, reader_of(layer(theirs))])
    found = merge(layer(ours), ancestor, other, policy, totals=(0, 0), shared=1, mark=mark)
    made = View([*other.layers, reader_of(found.rows)])
    tree = shown_tree(made)
    made.close()
    return found, tree


def later(entry: Entry, mtime_ns: int) -> Entry:
    return entry._replace(mtime_ns=mtime_ns)


# name: ours, theirs, what the result has where it is not the base's
AGREEING = {
    "other files": ({b"n": TWO}, {b"d/n": THREE}, {b"n": TWO, b"d/n": THREE}),
    "the same file made": ({b"n": TWO}, {b"n": TWO}, {b"n": TWO}),
    "the same file made at two times": ({b"n": later(TWO, 5)}, {b"n": later(TWO, 9)}, {b"n": later(TWO, 9)}),
    "the same change": ({b"f": TWO}, {b"f": TWO}, {b"f": TWO}),
    "the same directory made": (
        {b"n": DIRECTORY, b"n/a": TWO},
        {b"n": DIRECTORY, b"n/b": THREE},
        {b"n": DIRECTORY, b"n/a": TWO, b"n/b": THREE},
    ),
    "the same file removed": ({b"f": WHITEOUT}, {b"f": WHITEOUT}, {b"f": GONE}),
    "a directory and what is in it removed": (
        {b"d/f": WHITEOUT, b"d": later(DIRECTORY, 7)},
        {b"d": WHITEOUT},
        {b"d": GONE, b"d/f": GONE, b"d/g": GONE, b"d/deep": GONE, b"d/deep/x": GONE},
    ),
    "what is in it removed, and the directory": (
        {b"d": WHITEOUT},
        {b"d/f": WHITEOUT, b"d": later(DIRECTORY, 7)},
        {b"d": GONE, b"d/f": GONE, b"d/g": GONE, b"d/deep": GONE, b"d/deep/x": GONE},
    ),
    "content and mode": ({b"f": file(b"one", mode=0o600)}, {b"f": TWO}, {b"f": file(b"two", mode=0o600)}),
    "mode and content": ({b"f": TWO}, {b"f": file(b"one", mode=0o600)}, {b"f": file(b"two", mode=0o600)}),
    "xattrs and content": (
        {b"f": file(b"one", xattrs=((b"user.a", b"1"),))},
        {b"f": TWO},
        {b"f": file(b"two", xattrs=((b"user.a", b"1"),))},
    ),
    "times of a directory": (
        {b"d": later(DIRECTORY, 5), b"d/n": TWO},
        {b"d": later(DIRECTORY, 3), b"d/m": TWO},
        {b"d": later(DIRECTORY, 5), b"d/n": TWO, b"d/m": TWO},
    ),
    "times of the root": ({b"": later(DIRECTORY, 5)}, {b"": later(DIRECTORY, 9)}, {b"": later(DIRECTORY, 9)}),
    "mode of the root, and its time": (
        {b"": DIRECTORY._replace(mode=0o700)},
        {b"": later(DIRECTORY, 9)},
        {b"": Entry(Kind.DIRECTORY, 0o700, mtime_ns=9)},
    ),
    "a new name for an old directory beside another change": (MOVED, {b"f": TWO}, {
        b"d": GONE, b"d/f": GONE, b"d/g": GONE, b"d/deep": GONE, b"d/deep/x": GONE,
        b"e": DIRECTORY, b"e/f": ONE, b"e/g": ONE, b"e/deep": DIRECTORY, b"e/deep/x": ONE, b"f": TWO,
    }),
    "a file for a directory that the other removed": (
        {b"d/deep": TWO}, {b"d/deep": WHITEOUT}, {b"d/deep": TWO, b"d/deep/x": GONE}
    ),
    "a directory for a file that the other removed": (
        {b"f": DIRECTORY, b"f/n": TWO}, {b"f": WHITEOUT}, {b"f": DIRECTORY, b"f/n": TWO}
    ),
    "a directory replaced beside another change": (
        {b"d/deep": OPAQUE, b"d/deep/n": TWO},
        {b"d/f": THREE},
        {b"d/deep": DIRECTORY, b"d/deep/x": GONE, b"d/deep/n": TWO, b"d/f": THREE},
    ),
    "a directory replaced that the other emptied": (
        {b"d/deep": OPAQUE, b"d/deep/n": TWO},
        {b"d/deep/x": WHITEOUT},
        {b"d/deep": DIRECTORY, b"d/deep/x": GONE, b"d/deep/n": TWO},
    ),
    "one name of a linked file removed": ({b"h": WHITEOUT}, {b"n": TWO}, {b"h": GONE, b"n": TWO}),
}  # fmt: skip


@pytest.mark.parametrize("policy", Policy)
@pytest.mark.parametrize("case", AGREEING)
def test_what_goes_together_is_no_conflict(case, policy):
    ours, theirs, expected = AGREEING[case]
    found, tree = merged(ours, theirs, policy)
    wanted = {b"": DIRECTORY, **BASE, **expected}
    plain = {path: entry._replace(hardlink=0) for path, entry in wanted.items() if entry is not GONE}

    assert [] == found.conflicts
    assert plain == {path: entry for path, (entry, _) in tree.items()}


# name: ours, theirs, the paths in conflict, and for each policy some of what the result has
CONFLICTING = {
    "content": ({b"f": TWO}, {b"f": THREE}, [b"f"], {
        OURS: {b"f": TWO}, LAST: {b"f": TWO}, THEIRS: {b"f": THREE},
        BOTH: {b"f": THREE, b"f.conflict-m": TWO},
    }),
    "both made": ({b"n.txt": TWO}, {b"n.txt": THREE}, [b"n.txt"], {
        LAST: {b"n.txt": TWO}, THEIRS: {b"n.txt": THREE},
        BOTH: {b"n.txt": THREE, b"n.conflict-m.txt": TWO},
    }),
    "content, and the mode of one side stays": (
        {b"f": file(b"two", mode=0o600)}, {b"f": THREE}, [b"f"],
        {LAST: {b"f": file(b"two", mode=0o600)}, THEIRS: {b"f": file(b"three", mode=0o600)}},
    ),
    "mode": ({b"f": file(b"one", mode=0o600)}, {b"f": file(b"one", mode=0o640)}, [b"f"], {
        OURS: {b"f": file(b"one", mode=0o600)}, THEIRS: {b"f": file(b"one", mode=0o640)},
    }),
    "mode of a directory": (
        {b"d": DIRECTORY._replace(mode=0o700)}, {b"d": DIRECTORY._replace(mode=0o750)}, [b"d"],
        {LAST: {b"d": DIRECTORY._replace(mode=0o700)}, BOTH: {b"d": DIRECTORY._replace(mode=0o750)}},
    ),
    "mode of the root": (
        {b"": DIRECTORY._replace(mode=0o700)}, {b"": DIRECTORY._replace(mode=0o750)}, [b""],
        {LAST: {b"": DIRECTORY._replace(mode=0o700)}, THEIRS: {b"": DIRECTORY._replace(mode=0o750)}},
    ),
    "removed by ours": ({b"f": WHITEOUT}, {b"f": TWO}, [b"f"], {
        OURS: {b"f": GONE}, LAST: {b"f": TWO}, THEIRS: {b"f": TWO}, BOTH: {b"f": TWO},
    }),
    "removed by theirs": ({b"f": TWO}, {b"f": WHITEOUT}, [b"f"], {
        OURS: {b"f": TWO}, LAST: {b"f": TWO}, THEIRS: {b"f": GONE}, BOTH: {b"f": TWO},
    }),
    "rm -r against a change": ({b"d": WHITEOUT}, {b"d/deep/x": TWO}, [b"d/deep/x"], {
        OURS: {b"d": GONE},
        LAST: {b"d": DIRECTORY, b"d/deep/x": TWO, b"d/f": GONE, b"d/g": GONE},
        THEIRS: {b"d/deep/x": TWO, b"d/f": GONE}, BOTH: {b"d/deep/x": TWO, b"d/f": GONE},
    }),
    "rm -r against a file made": ({b"d": WHITEOUT}, {b"d/n": TWO}, [b"d/n"], {
        OURS: {b"d": GONE}, LAST: {b"d/n": TWO, b"d/f": GONE, b"d/deep": GONE},
    }),
    "a change against rm -r": ({b"d/deep/x": TWO}, {b"d": WHITEOUT}, [b"d/deep/x"], {
        OURS: {b"d": DIRECTORY, b"d/deep/x": TWO, b"d/f": GONE}, LAST: {b"d/deep/x": TWO, b"d/f": GONE},
        THEIRS: {b"d": GONE}, BOTH: {b"d/deep/x": TWO},
    }),
    "files made against rm -r": (
        {b"d/n": TWO, b"d/sub": DIRECTORY, b"d/sub/n": TWO}, {b"d": WHITEOUT}, [b"d/n", b"d/sub", b"d/sub/n"],
        {LAST: {b"d": DIRECTORY, b"d/n": TWO, b"d/sub/n": TWO, b"d/f": GONE}, THEIRS: {b"d": GONE}},
    ),
    "mode of a directory against rm -r": ({b"d": DIRECTORY._replace(mode=0o700)}, {b"d": WHITEOUT}, [b"d"], {
        LAST: {b"d": DIRECTORY._replace(mode=0o700), b"d/f": GONE}, THEIRS: {b"d": GONE},
    }),
    "a rename of ours against an edit": (MOVED, {b"d/f": TWO}, [b"d/f"], {
        OURS: {b"d": GONE, b"e/f": ONE}, LAST: {b"d/f": TWO, b"d/g": GONE, b"e/f": ONE, b"e/g": ONE},
    }),
    "an edit against a rename of theirs": ({b"d/f": TWO}, MOVED, [b"d/f"], {
        LAST: {b"d/f": TWO, b"d/g": GONE, b"e/f": ONE}, THEIRS: {b"d": GONE, b"e/f": ONE},
    }),
    "a directory replaced by ours": ({b"d": OPAQUE, b"d/n": TWO}, {b"d/f": TWO, b"d/m": ONE}, [b"d/f", b"d/m"], {
        OURS: {b"d/n": TWO, b"d/f": GONE, b"d/m": GONE, b"d/g": GONE},
        LAST: {b"d/n": TWO, b"d/f": TWO, b"d/m": ONE, b"d/g": GONE, b"d/deep": GONE},
    }),
    "a directory replaced by theirs": ({b"d/f": TWO, b"d/m": ONE}, {b"d": OPAQUE, b"d/n": TWO}, [b"d/f", b"d/m"], {
        OURS: {b"d/n": TWO, b"d/f": TWO, b"d/m": ONE, b"d/g": GONE},
        THEIRS: {b"d/n": TWO, b"d/f": GONE, b"d/m": GONE},
    }),
    "a file for a directory against a change": ({b"d/deep": TWO}, {b"d/deep/x": TWO}, [b"d/deep/x"], {
        OURS: {b"d/deep": TWO}, LAST: {b"d/deep": TWO}, THEIRS: {b"d/deep": DIRECTORY, b"d/deep/x": TWO},
        BOTH: {b"d/deep/x": TWO, b"d/deep.conflict-m": TWO},
    }),
    "a change against a file for a directory": ({b"d/deep/x": TWO}, {b"d/deep": TWO}, [b"d/deep/x"], {
        OURS: {b"d/deep": DIRECTORY, b"d/deep/x": TWO}, THEIRS: {b"d/deep": TWO},
        BOTH: {b"d/deep": TWO, b"d/deep.conflict-m/x": TWO},
    }),
    "a directory against a file": ({b"n": DIRECTORY, b"n/a": TWO}, {b"n": ONE}, [b"n"], {
        OURS: {b"n": DIRECTORY, b"n/a": TWO}, THEIRS: {b"n": ONE},
        BOTH: {b"n": ONE, b"n.conflict-m": DIRECTORY, b"n.conflict-m/a": TWO},
    }),
    "a file against a directory": ({b"n": ONE}, {b"n": DIRECTORY, b"n/a": TWO}, [b"n"], {
        OURS: {b"n": ONE, b"n/a": GONE}, THEIRS: {b"n/a": TWO}, BOTH: {b"n/a": TWO, b"n.conflict-m": ONE},
    }),
    "a directory for a file that the other changed": ({b"f": DIRECTORY, b"f/n": TWO}, {b"f": TWO}, [b"f"], {
        OURS: {b"f/n": TWO}, LAST: {b"f/n": TWO}, THEIRS: {b"f": TWO},
        BOTH: {b"f": TWO, b"f.conflict-m/n": TWO},
    }),
    "a symlink against another content": ({b"f": Entry(Kind.SYMLINK, 0o777, target=b"t")}, {b"f": TWO}, [b"f"], {
        LAST: {b"f": Entry(Kind.SYMLINK, 0o777, target=b"t")}, THEIRS: {b"f": TWO},
    }),
    "a directory for a file, changed by theirs below one that ours removed": (
        {b"d": WHITEOUT}, {b"d/deep": WHITEOUT, b"d/f": DIRECTORY, b"d/f/n": TWO}, [b"d/f", b"d/f/n"],
        {LAST: {b"d/f/n": TWO, b"d/g": GONE}, OURS: {b"d": GONE}},
    ),
    "a linked file changed against one name removed": (
        {b"h": file(b"L", hardlink=1), b"i": file(b"L", hardlink=1)}, {b"h": WHITEOUT}, [b"h"],
        {LAST: {b"h": file(b"L"), b"i": file(b"L")}, THEIRS: {b"h": GONE, b"i": file(b"L")}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CONFLICTING)
def test_what_does_not_go_together_is_a_conflict_and_the_policy_decides(case):
    ours, theirs, conflicts, outcomes = CONFLICTING[case]
    found, _ = merged(ours, theirs, Policy.ERROR)
    mirrored, _ = merged(theirs, ours, Policy.ERROR)

    assert conflicts == [conflict.path for conflict in found.conflicts]
    assert conflicts == [conflict.path for conflict in mirrored.conflicts]
    assert ([], 0, 0) == (found.rows, found.used_bytes, found.inode_count)
    for policy, expected in outcomes.items():
        found, tree = merged(ours, theirs, policy)

        assert conflicts == [conflict.path for conflict in found.conflicts]
        assert expected == {path: tree[path][0] if path in tree else GONE for path in expected}, policy


def test_without_layers_to_look_at_a_directory_with_another_file_is_not_taken_for_another_directory():
    base = {b"d": DIRECTORY, b"d/tmp": ONE}
    ancestor = View([reader_of(layer(base))])
    theirs = View([reader_of(layer({b"d": DIRECTORY, b"d/final": ONE}))])
    found = merge(layer({b"d/n": TWO}), ancestor, theirs, Policy.ERROR, totals=(0, 0))

    assert ([], [(b"d", b"n", TWO)]) == (found.conflicts, found.rows)
    found = merge(layer({b"d": WHITEOUT}), ancestor, theirs, Policy.ERROR, totals=(0, 0))
    assert [b"d/final"] == [conflict.path for conflict in found.conflicts]


def test_rows_in_a_directory_that_is_not_there_are_refused():
    with pytest.raises(CorruptObjectError, match="no directory"):
        merged({b"nowhere/n": ONE}, {}, Policy.ERROR)


def test_a_conflict_says_why():
    reasons = {
        Reason.CONTENT: ({b"f": TWO}, {b"f": THREE}),
        Reason.ATTRIBUTES: ({b"f": file(b"one", mode=1)}, {b"f": file(b"one", mode=2)}),
        Reason.XATTRS: ({b"f": file(b"one", xattrs=((b"a", b""),))}, {b"f": file(b"one", xattrs=((b"b", b""),))}),
        Reason.REMOVED: ({b"f": WHITEOUT}, {b"f": THREE}),
        Reason.KIND: ({b"n": ONE}, {b"n": DIRECTORY}),
    }

    for reason, sides in reasons.items():
        assert [reason] == [conflict.reason for conflict in merged(*sides, Policy.OURS)[0].conflicts]


def names(tree, path):
    return list(tree[path][1])


def test_links_that_one_side_made_are_in_the_result():
    ours = {b"f": file(b"one", hardlink=1), b"n": file(b"one", hardlink=1)}

    _, tree = merged(ours, {b"d/f": TWO}, Policy.ERROR)

    assert [b"f", b"n"] == names(tree, b"n")
    assert [b"h", b"i"] == names(tree, b"h")


def test_attributes_of_linked_files_go_to_all_their_names():
    ours = {path: file(b"linked", mode=0o600, hardlink=1) for path in (b"h", b"i")}
    theirs = {path: file(b"other", hardlink=1) for path in (b"h", b"i")}

    found, tree = merged(ours, theirs, Policy.ERROR)

    assert [] == found.conflicts
    assert file(b"other", mode=0o600) == tree[b"h"][0] == tree[b"i"][0]
    assert [b"h", b"i"] == names(tree, b"h")


def test_a_link_that_theirs_broke_is_broken_though_ours_changed_the_mode_of_both():
    ours = {path: file(b"linked", mode=0o600, hardlink=1) for path in (b"h", b"i")}

    _, tree = merged(ours, {b"h": file(b"linked")}, Policy.ERROR)

    assert file(b"linked", mode=0o600) == tree[b"h"][0] == tree[b"i"][0]
    assert [b"h"] == names(tree, b"h")


def test_a_link_that_ours_made_falls_apart_where_theirs_changed_one_name():
    ours = {b"f": file(b"one", hardlink=1), b"n": file(b"one", hardlink=1)}

    found, tree = merged(ours, {b"f": TWO}, Policy.ERROR)

    assert [] == found.conflicts
    assert (TWO, ONE) == (tree[b"f"][0], tree[b"n"][0])
    assert [b"n"] == names(tree, b"n")


def test_keeping_both_keeps_links_among_the_files_of_ours():
    ours = {path: file(b"mine", hardlink=1) for path in (b"h", b"i")}
    theirs = {path: file(b"theirs", hardlink=1) for path in (b"h", b"i")}

    _, tree = merged(ours, theirs, Policy.KEEP_BOTH)

    assert [b"h", b"i"] == names(tree, b"h")
    assert [b"h.conflict-m", b"i.conflict-m"] == names(tree, b"h.conflict-m")


def test_a_name_beside_is_one_that_nobody_has():
    ours = {b"f": TWO, b"f.conflict-m-2": ONE}

    _, tree = merged(ours, {b"f": THREE, b"f.conflict-m": ONE}, Policy.KEEP_BOTH)

    assert (THREE, TWO) == (tree[b"f"][0], tree[b"f.conflict-m-3"][0])


@pytest.mark.parametrize(
    ("name", "is_directory", "expected"),
    [
        (b"report.txt", False, b"report.conflict-m.txt"),
        (b"report", False, b"report.conflict-m"),
        (b".hidden", False, b".hidden.conflict-m"),
        (b"v1.2", True, b"v1.2.conflict-m"),
        (b"a." + b"e" * 40, False, b"a." + b"e" * 40 + b".conflict-m"),
        (b"x" * 255, False, b"x" * 244 + b".conflict-m"),
        ("é".encode() * 127, False, "é".encode() * 122 + b".conflict-m"),
        (b"\xff" * 255, False, b"\xff" * 244 + b".conflict-m"),
    ],
)
def test_a_name_beside_is_a_name(name, is_directory, expected):
    assert expected == derived_name(name, b"m", 1, is_directory=is_directory)
    assert len(derived_name(name, b"m", 1000, is_directory=is_directory)) <= 255


class Counting:
    """A layer that says how often it was asked."""

    def __init__(self, rows) -> None:
        self._reader = reader_of(layer(rows))
        self.asked = 0

    def __getattr__(self, name):
        def counted(*args):
            self.asked += 1
            return getattr(self._reader, name)(*args)

        return counted


@pytest.mark.parametrize(
    "ours",
    [{b"d7/f": TWO}, {b"d7": WHITEOUT}, {b"d7": OPAQUE, b"d7/n": TWO}, {b"d7": TWO}],
    ids=["content", "removed", "replaced", "a file for a directory"],
)
def test_only_what_ours_touched_is_looked_at(ours):
    base = {b"d%d" % d: DIRECTORY for d in range(300)} | {b"d%d/f" % d: ONE for d in range(300)}
    shared = Counting(base)
    theirs = View([shared, reader_of(layer({b"d%d/f" % d: TWO for d in range(100, 200)}))])

    found = merge(layer(ours), View([shared]), theirs, Policy.ERROR, totals=(0, 0), shared=1)

    assert [] == found.conflicts
    assert ours == {join(directory, name): entry for directory, name, entry in found.rows}
    assert shared.asked < 40

"""What a working tree changed, against an oracle that knows no layers.

The machine plays an overlay in memory: an upper with whiteouts, opaque directories and redirects on one
side, a plain mapping of paths to inodes on the other.  After every commit the view of the new stack must
be the plain mapping.
"""

from __future__ import annotations

import sqlite3

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from volume_core.domain.changes import EMPTY_TOTALS, Changes, Upper, changes
from volume_core.domain.view import View
from volume_core.format.entries import WHITEOUT, ChunkRef, Entry, Extent, Kind, join, split
from volume_core.format.layer import LayerReader, write_layer

DIRECTORY = Entry(Kind.DIRECTORY, 0o755)


def file(text: bytes = b"", **attributes) -> Entry:
    """A file whose one chunk is named by its text."""
    if not text:
        return Entry(Kind.FILE, 0o644, **attributes)
    chunk = ChunkRef(text.ljust(32, b"."), b"p" * 32, 32, len(text), len(text))
    return Entry(Kind.FILE, 0o644, size=len(text), content=(Extent(len(text), chunk),), **attributes)


def layer(rows) -> LayerReader:
    connection = sqlite3.connect(":memory:")
    write_layer(connection, rows)
    return LayerReader(connection)


def tree(view: View) -> dict[bytes, tuple]:
    """path -> (entry without its link number, the set of its names)."""
    return {n.path: (view.entry(n)._replace(hardlink=0), frozenset(view.links(n))) for n in view.walk()}


def committed(upper: dict[bytes, Upper], base: View | None = None, totals=EMPTY_TOTALS) -> tuple[Changes, LayerReader]:
    base = base or View()
    found = changes({b"": Upper(DIRECTORY, b""), **upper}, base, base, None, totals)
    return found, layer(found.rows)


@pytest.fixture
def base():
    """a/{f,g}, a/deep/x, h (one inode with a/g), empty/"""
    found, reader = committed(
        {
            b"a": Upper(DIRECTORY),
            b"a/f": Upper(file(b"one")),
            b"a/g": Upper(file(b"linked", hardlink=5)),
            b"a/deep": Upper(DIRECTORY),
            b"a/deep/x": Upper(file(b"deep")),
            b"empty": Upper(DIRECTORY),
            b"h": Upper(file(b"linked", hardlink=5)),
        }
    )
    view = View([reader])
    yield view, (found.used_bytes, found.inode_count)
    view.close()


def rows_of(base, upper):
    view, totals = base
    found, reader = committed(upper, view, totals)
    reader.close()
    return {join(directory, name): entry for directory, name, entry in found.rows}, found


def test_totals_count_a_hard_linked_file_once(base):
    assert (3 + 6 + 4, 7) == base[1]


def test_what_was_copied_up_and_not_changed_is_no_change(base):
    rows, found = rows_of(
        base, {b"a": Upper(DIRECTORY, b"a"), b"a/f": Upper(file(b"one")), b"a/g": Upper(file(b"linked"))}
    )

    assert {} == rows
    assert base[1] == (found.used_bytes, found.inode_count)


def test_a_directory_replaced_by_nothing_of_its_own_is_opaque(base):
    rows, _ = rows_of(base, {b"a": Upper(DIRECTORY), b"a/new": Upper(file(b"n"))})

    assert {b"a": Kind.OPAQUE, b"a/new": Kind.FILE} == {path: entry.kind for path, entry in rows.items()}


def test_a_new_directory_is_not_opaque(base):
    rows, _ = rows_of(base, {b"b": Upper(DIRECTORY)})

    assert {b"b": Kind.DIRECTORY} == {path: entry.kind for path, entry in rows.items()}


def test_a_directory_made_again_keeps_what_is_equal(base):
    rows, _ = rows_of(base, {b"a": Upper(DIRECTORY), b"a/f": Upper(file(b"one"))})

    assert {b"a/g": WHITEOUT, b"a/deep": WHITEOUT} == rows


def test_a_renamed_directory_moves_its_rows_and_all_names_of_its_links(base):
    rows, found = rows_of(base, {b"a": Upper(WHITEOUT), b"b": Upper(DIRECTORY, b"a")})

    assert {b"a", b"b", b"b/deep", b"b/deep/x", b"b/f", b"b/g", b"h"} == set(rows)
    assert rows[b"h"].hardlink == rows[b"b/g"].hardlink != 0
    assert base[1] == (found.used_bytes, found.inode_count)


def test_a_whiteout_of_what_is_not_there_is_nothing(base):
    rows, _ = rows_of(base, {b"gone": Upper(WHITEOUT)})

    assert {} == rows


def test_a_file_for_a_directory_and_back(base):
    rows, found = rows_of(base, {b"a": Upper(file(b"flat")), b"h": Upper(DIRECTORY)})

    assert {b"a": Kind.FILE, b"h": Kind.DIRECTORY} == {path: entry.kind for path, entry in rows.items()}
    assert (4, 4) == (found.used_bytes, found.inode_count)


def test_a_second_name_for_a_captured_file_writes_the_whole_group():
    base = View()
    first = {b"": Upper(DIRECTORY, b""), b"a": Upper(file(b"x", hardlink=1)), b"b": Upper(file(b"x", hardlink=1))}
    made = changes(first, base, base)
    parent = View([layer(made.rows)])
    second = {**first, b"c": Upper(file(b"x", hardlink=1))}

    found = changes(second, base, parent, first, (made.used_bytes, made.inode_count))

    assert {b"a", b"b", b"c"} == {name for _, name, _ in found.rows}
    assert (1, 2) == (found.used_bytes, found.inode_count)
    parent.close()


def test_a_link_that_this_tree_made_and_lost_is_a_change():
    base = View()
    first = {b"": Upper(DIRECTORY, b""), b"a": Upper(file(b"x", hardlink=1)), b"b": Upper(file(b"x", hardlink=1))}
    made = changes(first, base, base)
    parent = View([layer(made.rows)])
    second = {b"": Upper(DIRECTORY, b""), b"a": Upper(file(b"x")), b"b": Upper(file(b"x"))}

    found = changes(second, base, parent, first, (made.used_bytes, made.inode_count))

    assert [(b"", b"a", file(b"x")), (b"", b"b", file(b"x"))] == found.rows
    assert (2, 3) == (found.used_bytes, found.inode_count)
    parent.close()


NAMES = st.sampled_from([b"a", b"b", b"c", b"\xff"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(b"/".join)
TEXTS = st.sampled_from([b"", b"one", b"two", b"three"])


class OverlayMachine(RuleBasedStateMachine):
    """An overlay in memory over a stack of layers, beside a mapping of paths to inodes."""

    @initialize()
    def start(self):
        self.readers: list[LayerReader] = []
        self.base = self.parent = View()
        self.captured: dict[bytes, Upper] | None = None
        self.totals = EMPTY_TOTALS
        self.upper: dict[bytes, Upper] = {b"": Upper(DIRECTORY, b"")}
        self.inodes: dict[bytes, int] = {b"": 0}  # the oracle: path -> inode
        self.values: dict[int, Entry] = {0: DIRECTORY}
        self.counter = 1

    def teardown(self):
        for reader in getattr(self, "readers", ()):
            reader.close()

    # -- the overlay

    def below(self, path: bytes) -> bytes | None:
        """The base path that lies under *path*, whether or not it is hidden there."""
        directory, name = split(path)
        held = self.upper.get(directory)
        under = held.base if held else self.below(directory)
        if under is None or (held and held.entry.kind is Kind.WHITEOUT):
            return None
        found = join(under, name)
        return found if self.base.resolve(found) else None

    def copy_up(self, path: bytes) -> None:
        if path in self.upper:
            return
        self.copy_up(split(path)[0])
        under = self.below(path)
        node = self.base.resolve(under)
        entry = self.base.entry(node)._replace(hardlink=0)
        self.upper[path] = Upper(entry, under if node.is_directory else None)

    def drop(self, path: bytes) -> None:
        """Remove *path* and all below it from the upper, leaving a whiteout where the base shows through."""
        self.copy_up(split(path)[0])
        under = self.below(path)
        for gone in [p for p in self.upper if p == path or p.startswith(path + b"/")]:
            del self.upper[gone]
        if under is not None:
            self.upper[path] = Upper(WHITEOUT)

    # -- the oracle

    def is_directory(self, path: bytes) -> bool:
        return path in self.inodes and self.values[self.inodes[path]].is_directory

    def new_inode(self, path: bytes, entry: Entry) -> int:
        self.counter += 1
        self.inodes[path] = self.counter
        self.values[self.counter] = entry
        return self.counter

    def forget(self, path: bytes) -> None:
        for gone in [p for p in self.inodes if p == path or p.startswith(path + b"/")]:
            del self.inodes[gone]

    def upper_names(self, inode: int) -> list[bytes]:
        return [p for p, i in self.inodes.items() if i == inode and p in self.upper]

    # -- what a user does

    @rule(path=PATHS, text=TEXTS)
    def write(self, path, text):
        if not self.is_directory(split(path)[0]) or self.is_directory(path):
            return
        self.drop(path) if path in self.inodes else self.copy_up(split(path)[0])
        self.upper[path] = Upper(file(text))
        self.new_inode(path, file(text))

    @rule(path=PATHS)
    def make_directory(self, path):
        if not self.is_directory(split(path)[0]) or path in self.inodes:
            return
        self.copy_up(split(path)[0])
        self.upper[path] = Upper(DIRECTORY)
        self.new_inode(path, DIRECTORY)

    @rule(path=PATHS)
    def remove(self, path):
        if path not in self.inodes:
            return
        self.drop(path)
        self.forget(path)

    @rule(path=PATHS)
    def touch_nothing(self, path):
        if path in self.inodes:
            self.copy_up(path)

    @rule(path=PATHS, mode=st.sampled_from([0o700, 0o755]))
    def change_mode_of_directory(self, path, mode):
        if self.is_directory(path):
            self.copy_up(path)
            self.upper[path] = self.upper[path]._replace(entry=self.upper[path].entry._replace(mode=mode))
            self.new_inode(path, self.upper[path].entry)

    @rule(source=PATHS, goal=PATHS)
    def rename(self, source, goal):
        if source not in self.inodes or goal in self.inodes or not self.is_directory(split(goal)[0]):
            return
        if goal.startswith(source + b"/"):
            return
        self.copy_up(source)
        self.copy_up(split(goal)[0])
        moved = {
            goal + p[len(source) :]: u for p, u in self.upper.items() if p == source or p.startswith(source + b"/")
        }
        self.drop(source)
        self.upper.pop(goal, None)
        self.upper.update(moved)
        for path in [p for p in self.inodes if p == source or p.startswith(source + b"/")]:
            self.inodes[goal + path[len(source) :]] = self.inodes.pop(path)
        for path, held in moved.items():
            names = [p for p, inode in self.inodes.items() if inode == self.inodes.get(path)]
            if len(names) > 1 and not held.entry.hardlink:  # overlay broke the link when it copied the file up
                self.new_inode(path, held.entry)

    @rule(source=PATHS, goal=PATHS)
    def link(self, source, goal):
        if source not in self.inodes or self.is_directory(source) or goal in self.inodes:
            return
        if not self.is_directory(split(goal)[0]):
            return
        self.copy_up(source)
        self.copy_up(split(goal)[0])
        held = self.upper[source].entry
        if not held.hardlink:  # overlay broke its links to names of the base when it copied it up
            self.new_inode(source, held)
            held = held._replace(hardlink=self.counter)
            self.upper[source] = Upper(held)
        self.upper[goal] = Upper(held)
        self.inodes[goal] = self.inodes[source]

    def settle_links(self) -> None:
        """A file with one name left in the upper has link count 1, as stat would say."""
        for path, held in list(self.upper.items()):
            names = [p for p, u in self.upper.items() if u.entry.hardlink == held.entry.hardlink]
            if held.entry.hardlink and len(names) == 1:
                self.upper[path] = Upper(held.entry._replace(hardlink=0))

    def commit(self) -> Changes:
        self.settle_links()
        found = changes(self.upper, self.base, self.parent, self.captured, self.totals)
        if found.rows:
            reader = layer(found.rows)
            self.readers.append(reader)
            self.parent = View(self.readers)
        self.captured = dict(self.upper)
        self.totals = found.used_bytes, found.inode_count
        self.check()
        return found

    @rule()
    def commit_and_go_on(self):
        self.commit()

        again = changes(self.upper, self.base, self.parent, self.captured, self.totals)

        assert ([], *self.totals) == again

    @rule()
    def commit_and_mount_again(self):
        self.commit()
        self.base = self.parent = View(self.readers)
        self.captured = None
        self.upper = {b"": Upper(DIRECTORY, b"")}

    def check(self) -> None:
        names: dict[int, set[bytes]] = {}
        for path, inode in self.inodes.items():
            names.setdefault(inode, set()).add(path)
        expected = {path: (self.values[i]._replace(hardlink=0), frozenset(names[i])) for path, i in self.inodes.items()}
        files = [self.values[inode] for inode in names]

        assert expected == tree(self.parent)
        assert (sum(f.size for f in files), len(files)) == self.totals

    @precondition(lambda self: hasattr(self, "readers"))
    @invariant()
    def every_number_leads_back_to_its_node(self):
        for node in self.parent.walk():
            assert node.number == self.parent.node(node.number).number


OverlayMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestOverlay = OverlayMachine.TestCase

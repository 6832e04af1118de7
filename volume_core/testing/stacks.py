"""Random layer stacks, and the plain tree that each of them must show: strategies for Hypothesis.

Always true: `Stack.tree` is made by applying rows to a mapping of paths, and knows neither views nor
SQLite.  A stack is one that commits can write: whatever lies in a directory of a layer has a
directory there, in that layer or below; link groups are whole.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from hypothesis import strategies as st

from volume_core.domain.view import View
from volume_core.format.digests import digest
from volume_core.format.entries import WHITEOUT, ChunkRef, Entry, Extent, Kind, join, split
from volume_core.format.layer import LayerReader, write_layer

# "-" sorts before "/", "0" behind it: the order of paths is not the order of a walk.  And no name need be text.
NAMES = (b"a", b"b", b"a-", b"a0", b"\xff")
DEPTH_MAX = 4
ROOT = Entry(Kind.DIRECTORY, 0o755)

Link = tuple[int, int]  # (layer, group): the inode of a file with several names
Rows = list[tuple[bytes, bytes, Entry]]


class Shown(NamedTuple):
    """What a tree has at a path: an entry as a view would say it but for `hardlink`, and its inode."""

    entry: Entry
    link: Link | None


@dataclass
class Stack:
    """Layers, oldest first, and the tree they show."""

    layers: list[Rows] = field(default_factory=list)
    tree: dict[bytes, Shown] = field(default_factory=lambda: {b"": Shown(ROOT, None)})

    def readers(self) -> list[LayerReader]:
        """Return the layers, written and opened in memory; a view closes them."""
        return [reader_of(rows) for rows in self.layers]

    def view(self) -> View:
        """Return a new view of the stack."""
        return View(self.readers())

    def names_of(self, path: bytes) -> list[bytes]:
        """Return, sorted, every path of the inode at *path*."""
        link = self.tree[path].link
        return [path] if link is None else sorted(other for other, shown in self.tree.items() if shown.link == link)

    def children(self, directory: bytes) -> list[bytes]:
        """Return, sorted by name, the paths right below *directory*."""
        return sorted(path for path in self.tree if path and split(path)[0] == directory)


def reader_of(rows: Rows) -> LayerReader:
    """Return *rows* as a layer in memory."""
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    write_layer(connection, rows)
    return LayerReader(connection)


def shown_tree(view: View) -> dict[bytes, tuple[Entry, tuple[bytes, ...]]]:
    """Return path -> (entry without its link number, all names of its inode) of all that *view* shows."""
    return {n.path: (view.entry(n)._replace(hardlink=0), tuple(view.links(n))) for n in view.walk()}


def expected_tree(stack: Stack) -> dict[bytes, tuple[Entry, tuple[bytes, ...]]]:
    """Return what shown_tree must return for the view of *stack*."""
    return {path: (shown.entry, tuple(stack.names_of(path))) for path, shown in stack.tree.items()}


def universe() -> Iterator[bytes]:
    """Yield every path that a stack can have, and some that none has."""
    level = [b""]
    for _ in range(DEPTH_MAX):
        level = [join(path, name) for path in level for name in NAMES]
        yield from level


def file_content(seed: int) -> tuple[int, tuple[Extent, ...]]:
    """Return (size, extents): nothing, a hole, one whole chunk, or parts of chunks with a hole between."""
    kind, length = seed % 4, seed + 1
    if kind == 0:
        return 0, ()
    if kind == 1:
        return length, (Extent(length, None),)
    chunk = ChunkRef(digest(b"%d" % seed), digest(b"pack"), 32 + seed, length, length)
    if kind == 2:
        return length, (Extent(length, chunk),)
    return length + 9, (Extent(length - 1, chunk, 1), Extent(9, None), Extent(1, chunk, 0))


@st.composite
def stacks(draw: Callable[[st.SearchStrategy[object]], object], layers_max: int = 5) -> Stack:
    """Draw a Stack of up to *layers_max* layers."""
    stack = Stack()
    for number in range(draw(st.integers(0, layers_max))):  # type: ignore[call-overload]
        stack.layers.append(_apply(stack.tree, number, draw(_LAYER)))  # type: ignore[arg-type]
    return stack


class Fork(NamedTuple):
    """Two stacks that begin with the layers of a third."""

    ancestor: Stack
    ours: Stack
    theirs: Stack


@st.composite
def forks(draw: Callable[[st.SearchStrategy[object]], object], layers_max: int = 2) -> Fork:
    """Draw a Fork: an ancestor of up to *layers_max* layers, and two stacks of up to *layers_max* more."""
    ancestor: Stack = draw(stacks(layers_max))  # type: ignore[assignment]
    sides = []
    for _ in range(2):
        side = Stack(list(ancestor.layers), dict(ancestor.tree))
        for _ in range(draw(st.integers(0, layers_max))):  # type: ignore[call-overload]
            side.layers.append(_apply(side.tree, len(side.layers), draw(_LAYER)))  # type: ignore[arg-type]
        sides.append(side)
    return Fork(ancestor, *sides)


_PATH = st.lists(st.sampled_from(NAMES), max_size=DEPTH_MAX).map(b"/".join)
_KINDS = {
    Kind.FILE: 3,
    Kind.DIRECTORY: 4,
    Kind.OPAQUE: 2,
    Kind.WHITEOUT: 2,
    Kind.SYMLINK: 1,
    Kind.FIFO: 1,
    Kind.CHAR: 1,
}
_KIND = st.sampled_from([kind for kind, weight in _KINDS.items() for _ in range(weight)])
_LAYER = st.lists(
    st.tuples(_PATH, _KIND, st.integers(0, 11), st.integers(0, 2)),
    min_size=3,
    max_size=16,
    unique_by=lambda row: row[0],
).map(lambda rows: {path: values for path, *values in rows})


def _entry(kind: Kind, seed: int) -> Entry:
    if kind is Kind.WHITEOUT:
        return WHITEOUT
    entry = Entry(kind, 0o600 + seed, seed, seed + 1, 10**18 + seed, xattrs=((b"user.a", b"%d" % seed),) * (seed % 2))
    if kind is Kind.FILE:
        size, content = file_content(seed)
        return entry._replace(size=size, content=content)
    if kind is Kind.SYMLINK:
        return entry._replace(target=b"to/%d" % seed)
    return entry._replace(rdev=seed) if kind is Kind.CHAR else entry


def _apply(tree: dict[bytes, Shown], layer: int, wanted: dict[bytes, tuple[Kind, int, int]]) -> Rows:
    """Change *tree* as a layer with those of the *wanted* rows that make sense does; return them, sorted.

    Directories that a wanted row needs and the tree has not are added, as a commit would.
    """
    rows: dict[bytes, Entry] = {}
    attributes: dict[int, int] = {}  # of a link group: all its names have the same
    for path in sorted(wanted, key=split):
        kind, seed, group = wanted[path]
        if not path and kind not in (Kind.DIRECTORY, Kind.OPAQUE):
            continue
        missing = [above for above in _above(path) if above not in tree and above not in wanted]
        if not all(above in missing or (above in tree and tree[above].entry.is_directory) for above in _above(path)):
            continue
        for above in missing:
            rows[above] = _entry(Kind.DIRECTORY, seed)
            tree[above] = Shown(rows[above], None)
        link = group if kind is Kind.FILE else 0
        entry = _entry(kind, attributes.setdefault(link, seed) if link else seed)
        rows[path] = entry._replace(hardlink=link)
        _put(tree, path, entry, (layer, link) if link else None)
    return [(*split(path), rows[path]) for path in sorted(rows, key=split)]


def _above(path: bytes) -> list[bytes]:
    parts = path.split(b"/")
    return [b"", *(b"/".join(parts[:count]) for count in range(1, len(parts)))] if path else []


def _put(tree: dict[bytes, Shown], path: bytes, entry: Entry, link: Link | None) -> None:
    if not (entry.kind is Kind.DIRECTORY and path in tree and tree[path].entry.is_directory):
        below = path + b"/" if path else b""
        for other in [p for p in tree if p == path or p.startswith(below)]:
            del tree[other]
    if entry.kind is not Kind.WHITEOUT:
        tree[path] = Shown(entry._replace(kind=Kind.DIRECTORY) if entry.is_directory else entry, link)

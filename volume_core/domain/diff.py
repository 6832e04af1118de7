"""What turns one tree into another: rows for a layer, and the same told path by path.

Where two stacks have layers in common, or where the layers are known in which all the changes lie, only
what those layers have rows for is looked at: a directory differs at most in the names that they hold,
and below a path that one of them removed or replaced, in everything.

Always true of the rows:

  1. They are what a commit would have written (changes.py has the rules), so that the same row in two
     sets of changes means the same change.
  2. Trees that are equal have none, whatever their stacks.
  3. Contents are compared by the digests of chunks: no data is read.
"""

from __future__ import annotations

import enum
import functools
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import attrgetter, itemgetter
from typing import NamedTuple

from volume_core.domain.changes import identity, same
from volume_core.domain.view import Node, View
from volume_core.format.entries import WHITEOUT, Entry, Kind, join, split
from volume_core.format.layer import ROOT_DIR, LayerReader

LayerRow = tuple[bytes, bytes, Entry]  # directory, name, entry: see write_layer


def rows_between(
    before: View, after: View, shared: int = 0, *, within: Sequence[LayerReader] | None = None
) -> list[LayerRow]:
    """Return the rows which on top of *before* show the tree of *after*, sorted as write_layer wants them.

    *shared* says how many of the oldest layers are the same in both.  *within*, where given, are layers
    that together hold a row for every path at which the trees differ: every delta on the way from the one
    to the other.  The cost is the rows of those layers, or of the layers that are not shared, and the
    paths that they remove or replace; without either it is both trees.
    """
    return Comparison(before, after, shared, within).directories(before.root, after.root)


def rows_of(layer: LayerReader) -> Iterator[LayerRow]:
    """Yield every row of *layer*, in the order that write_layer wants."""
    if (root := layer.root()) is not None:
        yield b"", b"", layer.entry(root)
    for path in layer.directories():
        ident = layer.directory(path)
        rows = list(layer.rows(ident)) if ident is not None else []
        yield from ((path, row.name, entry) for row, entry in zip(rows, layer.entries(rows), strict=True))


class Places:
    """Where trees can differ, said by layers that hold all that they differ in."""

    def __init__(self, layers: Sequence[LayerReader]) -> None:
        self._layers = layers

    @functools.cached_property
    def _below(self) -> dict[bytes, set[bytes]]:
        """Of each directory, the names in it at or below which any of the layers has rows in a directory."""
        below: dict[bytes, set[bytes]] = defaultdict(set)
        for layer in self._layers:
            for path in layer.directories():
                directory, name = split(path)
                while name and name not in below[directory]:
                    below[directory].add(name)
                    directory, name = split(directory)
        return below

    def cuts(self, path: bytes) -> bool:
        """Whether one of the layers removes or replaces what is at *path*, so that everything below can differ."""
        directory, name = split(path)
        for layer in self._layers:
            ident = layer.directory(directory) if path else ROOT_DIR
            row = layer.row_named(ident, name) if ident is not None else None
            if row is not None and row.kind != Kind.DIRECTORY:
                return True
        return False

    def names(self, directory: bytes) -> Mapping[bytes, bool]:
        """Return the names in *directory* at or below which trees can differ, and of each whether in everything."""
        found = dict.fromkeys(self._below.get(directory, ()), False)
        for layer in self._layers:
            ident = layer.directory(directory)
            for row in layer.rows(ident) if ident is not None else ():
                found[row.name] = found.get(row.name, False) or row.kind != Kind.DIRECTORY
        return found


class _Pair(NamedTuple):
    """A directory to compare; `whole`: everything below can differ."""

    before: Node | None
    after: Node
    whole: bool


class Comparison:
    """Finds the rows that turn *before*, or directories of it, into *after*; arguments as rows_between has them."""

    def __init__(self, before: View, after: View, shared: int = 0, within: Sequence[LayerReader] | None = None) -> None:
        self._before = before
        self._after = after
        self._shared = shared
        if within is None and shared:
            within = (*before.layers[shared:], *after.layers[shared:])
        self._places = Places(within) if within is not None else None
        self._rows: dict[bytes, Entry] = {}
        self._linked: list[tuple[Node | None, Node]] = []

    def is_cut(self, path: bytes) -> bool:
        """Whether a layer is known that removes or replaces what is at *path*."""
        return self._places is not None and self._places.cuts(path)

    def directories(self, before: Node, after: Node) -> list[LayerRow]:
        """Compare two directories at one path, with all that is below them; return the rows, sorted.

        Where hard links lead out of the directory, so may rows.
        """
        above = after.path
        whole = self._places is None or self.is_cut(above)
        while above and not whole:
            above = split(above)[0]
            whole = self.is_cut(above)
        self._rows, self._linked = {}, []
        pairs = [_Pair(before, after, whole)]
        while pairs:
            pairs.extend(self._directory(pairs.pop()))
        _Links(self._before, self._after, self._rows).add(self._linked)
        return sorted(((*split(path), entry) for path, entry in self._rows.items()), key=itemgetter(0, 1))

    def _directory(self, pair: _Pair) -> Iterator[_Pair]:
        if pair.whole or pair.before is None:
            before = {node.name: node for node in self._before.listing(pair.before)} if pair.before else {}
            after = {node.name: node for node in self._after.listing(pair.after)}
            # Only layers tell a directory that was replaced from one that was emptied; nobody replaces the root.
            is_told = bool(pair.after.path) and self._places is not None
            opaque = is_told and bool(before) and before.keys().isdisjoint(after)
            compared = {name: (before.get(name), after.get(name), True) for name in {**before, **after}}
        else:
            assert self._places is not None
            opaque = False
            compared = {
                name: (self._before.lookup(pair.before, name), self._after.lookup(pair.after, name), whole)
                for name, whole in self._places.names(pair.after.path).items()
            }
        self._emit_directory(pair, opaque)
        leaves = []
        for name, (one, other, whole) in compared.items():
            if other is None:
                if one is not None and not opaque:
                    self._rows[join(pair.after.path, name)] = WHITEOUT
            elif other.is_directory:
                yield _Pair(one if one is not None and one.is_directory else None, other, whole)
            else:
                leaves.append((one if one is not None and not one.is_directory else None, other))
        self._compare_leaves(leaves)

    def _emit_directory(self, pair: _Pair, opaque: bool) -> None:
        entry = self._after.entry(pair.after)
        if pair.before is None or opaque or not same(entry, self._before.entry(pair.before)):
            self._rows[pair.after.path] = entry._replace(kind=Kind.OPAQUE) if opaque else entry

    def _compare_leaves(self, pairs: Iterable[tuple[Node | None, Node]]) -> None:
        changed, alike = [], []
        for before, after in pairs:
            if after.row.hardlink or (before is not None and before.row.hardlink):
                self._linked.append((before, after))
            elif before is None or not _look_alike(before, after):
                changed.append(after)
            elif before.number != after.number or after.layer >= self._shared:
                alike.append((before, after))
        if alike:
            befores, afters = zip(*alike, strict=True)
            contents = zip(self._before.extents_of(befores), self._after.extents_of(afters), strict=True)
            for after, (one, other) in zip(afters, contents, strict=True):
                if one != other and [*map(identity, one)] != [*map(identity, other)]:
                    changed.append(after)
        self._rows.update(zip([node.path for node in changed], self._after.entries(changed), strict=True))


def _look_alike(before: Node, after: Node) -> bool:
    """Whether two that are no directories are equal but, perhaps, for their contents."""
    one, other = before.row, after.row
    return one[3:9] == other[3:9] and (one.target or b"", one.rdev, one.xattrs) == (
        other.target or b"", other.rdev, other.xattrs
    )  # fmt: skip


class _Links:
    """Decides about hard link groups, which are in the rows whole or not at all.

    A path without a row stays linked to those of its former names that have none either: so of a group
    that fell apart, one part may stay as it is.
    """

    def __init__(self, before: View, after: View, rows: dict[bytes, Entry]) -> None:
        self._before = before
        self._after = after
        self._rows = rows
        self._decided: set[int] = set()

    def add(self, pairs: Iterable[tuple[Node | None, Node]]) -> None:
        for _, after in sorted(pairs, key=lambda pair: pair[1].path):
            if after.number in self._decided:
                continue
            former = self._former(after)
            if former is None:
                self._emit(after)
            else:
                self._keep_one_part(former)

    def _former(self, after: Node) -> Node | None:
        """What all names of *after* were before, if that was one file, and equal to it."""
        nodes = [self._before.resolve(path) for path in self._after.links(after)]
        first = nodes[0]
        if first is None or first.is_directory or any(n is None or n.number != first.number for n in nodes):
            return None
        return first if same(self._before.entry(first), self._after.entry(after)) else None

    def _keep_one_part(self, former: Node) -> None:
        kept = False
        for path in self._before.links(former):
            part = self._after.resolve(path)
            if part is None or part.is_directory or part.number in self._decided:
                continue
            stays = self._former(part)
            if stays is None or kept:
                self._emit(part)
            else:
                kept = True
                self._decided.add(part.number)

    def _emit(self, after: Node) -> None:
        self._decided.add(after.number)
        entry = self._after.entry(after)
        for path in self._after.links(after):
            self._rows[path] = entry


class ChangeKind(enum.StrEnum):
    """How a path differs between two trees."""

    ADDED = "added"
    REMOVED = "removed"
    MODIFIED = "modified"  # the content, the kind, or a symlink's target
    METADATA = "metadata"  # mode, owner, time, extended attributes or hard links, and nothing else


class PathChange(NamedTuple):
    """One path that differs.  `before` is None where it was added, `after` where it was removed.

    A number in `hardlink` means something among the entries of one side only.
    """

    path: bytes
    kind: ChangeKind
    before: Entry | None
    after: Entry | None


def path_changes(before: View, rows: Iterable[LayerRow], limit: int | None = None) -> list[PathChange]:
    """Return every path at which *before* and *rows* on top of it differ, sorted by path (as bytes).

    *rows* are those of rows_between or of a delta: what is added or removed with its directory is told
    path by path.  With *limit* the search ends when there are more than so many: then others may be missing.
    """
    found: dict[bytes, PathChange] = {}
    for directory, name, entry in rows:
        if limit is not None and len(found) > limit:
            break
        path = join(directory, name) if name else b""
        node = before.resolve(path)
        for gone in itertools.islice(_gone(before, node, entry), None if limit is None else limit + 1):
            found[gone.path] = PathChange(gone.path, ChangeKind.REMOVED, before.entry(gone), None)
        if entry.kind is not Kind.WHITEOUT:
            after = entry._replace(kind=Kind.DIRECTORY) if entry.is_directory else entry
            if node is None:
                found[path] = PathChange(path, ChangeKind.ADDED, None, after)
            elif (change := _changed(path, before.entry(node), after)) is not None:
                found[path] = change
    for node in _names_left(before, found):
        found[node.path] = PathChange(node.path, ChangeKind.METADATA, before.entry(node), before.entry(node))
    return sorted(found.values(), key=attrgetter("path"))


def _gone(before: View, node: Node | None, entry: Entry) -> Iterator[Node]:
    """What is at or below *node* and is hidden by a row with *entry*."""
    if node is None or entry.kind is Kind.DIRECTORY:
        return
    if node.is_directory or entry.kind is Kind.WHITEOUT:
        walk = before.walk(node.path)
        if entry.kind is not Kind.WHITEOUT:
            next(walk)
        yield from walk


def _changed(path: bytes, before: Entry, after: Entry) -> PathChange | None:
    if before.kind != after.kind or not same_content(before, after):
        return PathChange(path, ChangeKind.MODIFIED, before, after)
    if not before.is_directory or not same(before, after):
        return PathChange(path, ChangeKind.METADATA, before, after)
    return None  # an opaque directory whose own attributes stay


def same_content(one: Entry, other: Entry) -> bool:
    """Whether two entries of one kind hold the same: bytes, target or device."""
    return (one.size, one.target, one.rdev) == (other.size, other.target, other.rdev) and (
        one.content == other.content or [*map(identity, one.content)] == [*map(identity, other.content)]
    )


def _names_left(before: View, found: Mapping[bytes, PathChange]) -> list[Node]:
    """The paths that did not change but for having fewer hard links."""
    groups: dict[int, Node] = {}
    for change in found.values():
        if change.before is not None and change.before.hardlink:
            node = before.resolve(change.path)
            assert node is not None
            groups[node.number] = node
    paths = [path for node in groups.values() for path in before.links(node) if path not in found]
    return [node for path in paths if (node := before.resolve(path)) is not None]

"""The view: the tree that a stack of layers shows.

The newest layer wins; a whiteout hides a path and all below it in older layers; an opaque directory
cuts off what older layers hold below it; a file for a directory, or a directory for a file, hides the
other and everything below.

How it is found without merging: each directory carries a bit mask of the layers that may still hold
things below it ("alive").  It is inherited from the directory above and only ever loses bits, at the
first whiteout, opaque directory or other kind met from the newest layer down.

Always true:

  1. A node's number follows from the layers alone: (position of the layer + 1) << 40 | row id, or
     | hard link group.  So another process that opens the same stack gives the same numbers.
  2. Layers never change, so every answer may be remembered for ever.
  3. Names within a listing are in byte order.

A View asks its LayerReaders, which belong to one thread: so does a View.  Opening another is cheap.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import NamedTuple

from volume_core.format.entries import ChunkRef, Entry, Extent, Kind, join, split
from volume_core.format.layer import ROOT_DIR, LayerReader, Row, Told

ROOT_NUMBER = 1  # the kernel's number for the root of a file system (FUSE_ROOT_ID)
_ROW_BITS = 40
_ROW_MASK = (1 << _ROW_BITS) - 1
# How many directories' row ids are remembered: about 300 bytes each.
_DIRECTORIES_REMEMBERED = 16_384
_DEFAULT_ROOT = Row(0, ROOT_DIR, b"", Kind.DIRECTORY, 0o755, 0, 0, 0, 0, None, 0, 0, None, None)


class Node(NamedTuple):
    """One path of a view.

    `number` is equal for the names of one hard link group; `path` is the one it was looked up by;
    `layer` is the position (0 = oldest) of the layer whose `row` is shown; `alive` is 0 unless it is a
    directory.
    """

    number: int
    path: bytes
    layer: int
    row: Row
    alive: int

    @property
    def is_directory(self) -> bool:
        """Whether paths may lie below this one."""
        return self.row.kind in _DIRECTORIES

    @property
    def link_target(self) -> bytes | None:
        """Where a symlink leads; None of anything else."""
        return self.row.target or b"" if self.row.kind == _SYMLINK else None

    @property
    def name(self) -> bytes:
        """The last part of the path; b"" for the root."""
        return self.row.name


_DIRECTORIES = frozenset((int(Kind.DIRECTORY), int(Kind.OPAQUE)))
_FILE = int(Kind.FILE)
_OPAQUE = int(Kind.OPAQUE)
_SYMLINK = int(Kind.SYMLINK)
_WHITEOUT = int(Kind.WHITEOUT)
_DIRECTORY = int(Kind.DIRECTORY)


def _from(layer: int, alive: int) -> int:
    """The layers of *alive* that are not older than *layer*."""
    return alive >> layer << layer


class View:
    """The tree shown by *layers*, oldest first; an empty tree where there are none.

    Without *links* each name of a hard link group is a file by itself, with a number of its own.
    """

    def __init__(self, layers: Sequence[LayerReader] = (), *, links: bool = True) -> None:
        self._layers = tuple(layers)
        self._shows_links = links
        self._directories: dict[tuple[bytes, int], tuple[tuple[int, int], ...]] = {}
        self.root = self._find_root()

    @property
    def layers(self) -> tuple[LayerReader, ...]:
        """The layers it was made of, oldest first: a view of more begins with these."""
        return self._layers

    def _find_root(self) -> Node:
        shown: tuple[int, Row] | None = None
        alive = (1 << len(self._layers)) - 1
        for layer in reversed(range(len(self._layers))):
            row = self._layers[layer].root()
            if row is None:
                continue
            shown = shown or (layer, row)
            if row.kind == _OPAQUE:
                alive = _from(layer, alive)
                break
        layer, row = shown or (0, _DEFAULT_ROOT)
        return Node(ROOT_NUMBER, b"", layer, row, alive)

    def _ids(self, directory: Node) -> tuple[tuple[int, int], ...]:
        """(layer, directory id), newest first, of the alive layers with rows in *directory*."""
        key = (directory.path, directory.alive)
        found = self._directories.get(key)
        if found is None:
            pairs = []
            for layer in reversed(range(len(self._layers))):
                if directory.alive >> layer & 1:
                    ident = self._layers[layer].directory(directory.path)
                    if ident is not None:
                        pairs.append((layer, ident))
            if len(self._directories) >= _DIRECTORIES_REMEMBERED:
                self._directories.clear()
            found = self._directories[key] = tuple(pairs)
        return found

    def _node(self, directory: Node, layer: int, row: Row) -> Node:
        if row.hardlink and not self._shows_links:
            row = row._replace(hardlink=0)
        number = (layer + 1) << _ROW_BITS | (row.hardlink or row.id)
        alive = 0
        if row.kind == _DIRECTORY:
            alive = directory.alive
        elif row.kind == _OPAQUE:
            alive = _from(layer, directory.alive)
        path = directory.path
        return Node(number, path + b"/" + row.name if path else row.name, layer, row, alive)

    @staticmethod
    def _cut(node: Node, layer: int, row: Row) -> Node:
        """*node*, a directory, after meeting *row* of the same name in the older *layer*."""
        if row.kind == _DIRECTORY or not node.alive >> layer & 1:
            return node
        return node._replace(alive=_from(layer if row.kind == _OPAQUE else layer + 1, node.alive))

    def lookup(self, directory: Node, name: bytes) -> Node | None:
        """Return what *directory* shows as *name*, or None."""
        shown: Node | None = None
        for layer, ident in self._ids(directory):
            row = self._layers[layer].row_named(ident, name)
            if row is None:
                continue
            if shown is None:
                if row.kind == _WHITEOUT:
                    return None
                shown = self._node(directory, layer, row)
                if not shown.alive:
                    return shown
            else:
                shown = self._cut(shown, layer, row)
        return shown

    def listing(self, directory: Node) -> list[Node]:
        """Return everything *directory* shows, sorted by name."""
        ids = self._ids(directory)
        if len(ids) == 1:
            layer, ident = ids[0]
            rows = self._layers[layer].rows(ident)
            return [self._node(directory, layer, row) for row in rows if row.kind != _WHITEOUT]
        shown: dict[bytes, Node | None] = {}
        for layer, ident in ids:
            for row in self._layers[layer].rows(ident):
                if row.name not in shown:
                    shown[row.name] = None if row.kind == _WHITEOUT else self._node(directory, layer, row)
                elif (node := shown[row.name]) is not None and node.alive:
                    shown[row.name] = self._cut(node, layer, row)
        return [node for _, node in sorted(shown.items()) if node is not None]

    @staticmethod
    def position(node: Node) -> int:
        """Return where *node* stands in its directory, for children(): one number per name, the same for every view."""
        return (node.layer + 1) << _ROW_BITS | node.row.id

    def children(self, directory: Node, after: int = 0) -> Iterator[Node]:
        """Yield what listing() returns, behind the child at the position *after* (0: from the start).

        Never holds more than one row of each layer.  Raises KeyError if there is no such position.
        """
        name = self._name_at(after) if after else b""
        ids = self._ids(directory)
        if len(ids) == 1:
            layer, ident = ids[0]
            return (
                self._node(directory, layer, row)
                for row in self._layers[layer].rows(ident, name)
                if row.kind != _WHITEOUT
            )
        return self._merged(directory, ids, name)

    def _merged(self, directory: Node, ids: tuple[tuple[int, int], ...], after: bytes) -> Iterator[Node]:
        def keyed(age: int, layer: int, ident: int) -> Iterator[tuple[bytes, int, int, Row]]:
            return ((row.name, age, layer, row) for row in self._layers[layer].rows(ident, after))

        shown: Node | None = None
        name = after
        for found, _, layer, row in heapq.merge(*(keyed(age, *pair) for age, pair in enumerate(ids))):
            if found != name:
                if shown is not None:
                    yield shown
                name = found
                shown = None if row.kind == _WHITEOUT else self._node(directory, layer, row)
            elif shown is not None and shown.alive:
                shown = self._cut(shown, layer, row)
        if shown is not None:
            yield shown

    def whole_files(self, directory: Node, after: bytes = b"") -> Iterator[tuple[int, bytes, tuple[Extent, ...]]]:
        """Yield (number, name, extents) of the children behind the name *after* that are files of one whole chunk.

        Where one layer has all of the directory, for a third of what children() and extents_of() take.
        """
        ids = self._ids(directory)
        if len(ids) != 1:
            for node in self._merged(directory, ids, after):
                if node.row.kind == _FILE and isinstance(node.row.content, int):
                    yield node.number, node.row.name, self.extents(node)
            return
        layer, ident = ids[0]
        for row_id, link, name, extents in self._layers[layer].whole_files(ident, after):
            number = link if link and self._shows_links else row_id
            yield (layer + 1) << _ROW_BITS | number, name, extents

    def told(self, directory: Node) -> Iterator[Told]:
        """Yield what each of children() shows and nothing of how it is stored: half of what children() and
        extents_of() take.
        """
        ids = self._ids(directory)
        rows = [self._layers[layer].told(ident) for layer, ident in ids]
        name = None
        for found in rows[0] if len(rows) == 1 else heapq.merge(*rows, key=itemgetter(0)):
            # Of equal names the one of the first, which is the newest layer, comes first.
            if found.name != name and found.kind != _WHITEOUT:
                yield found
            name = found.name

    def _name_at(self, position: int) -> bytes:
        layer = (position >> _ROW_BITS) - 1
        row = self._layers[layer].row(position & _ROW_MASK) if 0 <= layer < len(self._layers) else None
        if row is None:
            raise KeyError(position)
        return row.name

    @property
    def has_links(self) -> bool:
        """Whether any layer has a hard link group; costs a question for each."""
        return any(layer.has_links() for layer in self._layers)

    @property
    def has_xattrs(self) -> bool:
        """Whether anything in any layer has extended attributes; may read the whole index."""
        return any(layer.has_xattrs() for layer in self._layers)

    def node(self, number: int) -> Node:
        """Return the node with that number, found from the layers alone; KeyError if none is shown.

        For a hard link group, the first of its names that is shown.
        """
        if number == ROOT_NUMBER:
            return self.root
        layer = (number >> _ROW_BITS) - 1
        row = self._layers[layer].row(number & _ROW_MASK) if 0 <= layer < len(self._layers) else None
        if row is None:
            raise KeyError(number)
        for candidate in self._layers[layer].links(row.hardlink) if row.hardlink else [row]:
            node = self.resolve(join(self._layers[layer].path(candidate.dir), candidate.name))
            if node is not None and node.number == number:
                return node
        raise KeyError(number)

    def resolve(self, path: bytes) -> Node | None:
        """Return the node at *path*, or None; symlinks on the way are not followed."""
        node = self.root
        for name in path.split(b"/") if path else ():
            found = self.lookup(node, name) if node.is_directory else None
            if found is None:
                return None
            node = found
        return node

    def parent(self, node: Node) -> Node:
        """Return the directory that holds *node*; the root is its own parent."""
        above = self.resolve(split(node.path)[0])
        return self.root if above is None else above

    def extents(self, node: Node) -> tuple[Extent, ...]:
        """Return where a file's bytes lie; () for anything else."""
        return self._layers[node.layer].extents(node.row) if node.row.content is not None or node.row.size else ()

    def extents_of(self, nodes: Sequence[Node]) -> list[tuple[Extent, ...]]:
        """Return what extents() would of each node; cheap for neighbours."""
        found: list[tuple[Extent, ...]] = [()] * len(nodes)
        files = [place for place, node in enumerate(nodes) if node.row.content is not None or node.row.size]
        for layer in {nodes[place].layer for place in files}:
            places = [place for place in files if nodes[place].layer == layer]
            extents = self._layers[layer].extents_of([nodes[place].row for place in places])
            for place, each in zip(places, extents, strict=True):
                found[place] = each
        return found

    def entry(self, node: Node) -> Entry:
        """Return *node* as a value: an opaque directory is a directory, and `hardlink` is the node's
        number where more than one of its names is shown, else 0."""
        if not self._layers:
            return Entry(Kind.DIRECTORY, _DEFAULT_ROOT.mode)
        if node.row is _DEFAULT_ROOT:
            return Entry(Kind.DIRECTORY, _DEFAULT_ROOT.mode)
        entry = self._layers[node.layer].entry(node.row)
        if entry.kind is Kind.OPAQUE:
            return entry._replace(kind=Kind.DIRECTORY)
        if entry.hardlink:
            return entry._replace(hardlink=node.number if self.link_count(node) > 1 else 0)
        return entry

    def entries(self, nodes: Sequence[Node]) -> list[Entry]:
        """Return what entry() would of each node, none of which is a directory; cheap for neighbours."""
        found: dict[int, Entry] = {}
        for layer in {node.layer for node in nodes}:
            places = [place for place, node in enumerate(nodes) if node.layer == layer and not node.row.hardlink]
            found.update(zip(places, self._layers[layer].entries([nodes[place].row for place in places]), strict=True))
        return [found[place] if place in found else self.entry(node) for place, node in enumerate(nodes)]

    def link_count(self, node: Node) -> int:
        """Return how many names of *node* are shown (1 for a directory)."""
        return len(self.links(node)) if node.row.hardlink else 1

    def links(self, node: Node) -> list[bytes]:
        """Return every path under which *node* is shown, its own included, in order."""
        if not node.row.hardlink:
            return [node.path]
        reader = self._layers[node.layer]
        paths = sorted(join(reader.path(row.dir), row.name) for row in reader.links(node.row.hardlink))
        found = ((path, self.resolve(path)) for path in paths)
        return [path for path, other in found if other is not None and other.number == node.number]

    def walk(self, path: bytes = b"") -> Iterator[Node]:
        """Yield the node at *path* and all below it: parents before children, names in order.

        Yields nothing where there is no such path.
        """
        start = self.resolve(path)
        stack = [] if start is None else [start]
        while stack:
            node = stack.pop()
            yield node
            if node.is_directory:
                stack.extend(reversed(self.listing(node)))

    def chunk(self, chunk_digest: bytes) -> ChunkRef | None:
        """Return where a chunk with that digest lies, if any layer of the stack names one."""
        for layer in reversed(self._layers):
            found = layer.chunk(chunk_digest)
            if found is not None:
                return found
        return None

    def close(self) -> None:
        """Close the layers' connections."""
        for layer in self._layers:
            layer.close()

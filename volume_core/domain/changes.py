"""What a working tree changed, said relative to the version before it.

The working tree is an upper directory over the base it was mounted on; the parent is the base itself,
or, while a mount is kept alive, the working copy's own last commit.  Both are walked side by side,
and only where they can differ: a directory that shows the same directory of the base on both sides
differs at most in the names that either upper holds.

Always true of the rows:

  1. None is equal to the parent's row: what was copied up and not changed is no change.
  2. A whiteout stands only where the parent shows something; an opaque directory only where the
     parent has a directory that was replaced, so that nothing of it is left.
  3. A hard link group is there whole or not at all, so that it lives in one layer.
  4. A renamed directory is a whiteout and plain rows that name the base's chunks: no data moves.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from operator import itemgetter
from typing import NamedTuple

from volume_core.domain.view import Node, View
from volume_core.format.entries import WHITEOUT, Entry, Extent, Kind, join, split

EMPTY_TOTALS = (0, 1)  # an empty tree: no bytes, and the root directory


class Upper(NamedTuple):
    """What a working tree's upper holds at one path.

    `entry` has attributes and content (Kind.WHITEOUT for a removed path; `hardlink` any number equal
    for the names of one inode).  `base`, of a directory, is the path in the base whose children show
    through it; None if none do.
    """

    entry: Entry
    base: bytes | None = None


class Changes(NamedTuple):
    """Rows for a layer, sorted as write_layer wants them, and the totals of the new version.

    `used_bytes` is the sum of the files' sizes, `inode_count` counts the root too; a hard linked file
    counts once in both.
    """

    rows: list[tuple[bytes, bytes, Entry]]
    used_bytes: int
    inode_count: int


def changes(
    upper: Mapping[bytes, Upper],
    base: View,
    parent: View,
    captured: Mapping[bytes, Upper] | None = None,
    totals: tuple[int, int] = EMPTY_TOTALS,
) -> Changes:
    """Return what *upper* over *base* changes against *parent*.

    *upper* holds everything of the upper, the root directory as b"".  *captured* is what *parent* was
    made of, where that is this working copy's own last commit; None where *parent* shows the same tree
    as *base*.  *totals* are (used_bytes, inode_count) of *parent*.
    """
    return _Difference(upper, base, parent, captured, totals).run()


class _Shown(NamedTuple):
    """What the working tree shows at one path: from the upper (node None; `base` as in Upper), or from the base."""

    entry: Entry
    base: bytes | None
    node: Node | None


class _Task(NamedTuple):
    """A directory to compare.  `below` is the base's directory that shows through the working tree's,
    `parent_below` the path of the one through the parent's (None: nothing of the base does);
    `node` is the parent's directory, None where the parent has none."""

    path: bytes
    entry: Entry
    changed: bool
    below: Node | None
    node: Node | None
    parent_below: bytes | None


class _Member(NamedTuple):
    path: bytes
    shown: _Shown
    before: Node | None


def _names_by_directory(paths: Iterable[bytes]) -> dict[bytes, list[bytes]]:
    names: dict[bytes, list[bytes]] = defaultdict(list)
    for path in paths:
        if path:
            directory, name = split(path)
            names[directory].append(name)
    return names


def identity(extent: Extent) -> tuple[int, bytes | None, int]:
    """What an extent says, whichever pack its chunk lies in."""
    return extent.length, extent.chunk and extent.chunk.digest, extent.chunk_offset


def same(one: Entry, other: Entry) -> bool:
    """Whether two entries are equal but for their hard links and for where their chunks lie."""
    return one[:8] == other[:8] and one.xattrs == other.xattrs and (
        one.content == other.content or list(map(identity, one.content)) == list(map(identity, other.content))
    )  # fmt: skip


def _is_plain(entry: Entry) -> bool:
    """Whether nothing but the entry itself says if it changed."""
    return not entry.is_directory and not entry.hardlink


class _Difference:
    def __init__(
        self,
        upper: Mapping[bytes, Upper],
        base: View,
        parent: View,
        captured: Mapping[bytes, Upper] | None,
        totals: tuple[int, int],
    ) -> None:
        self._upper = upper
        self._base = base
        self._parent = parent
        self._captured = captured or {}
        self._upper_names = _names_by_directory(upper)
        self._captured_names = _names_by_directory(self._captured)
        self._used_bytes, self._inode_count = totals
        self._rows: list[tuple[bytes, bytes, Entry]] = []
        self._tasks: list[_Task] = []
        self._groups: dict[tuple[str, int], list[_Member]] = defaultdict(list)
        self._names_gone: dict[int, list[Node]] = defaultdict(list)
        self._link_numbers: dict[tuple[str, int], int] = {}

    def run(self) -> Changes:
        root = self._upper[b""]
        before = self._captured.get(b"")
        changed = not same(root.entry, self._parent.entry(self._parent.root))
        below = self._below(None, b"", root.base)
        parent_below = before.base if before else b""
        self._tasks.append(_Task(b"", root.entry, changed, below, self._parent.root, parent_below))
        while self._tasks:
            self._directory(self._tasks.pop())
        for key, members in self._groups.items():
            self._group(key, members)
        self._count_vanished_links()
        self._rows.sort(key=itemgetter(0, 1))
        return Changes(self._rows, self._used_bytes, self._inode_count)

    # -- directories

    def _directory(self, task: _Task) -> None:
        held = self._upper_names.get(task.path, [])
        below = task.below
        if task.node is not None and below is not None and below.path == task.parent_below:
            names: Iterable[bytes] = {*held, *self._captured_names.get(task.path, ())}
            opaque = False
        else:
            current = {name for name in held if self._upper[join(task.path, name)].entry.kind is not Kind.WHITEOUT}
            if below is not None:
                current |= {node.name for node in self._base.listing(below)} - set(held)
            before = {node.name for node in self._parent.listing(task.node)} if task.node else set()
            # Nobody replaces the root; and of a plain tree nobody can tell whether a directory was replaced or emptied.
            is_told = bool(task.path) and self._upper[b""].base is not None
            opaque = is_told and bool(before) and before.isdisjoint(current)
            names = current | before
        self._emit_directory(task, opaque)
        for name in names:
            self._compare(task, name, opaque)

    def _below(self, above: Node | None, name: bytes, path: bytes | None) -> Node | None:
        """The base's directory at *path*; *above* is where it most likely is, as *name*."""
        if path is None:
            return None
        near = above is not None and name and path == join(above.path, name)
        node = self._base.lookup(above, name) if above is not None and near else self._base.resolve(path)
        return node if node is not None and node.is_directory else None

    def _emit_directory(self, task: _Task, opaque: bool) -> None:
        if task.node is None or task.changed or opaque:
            kind = Kind.OPAQUE if opaque else Kind.DIRECTORY
            self._rows.append((*split(task.path), task.entry._replace(kind=kind, hardlink=0)))
        if task.node is None:
            self._inode_count += 1

    def _shown(self, directory: bytes, below: Node | None, name: bytes) -> _Shown | None:
        """What the working tree shows as *name* in *directory*, through which *below* shows."""
        held = self._upper.get(join(directory, name))
        if held is not None:
            return None if held.entry.kind is Kind.WHITEOUT else _Shown(held.entry, held.base, None)
        node = self._base.lookup(below, name) if below is not None else None
        if node is None:
            return None
        return _Shown(self._base.entry(node), None, node)

    def _compare(self, task: _Task, name: bytes, opaque: bool) -> None:
        path = join(task.path, name)
        held = self._upper.get(path)
        if (
            held is not None
            and held == self._captured.get(path)
            and not held.entry.is_directory
            and not held.entry.hardlink
        ):
            return  # as at the last commit, which made the parent
        shown = self._shown(task.path, task.below, name)
        before = self._parent.lookup(task.node, name) if task.node is not None else None
        if before is not None and (shown is None or opaque or shown.entry.is_directory != before.is_directory):
            self._remove(before)
            if shown is None:
                if not opaque:
                    self._rows.append((task.path, name, WHITEOUT))
                return
            before = None
        if shown is None:
            return
        if shown.entry.is_directory:
            changed = before is None or not same(shown.entry, self._parent.entry(before))
            parent_below = self._parent_below(task, path, name)
            below = shown.node if shown.node is not None else self._below(task.below, name, shown.base)
            self._tasks.append(_Task(path, shown.entry, changed, below, before, parent_below))
        else:
            self._compare_leaf(path, shown, before)

    def _parent_below(self, task: _Task, path: bytes, name: bytes) -> bytes | None:
        """The base path that shows through the parent's directory at *path*."""
        if path in self._captured:
            return self._captured[path].base
        return join(task.parent_below, name) if task.parent_below is not None else None

    # -- everything but directories

    def _compare_leaf(self, path: bytes, shown: _Shown, before: Node | None) -> None:
        if shown.entry.hardlink:
            origin = "upper" if shown.node is None else "base"
            self._groups[origin, shown.entry.hardlink].append(_Member(path, shown, before))
            return
        if before is not None:
            entry = self._parent.entry(before)
            # Overlay breaks a link of the base when it copies a file up: that alone is no change.
            # Where the parent's link was captured from this very tree, losing it is one.
            unlinked = bool(entry.hardlink) and path in self._captured
            if not unlinked and same(shown.entry, entry):
                return
            self._remove(before)
        self._add(path, shown.entry)

    def _group(self, key: tuple[str, int], members: list[_Member]) -> None:
        paths = {member.path for member in members}
        first = members[0].before
        if first is not None and paths == set(self._parent.links(first)):
            unchanged = all(
                member.before is not None
                and member.before.number == first.number
                and same(member.shown.entry, self._parent.entry(member.before))
                for member in members
            )
            if unchanged:
                return
        if key[0] == "base" and members[0].shown.node is not None:
            members = members + self._members_left_in_place(members[0].shown.node, paths)
        number = self._link_numbers.setdefault(key, len(self._link_numbers) + 1) if len(members) > 1 else 0
        for member in members:
            if member.before is not None:
                self._remove(member.before)
            self._add(member.path, member.shown.entry._replace(hardlink=number), counted=member is members[0])

    def _members_left_in_place(self, node: Node, paths: set[bytes]) -> list[_Member]:
        """The other names of a base's hard link group that the working tree still shows unchanged."""
        left = []
        for path in self._base.links(node):
            if path not in paths and self._shows_base(path):
                found = self._base.resolve(path)
                if found is not None:
                    shown = _Shown(self._base.entry(found), None, found)
                    left.append(_Member(path, shown, self._parent.resolve(path)))
        return left

    def _shows_base(self, path: bytes) -> bool:
        """Whether the working tree shows the base's own *path* at *path*."""
        if path in self._upper:
            return False
        directory = path
        while directory:
            directory = split(directory)[0]
            held = self._upper.get(directory)
            if held is not None:
                return held.base == directory
        return False

    # -- counting

    def _add(self, path: bytes, entry: Entry, counted: bool = True) -> None:
        self._rows.append((*split(path), entry))
        if counted:
            self._inode_count += 1
            self._used_bytes += entry.size

    def _remove(self, node: Node) -> None:
        """Count off *node* and all below it."""
        nodes = self._parent.walk(node.path) if node.is_directory else (node,)
        for gone in nodes:
            if gone.row.hardlink:
                self._names_gone[gone.number].append(gone)
            else:
                self._inode_count -= 1
                self._used_bytes -= gone.row.size

    def _count_vanished_links(self) -> None:
        for nodes in self._names_gone.values():
            if len(nodes) == self._parent.link_count(nodes[0]):
                self._inode_count -= 1
                self._used_bytes -= nodes[0].row.size

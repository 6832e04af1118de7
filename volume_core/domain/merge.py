"""Three-way merging: what one side changed since an ancestor, on top of what the other side made of it.

Ours is known by its rows against the ancestor, theirs by its tree.  Only paths that have a row of ours
are looked at, and where ours removed or replaced a directory, what theirs changed below it.

Always true:

  1. A path that ours has no row for stays as theirs shows it, unless ours removed it with a directory.
  2. What ours removed or replaced, it touched with all that was below: a change by theirs anywhere below is
     a conflict; and so is a change of ours in a directory that theirs removed or replaced.
  3. The rows keep the rules of changes.py, so that they are a delta like any other.
  4. No data is read, and none is made: every chunk is one of ours or of theirs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from operator import itemgetter
from typing import NamedTuple

from volume_core.domain.changes import same
from volume_core.domain.diff import Comparison, LayerRow
from volume_core.domain.regrouping import Leaf, regrouped
from volume_core.domain.threeway import (
    Policy,
    Reason,
    derived_name,
    merge_directories,
    merge_leaves,
    same_attributes,
)
from volume_core.domain.totals import totals_with
from volume_core.domain.view import Node, View
from volume_core.errors import CorruptObjectError
from volume_core.format.entries import WHITEOUT, Entry, Kind, join, split
from volume_core.format.layer import LayerReader

__all__ = ["Conflict", "Merge", "Policy", "Reason", "merge"]


class Conflict(NamedTuple):
    """A path at which both sides changed something that does not go together."""

    path: bytes
    reason: Reason


class Merge(NamedTuple):
    """Rows for a layer on top of theirs, the totals of the tree that they make, and the conflicts by path.

    With Policy.ERROR and a conflict there are no rows, and the totals are those of theirs.
    """

    rows: list[LayerRow]
    used_bytes: int
    inode_count: int
    conflicts: list[Conflict]


def merge(
    ours: Sequence[LayerRow],
    ancestor: View,
    theirs: View,
    policy: Policy,
    *,
    totals: tuple[int, int],
    shared: int = 0,
    within: Sequence[LayerReader] | None = None,
    mark: bytes = b"ours",
) -> Merge:
    """Return what *ours*, the sorted rows of a side against *ancestor*, changes on top of *theirs*.

    *totals* are (used_bytes, inode_count) of *theirs*; *shared* and *within* say where *ancestor* and
    *theirs* can differ, as rows_between has them.  Without them all that ours removed is compared, and it
    cannot be told that theirs replaced a directory by another: what ours put into it goes into that one.
    *mark* (no "/" or NUL) is part of the names that Policy.KEEP_BOTH gives to files of ours:
    `name.conflict-<mark>.txt`.
    """
    comparison = Comparison(ancestor, theirs, shared, within)
    found = _Merging(ours, ancestor, theirs, policy, comparison, mark)
    rows = found.run()
    conflicts = [Conflict(path, reason) for path, reason in sorted(found.conflicts.items())]
    if conflicts and policy is Policy.ERROR:
        return Merge([], *totals, conflicts)
    return Merge(rows, *totals_with(theirs, totals, rows), conflicts)


class _Task(NamedTuple):
    """A directory of ours in which something changed.

    `out` is its path in the result; `base` and `theirs` are the directory at `path` of the ancestor and of
    theirs, None where there is none (or where nothing of theirs is left).  `lost`: theirs removed or
    replaced it, or one above.  `cut`: at it, or above, theirs removed or replaced something.
    """

    path: bytes
    out: bytes
    base: Node | None
    theirs: Node | None
    lost: bool
    cut: bool


class _Merging:
    def __init__(
        self,
        ours: Sequence[LayerRow],
        ancestor: View,
        theirs: View,
        policy: Policy,
        comparison: Comparison,
        mark: bytes,
    ) -> None:
        self._ancestor = ancestor
        self._theirs = theirs
        self._policy = policy
        self._comparison = comparison
        self._mark = mark
        self._held: dict[bytes, dict[bytes, Entry | None]] = defaultdict(dict)
        self._hold(ours)
        self._tasks: list[_Task] = []
        self._rows: dict[bytes, Entry] = {}
        self._leaves: list[Leaf] = []
        # Directories that theirs removed: each comes back once something is put below it.
        self._to_remake: dict[bytes, Entry] = {}
        self._names_given: set[bytes] = set()
        self.conflicts: dict[bytes, Reason] = {}

    def _hold(self, ours: Sequence[LayerRow]) -> None:
        """Keep the rows of *ours* by directory, and None for a directory on the way to one."""
        for directory, name, entry in ours:
            if name:
                self._held[directory][name] = entry
            path = directory
            while path:
                above, name_above = split(path)
                if name_above in self._held[above]:
                    break
                self._held[above][name_above] = None
                path = above
        self._root = next((entry for _, name, entry in ours[:1] if not name), None)

    def run(self) -> list[LayerRow]:
        above = _Task(b"", b"", self._ancestor.root, self._theirs.root, lost=False, cut=False)
        self._directory(above, b"", self._root, self._ancestor.root, self._theirs.root)
        while self._tasks:
            task = self._tasks.pop()
            for name, entry in self._held.get(task.path, {}).items():
                base = self._ancestor.lookup(task.base, name) if task.base is not None else None
                theirs = self._theirs.lookup(task.theirs, name) if task.theirs is not None else None
                if entry is None or entry.is_directory:
                    self._directory(task, name, entry, base, theirs)
                elif entry.kind is Kind.WHITEOUT:
                    self._removed(join(task.path, name), base, theirs)
                else:
                    self._leaf(task, name, entry, base, theirs)
        for path, entry in regrouped(self._leaves, self._ancestor, self._theirs):
            self._emit(path, entry)
        return sorted(((*split(path), entry) for path, entry in self._rows.items()), key=itemgetter(0, 1))

    def _emit(self, path: bytes, entry: Entry) -> None:
        self._rows[path] = entry
        while (path := split(path)[0]) in self._to_remake:
            self._rows[path] = self._to_remake.pop(path)

    def _conflict(self, path: bytes, reason: Reason) -> None:
        self.conflicts.setdefault(path, reason)

    # -- ours has a directory

    def _directory(self, task: _Task, name: bytes, entry: Entry | None, base: Node | None, theirs: Node | None) -> None:
        """Go on with the directory *name* of ours; *entry* is its row, None if its own attributes are the base's."""
        path = join(task.path, name) if name else b""
        out = join(task.out, name) if name else b""
        below = base if base is not None and base.is_directory else None
        if theirs is not None and theirs.is_directory:
            self._both_have_directory(task, path, entry, below, theirs)
        elif below is None:
            if entry is None:
                raise CorruptObjectError(f"a delta has rows in {path!r}, which is no directory: run verify")
            self._made(task._replace(path=path, out=out, base=None, theirs=None), entry, base, theirs)
        else:
            self._theirs_removed(task._replace(path=path, out=out, base=below, theirs=None, lost=True), entry, theirs)

    def _both_have_directory(
        self, task: _Task, path: bytes, entry: Entry | None, base: Node | None, theirs: Node
    ) -> None:
        cut = task.cut or (base is not None and self._comparison.is_cut(path))
        below: Node | None = theirs
        if entry is not None:
            before, there = base and self._ancestor.entry(base), self._theirs.entry(theirs)
            merged, reason = merge_directories(before, entry, there, self._policy.prefers_ours)
            if reason is not None:
                self._conflict(path, reason)
            if entry.kind is Kind.OPAQUE and base is not None:
                below = self._cleared(path, base, theirs)
            if below is None:
                self._emit(path, merged._replace(kind=Kind.OPAQUE))
            elif not same(merged, there):
                self._emit(path, merged)
        lost = task.lost or (cut and base is not None and self._is_replaced(base, theirs))
        self._tasks.append(_Task(path, path, base, below, lost, cut))

    def _is_replaced(self, base: Node, theirs: Node) -> bool:
        """Whether nothing of what was in *base* is left in *theirs*: as if it was made anew, as no root ever is."""
        if not base.path:
            return False
        names = {node.name for node in self._ancestor.listing(base)}
        there = {node.name for node in self._theirs.listing(theirs)}
        return bool(names) and names.isdisjoint(there)

    def _cleared(self, path: bytes, base: Node, theirs: Node) -> Node | None:
        """Empty the directory that ours replaced; return what is left of theirs, None if it is cut off."""
        changed = self._changed_below(base, theirs)
        changed.pop(path, None)  # its own attributes
        kept = {}
        for each, entry in changed.items():
            directory, name = split(each)
            held = self._held.get(directory, {}).get(name)
            if held is None or held.kind is Kind.WHITEOUT:
                self._conflict(each, Reason.REMOVED)
            if not self._policy.removes_changed or (held is not None and held.kind is not Kind.WHITEOUT):
                kept[each] = entry
        if kept:
            self._remove_unchanged(theirs, kept)
            return theirs
        return None if next(self._theirs.children(theirs), None) is not None else theirs

    def _made(self, task: _Task, entry: Entry, base: Node | None, theirs: Node | None) -> None:
        """Go on with the directory *task* that ours made, where theirs has none."""
        reason = None
        if theirs is None:
            reason = Reason.REMOVED if task.lost else None
        elif base is None or not same(self._ancestor.entry(base), self._theirs.entry(theirs)):
            reason = Reason.KIND
        if reason is not None:
            self._conflict(task.path, reason)
        if reason is not None and self._policy is Policy.THEIRS:
            if task.lost:  # to name what else is lost with it
                self._tasks.append(task)
            return
        if reason is Reason.KIND and self._policy is Policy.KEEP_BOTH:
            task = task._replace(out=self._name_beside(task, is_directory=True))
        self._emit(task.out, entry._replace(kind=Kind.DIRECTORY))
        self._tasks.append(task)

    def _theirs_removed(self, task: _Task, entry: Entry | None, theirs: Node | None) -> None:
        """Go on with the directory *task* that theirs removed, or has something else for, and ours changed."""
        assert task.base is not None
        before = self._ancestor.entry(task.base)
        if theirs is not None and self._policy is Policy.KEEP_BOTH:
            task = task._replace(out=self._name_beside(task, is_directory=True))
        self._to_remake[task.out] = (entry or before)._replace(kind=Kind.DIRECTORY)
        if entry is not None and not same_attributes(before, entry._replace(kind=Kind.DIRECTORY)):
            self._conflict(task.path, Reason.REMOVED)
            # Attributes of a directory that is gone are worth a directory, but not somebody's file.
            if self._policy.removes_changed or (theirs is None and self._policy is not Policy.THEIRS):
                self._emit(task.out, self._to_remake.pop(task.out))
        self._tasks.append(task)

    # -- ours has nothing

    def _removed(self, path: bytes, base: Node | None, theirs: Node | None) -> None:
        if base is None or theirs is None or base.is_directory != theirs.is_directory:
            return  # theirs removed it too, and what it has there it made
        if base.is_directory:
            changed = self._changed_below(base, theirs)
        elif same(self._ancestor.entry(base), self._theirs.entry(theirs)):
            changed = {}
        else:
            changed = {path: self._theirs.entry(theirs)}
        for each in changed:
            self._conflict(each, Reason.REMOVED)
        if not changed or self._policy.removes_changed:
            self._rows[path] = WHITEOUT
        elif base.is_directory:
            self._remove_unchanged(theirs, changed)

    def _changed_below(self, base: Node, theirs: Node) -> dict[bytes, Entry]:
        """What theirs made or changed at or below a directory: not what it removed, nor times of directories."""
        within = base.path + b"/" if base.path else b""
        found = {}
        for directory, name, entry in self._comparison.directories(base, theirs):
            path = join(directory, name) if name else b""
            if entry.kind is Kind.WHITEOUT or not (path == base.path or path.startswith(within)):
                continue
            node = self._ancestor.resolve(path)
            before = self._ancestor.entry(node) if node is not None else None
            shown = entry._replace(kind=Kind.DIRECTORY) if entry.is_directory else entry
            alike = same_attributes if entry.is_directory else same
            if before is None or not alike(before, shown):
                found[path] = shown
        return found

    def _remove_unchanged(self, theirs: Node, changed: dict[bytes, Entry]) -> None:
        """Remove all below the directory *theirs* but what was *changed*, and the directories it lies in."""
        kept = set(changed)
        for path in changed:
            while path != theirs.path and (path := split(path)[0]) not in kept:
                kept.add(path)
        waiting = [theirs]
        while waiting:
            for node in self._theirs.listing(waiting.pop()):
                if node.path not in kept:
                    self._rows[node.path] = WHITEOUT
                elif node.is_directory:
                    waiting.append(node)

    # -- ours has something else

    def _leaf(self, task: _Task, name: bytes, entry: Entry, base: Node | None, theirs: Node | None) -> None:
        path = join(task.path, name)
        leaf = Leaf(join(task.out, name), entry, path, entry.hardlink, base, None)
        before = self._ancestor.entry(base) if base is not None and not base.is_directory else None
        if theirs is not None and not theirs.is_directory:
            merged, reason = merge_leaves(before, entry, self._theirs.entry(theirs), self._policy.prefers_ours)
            if reason is None or self._policy is not Policy.KEEP_BOTH:
                leaf = leaf._replace(entry=merged, theirs=theirs)
            self._put(task, leaf, reason)
        elif before is not None and same(before, entry):
            return  # only its hard links changed, and theirs has removed it
        elif theirs is None:
            is_lost = before is not None or task.lost
            if is_lost:
                self._conflict(path, Reason.REMOVED)
            if not (is_lost and self._policy is Policy.THEIRS):
                self._leaves.append(leaf)
        elif base is not None and base.is_directory:
            changed = self._changed_below(base, theirs)
            for each in changed:
                self._conflict(each, Reason.REMOVED)
            if changed and not self._policy.prefers_ours:
                self._remove_unchanged(theirs, changed)
                if self._policy is Policy.KEEP_BOTH:
                    self._leaves.append(leaf._replace(out=self._name_beside(task._replace(path=path, out=leaf.out))))
            else:
                self._leaves.append(leaf)
        elif self._policy is not Policy.THEIRS:
            self._put(task, leaf, Reason.KIND)
        else:
            self._conflict(path, Reason.KIND)

    def _put(self, task: _Task, leaf: Leaf, reason: Reason | None) -> None:
        """Put *leaf* where it belongs; beside what theirs has, where both are to be kept."""
        if reason is not None:
            self._conflict(leaf.path, reason)
            if self._policy is Policy.KEEP_BOTH:
                leaf = leaf._replace(out=self._name_beside(task._replace(path=leaf.path, out=leaf.out)))
        self._leaves.append(leaf)

    def _name_beside(self, task: _Task, *, is_directory: bool = False) -> bytes:
        """Return a path beside *task*'s that neither side has."""
        directory, name = split(task.out)
        above = self._theirs.resolve(directory)
        number = 0
        while True:
            number += 1
            given = derived_name(name, self._mark, number, is_directory=is_directory)
            path = join(directory, given)
            is_there = above is not None and above.is_directory and self._theirs.lookup(above, given) is not None
            if not is_there and given not in self._held[split(task.path)[0]] and path not in self._names_given:
                self._names_given.add(path)
                return path

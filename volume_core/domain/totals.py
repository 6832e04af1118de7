"""What a tree adds up to once rows are put on top of it, without looking at the rest of it.

Always true: a hard linked file counts once; the cost is the number of rows, and of the paths that they
remove.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from volume_core.domain.view import Node, View
from volume_core.format.entries import Entry, Kind, join, split


def totals_with(view: View, totals: tuple[int, int], rows: Iterable[tuple[bytes, bytes, Entry]]) -> tuple[int, int]:
    """Return (used_bytes, inode_count) of the tree that *rows* on top of *view* show.

    *totals* are those of *view*; *rows* are sorted as write_layer wants them.
    """
    return _Sum(view, totals).run(rows)


class _Sum:
    def __init__(self, view: View, totals: tuple[int, int]) -> None:
        self._view = view
        self._used_bytes, self._inode_count = totals
        # The directories of the view in which rows lie; None where nothing of the view is left.
        self._directories: dict[bytes, Node | None] = {b"": view.root}
        self._links: set[int] = set()
        self._names_gone: dict[int, list[Node]] = defaultdict(list)

    def run(self, rows: Iterable[tuple[bytes, bytes, Entry]]) -> tuple[int, int]:
        for directory, name, entry in rows:
            if name:
                above = self._directory(directory)
                self._row(join(directory, name), entry, above and self._view.lookup(above, name))
            elif entry.kind is Kind.OPAQUE:
                self._remove_below(self._view.root)
                self._directories[b""] = None
        for nodes in self._names_gone.values():
            if len(nodes) == self._view.link_count(nodes[0]):
                self._inode_count -= 1
                self._used_bytes -= nodes[0].row.size
        return self._used_bytes, self._inode_count

    def _directory(self, path: bytes) -> Node | None:
        if path not in self._directories:
            directory, name = split(path)
            above = self._directory(directory)
            found = self._view.lookup(above, name) if above is not None else None
            self._directories[path] = found if found is not None and found.is_directory else None
        return self._directories[path]

    def _row(self, path: bytes, entry: Entry, before: Node | None) -> None:
        if entry.is_directory and before is not None and before.is_directory:
            if entry.kind is Kind.OPAQUE:
                self._remove_below(before)
                self._directories[path] = None
            return
        if before is not None:
            self._remove_below(before)
            self._remove(before)
        if entry.kind is Kind.WHITEOUT or entry.hardlink in self._links:
            return
        if entry.hardlink:
            self._links.add(entry.hardlink)
        self._inode_count += 1
        self._used_bytes += entry.size

    def _remove_below(self, node: Node) -> None:
        waiting = [node] if node.is_directory else []
        while waiting:
            for gone in self._view.listing(waiting.pop()):
                self._remove(gone)
                if gone.is_directory:
                    waiting.append(gone)

    def _remove(self, node: Node) -> None:
        if node.row.hardlink:
            self._names_gone[node.number].append(node)
        else:
            self._inode_count -= 1
            self._used_bytes -= node.row.size

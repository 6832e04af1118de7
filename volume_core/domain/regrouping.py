"""Hard links after a merge: which of the files that ours changed are one inode in the result.

Always true:

  1. Names that ours linked are linked; names that ours left linked as they were are linked as theirs has
     them; but only as far as they came out equal.
  2. A group is in the rows whole or not at all, so that it lives in one layer; a name that ours has no row
     for stays where theirs has it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from volume_core.domain.changes import same
from volume_core.domain.threeway import content_of
from volume_core.domain.view import Node, View
from volume_core.format.entries import Entry


class Leaf(NamedTuple):
    """What a path comes to in a merge, where it is no directory.

    `out` is its path in the result, `path` the one it has in ours; `group` the number of its hard link
    group among the rows of ours (0: none); `base` what the ancestor has there; `theirs` what theirs has
    there, None where that is no part of it.
    """

    out: bytes
    entry: Entry
    path: bytes
    group: int
    base: Node | None
    theirs: Node | None


def regrouped(leaves: Sequence[Leaf], ancestor: View, theirs: View) -> Iterator[tuple[bytes, Entry]]:
    """Yield the rows of *leaves* that theirs does not show already, as (path, entry) with numbers for link groups."""
    groups: dict[tuple[int, bytes], list[Leaf]] = defaultdict(list)
    for leaf in leaves:
        groups[leaf.group, b"" if leaf.group else leaf.path].append(leaf)
    number = 0
    for members in groups.values():
        is_regrouped = _is_regrouped(members, ancestor)
        for part in _parts(members, is_regrouped):
            if _is_shown(part, theirs, is_regrouped):
                continue
            number += 1
            for leaf in part:
                yield leaf.out, leaf.entry._replace(hardlink=number if len(part) > 1 else 0)


def _is_regrouped(members: Sequence[Leaf], ancestor: View) -> bool:
    """Whether ours linked these names, or took them apart, since the ancestor."""
    base = members[0].base
    if base is None or base.is_directory:
        return len(members) > 1
    return set(ancestor.links(base)) != {leaf.path for leaf in members}


def _parts(members: Sequence[Leaf], is_regrouped: bool) -> list[list[Leaf]]:
    """Those of *members* that are one file, together."""
    parts: dict[tuple[tuple[object, ...], int], list[Leaf]] = defaultdict(list)
    for leaf in sorted(members, key=lambda leaf: leaf.theirs is None):
        entry = leaf.entry
        value: tuple[object, ...] = (content_of(entry), entry[1:5], entry.xattrs)
        if is_regrouped:
            parts[value, 0].append(leaf)
            continue
        key = (value, leaf.theirs.number if leaf.theirs is not None else 0)
        if leaf.theirs is None:  # goes with any that came out equal
            key = next((other for other in parts if other[0] == value), key)
        parts[key].append(leaf)
    return list(parts.values())


def _is_shown(part: Sequence[Leaf], theirs: View, is_regrouped: bool) -> bool:
    """Whether theirs shows *part* as it is."""
    first = part[0].theirs
    if first is None or not all(
        leaf.theirs is not None and same(leaf.entry, theirs.entry(leaf.theirs)) for leaf in part
    ):
        return False
    return not is_regrouped or set(theirs.links(first)) == {leaf.out for leaf in part}

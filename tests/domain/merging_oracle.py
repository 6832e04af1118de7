"""What a merge must come to, said path by path over plain mappings of whole trees: the judge of merge().

It knows no layers and no rows.  A tree is path -> entry; each path is merged twice, as what is no directory
and as a directory, and only then is it asked whether both can be.
"""

from __future__ import annotations

from typing import NamedTuple

from volume_core.domain.merge import Policy
from volume_core.format.entries import Entry

Tree = dict[bytes, Entry]


class Side(NamedTuple):
    """A tree, and the directories of the ancestor that it replaced by others."""

    tree: Tree
    replaced: frozenset[bytes]


def above(path: bytes) -> list[bytes]:
    """Every directory above *path*, the root included."""
    parts = path.split(b"/")
    return [b"/".join(parts[:count]) for count in range(len(parts))] if path else []


def leaf(tree: Tree, path: bytes) -> Entry | None:
    return tree[path] if path in tree and not tree[path].is_directory else None


def folder(tree: Tree, path: bytes) -> Entry | None:
    return tree[path] if path in tree and tree[path].is_directory else None


def timeless(entry: Entry | None) -> Entry | None:
    return entry and entry._replace(mtime_ns=0)


class Oracle:
    """Merges two sides of *ancestor* by *policy*: `conflicts`, and what merged() returns."""

    def __init__(self, ancestor: Tree, ours: Side, theirs: Side, policy: Policy) -> None:
        self.o, self.a, self.b, self.policy = ancestor, ours, theirs, policy
        self.paths = {*ancestor, *ours.tree, *theirs.tree}
        self.conflicts = {path for path in self.paths if self.is_conflict(path)}

    def gone_above(self, side: Side, path: bytes) -> bool:
        """Whether *side* removed or replaced a directory above *path*."""
        return any(folder(self.o, d) and (not folder(side.tree, d) or d in side.replaced) for d in above(path))

    def changed(self, side: Side, path: bytes) -> bool:
        """Whether *side* made or changed what it has at *path*; times of directories do not count."""
        one, other = leaf(side.tree, path), folder(side.tree, path)
        return bool(
            (one and one != leaf(self.o, path))
            or (other and timeless(other) != timeless(folder(self.o, path)))
        )  # fmt: skip

    def is_conflict(self, path: bytes) -> bool:
        for one, other in ((self.a, self.b), (self.b, self.a)):
            has, had = leaf(one.tree, path), leaf(self.o, path)
            if self.changed(other, path):
                if self.gone_above(one, path) and path not in one.tree:
                    return True
                if had and not has and leaf(other.tree, path):
                    return True
                if folder(self.o, path) and not folder(one.tree, path) and folder(other.tree, path):
                    return True
            if has and has != had and folder(other.tree, path) and not folder(self.o, path):
                return True
        return bool(self.parts(path)[1])

    def parts(self, path: bytes) -> tuple[Entry | None, bool]:
        """What becomes of a path that both sides have as the same sort of thing, and whether that is a conflict."""
        a, b = self.a.tree.get(path), self.b.tree.get(path)
        if a is None or b is None or a.is_directory != b.is_directory:
            return None, False
        o = folder(self.o, path) if a.is_directory else leaf(self.o, path)
        ours_first = self.policy.prefers_ours
        if b in (a, o):
            return a, False
        if a == o:
            return b, False
        if a.kind is not b.kind:
            return (a if ours_first else b), True
        clash = False
        merged = {}
        for fields in (("size", "target", "rdev", "content"), ("mode", "uid", "gid"), ("xattrs",)):
            va, vb, vo = (e and [getattr(e, field) for field in fields] for e in (a, b, o))
            if o and fields[0] == "size" and o.kind is not a.kind:
                vo = None
            wins = b if va in (vb, vo) else a if vb == vo else a if ours_first else b
            is_clash = va not in (vb, vo) and vb != vo
            clash |= is_clash
            merged |= {field: getattr(wins, field) for field in fields}
            if fields[0] == "size" and is_clash:
                merged["mtime_ns"] = wins.mtime_ns
        times = [e.mtime_ns for e in (a, b) if o is None or e.mtime_ns != o.mtime_ns]
        merged.setdefault("mtime_ns", max(times, default=b.mtime_ns))
        return a._replace(**merged), clash and not (a.is_directory and o is None)

    def leaf_of(self, path: bytes) -> tuple[Entry | None, str]:
        """What is no directory at *path* in the result, and whose it is."""
        a, b, o = leaf(self.a.tree, path), leaf(self.b.tree, path), leaf(self.o, path)
        if a and b:
            return self.parts(path)[0], "both"
        if a and a != o and self.keeps_ours(path, o is not None):
            return a, "ours"
        if b and b != o and self.keeps_theirs(path, o is not None):
            return b, "theirs"
        return None, ""

    def keeps_ours(self, path: bytes, was_there: bool) -> bool:
        return self.policy is not Policy.THEIRS or not (was_there or self.gone_above(self.b, path))

    def keeps_theirs(self, path: bytes, was_there: bool) -> bool:
        return not self.policy.removes_changed or not (was_there or self.gone_above(self.a, path))

    def folder_of(self, path: bytes) -> tuple[Entry | None, bool]:
        """The directory at *path* in the result, and whether it is there even if it is empty."""
        a, b, o = folder(self.a.tree, path), folder(self.b.tree, path), folder(self.o, path)
        if a and b:
            return self.parts(path)[0], True
        if a and o:
            stays = self.policy.removes_changed or (
                self.policy is not Policy.THEIRS and not leaf(self.b.tree, path)
            )  # fmt: skip
            return a, timeless(a) != timeless(o) and stays
        if a:
            return a, self.keeps_ours(path, False)
        if b:
            return b, (not o or timeless(b) != timeless(o)) and self.keeps_theirs(path, bool(o))
        return None, False

    def merged(self) -> Tree:
        """The tree of the result; not for Policy.KEEP_BOTH, which gives other names."""
        leaves = {path: found for path in self.paths if (found := self.leaf_of(path))[0]}
        folders = {path for path in self.paths if self.folder_of(path)[1]}
        for path in [*leaves, *folders]:
            folders.update(above(path))
        result: Tree = {}
        hidden: set[bytes] = set()
        for path in sorted({*leaves, *folders}):
            if hidden.intersection(above(path)):
                continue
            entry, whose = leaves.get(path, (None, ""))
            if entry and path in folders and (whose == "theirs") == self.policy.prefers_ours:
                entry = None
            if entry:
                result[path] = entry
                hidden.add(path)
            else:
                found = self.folder_of(path)[0]
                assert found, path
                result[path] = found
        return result

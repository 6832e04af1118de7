"""What fsspec calls an info: one path of a tree as a dict.

    name   the path, as fsspec has it              size   bytes of a file; 0 of anything else
    type   "file", "directory", "link" (one that leads nowhere) or "other"; of a symlink, what it leads to
    mode   type and permission bits, as stat has   uid, gid   numbers
    mtime  seconds since 1970                      ino    equal for the names of one file, within a version
    islink whether it is a symlink, and then destination: its target, as it is written

A tree is a version's view, or that view with edits on top: both answer the same questions.

Always true: `info` and `ls` say the same of one path.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from volume_core.domain import paths
from volume_core.domain.edits import Spot
from volume_core.domain.view import Node
from volume_core.errors import NoSuchPathError, VolumeError
from volume_core.facade.addresses import to_text
from volume_core.format.digests import DIGEST_BYTES, digest, hex_digest
from volume_core.format.entries import Entry, Extent, Kind
from volume_core.format.layer import Row

Info = dict[str, Any]
Place = Node | Spot

_FORMATS = {
    Kind.FILE: stat.S_IFREG,
    Kind.DIRECTORY: stat.S_IFDIR,
    Kind.OPAQUE: stat.S_IFDIR,
    Kind.SYMLINK: stat.S_IFLNK,
    Kind.FIFO: stat.S_IFIFO,
    Kind.CHAR: stat.S_IFCHR,
    Kind.BLOCK: stat.S_IFBLK,
}
_TYPES = {Kind.FILE: "file", Kind.DIRECTORY: "directory", Kind.OPAQUE: "directory", Kind.SYMLINK: "link"}
_EXTENT = struct.Struct("<QQ")


class Tree(Protocol):
    """What is asked of a view, and of edits."""

    @property
    def root(self) -> Any:
        """The root directory."""
        ...

    def lookup(self, directory: Any, name: bytes) -> Any:
        """Return what *directory* shows as *name*, or None."""
        ...

    def listing(self, directory: Any) -> Sequence[Any]:
        """Return everything *directory* shows, sorted by name."""
        ...

    def entry(self, place: Any) -> Entry:
        """Return *place* as a value, content included."""
        ...


class Found(NamedTuple):
    """What lies at a path: the `link`, if it is one, and the `place` it leads to (itself, if that is nowhere)."""

    place: Place
    link: Place | None = None

    @property
    def kind(self) -> Kind:
        """What it is, a symlink followed."""
        return Kind(_attributes(self.place).kind)

    @property
    def is_directory(self) -> bool:
        """Whether paths may lie below it."""
        return self.place.is_directory

    @property
    def number(self) -> int:
        """Equal for the names of one file: a view's number, or one for each path that was put."""
        node = self.place.node if isinstance(self.place, Spot) else self.place
        return node.number if node is not None else int.from_bytes(digest(self.place.path)[:8], "big")


def find(tree: Tree, path: bytes) -> Found:
    """Return what lies at *path*; NoSuchPathError if nothing does."""
    place = paths.find(tree, path, follow=False)
    if place is None:
        raise NoSuchPathError(f"{paths.shown(path)}: there is no such path in this volume")
    return follow(tree, place)


def follow(tree: Tree, place: Place) -> Found:
    """Return where *place* leads."""
    if place.link_target is None:
        return Found(place)
    try:
        return Found(paths.find(tree, place.path) or place, place)
    except VolumeError:  # a circle leads nowhere
        return Found(place, place)


def info_of(found: Found, name: str) -> Info:
    """Return the info of *found*, which fsspec knows as *name*."""
    row, kind = _attributes(found.place), found.kind
    info: Info = {
        "name": name,
        "size": row.size if kind is Kind.FILE else 0,
        "type": _TYPES.get(kind, "other"),
        "mode": _FORMATS[kind] | row.mode,
        "uid": row.uid,
        "gid": row.gid,
        "mtime": row.mtime_ns / 1_000_000_000,
        "ino": found.number,
        "islink": found.link is not None,
    }
    if found.link is not None:
        info["destination"] = to_text(found.link.link_target or b"")
    return info


def directory_info(name: str, mtime_ns: int = 0) -> Info:
    """Return the info of what is a directory to fsspec alone: a store, or a volume in one."""
    return {"name": name, "size": 0, "type": "directory", "mtime": mtime_ns / 1_000_000_000, "islink": False}


def children(tree: Tree, found: Found, name: str) -> Iterator[tuple[str, Found]]:
    """Yield the name and value of everything in the directory *found*, whose name is *name*."""
    for place in tree.listing(found.place):
        yield f"{name}/{to_text(place.name)}", follow(tree, place)


def below(tree: Tree, start: Found, name: str, levels: int | None) -> Iterator[tuple[str, Found]]:
    """Yield the name and value of everything below the directory *start*, whose name is *name*.

    Symlinks to directories are followed, but for those that lead to where they came from.
    """
    waiting = [(name, start, frozenset((start.number,)), 1)]
    while waiting:
        above, directory, came_from, level = waiting.pop()
        for there, found in children(tree, directory, above):
            yield there, found
            number = found.number
            if found.is_directory and number not in came_from and (levels is None or level < levels):
                waiting.append((there, found, came_from | {number}, level + 1))


def fingerprint(size: int, extents: tuple[Extent, ...]) -> str:
    """Return 64 hexadecimal digits that are equal only for equal contents: no byte of them is read."""
    hole = bytes(DIGEST_BYTES)
    parts = [
        _EXTENT.pack(length, offset) + (hole if chunk is None else chunk.digest) for length, chunk, offset in extents
    ]
    return hex_digest(b"".join([_EXTENT.pack(size, len(parts)), *parts]))


def _attributes(place: Place) -> Row | Entry:
    if isinstance(place, Node):
        return place.row
    if place.held is not None:
        return place.held
    assert place.node is not None
    return place.node.row

"""Paths as a caller writes them: symlinks followed within the tree, and patterns with what they match.

A tree is anything that has a root and can be asked for a name in a directory and for all names of one: a
view, or a view with edits on top.

Always true: symlinks lead within the tree only, an absolute one from its root, and never further than the
kernel would follow; no answer depends on how deep the tree is.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol, Self, TypeVar

from volume_core.errors import VolumeError
from volume_core.format.entries import join

SYMLINKS_MAX = 40  # what Linux follows before it says ELOOP
ANY_DEPTH = b"**"
_MAGIC = re.compile(rb"[*?[]")


class Place(Protocol):
    """What lies at one path of a tree."""

    @property
    def path(self) -> bytes:
        """Its path, no symlink on the way."""
        ...

    @property
    def name(self) -> bytes:
        """The last part of it."""
        ...

    @property
    def is_directory(self) -> bool:
        """Whether paths may lie below this one."""
        ...

    @property
    def link_target(self) -> bytes | None:
        """Where a symlink leads; None of anything else."""
        ...


P = TypeVar("P", bound=Place)


class Tree(Protocol[P]):
    """What can be asked of a tree."""

    @property
    def root(self) -> P:
        """Its root directory."""
        ...

    def lookup(self, directory: P, name: bytes) -> P | None:
        """Return what *directory* shows as *name*, or None."""
        ...

    def listing(self, directory: P) -> Sequence[P]:
        """Return everything *directory* shows, sorted by name."""
        ...


def parts_of(path: bytes) -> list[bytes]:
    """Return the names in *path*; slashes and dots that lead nowhere else are left out."""
    return [name for name in path.split(b"/") if name not in {b"", b"."}]


def shown(path: bytes) -> str:
    """Return *path* as a message names it: from the root, bytes that are no text escaped."""
    return "/" + path.strip(b"/").decode("utf-8", "surrogateescape")


def printable(path: bytes | str) -> str:
    """Return a path with everything that is no printable text escaped, and a backslash doubled."""
    text = path.decode("utf-8", "surrogateescape") if isinstance(path, bytes) else path
    return "".join(_escape(character) for character in text)


def _escape(character: str) -> str:
    if character == "\\":
        return "\\\\"
    if character.isprintable():
        return character
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def find(tree: Tree[P], path: bytes, *, follow: bool = True) -> P | None:
    """Return what lies at *path*, or None; with *follow* a symlink's target, else the link itself.

    Symlinks on the way are followed.  Raises VolumeError where they lead in circles.
    """
    above: list[P] = [tree.root]
    waiting = parts_of(path)[::-1]
    followed = 0
    while waiting:
        name = waiting.pop()
        if name == b"..":
            above = above[:-1] or [tree.root]
            continue
        place = tree.lookup(above[-1], name) if above[-1].is_directory else None
        if place is None:
            return None
        target = place.link_target
        if target is None or (not waiting and not follow):
            above.append(place)
            continue
        followed += 1
        if followed > SYMLINKS_MAX:
            raise VolumeError(f"{shown(path)}: too many levels of symlinks")
        if target.startswith(b"/"):
            above = [tree.root]
        waiting.extend(reversed(parts_of(target)))
    return above[-1]


class Pattern(NamedTuple):
    """A path with `*`, `?`, `[...]` in its names, or `**` in place of any number of directories.

    `literal` is what comes before the first of these.  Every name counts, with or without a leading dot.
    """

    literal: bytes
    rest: tuple[bytes, ...]

    @classmethod
    def parse(cls, path: bytes) -> Self | None:
        """Return the pattern *path*, or None if it is a plain path."""
        parts = parts_of(path)
        first = next((number for number, part in enumerate(parts) if _MAGIC.search(part)), None)
        if first is None:
            return None
        rest = [
            part
            for number, part in enumerate(parts[first:])
            if part != ANY_DEPTH or not number or parts[first + number - 1] != ANY_DEPTH
        ]
        return cls(b"/".join(parts[:first]), tuple(rest))

    def matches(self, tree: Tree[P]) -> Iterator[tuple[bytes, P]]:
        """Yield (path as the pattern writes it, place) of what matches, each path once.

        `**` goes into no symlink; the names between slashes do.
        """
        start = find(tree, self.literal)
        if start is None or not start.is_directory:
            return
        expressions = [_expression(part) for part in self.rest]
        yielded: set[bytes] | None = set() if self.rest.count(ANY_DEPTH) > 1 else None
        waiting = [(self.literal, start, 0)]
        while waiting:
            path, place, number = waiting.pop()
            if number == len(self.rest):
                if yielded is None or path not in yielded:
                    yield path, place
                    if yielded is not None:
                        yielded.add(path)
                continue
            is_last = number == len(self.rest) - 1
            if self.rest[number] == ANY_DEPTH:
                waiting.extend(_deeper(tree, path, place, number, is_last=is_last))
                continue
            for child in reversed(_named(tree, place, self.rest[number], expressions[number])):
                inner = child if is_last else entered(tree, child)
                if inner is not None:
                    waiting.append((join(path, child.name), inner, number + 1))


def _deeper(tree: Tree[P], path: bytes, directory: P, number: int, *, is_last: bool) -> Iterator[tuple[bytes, P, int]]:
    """What `**` leads to from *directory*, the first to be looked at last."""
    for child in reversed(tree.listing(directory)):
        if child.is_directory:
            yield join(path, child.name), child, number
        if is_last:
            yield join(path, child.name), child, number + 1
    if not is_last:
        yield path, directory, number + 1


def _named(tree: Tree[P], directory: P, part: bytes, expression: re.Pattern[str] | None) -> Sequence[P]:
    if expression is None:
        child = tree.lookup(directory, part)
        return [] if child is None else [child]
    return [child for child in tree.listing(directory) if expression.match(_text(child.name))]


def entered(tree: Tree[P], place: P) -> P | None:
    """The directory that *place* is or leads to, or None."""
    try:
        found = find(tree, place.path) if place.link_target is not None else place
    except VolumeError:  # a circle leads nowhere
        return None
    return found if found is not None and found.is_directory else None


def _expression(part: bytes) -> re.Pattern[str] | None:
    return re.compile(fnmatch.translate(_text(part))) if _MAGIC.search(part) else None


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")

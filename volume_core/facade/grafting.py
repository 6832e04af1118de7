"""From a version to plain files, without a mount.

Always true: only what is whole gets its name; no symlink is followed, neither in the version nor in what is merged
into: nothing is written outside the destination.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Generic, NamedTuple, Protocol, TypeVar

from volume_core.domain import paths
from volume_core.domain.view import Node
from volume_core.errors import ExistsError, VolumeError
from volume_core.facade.browsing import Browser
from volume_core.format.entries import Entry
from volume_core.parts.hydrating import hydrate
from volume_core.parts.placing import Content
from volume_core.parts.trees import remove_tree

Advance = Callable[[int], None]  # so many more bytes are done
Progress = Callable[[int, int], None]  # so many more files, and bytes, are done

P = TypeVar("P", bound=paths.Place)


class Tree(paths.Tree[P], Protocol[P]):
    """A view, or a view with edits on top."""

    def entry(self, place: P) -> Entry:
        """Return *place* as a value, content included."""
        ...


class _Placed(NamedTuple, Generic[P]):
    """Where *place* of a tree is to lie."""

    path: bytes
    name: bytes
    place: P


class _Below(Generic[P]):
    """A part of a tree, as hydrating asks for it: *start* is the root, or the one thing in an empty root."""

    def __init__(self, tree: Tree[P], start: P) -> None:
        self._tree = tree
        self._start = start

    def walk(self) -> Iterator[_Placed[P]]:
        if not self._start.is_directory:
            yield _Placed(b"", b"", self._tree.root)
            yield _Placed(self._start.name, self._start.name, self._start)
            return
        cut = len(self._start.path) + 1 if self._start.path else 0
        yield _Placed(b"", b"", self._start)
        waiting = list(reversed(self._tree.listing(self._start)))
        while waiting:
            place = waiting.pop()
            yield _Placed(place.path[cut:], place.name, place)
            if place.is_directory:
                waiting.extend(reversed(self._tree.listing(place)))

    def entry(self, node: _Placed[P]) -> Entry:
        return self._tree.entry(node.place)


def copy_out(browser: Browser, start: Node, destination: Path, advance: Advance) -> None:
    """Make *destination* what *start* is, with all below it.

    A file there is replaced; raises VolumeError where anything else is, OSError where the file system refuses.
    """
    lay_out(browser.view, browser.reader, start, destination, lambda _files, count: advance(count))


def lay_out(tree: Tree[P], content: Content, start: P, destination: Path, progress: Progress) -> None:
    """Make *destination* what *start* of *tree* is, with all below it; *content* has the bytes.

    As copy_out().
    """
    below = _Below(tree, start)
    if start.is_directory:
        if destination.exists() and any(destination.iterdir()):
            raise VolumeError(f"{destination} is not empty")
        with contextlib.suppress(FileNotFoundError):
            destination.rmdir()
        hydrate(below, content, destination, progress=progress)
        return
    holder = destination.with_name(f".{destination.name}.{os.getpid()}.copying")
    try:
        hydrate(below, content, holder, progress=progress)
        os.chmod(holder, 0o700)
        os.replace(os.path.join(os.fsencode(holder), start.name), destination)
    finally:
        remove_tree(holder)


def lay_into(tree: Tree[P], content: Content, start: P, directory: Path, progress: Progress) -> None:
    """Merge what is in the directory *start* of *tree* into *directory*, which is there and keeps its own mode.

    All is made within *directory* before anything gets its name.  Files are replaced; raises ExistsError, before
    anything is, where one side has a directory and the other has none.
    """
    made = Path(tempfile.mkdtemp(prefix=".volume-get-", dir=directory))
    try:
        fresh = made / "fresh"
        lay_out(tree, content, start, fresh, progress)
        merge(fresh, Path(os.path.realpath(directory)), keep_mode=True)
    finally:
        remove_tree(made)


def merge(fresh: Path, target: Path, *, keep_mode: bool = False) -> None:
    """Move what *fresh* is to *target*; directories that are there are kept, and files in them replaced.

    Directories that were merged get the mode and times of *fresh*'s, *target* itself not if *keep_mode*.  Raises
    ExistsError, before anything is moved, where one is a directory and the other is not.
    """
    moves: list[tuple[Path, Path]] = []
    merged: list[tuple[Path, Path]] = []
    waiting = [(fresh, target)]
    while waiting:
        source, there = waiting.pop()
        if not os.path.lexists(there):
            moves.append((source, there))
        elif _is_real_directory(source) != _is_real_directory(there):
            what = "is a directory" if _is_real_directory(there) else "is no directory"
            raise ExistsError(f"{there} {what}: remove it first", [os.fspath(there)])
        elif _is_real_directory(source):
            merged.append((source, there))
            waiting.extend((child, there / child.name) for child in source.iterdir())
        else:
            moves.append((source, there))
    for source, there in moves:
        _move(source, there)
    for source, there in reversed(merged):
        if not (keep_mode and there == target):
            with contextlib.suppress(PermissionError):  # somebody else's, in which this user may write
                shutil.copystat(source, there)


def _is_real_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _move(source: Path, there: Path) -> None:
    """Rename *source*; a directory that may not be written, or lies in one, is no hindrance to its owner."""
    modes = {each: each.stat() for each in (source.parent, source) if _is_real_directory(each)}
    for each, status in modes.items():
        each.chmod(status.st_mode | 0o700)
    os.replace(source, there)
    for each, status in modes.items():
        found = there if each == source else each
        os.utime(found, ns=(status.st_atime_ns, status.st_mtime_ns))
        found.chmod(status.st_mode)


def size_of(browser: Browser, start: Node) -> int:
    """Return the bytes of the files at and below *start*."""
    return sum(node.row.size for node in browser.view.walk(start.path))

"""Reading the files of a volume without mounting it: of a version, or of a writer's last commit.

Always true: what one call returns is of one version, also when the handle commits meanwhile; memory does
not grow with the size of a file; a handle keeps open what it has looked into until it is closed or
collected.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import BinaryIO

from volume_core.domain.paths import Pattern, entered, find, parts_of, shown
from volume_core.domain.view import Node
from volume_core.errors import NoSuchPathError, VolumeError
from volume_core.facade.browsing import Browser, Browsers, blocks
from volume_core.facade.fileentries import FileEntry, entry_of
from volume_core.facade.handles import HandledRecord
from volume_core.facade.mounts import StrPath
from volume_core.facade.twins import awaitable, awaitable_iterator
from volume_core.format.entries import join

_ENTRIES_AT_ONCE = 512  # an event loop is asked once for so many
_DIRECTORIES_AT_ONCE = 1  # the caller of walk() may prune what is below the one it has


class ReadsFiles(HandledRecord):
    """The methods that read files; a mixin of the public classes."""

    def iterdir_sync(self, path: StrPath, *, recursive: bool = True) -> Iterator[FileEntry]:
        """Yield what is in the directory *path*, with *recursive* all below it, parents before children.

        A *path* that is no directory gives its own entry.  One with `*`, `?` or `[...]` in it gives what it
        matches, `**` standing for any number of directories; one that exists as it is written is no pattern.
        Symlinks are listed, not followed, but for those that *path* itself goes through.  Raises NoSuchPathError,
        for a pattern too if it matches nothing.
        """
        wanted = os.fsencode(path)
        with self._look() as browser:
            node = find(browser.view, wanted)
            if node is not None and node.is_directory:
                yield from _below(browser, node, _given(wanted, node), recursive=recursive)
                return
            link = find(browser.view, wanted, follow=False)
            if link is not None:
                yield entry_of(link, _given(wanted, link))
                return
            found = False
            pattern = Pattern.parse(wanted)
            for matched, each in pattern.matches(browser.view) if pattern else ():
                found = True
                yield entry_of(each, matched)
            if not found:
                what = "nothing matches" if pattern else "there is no such path"
                raise NoSuchPathError(f"{shown(wanted)}: {what} in {browser.where}")

    iterdir = awaitable_iterator(iterdir_sync, at_once=_ENTRIES_AT_ONCE)

    def listdir_sync(self, path: StrPath = "/", *, recursive: bool = False) -> list[FileEntry]:
        """Return what is in the directory *path*, by name: iterdir as a list."""
        return list(self.iterdir_sync(path, recursive=recursive))

    listdir = awaitable(listdir_sync)

    def stat_sync(self, path: StrPath, *, follow: bool = True) -> FileEntry:
        """Return the entry at *path*; without *follow* a symlink's own.  Raises NoSuchPathError."""
        wanted = os.fsencode(path)
        with self._look() as browser:
            node = browser.find(wanted, follow=follow)
            return entry_of(node, node.path if follow else _given(wanted, node))

    stat = awaitable(stat_sync)

    def exists_sync(self, path: StrPath) -> bool:
        """Whether there is anything at *path*, symlinks followed."""
        with self._look() as browser:
            return find(browser.view, os.fsencode(path)) is not None

    exists = awaitable(exists_sync)

    def walk_sync(self, path: StrPath = "/") -> Iterator[tuple[str, list[str], list[str]]]:
        """Yield (directory, names of directories, names of all else) of *path* and all below, as os.walk does.

        A symlink to a directory is among the directories and is not entered.  What the caller removes from the
        list of directories is not visited.  Raises NoSuchPathError, and VolumeError where *path* is no directory.
        """
        with self._look() as browser:
            start = browser.find(os.fsencode(path))
            if not start.is_directory:
                raise VolumeError(f"{shown(start.path)}: it is no directory to walk")
            waiting = [(os.fspath(path), start)]
            while waiting:
                top, node = waiting.pop()
                children = {os.fsdecode(child.name): child for child in browser.view.listing(node)}
                names = [name for name, child in children.items() if entered(browser.view, child)]
                directories = set(names)
                yield top, names, [name for name in children if name not in directories]
                inner = [(os.path.join(top, name), children[name]) for name in reversed(names) if name in children]
                waiting.extend((below, child) for below, child in inner if child.is_directory)

    walk = awaitable_iterator(walk_sync, at_once=_DIRECTORIES_AT_ONCE)

    def read_file_sync(self, path: StrPath, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Return an iterator over the bytes of the file *path*, or over *length* of them from *offset*.

        In blocks of at most 4 MiB; what comes next is fetched ahead.  Symlinks are followed.  Raises
        NoSuchPathError at once if there is no such file, VolumeError if it is none.
        """
        if offset < 0 or (length is not None and length < 0):
            raise ValueError(f"offset {offset} and length {length} must not be negative")
        browsers = self._browsers()
        with self._look() as browser:
            content = browser.content(browser.find(os.fsencode(path)))

        def read() -> Iterator[bytes]:
            with browsers.reopened() as reader:
                yield from blocks(reader, content, offset, length)

        return read()

    read_file = awaitable_iterator(read_file_sync)

    def read_file_into_fileobj_sync(self, path: StrPath, fileobj: BinaryIO) -> int:
        """Write the bytes of the file *path* to *fileobj* and return how many; see read_file."""
        count = 0
        for block in self.read_file_sync(path):
            fileobj.write(block)
            count += len(block)
        return count

    read_file_into_fileobj = awaitable(read_file_into_fileobj_sync)

    @contextlib.contextmanager
    def _look(self) -> Iterator[Browser]:
        """Lend what looks into the version that this handle is at, whatever other threads do to it meanwhile."""
        with contextlib.ExitStack() as lent:
            with self._handle.lock:
                browser = lent.enter_context(self._browsers().lend())
            yield browser

    def _browsers(self) -> Browsers:
        """What looks into the version that this handle is at."""
        with self._handle.lock:
            return self._handle.browsers(self._version(), self._place(), self.name)


def _given(wanted: bytes, node: Node) -> bytes:
    """The path of *node* as the caller wrote it, which may go through symlinks."""
    parts = parts_of(wanted)
    return node.path if b".." in parts else b"/".join(parts)


def _below(browser: Browser, start: Node, path: bytes, *, recursive: bool) -> Iterator[FileEntry]:
    waiting = [(path, iter(browser.view.listing(start)))]
    while waiting:
        above, nodes = waiting[-1]
        for node in nodes:
            there = join(above, node.name)
            yield entry_of(node, there)
            if recursive and node.is_directory:
                waiting.append((there, iter(browser.view.listing(node))))
                break
        else:
            waiting.pop()

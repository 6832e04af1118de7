"""Looking into a version without mounting it: paths, listings, bytes.

Always true: symlinks are followed within the version only, and never more than the kernel would;
a path that leads nowhere is NoSuchPathError naming it; what a handle keeps open is opened once, closed
with the handle, and not used in a forked child, which opens its own.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from volume_core.domain.paths import find, shown
from volume_core.domain.view import Node, View
from volume_core.errors import NoSuchPathError, VolumeError
from volume_core.facade.settings import cache_limit_bytes
from volume_core.facade.versions import Place, Version
from volume_core.format.entries import CHUNK_BYTES, Entry, Extent, Kind
from volume_core.parts.caching import PackCache
from volume_core.parts.indexes import IndexCache, open_view
from volume_core.parts.reading import Reader
from volume_core.parts.state import State

_IDLE_MAX = 4  # views kept open for the next question; each is a few descriptors and SQLite's page cache


class Browser:
    """One version, or the empty tree before the first, opened to look into.  Used by one thread at a time.

    `where` is what messages call it.
    """

    def __init__(self, view: View, reader: Reader, where: str) -> None:
        self.view = view
        self.reader = reader
        self.where = where

    def find(self, path: bytes, *, follow: bool = True) -> Node:
        """Return what lies at *path*; with *follow* a symlink's target, else the link itself."""
        node = find(self.view, path, follow=follow)
        if node is None:
            raise NoSuchPathError(f"{shown(path)}: there is no such path in {self.where}")
        return node

    def entry(self, node: Node) -> Entry:
        """Return *node*'s value, content included."""
        return self.view.entry(node)

    def content(self, node: Node) -> tuple[Extent, ...]:
        """Return where the bytes of the file *node* lie; VolumeError if it is none."""
        if node.row.kind != Kind.FILE:
            raise VolumeError(f"{shown(node.path)}: it is a {Kind(node.row.kind).name.lower()}, not a file")
        return self.view.extents(node)

    def stream(self, node: Node) -> Iterator[bytes]:
        """Yield the bytes of the file *node*."""
        return self.reader.stream(self.content(node))


class _ClosedError(VolumeError):
    """Browsers that were closed are asked to lend."""


class Browsers:
    """One version (None: the empty tree), opened as often as threads look into it at once.

    The indexes are fetched and verified by the first who looks.  Every method may be called from any
    thread; each Browser is lent to one at a time.
    """

    def __init__(self, version: Version | None, place: Place, where: str) -> None:
        self.version = version
        self._place = place
        self._where = where
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._paths: tuple[Path, ...] = ()
        self._reader: Reader | None = None
        self._idle: list[View] = []
        self._lent = 0
        self._closed = False

    def shows(self, version: Version | None) -> bool:
        """Whether this is what to look into *version* with, in this process."""
        mine = self.version.locator if self.version else None
        return not self._closed and self._pid == os.getpid() and mine == (version.locator if version else None)

    @contextlib.contextmanager
    def lend(self) -> Iterator[Browser]:
        """Lend a Browser for the length of a `with` statement."""
        with self.reading() as reader:
            with self._lock:
                view = self._idle.pop() if self._idle else open_view(self._paths)
            try:
                yield Browser(view, reader, self._where)
            finally:
                with self._lock:
                    keep = not self._closed and len(self._idle) < _IDLE_MAX
                    if keep:
                        self._idle.append(view)
                if not keep:
                    view.close()

    @contextlib.contextmanager
    def reading(self) -> Iterator[Reader]:
        """Lend the Reader, which any number of threads share."""
        reader = self._borrow()
        if reader is None:
            raise _ClosedError(f"{self._where} was closed while it was read")
        try:
            yield reader
        finally:
            with self._lock:
                self._lent -= 1
                self._close_reader()

    @contextlib.contextmanager
    def reopened(self) -> Iterator[Reader]:
        """Lend the Reader, or where this was closed meanwhile, or a child was forked, one of its own.

        It needs no index: whoever asks knows already where what is to be read lies.
        """
        with contextlib.ExitStack() as stack:
            try:
                reader = stack.enter_context(self.reading())
            except _ClosedError:
                again = Browsers(None, self._place, self._where)
                stack.callback(again.close)
                reader = stack.enter_context(again.reading())
            yield reader

    def _borrow(self) -> Reader | None:
        """Return the Reader, opened if it is not, or None where this was closed."""
        if self._pid != os.getpid():
            return None  # the parent's: its lock may be held for ever here
        with self._lock:
            if self._closed:
                return None
            if self._reader is None:
                state = State.default().prepare()
                store = self._place.store()
                stack = self.version.manifest.stack if self.version else ()
                self._paths = IndexCache(state.cache).fetch(store, stack)
                self._reader = Reader(store, PackCache(state.cache, cache_limit_bytes()))
            self._lent += 1
            return self._reader

    def release(self) -> None:
        """Nobody will use it any more."""
        self.close()

    def close(self) -> None:
        """Close what is open; what is lent, when it comes back."""
        if self._pid != os.getpid():
            return  # the parent's: its lock may be held for ever here
        with self._lock:
            self._closed = True
            while self._idle:
                self._idle.pop().close()
            self._close_reader()

    def _close_reader(self) -> None:
        if self._closed and not self._lent and self._reader is not None:
            self._reader.close()
            self._reader = None


@contextlib.contextmanager
def browse(version: Version) -> Iterator[Browser]:
    """Open *version* to look into."""
    browsers = Browsers(version, version.place, str(version.locator))
    try:
        with browsers.lend() as browser:
            yield browser
    finally:
        browsers.close()


def blocks(reader: Reader, content: tuple[Extent, ...], offset: int, length: int | None) -> Iterator[bytes]:
    """Yield *length* bytes (None: all there are) from *offset* of the file that *content* describes.

    In blocks that end where chunks do, so that each chunk is asked for once.
    """
    size = sum(extent.length for extent in content)
    end = size if length is None else min(size, offset + length)
    while offset < end:
        stop = min(end, (offset // CHUNK_BYTES + 1) * CHUNK_BYTES)
        yield reader.read(content, offset, stop - offset)
        offset = stop

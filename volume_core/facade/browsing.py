"""Looking into a version without mounting it: paths, listings, bytes.

Always true: symlinks are followed within the version only, and never more than the kernel would;
a path that leads nowhere is NotFoundError naming it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from volume_core.domain.view import Node, View
from volume_core.errors import NotFoundError, VolumeError
from volume_core.facade.settings import cache_limit_bytes
from volume_core.facade.versions import Version
from volume_core.format.entries import Entry, Kind
from volume_core.parts.caching import PackCache
from volume_core.parts.indexes import IndexCache, open_view
from volume_core.parts.reading import Reader
from volume_core.parts.state import State
from volume_core.storage.protocol import Store

_SYMLINKS_MAX = 40  # what Linux follows before it says ELOOP


class Browser:
    """One version, opened to look into.  Used by one thread at a time; closed by `closing` or `browse`."""

    def __init__(self, version: Version, view: View, store: Store, state: State) -> None:
        self.version = version
        self.view = view
        self.reader = Reader(store, PackCache(state.cache, cache_limit_bytes()))

    def close(self) -> None:
        """Close the indexes, and what is open of packs."""
        self.reader.close()
        self.view.close()

    def find(self, path: bytes, *, follow: bool = True) -> Node:
        """Return what lies at *path*; with *follow* a symlink's target, else the link itself."""
        waiting = [name for name in reversed(path.split(b"/")) if name not in {b"", b"."}]
        above: list[Node] = [self.view.root]
        followed = 0
        while waiting:
            name = waiting.pop()
            if name == b"..":
                above = above[:-1] or [self.view.root]
                continue
            node = self.view.lookup(above[-1], name) if above[-1].is_directory else None
            if node is None:
                raise NotFoundError(f"{_shown(path)}: there is no such path in {self.version.locator}")
            if node.row.kind != Kind.SYMLINK or (not waiting and not follow):
                above.append(node)
                continue
            followed += 1
            if followed > _SYMLINKS_MAX:
                raise VolumeError(f"{_shown(path)}: too many levels of symlinks")
            target = node.row.target or b""
            if target.startswith(b"/"):
                above = [self.view.root]
            waiting.extend(part for part in reversed(target.split(b"/")) if part not in {b"", b"."})
        return above[-1]

    def entry(self, node: Node) -> Entry:
        """Return *node*'s value, content included."""
        return self.view.entry(node)

    def stream(self, node: Node) -> Iterator[bytes]:
        """Yield the bytes of the file *node*."""
        if node.row.kind != Kind.FILE:
            raise VolumeError(f"{_shown(node.path)}: it is a {Kind(node.row.kind).name.lower()}, not a file")
        return self.reader.stream(self.view.extents(node))


@contextlib.contextmanager
def browse(version: Version) -> Iterator[Browser]:
    """Open *version* to look into."""
    state = State.default().prepare()
    store = version.place.store()
    view = open_view(IndexCache(state.cache).fetch(store, version.manifest.stack))
    browser = Browser(version, view, store, state)
    try:
        yield browser
    finally:
        browser.close()


def _shown(path: bytes) -> str:
    return "/" + os.fsdecode(path).strip("/")

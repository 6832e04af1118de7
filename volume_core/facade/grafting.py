"""From a version to plain files, without a mount.

Always true: only what is whole gets its name.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

from volume_core.domain.view import Node, View
from volume_core.errors import VolumeError
from volume_core.facade.browsing import Browser
from volume_core.format.entries import Entry
from volume_core.parts.hydrating import hydrate
from volume_core.parts.trees import remove_tree

Advance = Callable[[int], None]  # so many more bytes are done


class _Below:
    """A part of a view, as hydrating asks for it: *start* is the root, or the one thing in an empty root."""

    def __init__(self, view: View, start: Node) -> None:
        self._view = view
        self._start = start

    def walk(self) -> Iterator[Node]:
        if not self._start.is_directory:
            yield self._view.root._replace(path=b"")
            yield self._start._replace(path=self._start.name)
            return
        cut = len(self._start.path) + 1 if self._start.path else 0
        for node in self._view.walk(self._start.path):
            yield node._replace(path=node.path[cut:])

    def entry(self, node: Node) -> Entry:
        return self._view.entry(node)


def copy_out(browser: Browser, start: Node, destination: Path, advance: Advance) -> None:
    """Make *destination* what *start* is, with all below it.

    A file there is replaced; raises VolumeError where anything else is, OSError where the file system refuses.
    """
    below = cast("View", _Below(browser.view, start))
    if start.is_directory:
        if destination.exists() and any(destination.iterdir()):
            raise VolumeError(f"{destination} is not empty")
        with contextlib.suppress(FileNotFoundError):
            destination.rmdir()
        hydrate(below, browser.reader, destination, progress=lambda _files, count: advance(count))
        return
    holder = destination.with_name(f".{destination.name}.{os.getpid()}.copying")
    try:
        hydrate(below, browser.reader, holder, progress=lambda _files, count: advance(count))
        os.chmod(holder, 0o700)
        os.replace(os.path.join(os.fsencode(holder), start.name), destination)
    finally:
        remove_tree(holder)


def size_of(browser: Browser, start: Node) -> int:
    """Return the bytes of the files at and below *start*."""
    return sum(node.row.size for node in browser.view.walk(start.path))

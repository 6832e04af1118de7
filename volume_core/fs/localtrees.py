"""A local directory as something that is to be written: what lies in it, its bytes still where they are.

Why: in a transaction what was put is read before it is in any pack, and the caller may change or remove it before the
transaction ends: then a copy is kept, which is as true to it as a version would be.

Always true: no symlink in it is followed; of a copy, all was there at one instant.
"""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from volume_core.errors import BusyError
from volume_core.format.digests import DIGEST_BYTES
from volume_core.format.entries import Entry, Extent, Kind, split
from volume_core.fs.drafts import Source, standing_for
from volume_core.parts.dialects import PLAIN
from volume_core.parts.hydrating import hydrate
from volume_core.parts.scanning import differences, scan

_BUSY_SHOWN_MAX = 5


class LocalTree:
    """What lay in the directory *root* when this was made.

    `entries` has every path, b"" the root, directories before what they hold; as content each file has a token, and
    `sources` what the tokens stand for.
    """

    def __init__(self, root: str) -> None:
        if not os.path.isdir(root):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), root)
        self.root = os.path.realpath(root)
        self._scan = scan(Path(self.root), PLAIN)
        self.entries: dict[bytes, Entry] = {}
        self.sources: dict[bytes, Source] = {}
        links: dict[int, Entry] = {}
        for path, item in self._scan.items.items():
            first = links.get(item.key) if item.key else None
            self.entries[path] = first or self._entry(path, item.entry, len(links) + 1 if item.key else 0)
            if item.key and first is None:
                links[item.key] = self.entries[path]

    def _entry(self, path: bytes, entry: Entry, link: int) -> Entry:
        if entry.kind is not Kind.FILE or not entry.size:
            return entry._replace(hardlink=link)
        token = uuid.uuid4().bytes.ljust(DIGEST_BYTES, b"\0")
        self.sources[token] = Source(path=os.fsdecode(os.path.join(os.fsencode(self.root), path)))
        return entry._replace(hardlink=link, content=standing_for(token, entry.size))

    @property
    def files(self) -> int:
        """How many names there are, but for those of directories."""
        return sum(not entry.is_directory for entry in self.entries.values())

    def copied_to(self, path: str) -> LocalTree:
        """Return a copy of it, in the local directory *path*, which is made.

        Raises BusyError naming what kept changing while it was copied.
        """
        hydrate(self, self, Path(path))
        moved = differences(self._scan, scan(Path(self.root), PLAIN))
        if moved:
            names = sorted(os.fsdecode(each or b".") for each in moved)
            shown = ", ".join(names[:_BUSY_SHOWN_MAX])
            raise BusyError(f"{self.root} changed while it was copied ({shown}): stop what writes to it", names)
        return LocalTree(path)

    # What hydrating asks for.

    def walk(self) -> Iterator[_Named]:
        """Yield every path, the root first."""
        return (_Named(path, split(path)[1]) for path in self.entries)

    def entry(self, node: _Named) -> Entry:
        """Return what lies there."""
        return self.entries[node.path]

    def read(self, extents: tuple[Extent, ...], offset: int, size: int) -> bytes:
        """Return *size* bytes from *offset* of what *extents* name."""
        [(_, chunk, _)] = extents
        assert chunk is not None
        return self.sources[chunk.digest].read(offset, offset + size)

    def stream(self, extents: tuple[Extent, ...], block_bytes: int) -> Iterator[bytes]:
        """Yield all that *extents* name, in blocks."""
        length = sum(extent.length for extent in extents)
        return (self.read(extents, offset, block_bytes) for offset in range(0, length, block_bytes))


class _Named(NamedTuple):
    path: bytes
    name: bytes

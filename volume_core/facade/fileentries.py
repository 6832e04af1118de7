"""File entries: what a listing says of one path.

Names and shapes are those that programs written for other volume services expect: `path`, `type`,
`mtime`, `size`.

Always true: a path is relative to the volume's root, without a leading slash; bytes that are no text are
escaped as by `os.fsdecode`, and `os.fsencode` turns them back.
"""

from __future__ import annotations

import enum
import os
from typing import NamedTuple

from volume_core.domain.view import Node
from volume_core.format.entries import Entry, Kind


class FileEntryType(enum.IntEnum):
    """What lies at a path; UNSPECIFIED is a device."""

    UNSPECIFIED = 0
    FILE = 1
    DIRECTORY = 2
    SYMLINK = 3
    FIFO = 4
    SOCKET = 5


_TYPES = {
    int(Kind.FILE): FileEntryType.FILE,
    int(Kind.DIRECTORY): FileEntryType.DIRECTORY,
    int(Kind.OPAQUE): FileEntryType.DIRECTORY,
    int(Kind.SYMLINK): FileEntryType.SYMLINK,
    int(Kind.FIFO): FileEntryType.FIFO,
}
_SECOND_NS = 1_000_000_000


class FileEntry(NamedTuple):
    """One path of a version.

    `mtime` is in seconds since 1970, `mtime_ns` in nanoseconds; `size` in bytes, 0 of all but files; `mode` is
    permission bits only; `target` is a symlink's, else None.
    """

    path: str
    type: FileEntryType
    mtime: int
    size: int
    mtime_ns: int
    mode: int
    uid: int
    gid: int
    target: str | None = None

    @property
    def name(self) -> str:
        """The last part of the path; "" for the root."""
        return self.path.rpartition("/")[2]

    def is_dir(self) -> bool:
        """Whether it is a directory."""
        return self.type is FileEntryType.DIRECTORY

    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return self.type is FileEntryType.FILE


def entry_from(path: bytes, entry: Entry) -> FileEntry:
    """Return the entry of the value *entry*, shown as *path*."""
    return FileEntry(
        os.fsdecode(path),
        _TYPES.get(entry.kind, FileEntryType.UNSPECIFIED),
        entry.mtime_ns // _SECOND_NS,
        entry.size,
        entry.mtime_ns,
        entry.mode,
        entry.uid,
        entry.gid,
        os.fsdecode(entry.target) if entry.kind is Kind.SYMLINK else None,
    )


def entry_of(node: Node, path: bytes) -> FileEntry:
    """Return the entry of *node*, shown as *path*."""
    row = node.row
    target = node.link_target
    return FileEntry(
        os.fsdecode(path),
        _TYPES.get(row.kind, FileEntryType.UNSPECIFIED),
        row.mtime_ns // _SECOND_NS,
        row.size,
        row.mtime_ns,
        row.mode,
        row.uid,
        row.gid,
        None if target is None else os.fsdecode(target),
    )

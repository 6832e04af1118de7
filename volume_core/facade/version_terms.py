"""What an upper says in the version's terms, where its driver could not keep to them.

    copy           an unprivileged user restores no owners: what was achieved is compared (mount/copying.py)
    fuse-overlay   an unprivileged user sees every file as his own; and copying a file up, which even opening it
                   to write does, moves the time stamp of its directory in the upper, though not in the mount

Always true: only what the driver did by itself is put back; what a program changed stays changed, but for
one thing that cannot be told apart: a directory's time set to the moment at which a file in it was copied up.
"""

from __future__ import annotations

import datetime
import os
from collections import defaultdict
from collections.abc import Callable, Mapping

from volume_core.domain.changes import Upper
from volume_core.domain.view import View
from volume_core.format.entries import Entry, Kind, join, split
from volume_core.mount.doctor import COPY, FUSE_OVERLAY
from volume_core.parts.scanning import MOVED_ERRNOS, Directories
from volume_core.parts.workcopies import WorkingCopy

SQUASH = "squash"  # the note of a working copy that says whose every file seems to be: "uid:gid"
_ORIGIN = "user.fuseoverlayfs.origin"  # on what was copied up, never on what was made
# A file's times and its directory's are set one after the other: a tick of the kernel's clock, and some.
_TICK_NS = 20_000_000

Translation = Callable[[Mapping[bytes, Upper]], Mapping[bytes, Upper]]


def translation(copy: WorkingCopy, base: View) -> Translation:
    """Return what turns a scan of *copy*'s upper, over *base*, into the version's terms."""
    if copy.driver == COPY:
        from volume_core.mount.copying import version_terms

        return version_terms(copy)
    if copy.driver == FUSE_OVERLAY:
        squash = copy.record.notes.get(SQUASH)
        owner = tuple(map(int, squash.split(":"))) if squash else None
        return lambda upper: _from_fuse_overlay(upper, base, copy, owner)
    return lambda upper: upper


def _from_fuse_overlay(
    upper: Mapping[bytes, Upper], base: View, copy: WorkingCopy, owner: tuple[int, ...] | None
) -> Mapping[bytes, Upper]:
    names: dict[bytes, list[bytes]] = defaultdict(list)
    for path in upper:
        if path:
            directory, name = split(path)
            names[directory].append(name)
    since_ns = _created_ns(copy)
    translated: dict[bytes, Upper] = {}
    with Directories(copy.upper) as directories:
        for path, found in upper.items():
            entry = found.entry
            if found.base is not None and names.get(path):
                node = base.resolve(found.base)
                if (
                    node is not None
                    and entry.mtime_ns != node.row.mtime_ns
                    and entry.mtime_ns >= since_ns
                    and _only_copied_up(upper, base, directories, path, names[path], found)
                ):
                    entry = entry._replace(mtime_ns=node.row.mtime_ns)
            if owner is not None and (entry.uid, entry.gid) == owner:
                entry = _with_owner_of_base(entry, base, path)
            translated[path] = found if entry is found.entry else found._replace(entry=entry)
    return translated


def _only_copied_up(
    upper: Mapping[bytes, Upper], base: View, directories: Directories, path: bytes, names: list[bytes], found: Upper
) -> bool:
    """Whether nothing was made or removed in a directory, and it is as old as the last that was copied up into it.

    The scan is of an earlier moment than the tree, or of the last commit: what has gone since is no witness.
    """
    newest_ns = 0
    try:
        fd = directories.open(path)
        for name in names:
            child = upper[join(path, name)].entry
            if child.kind is Kind.WHITEOUT or base.resolve(join(found.base or b"", name)) is None:
                return False
            if not child.is_directory and not _was_copied_up(fd, name):
                return False
            newest_ns = max(newest_ns, os.stat(name, dir_fd=fd, follow_symlinks=False).st_ctime_ns)
    except OSError as error:
        if error.errno not in MOVED_ERRNOS:
            raise
        return False
    return found.entry.mtime_ns <= newest_ns + _TICK_NS


def _was_copied_up(fd: int, name: bytes) -> bool:
    try:
        return _ORIGIN in os.listxattr(b"/proc/self/fd/%d/%b" % (fd, name), follow_symlinks=False)
    except OSError:
        return False


def _with_owner_of_base(entry: Entry, base: View, path: bytes) -> Entry:
    node = base.resolve(path)
    if entry.kind is Kind.WHITEOUT or node is None or node.is_directory != entry.is_directory:
        return entry
    return entry._replace(uid=node.row.uid, gid=node.row.gid)


def _created_ns(copy: WorkingCopy) -> int:
    return int(datetime.datetime.fromisoformat(copy.record.created_at).timestamp()) * 1_000_000_000

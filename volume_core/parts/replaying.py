"""Doing to a tree what a delta says: rows replayed through a mount, by ordinary file operations.

Why through the mount: each driver spells deletions and renames in its upper its own way, and each turns
ordinary operations into that spelling.  So work that was begun over one version goes on over another by
being done again there, whatever the driver.

Always true:

  1. A tree that showed what the rows are relative to then shows the tree with the rows on top, as far as this
     user and the file system can make it so; what they cannot is returned.
  2. Nothing outside the tree is touched, and no symlink is followed, as long as nobody else changes it.
  3. A failure leaves the tree half changed: the caller drops it.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from volume_core.domain.diff import same_content
from volume_core.domain.view import View
from volume_core.format.entries import Entry, Kind, join
from volume_core.parts.placing import DEVICES, Content, at, set_xattrs, write_content
from volume_core.parts.trees import DIRECTORY_FLAGS, open_below, remove_below

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

Row = tuple[bytes, bytes, Entry]  # directory, name, entry: see write_layer


def replay(rows: Iterable[Row], before: View, content: Content, root: Path) -> list[bytes]:
    """Do *rows*, sorted as in a layer, to the tree at *root*, which shows *before*; return what could not be made.

    Raises OSError where the file system refuses (full, read-only), and what *content* raises.
    """
    root_fd = os.open(root, DIRECTORY_FLAGS)
    try:
        return _Replay(root_fd, before, content).run(rows)
    finally:
        os.close(root_fd)


class _Replay:
    def __init__(self, root_fd: int, before: View, content: Content) -> None:
        self._root_fd = root_fd
        self._before = before
        self._content = content
        self._is_root = os.geteuid() == 0
        self._first_names: dict[int, bytes] = {}
        self._directories: list[tuple[bytes, Entry]] = []
        self._left_out: list[bytes] = []

    def run(self, rows: Iterable[Row]) -> list[bytes]:
        for directory, name, entry in rows:
            path = join(directory, name) if name else b""
            if entry.is_directory:
                self._directory(path, entry)
                continue
            if self._keeps_content(path, entry):
                fd = open_below(self._root_fd, path, _OPEN)
                try:
                    self._attributes(fd, entry)
                finally:
                    os.close(fd)
                continue
            remove_below(self._root_fd, path)
            if entry.kind is not Kind.WHITEOUT:
                self._make(path, entry)
        # Children first, and last of all: whatever is made in a directory moves its time.
        for path, entry in reversed(self._directories):
            fd = open_below(self._root_fd, path)
            try:
                self._attributes(fd, entry)
            finally:
                os.close(fd)
        return self._left_out

    def _directory(self, path: bytes, entry: Entry) -> None:
        if path:
            status = self._status(path)
            if status is not None and not stat.S_ISDIR(status.st_mode):
                remove_below(self._root_fd, path)
                status = None
            with at(self._root_fd, path) as (fd, name):
                if status is None:
                    os.mkdir(name, 0o700, dir_fd=fd)
                elif stat.S_IMODE(status.st_mode) & 0o700 != 0o700:
                    os.chmod(name, 0o700, dir_fd=fd)
        if entry.kind is Kind.OPAQUE:
            fd = open_below(self._root_fd, path)
            try:
                for each in os.listdir(fd):
                    remove_below(self._root_fd, join(path, os.fsencode(each)))
            finally:
                os.close(fd)
        self._directories.append((path, entry))

    def _keeps_content(self, path: bytes, entry: Entry) -> bool:
        """Whether the tree has this very file at *path*, but for its attributes: a chmod moves no data."""
        node = self._before.resolve(path)
        if node is None or node.row.kind != Kind.FILE or entry.kind is not Kind.FILE or node.row.size != entry.size:
            return False
        before = self._before.entry(node)
        return not before.hardlink and not entry.hardlink and same_content(before, entry)

    def _status(self, path: bytes) -> os.stat_result | None:
        with at(self._root_fd, path) as (fd, name):
            try:
                return os.stat(name, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                return None

    def _make(self, path: bytes, entry: Entry) -> None:
        if entry.hardlink:
            first = self._first_names.setdefault(entry.hardlink, path)
            if first != path:
                if first in self._left_out:
                    self._left_out.append(path)
                    return
                with at(self._root_fd, first) as (from_fd, name), at(self._root_fd, path) as (to_fd, further):
                    os.link(name, further, src_dir_fd=from_fd, dst_dir_fd=to_fd, follow_symlinks=False)
                return
        if entry.kind is Kind.FILE:
            fd = open_below(self._root_fd, path, _CREATE)
            try:
                write_content(fd, entry, self._content)
                self._attributes(fd, entry)
            finally:
                os.close(fd)
            return
        self._make_special(path, entry)

    def _make_special(self, path: bytes, entry: Entry) -> None:
        with at(self._root_fd, path) as (fd, name):
            if entry.kind is Kind.SYMLINK:
                os.symlink(entry.target, name, dir_fd=fd)
            elif entry.kind is Kind.FIFO:
                os.mkfifo(name, 0o600, dir_fd=fd)
            else:
                try:
                    os.mknod(name, DEVICES[entry.kind] | 0o600, entry.rdev, dir_fd=fd)
                except PermissionError:
                    self._left_out.append(path)
                    return
            self._own(lambda uid, gid: os.chown(name, uid, gid, dir_fd=fd, follow_symlinks=False), entry)
            set_xattrs(b"/proc/self/fd/%d/%b" % (fd, name), entry.xattrs)
            if entry.kind is not Kind.SYMLINK:
                os.chmod(name, entry.mode, dir_fd=fd)
            os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=fd, follow_symlinks=False)

    def _attributes(self, fd: int, entry: Entry) -> None:
        # Owner first: giving a file away clears its set-id bits.  xattrs before the mode: writing them asks
        # for permission to write.  Times last: everything else may move them.
        self._own(lambda uid, gid: os.fchown(fd, uid, gid), entry)
        wanted = {name for name, _ in entry.xattrs}
        for name in self._xattr_names(fd):
            if name not in wanted:
                os.removexattr(fd, name)
        set_xattrs(fd, entry.xattrs)
        os.fchmod(fd, entry.mode)
        os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))

    @staticmethod
    def _xattr_names(fd: int) -> list[bytes]:
        if not hasattr(os, "listxattr"):
            return []
        return [each for each in map(os.fsencode, os.listxattr(fd)) if each.startswith(b"user.")]

    def _own(self, change: Callable[[int, int], None], entry: Entry) -> None:
        with contextlib.suppress(PermissionError):
            if self._is_root:
                change(entry.uid, entry.gid)
            elif entry.gid != os.getegid():
                change(-1, entry.gid)  # a group of ours may be given, an owner never

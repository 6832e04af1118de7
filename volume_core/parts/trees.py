"""Walking and removing directory trees of any depth, with any names and any modes.

Why not shutil and os.walk: they join paths, which fail beyond 4,095 bytes, or hold one descriptor and
one Python frame per level, which fail beyond a thousand levels.

Always true, as long as nobody else is changing the tree: no symlink is followed, and nothing outside
the tree is touched.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat as stat_kinds
from collections.abc import Iterator
from pathlib import Path

PATH_PIECE_BYTES = 3800  # one openat takes 4,095 bytes; a piece ends at a "/" before that, names are at most 255
DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_below(root_fd: int, path: bytes, flags: int = DIRECTORY_FLAGS, mode: int = 0o600) -> int:
    """Open *path* (relative, of any length; b"" is the root itself) below *root_fd* and return a descriptor."""
    at = root_fd
    try:
        while len(path) > PATH_PIECE_BYTES:
            cut = path.rindex(b"/", 0, PATH_PIECE_BYTES)
            below = os.open(path[:cut], DIRECTORY_FLAGS, dir_fd=at)
            if at != root_fd:
                os.close(at)
            at, path = below, path[cut + 1 :]
        return os.open(path or b".", flags, mode, dir_fd=at)
    finally:
        if at != root_fd:
            os.close(at)


def remove_tree(path: Path, *, keep_root: bool = False) -> None:
    """Delete *path* and all below it; it is no error if something is gone already.

    Directories whose modes forbid it are opened up first, where the caller owns them.  With
    *keep_root* the directory itself stays, empty.  Raises OSError at the first thing that cannot be deleted.
    """
    try:
        root_fd = os.open(path, DIRECTORY_FLAGS)
    except FileNotFoundError:
        return
    except PermissionError:
        os.chmod(path, 0o700)
        root_fd = os.open(path, DIRECTORY_FLAGS)
    try:
        _empty(root_fd)
    finally:
        os.close(root_fd)
    if not keep_root:
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(path)


def remove_below(root_fd: int, path: bytes) -> None:
    """Delete what lies at *path* (relative, of any length) below *root_fd*, whatever it is, as remove_tree does."""
    directory, _, name = path.rpartition(b"/")
    try:
        parent_fd = open_below(root_fd, directory)
    except FileNotFoundError:
        return
    try:
        _make_passable(parent_fd, name)
        try:
            fd = os.open(name, DIRECTORY_FLAGS, dir_fd=parent_fd)
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP, errno.ENOENT, errno.ENXIO):
                raise
            _unlink(parent_fd, name)
            return
        try:
            _empty(fd)
        finally:
            os.close(fd)
        os.rmdir(name, dir_fd=parent_fd)
    finally:
        os.close(parent_fd)


def _empty(root_fd: int) -> None:
    directories = _remove_files(root_fd)
    for directory in reversed(directories[1:]):
        _rmdir_below(root_fd, directory)


def _remove_files(root_fd: int) -> list[bytes]:
    """Delete all that is no directory; return the directories, parents before children."""
    directories = [b""]
    for directory in directories:  # grows while it is walked
        try:
            fd = open_below(root_fd, directory)
        except FileNotFoundError:
            continue
        try:
            for name, is_directory in _listing(fd):
                if is_directory:
                    _make_passable(fd, name)
                    directories.append(directory + b"/" + name if directory else name)
                else:
                    _unlink(fd, name)
        finally:
            os.close(fd)
    return directories


def _listing(fd: int) -> list[tuple[bytes, bool]]:
    with os.scandir(fd) as entries:
        return [(os.fsencode(each.name), each.is_dir(follow_symlinks=False)) for each in entries]


def _make_passable(fd: int, name: bytes) -> None:
    """See to it that the directory *name* can be opened and emptied, where the caller may decide that."""
    with contextlib.suppress(FileNotFoundError):
        mode = os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode
        if stat_kinds.S_ISDIR(mode) and mode & 0o700 != 0o700:
            with contextlib.suppress(PermissionError):
                os.chmod(name, 0o700, dir_fd=fd)


def _unlink(fd: int, name: bytes) -> None:
    with contextlib.suppress(FileNotFoundError):
        try:
            os.unlink(name, dir_fd=fd)
        except PermissionError:
            os.fchmod(fd, 0o700)  # only the root of the tree can still be closed
            os.unlink(name, dir_fd=fd)


def _rmdir_below(root_fd: int, directory: bytes) -> None:
    parent, _, name = directory.rpartition(b"/")
    with contextlib.suppress(FileNotFoundError):
        fd = open_below(root_fd, parent)
        try:
            os.rmdir(name, dir_fd=fd)
        except PermissionError:
            os.fchmod(fd, 0o700)
            os.rmdir(name, dir_fd=fd)
        finally:
            os.close(fd)


def walk_below(root_fd: int) -> Iterator[tuple[bytes, int]]:
    """Yield (path, descriptor) of every directory that can be opened, parents first.

    The descriptor is closed when the next one is asked for.
    """
    directories = [b""]
    while directories:
        directory = directories.pop()
        try:
            fd = open_below(root_fd, directory)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EACCES, errno.ENOTDIR):
                continue
            raise
        try:
            for name, is_directory in _listing(fd):
                if is_directory:
                    directories.append(directory + b"/" + name if directory else name)
            yield directory, fd
        finally:
            os.close(fd)


def disk_usage_bytes(path: Path) -> int:
    """Return the disk space that *path* and all below it take, in bytes; each inode counts once.

    What disappears meanwhile or cannot be opened counts nothing; 0 for a path that is not there.
    """
    try:
        root_fd = os.open(path, DIRECTORY_FLAGS)
    except (FileNotFoundError, PermissionError):
        return 0
    linked: set[tuple[int, int]] = set()
    total = os.fstat(root_fd).st_blocks * 512
    try:
        for _, fd in walk_below(root_fd):
            with os.scandir(fd) as entries:
                for each in entries:
                    with contextlib.suppress(FileNotFoundError):
                        total += _own_bytes(each.stat(follow_symlinks=False), linked)
    finally:
        os.close(root_fd)
    return total


def _own_bytes(stat: os.stat_result, linked: set[tuple[int, int]]) -> int:
    if stat.st_nlink > 1 and not stat_kinds.S_ISDIR(stat.st_mode):
        key = (stat.st_dev, stat.st_ino)
        if key in linked:
            return 0
        linked.add(key)
    return stat.st_blocks * 512

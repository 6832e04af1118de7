"""Walking a working tree: what every path is, and which part of the base shows through it.

No content is read here.  A scan is cheap enough to be made twice for each commit: before the files are
read, and again after, when two scans that agree prove that all between them was one instant
(parts/capturing.py).  The second one is told what the first one saw, and asks the kernel for one stat
per path.

Always true:

  1. No symlink is followed: every directory is opened by one name in its parent's descriptor.
  2. Depth, the length of paths and the bytes of names are limited by the file system alone; descriptors
     in use are not more than DESCRIPTORS_MAX.
  3. A signature is taken before anything else about its path is asked, so that whatever changes later
     has a later signature.
  4. What disappears or changes its kind under the walk is in `moved`, and is no error.
"""

from __future__ import annotations

import errno
import functools
import os
import stat
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from volume_core.errors import VolumeError
from volume_core.format.entries import TIME_NS_MAX, TIME_NS_MIN, WHITEOUT, Entry, Kind, join
from volume_core.parts.dialects import Dialect, belongs_to_tree

DESCRIPTORS_MAX = 64
SECOND_NS = 1_000_000_000
_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# What the kernel says when a path is not what it was a moment ago; EINVAL of what was a symlink.
MOVED_ERRNOS = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE, errno.ENXIO, errno.ENODEV, errno.EINVAL}
)
_DENIED_ERRNOS = frozenset({errno.EACCES, errno.EPERM})
_NO_XATTRS_ERRNOS = frozenset({errno.EOPNOTSUPP, errno.ENOSYS})
DENIED_SHOWN_MAX = 10

KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFIFO: Kind.FIFO,
    stat.S_IFCHR: Kind.CHAR,
    stat.S_IFBLK: Kind.BLOCK,
}
_FORMAT_BITS = 0o170000
_PERMISSION_BITS = 0o7777
_COARSE_CLOCK = 5  # CLOCK_REALTIME_COARSE of Linux, which the time module does not name


class Signature(NamedTuple):
    """What changes whenever a path changes.  A whiteout's is its kind alone, for all share one inode; that
    of FIFOs and devices has no times, which move with every byte that goes through."""

    kind: Kind
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        """Return the signature of a file, directory or symlink."""
        return cls(
            KINDS[status.st_mode & _FORMAT_BITS],
            status.st_ino,
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
        )


class Item(NamedTuple):
    """One path.

    `entry` has no `hardlink`, and `content` only if the Item was known before.  `key` is not 0, and equal
    for the names of one inode, where `nlink` > 1.  `base` is a path in the base: of a directory, whose children
    show through (None: nothing does); of a `metacopy` file, the file whose content it keeps.
    """

    signature: Signature
    entry: Entry
    key: int = 0
    nlink: int = 1
    base: bytes | None = None
    metacopy: bool = False


# As Item(...) and so on make them, at a third of the price: there is one of each for each file.
_new_signature = functools.partial(tuple.__new__, Signature)
_new_entry = functools.partial(tuple.__new__, Entry)
_new_item = functools.partial(tuple.__new__, Item)

WHITEOUT_ITEM = Item(Signature(Kind.WHITEOUT, 0, 0, 0, 0), WHITEOUT)


@dataclass(slots=True)
class Scan:
    """Every path of a tree (b"" is the root), directories before what they hold, names in order.

    `moved`: paths that changed under the scan.  `fresh`: paths that changed so recently that a further
    change might get the same time stamp.  `left_out`: sockets, and devices that no version can hold.
    """

    items: dict[bytes, Item] = field(default_factory=dict)
    moved: set[bytes] = field(default_factory=set)
    fresh: set[bytes] = field(default_factory=set)
    left_out: list[bytes] = field(default_factory=list)


def scan(
    root: Path, dialect: Dialect, known: Mapping[bytes, Item] | None = None, distrust: Collection[bytes] = ()
) -> Scan:
    """Return what lies at and below *root*.

    An Item of *known* is handed out again where its signature still holds, unless its path is in
    *distrust*.  Raises VolumeError naming what this user may not read.
    """
    return _Scanner(dialect, known or {}, distrust).run(root)


def now_ns() -> int:
    """Return the clock that the kernel's time stamps are taken from: it stands still for some milliseconds."""
    return time.clock_gettime_ns(_COARSE_CLOCK) if sys.platform == "linux" else time.time_ns()


def is_settled(ctime_ns: int, clock_ns: int) -> bool:
    """Whether any change made after *clock_ns* gets another time stamp than *ctime_ns*.

    Some file systems keep whole seconds: a stamp that is one is taken for theirs.
    """
    grain_ns = 1 if ctime_ns % SECOND_NS else SECOND_NS
    return ctime_ns + grain_ns <= clock_ns


def time_within(time_ns: int) -> int:
    """Return *time_ns*, or where no version can hold it the nearest that one can."""
    return time_ns if TIME_NS_MIN <= time_ns <= TIME_NS_MAX else max(TIME_NS_MIN, min(time_ns, TIME_NS_MAX))


class Directories:
    """Opens directories below *root*, one name at a time, following no symlink.

    The way to the last one is kept open, as far as DESCRIPTORS_MAX reach: what is asked for next mostly
    lies beside it.
    """

    def __init__(self, root: Path) -> None:
        # The root itself was named by the caller: if that is a symlink, it is meant to be followed.
        self._root_fd = os.open(root, _DIRECTORY_FLAGS & ~os.O_NOFOLLOW)
        self._way: list[tuple[bytes, int]] = []

    def open(self, path: bytes) -> int:
        """Return a descriptor of the directory *path*, good until the next call.  Raises OSError."""
        way = self._way
        while way and not (path == way[-1][0] or path.startswith(way[-1][0] + b"/")):
            os.close(way.pop()[1])
        at, fd = way[-1] if way else (b"", self._root_fd)
        if len(path) > len(at):
            for name in path[len(at) + 1 if at else 0 :].split(b"/"):
                fd = os.open(name, _DIRECTORY_FLAGS, dir_fd=fd)
                at = join(at, name)
                way.append((at, fd))
                if len(way) >= DESCRIPTORS_MAX:
                    os.close(way.pop(0)[1])
        return fd

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _, fd in self._way:
            os.close(fd)
        self._way.clear()
        os.close(self._root_fd)


class Denials:
    """Collects what this user may not read, so that one error names it all."""

    def __init__(self) -> None:
        self._paths: list[bytes] = []

    def add(self, path: bytes) -> None:
        self._paths.append(path)

    def check(self) -> None:
        """Raise VolumeError if anything was added."""
        if not self._paths:
            return
        shown = ", ".join(repr(os.fsdecode(path or b".")) for path in self._paths[:DENIED_SHOWN_MAX])
        more = f" and {len(self._paths) - DENIED_SHOWN_MAX} more" if len(self._paths) > DENIED_SHOWN_MAX else ""
        raise VolumeError(
            f"this user may not read {shown}{more}, so the tree cannot be committed: make it readable (chmod u+rX) "
            "or remove it"
        )


def refuse(path: bytes, error: OSError, doing: str = "read") -> VolumeError:
    """Return the error to raise where the file system itself failed at *path*."""
    return VolumeError(f"{os.fsdecode(path or b'.')!r} cannot be {doing}: {error.strerror or error}")


class _Marks(NamedTuple):
    """What the xattrs of one path say to the overlay."""

    opaque: bool = False
    whiteout: bool = False
    metacopy: bool = False
    redirect: bytes | None = None

    def base(self, above: bytes | None, name: bytes) -> bytes | None:
        """The base's path of *name* in a directory through which *above* shows."""
        if self.redirect is None:
            return None if above is None else join(above, name)
        if self.redirect.startswith(b"/"):
            return self.redirect.strip(b"/")
        return None if above is None else join(above, self.redirect)


_NO_MARKS = _Marks()
_Xattrs = tuple[tuple[bytes, bytes], ...]

if sys.platform == "linux":

    def _names_in(fd: int) -> list[bytes]:
        return os.listdir(b"/proc/self/fd/%d" % fd)

    def _list_xattrs(target: int | bytes) -> list[str]:
        try:
            return os.listxattr(target, follow_symlinks=isinstance(target, int))
        except OSError as error:
            if error.errno in _NO_XATTRS_ERRNOS:
                return []
            raise

    def _get_xattr(target: int | bytes, name: str) -> bytes:
        return os.getxattr(target, name, follow_symlinks=isinstance(target, int))

else:  # no other system has overlays, and Python knows xattrs on Linux alone

    def _names_in(fd: int) -> list[bytes]:
        return list(map(os.fsencode, os.listdir(fd)))

    def _list_xattrs(target: int | bytes) -> list[str]:
        return []

    def _get_xattr(target: int | bytes, name: str) -> bytes:
        raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))


def own_xattrs(target: int | bytes) -> tuple[tuple[bytes, bytes], ...]:
    """Return, sorted, the xattrs of an open file, or of a path, that go into versions."""
    return tuple(sorted((os.fsencode(n), _get_xattr(target, n)) for n in _list_xattrs(target) if belongs_to_tree(n)))


class _Scanner:
    def __init__(self, dialect: Dialect, known: Mapping[bytes, Item], distrust: Collection[bytes]) -> None:
        self._dialect = dialect
        self._known = known
        self._distrust = distrust
        self._scan = Scan()
        self._denials = Denials()
        self._begin_ns = now_ns()
        self._recent_ns = self._begin_ns - SECOND_NS  # before this, whole seconds are settled too
        # Directories still to visit, and what of the base shows through their parents.
        self._pending: list[tuple[bytes, bytes | None]] = [(b"", None)]

    def run(self, root: Path) -> Scan:
        with Directories(root) as directories:
            while self._pending:
                path, above = self._pending.pop()
                try:
                    self._directory(directories.open(path), path, above)
                except OSError as error:
                    self._failed(path, error)
        self._denials.check()
        return self._scan

    def _failed(self, path: bytes, error: OSError) -> None:
        if error.errno in MOVED_ERRNOS or error.errno == errno.ENODATA:
            self._scan.moved.add(path)
        elif error.errno in _DENIED_ERRNOS:
            self._denials.add(path)
        else:
            raise refuse(path, error) from error

    def _directory(self, fd: int, path: bytes, above: bytes | None) -> None:
        status = os.fstat(fd)
        signature = Signature.of(status)
        xattrs, marks = self._xattrs(fd)
        names = self._dialect.read_names(_names_in(fd))
        names.holds.sort()
        if not self._dialect.over_base or marks.opaque or names.opaque:
            base = None
        else:
            base = marks.base(above, path.rpartition(b"/")[2]) if path else b""
        entry = Entry(
            Kind.DIRECTORY,
            status.st_mode & _PERMISSION_BITS,
            status.st_uid,
            status.st_gid,
            time_within(status.st_mtime_ns),
            xattrs=xattrs,
        )
        self._scan.items[path] = Item(signature, entry, 0, status.st_nlink, base)
        if not is_settled(status.st_ctime_ns, self._begin_ns):
            self._scan.fresh.add(path)
        if base is not None:
            for name in names.removed:
                self._scan.items[join(path, name)] = WHITEOUT_ITEM
        below = self._children(fd, path, base, names.holds)
        self._pending.extend((child, base) for child in reversed(below))

    def _children(self, fd: int, path: bytes, base: bytes | None, names: list[bytes]) -> list[bytes]:
        """Note everything in a directory but its directories; return the paths of those.

        The loop that a commit's speed hangs on: it runs twice for each path of the tree.
        """
        lstat, items, known, distrust = os.stat, self._scan.items, self._known, self._distrust
        prefix = path + b"/" if path else b""
        directories: list[bytes] = []
        for name in names:
            child = prefix + name
            try:
                status = lstat(name, dir_fd=fd, follow_symlinks=False)
                kind = KINDS.get(status.st_mode & _FORMAT_BITS)
                if kind is Kind.DIRECTORY:
                    directories.append(child)
                    continue
                if kind is not Kind.FILE and kind is not Kind.SYMLINK:
                    self._special(fd, name, child, kind, status)
                    continue
                ctime_ns = status.st_ctime_ns
                signature = _new_signature((kind, status.st_ino, status.st_size, status.st_mtime_ns, ctime_ns))
                was = known.get(child)
                if was is not None and was[0] == signature and child not in distrust:
                    if status.st_nlink > 1 and not was[2]:
                        was = was._replace(key=_key(status), nlink=status.st_nlink)
                    items[child] = was
                else:
                    items[child] = self._look(fd, name, signature, status, base)
                if ctime_ns >= self._recent_ns and not is_settled(ctime_ns, self._begin_ns):
                    self._scan.fresh.add(child)
            except OSError as error:
                self._failed(child, error)
        return directories

    def _look(self, fd: int, name: bytes, signature: Signature, status: os.stat_result, base: bytes | None) -> Item:
        """Ask for all that the signature of a file or symlink does not tell."""
        xattrs, marks = self._xattrs(b"/proc/self/fd/%d/%b" % (fd, name))
        if signature.kind is Kind.FILE:
            mode, size, target = status.st_mode & _PERMISSION_BITS, status.st_size, b""
            if marks.whiteout and not size:
                return WHITEOUT_ITEM
        else:
            mode, size, target = 0o777, 0, os.readlink(name, dir_fd=fd)
        mtime_ns = time_within(signature[3])
        entry = _new_entry((signature[0], mode, status.st_uid, status.st_gid, mtime_ns, size, target, 0, 0, xattrs, ()))
        nlink = status.st_nlink
        key = _key(status) if nlink > 1 else 0
        if marks.metacopy and signature.kind is Kind.FILE:
            return Item(signature, entry, key, nlink, marks.base(base, name), True)
        return _new_item((signature, entry, key, nlink, None, False))

    def _special(self, fd: int, name: bytes, child: bytes, kind: Kind | None, status: os.stat_result) -> None:
        """Note a FIFO or device, or a device that is a marker; leave out what no version can hold."""
        is_null_device = kind is Kind.CHAR and not status.st_rdev
        if is_null_device and self._dialect.device_whiteouts:
            self._scan.items[child] = WHITEOUT_ITEM
            return
        if kind is None or is_null_device:
            self._scan.left_out.append(child)
            return
        xattrs, _ = self._xattrs(b"/proc/self/fd/%d/%b" % (fd, name))
        entry = Entry(
            kind,
            status.st_mode & _PERMISSION_BITS,
            status.st_uid,
            status.st_gid,
            time_within(status.st_mtime_ns),
            rdev=0 if kind is Kind.FIFO else status.st_rdev,
            xattrs=xattrs,
        )
        key = _key(status) if status.st_nlink > 1 else 0
        self._scan.items[child] = Item(Signature(kind, status.st_ino, 0, 0, 0), entry, key, status.st_nlink)

    def _xattrs(self, target: int | bytes) -> tuple[_Xattrs, _Marks]:
        """Return the tree's own xattrs of *target*, sorted, and what the others say."""
        names = _list_xattrs(target)
        if not names:
            return (), _NO_MARKS
        dialect = self._dialect
        own = tuple(sorted((os.fsencode(n), _get_xattr(target, n)) for n in names if belongs_to_tree(n)))
        redirect = _get_xattr(target, dialect.redirect_xattr) if dialect.redirect_xattr in names else None
        opaque = any(_get_xattr(target, name) == b"y" for name in dialect.opaque_xattrs.intersection(names))
        marks = _Marks(opaque, dialect.whiteout_xattr in names, dialect.metacopy_xattr in names, redirect)
        return own, marks


def _key(status: os.stat_result) -> int:
    # Of all file systems only overlays show several devices in one tree.
    return status.st_dev << 64 | status.st_ino


def differences(before: Scan, after: Scan) -> set[bytes]:
    """Return the paths at which two scans of one tree do not agree, what moved under either included.

    Where they agree, *after* takes over the Item of *before*, with whatever is known of its content.
    """
    moved = before.moved | after.moved
    moved.update(path for path in before.items if path not in after.items)
    for path, item in after.items.items():
        was = before.items.get(path)
        if was is item:
            continue
        if was is None or not _agree(was, item):
            moved.add(path)
        else:
            after.items[path] = was
    return moved


def _agree(one: Item, other: Item) -> bool:
    if one.signature.kind in (Kind.FIFO, Kind.CHAR, Kind.BLOCK):
        one, other = (each._replace(entry=each.entry._replace(mtime_ns=0)) for each in (one, other))
    return (
        one.signature == other.signature
        and one.entry[:-1] == other.entry[:-1]
        and one.base == other.base
        and one.metacopy == other.metacopy
    )


def unread(scanned: Scan) -> Iterator[tuple[bytes, Item]]:
    """Yield the files whose content is not known, in the order of the scan.

    Meanwhile Items may be replaced, but none added or removed.
    """
    for path, item in scanned.items.items():
        entry = item[1]
        if entry[5] and not entry[10] and entry[0] is Kind.FILE and not item[5]:
            yield path, item

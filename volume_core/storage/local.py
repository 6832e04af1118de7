"""A store that is a directory: one file per object, under the object's own name.

Why ours and not a library's: compare-and-swap, durable writes at the speed of the disk, and files
that a reader may open in place (`local_root`).

Invariants
  1. A file under an object's name is whole and on disk.  Bytes are written to `.store/tmp/`, fsynced,
     then linked or renamed to their name, then the directory is fsynced; kill -9 at any point leaves
     either no such name or the whole object.
  2. `.store/` holds nothing but temporary files and locks.  It is never listed, and no object can be
     named into it.  A temporary file that no living process holds (its flock is free) and that is
     older than an hour is removed by the next writer.
  3. `put`, `swap` and `delete` of one name exclude each other, across threads, processes and hosts
     that share the directory, by flock on one of 64 files.  `put_new` needs no lock: link(2) makes
     a name only if there is none.
  4. Modes follow the umask, so whoever may read the directory by it may read the store.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
import time
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from volume_core.errors import ConflictError, InvalidNameError, NotFoundError, StorageError
from volume_core.storage.naming import check_name, check_prefix, check_range
from volume_core.storage.protocol import ObjectInfo

OWN = ".store"
LEFTOVER_AGE_S = 3600
_LOCKS = 64
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG})
# Network file systems and exhausted tables recover by themselves; everything else needs a hand.
_EXHAUSTED = {errno.EAGAIN, errno.EINTR, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_UNREACHABLE = {errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ECONNRESET}
_TRANSIENT = frozenset(_EXHAUSTED | _UNREACHABLE)
_ADVICE = {
    errno.ENOSPC: "the disk is full: free some space or choose another directory",
    errno.EDQUOT: "the disk quota is used up: free some space or choose another directory",
    errno.EACCES: "check the owner and mode of the directory",
    errno.EPERM: "check the owner and mode of the directory",
    errno.EROFS: "the file system is mounted read-only",
    errno.EIO: "the disk reports an input/output error: check the kernel's log",
}
# link(2) is refused by file systems that have no hard links (vfat, many FUSE ones).
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


class LocalStore:
    """The store `file://<root>`; the directory is made by the first write."""

    honours_conditions = True

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self._root = os.path.abspath(root)
        self._made: set[str] = set()
        self._swept = False

    def __repr__(self) -> str:
        return f"LocalStore({self._root!r})"

    @property
    def url(self) -> str:
        """`file://` and the percent-encoded absolute path."""
        return "file://" + quote(os.fsencode(self._root), safe="/")

    @property
    def local_root(self) -> Path:
        """The directory: the object `name` is the file `local_root / name`."""
        return Path(self._root)

    def get(self, name: str) -> bytes:
        """Return the whole object, or raise NotFoundError."""
        with self._errors("read", name), open(self._path(name), "rb", buffering=0) as file:
            return file.readall()

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        """Return *length* bytes from *offset*, fewer only where the object ends."""
        check_range(name, offset, length)
        path = self._path(name)
        with self._errors("read", name), open(path, "rb", buffering=0) as file:
            return _pread(file.fileno(), offset, length)

    def put_new(self, name: str, data: bytes | memoryview) -> None:
        """Store *data* durably unless other bytes are there (ConflictError)."""
        path = self._path(name)
        with self._errors("write", name):
            if not os.path.lexists(path) and self._create(path, data):
                return
        self._require_same(name, data)

    def put(self, name: str, data: bytes | memoryview) -> None:
        """Store *data* durably, replacing what was there."""
        path = self._path(name)
        with self._errors("write", name), self._exclusive(name):
            self._replace(path, data)

    def swap(self, name: str, old: bytes | None, new: bytes) -> None:
        """Replace *old* (None: nothing there) by *new*, or raise ConflictError."""
        path = self._path(name)
        with self._errors("swap", name), self._exclusive(name):
            if old is None:
                swapped = not os.path.lexists(path) and self._create(path, new)
            elif swapped := _content(path) == old:
                self._replace(path, new)
        if not swapped:
            raise ConflictError(f"{self.url}/{name} is not what it was when it was read; nothing was changed")

    def info(self, name: str) -> ObjectInfo:
        """Return the object's size and time, or raise NotFoundError."""
        with self._errors("look at", name):
            found = os.stat(self._path(name))
            if stat.S_ISDIR(found.st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        return ObjectInfo(name, found.st_size, found.st_mtime_ns)

    def names(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield every object whose name begins with *prefix*; one written meanwhile may be missed."""
        check_prefix(prefix)
        return self._names(prefix)

    def delete(self, name: str) -> None:
        """Remove *name* if it is there."""
        path = self._path(name)
        with self._errors("delete", name), self._exclusive(name, make=False):
            try:
                os.unlink(path)
            except OSError as error:
                # A directory of that name is no object: to remove nothing is then right.
                if error.errno not in _ABSENT and not (error.errno == errno.EPERM and os.path.isdir(path)):
                    raise
            else:
                _sync_directory(os.path.dirname(path))

    def close(self) -> None:
        """Do nothing: no file is open between calls."""

    def _names(self, prefix: str) -> Iterator[ObjectInfo]:
        pending = [prefix]
        while pending:
            prefix = pending.pop()
            with self._errors("list", prefix):
                folders, objects = self._listing(prefix)
            yield from objects
            pending += folders

    def _listing(self, prefix: str) -> tuple[list[str], list[ObjectInfo]]:
        """Return the folders (ending in "/") and the objects just below *prefix*, which need not end at a "/"."""
        above, slash, leaf = prefix.rpartition("/")
        folders: list[str] = []
        objects: list[ObjectInfo] = []
        for entry in _entries(f"{self._root}/{above}"):
            name = above + slash + entry.name
            if not entry.name.startswith(leaf) or name.split("/", 1)[0] == OWN or not _is_text(entry.name):
                continue
            if entry.is_dir():
                folders.append(name + "/")
            elif found := _stat_file(entry):
                objects.append(ObjectInfo(name, found.st_size, found.st_mtime_ns))
        return folders, objects

    def _path(self, name: str) -> str:
        if check_name(name) == OWN or name.startswith(OWN + "/"):
            raise InvalidNameError(f"{name!r} cannot name an object of a file:// store: {OWN}/ is the store's own")
        return f"{self._root}/{name}"

    def _require_same(self, name: str, data: bytes | memoryview) -> None:
        # The usual case of a clash is a retry or an equal object, so the bytes decide.
        if self.get(name) != memoryview(data).cast("B"):
            raise ConflictError(f"{self.url}/{name} exists already and holds other bytes; nothing was changed")
        with self._errors("write", name):
            # Whoever made it may not have come to this yet, and success here promises it.
            _sync_directory(os.path.dirname(self._path(name)))

    def _create(self, path: str, data: bytes | memoryview) -> bool:
        """Make *path* hold *data* and return True; return False, changing nothing, if it is there."""
        self._make_directory(os.path.dirname(path))
        with self._temporary(data) as temporary:
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                return self._create_without_links(temporary, path)
        _sync_directory(os.path.dirname(path))
        return True

    def _create_without_links(self, temporary: str, path: str) -> bool:
        # Where no name can be linked no process of this store links, so the lock decides for all.
        with self._locked("new"):
            if os.path.lexists(path):
                return False
            os.rename(temporary, path)
            _sync_directory(os.path.dirname(path))
        return True

    def _replace(self, path: str, data: bytes | memoryview) -> None:
        self._make_directory(os.path.dirname(path))
        with self._temporary(data) as temporary:
            os.rename(temporary, path)
            _sync_directory(os.path.dirname(path))

    @contextmanager
    def _temporary(self, data: bytes | memoryview) -> Iterator[str]:
        """Give the path of a new file that holds *data* on disk; it is gone afterwards, renamed or unlinked."""
        folder = f"{self._root}/{OWN}/tmp"
        self._make_directory(folder)
        self._sweep(folder)
        path = f"{folder}/{os.getpid()}-{secrets.token_hex(8)}"
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666)
        try:
            # The lock tells others that this file's writer lives; the kernel drops it with the process.
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            _write(descriptor, data)
            os.fsync(descriptor)
            yield path
        finally:
            os.close(descriptor)
            with suppress(FileNotFoundError):
                os.unlink(path)

    def _sweep(self, folder: str) -> None:
        """Remove, once per instance, the temporary files that processes killed long ago left in *folder*."""
        if self._swept:
            return
        self._swept = True
        oldest = time.time() - LEFTOVER_AGE_S
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                with suppress(OSError):
                    if entry.stat(follow_symlinks=False).st_mtime < oldest:
                        _remove_if_free(entry.path)

    def _exclusive(self, name: str, *, make: bool = True) -> AbstractContextManager[None]:
        """Hold the lock that *name* falls under."""
        return self._locked(f"{zlib.crc32(name.encode()) % _LOCKS:02d}", make=make)

    @contextmanager
    def _locked(self, lock: str, *, make: bool = True) -> Iterator[None]:
        """Hold the lock of that name against every thread and process of this directory."""
        folder = f"{self._root}/{OWN}/locks"
        if make:
            self._make_directory(folder)
        elif not os.path.isdir(folder):
            # Nobody ever swapped here, or the directory is not there at all: there is nothing to exclude.
            yield
            return
        descriptor = os.open(f"{folder}/{lock}", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _make_directory(self, path: str) -> None:
        """Make *path* and what is missing above it, each durable in its parent."""
        if path in self._made and os.path.isdir(path):
            return
        missing = []
        folder = path
        while not os.path.isdir(folder) or (folder not in self._made and len(folder) > len(self._root)):
            missing.append(folder)
            folder = os.path.dirname(folder)
        for folder in reversed(missing):
            with suppress(FileExistsError):
                os.mkdir(folder)
            if not os.path.isdir(folder):
                raise NotADirectoryError(errno.ENOTDIR, f"{folder} is an object, so no object can be below it")
            # Also where another process made it: that one may not have come to this yet.
            _sync_directory(os.path.dirname(folder))
            self._made.add(folder)

    @contextmanager
    def _errors(self, doing: str, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._mapped(error, doing, name) from error

    def _mapped(self, error: OSError, doing: str, name: str) -> Exception:
        what = f"{self.url}/{name}"
        if doing not in {"write", "swap"} and error.errno in _ABSENT:
            return NotFoundError(f"{what}: there is no such object")
        if error.errno == errno.ENAMETOOLONG:
            return InvalidNameError(f"{what}: the path is too long for the file system")
        advice = _ADVICE.get(error.errno or 0)
        reason = f"{error.strerror or error}" + (f"; {advice}" if advice else "")
        return StorageError(f"cannot {doing} {what}: {reason}", transient=error.errno in _TRANSIENT)


def _content(path: str) -> bytes | None:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.readall()
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        if error.errno in _ABSENT:
            return []
        raise


def _is_text(name: str) -> bool:
    # A file whose name is not text was put there by somebody else: it is no object.
    return name.isascii() or not any("\ud800" <= character <= "\udfff" for character in name)


def _stat_file(entry: os.DirEntry[str]) -> os.stat_result | None:
    # An object may go between the listing of its directory and this look at it.
    try:
        return entry.stat() if entry.is_file() else None
    except FileNotFoundError:
        return None


def _pread(descriptor: int, offset: int, length: int) -> bytes:
    data = os.pread(descriptor, length, offset)
    if len(data) in {0, length}:
        return data
    # One call returns at most 2 GiB, and less at the end of the file: only an empty answer is the end.
    parts = [data]
    got = len(data)
    while got < length and (data := os.pread(descriptor, length - got, offset + got)):
        parts.append(data)
        got += len(data)
    return b"".join(parts)


def _write(descriptor: int, data: bytes | memoryview) -> None:
    rest = memoryview(data).cast("B")
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network and FUSE file systems cannot sync a directory; there its entries are the server's care.
        if error.errno not in {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS}:
            raise
    finally:
        os.close(descriptor)


def _remove_if_free(path: str) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)
    finally:
        os.close(descriptor)

"""What a commit captured, kept beside the working copy, so that the next one reads only what changed.

    captured.sqlite = SQLite database, then 32 bytes: the BLAKE3 digest of the database

The digest is at the end because a damaged row would not look damaged: it would name other chunks, and
the next commit would publish them without reading the file.

Always true:

  1. The file is whole or absent: it is replaced by rename, after fsync.
  2. A file that is damaged, or of another release, counts as absent: the next commit then reads
     everything, and is as right as it would have been.
  3. A signature that may not be trusted is kept as one that no path can have.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import mmap
import os
import sqlite3
import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from volume_core.domain.changes import Upper
from volume_core.errors import CorruptObjectError
from volume_core.format.digests import digest
from volume_core.format.entries import ChunkRef, Entry, Extent, Kind
from volume_core.format.layer import pack_xattrs, unpack_xattrs
from volume_core.parts.scanning import Signature, time_within

log = logging.getLogger(__name__)

USER_VERSION = 1
_DIGEST_BYTES = 32
_SCHEMA = """
CREATE TABLE torn (path BLOB NOT NULL);
CREATE TABLE version (locator TEXT NOT NULL);
CREATE TABLE pack (id INTEGER PRIMARY KEY, digest BLOB NOT NULL);
CREATE TABLE path (
    path BLOB NOT NULL, signed_kind INTEGER, inode BLOB, signed_size INTEGER, signed_mtime_ns INTEGER, ctime_ns INTEGER,
    base BLOB, kind INTEGER, mode INTEGER, uid INTEGER, gid INTEGER, mtime_ns INTEGER, size INTEGER, target BLOB,
    rdev INTEGER, hardlink INTEGER, xattrs BLOB, content BLOB
);
"""
# An extent: its length, the pack's id (0: a hole), the chunk's offset, length, raw length and codec in
# it, the offset in the chunk, and the chunk's digest.
_EXTENT = struct.Struct("<QIQIIBI32s")
_INODE = struct.Struct("<Q")  # SQLite's integers have a sign

_new_signature = functools.partial(tuple.__new__, Signature)
_new_entry = functools.partial(tuple.__new__, Entry)
_new_extent = functools.partial(tuple.__new__, Extent)
_new_chunk = functools.partial(tuple.__new__, ChunkRef)
_new_upper = functools.partial(tuple.__new__, Upper)


@dataclass(frozen=True, slots=True)
class Captured:
    """A working tree at one instant: of each path (b"" is the root) its signature and what it was.

    Both mappings have the same keys.  `torn` are the paths that would not stand still, where the caller
    allowed that.
    """

    signatures: Mapping[bytes, Signature]
    upper: Mapping[bytes, Upper]
    torn: tuple[bytes, ...] = ()

    def __getitem__(self, path: bytes) -> tuple[Signature, Upper]:
        return self.signatures[path], self.upper[path]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.upper)

    def __contains__(self, path: object) -> bool:
        return path in self.upper

    def __len__(self) -> int:
        return len(self.upper)

    def sealed(self, seal: Callable[[Entry], Entry]) -> Captured:
        """Return the same with every entry's content as *seal* returns it."""
        upper = dict(self.upper)
        for path, (entry, base) in self.upper.items():
            if entry.content:
                final = seal(entry)
                if final is not entry:
                    upper[path] = _new_upper((final, base))
        return Captured(self.signatures, upper, self.torn)


def save(path: Path, captured: Captured, locator: str = "") -> None:
    """Replace the file at *path*.  *locator* is the version that *captured* became.

    Every chunk's pack must be known (Captured.sealed).  Raises OSError where the disk refuses.
    """
    number, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with open(number, "r+b") as file:
            _fill(temporary, captured, locator)
            trailer = _digest(file.fileno(), os.fstat(file.fileno()).st_size)
            file.seek(0, os.SEEK_END)
            file.write(trailer)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def load(path: Path, locator: str | None = None) -> Captured | None:
    """Return what `save` wrote to *path*, or None where there is nothing to be trusted.

    With *locator*, None too where the file is of another version: a crash after a commit leaves it
    behind.  Raises OSError where the disk cannot be read.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size - _DIGEST_BYTES
            whole = size > 0 and _digest(file.fileno(), size) == os.pread(file.fileno(), _DIGEST_BYTES, size)
    except FileNotFoundError:
        log.debug("%s: nothing was captured yet", path)
        return None
    try:
        if not whole:
            raise CorruptObjectError("its digest is another")
        return _read(path, locator)
    except (sqlite3.DatabaseError, CorruptObjectError, struct.error, ValueError, KeyError) as error:
        log.warning("%s is damaged (%s): the next commit reads every file again", path, error)
        return None


def version_of(path: Path) -> str | None:
    """Return what `save` was told of the version in the file at *path*; None where there is none to be trusted."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size - _DIGEST_BYTES
            if size <= 0 or _digest(file.fileno(), size) != os.pread(file.fileno(), _DIGEST_BYTES, size):
                return None
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as db:
            return str(db.execute("SELECT locator FROM version").fetchone()[0])
    except (OSError, sqlite3.DatabaseError, TypeError):
        return None


def _digest(fd: int, size: int) -> bytes:
    with mmap.mmap(fd, size, prot=mmap.PROT_READ) as data, memoryview(data) as view:
        return digest(view)


def _fill(file: str, captured: Captured, locator: str) -> None:
    packs: dict[bytes, int] = {}
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as db:
        # Durability comes from fsync and rename; a torn file under the temporary name harms nobody.
        db.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;" + _SCHEMA)
        db.execute(f"PRAGMA user_version = {USER_VERSION}")
        db.execute("BEGIN")
        db.execute("INSERT INTO version VALUES (?)", (locator,))
        db.executemany("INSERT INTO torn VALUES (?)", ((path,) for path in captured.torn))
        marks = ", ".join("?" * 18)
        db.executemany(f"INSERT INTO path VALUES ({marks})", _rows(captured, packs))
        db.executemany("INSERT INTO pack VALUES (?, ?)", ((number, pack) for pack, number in packs.items()))
        db.execute("COMMIT")


def _rows(captured: Captured, packs: dict[bytes, int]) -> Iterator[tuple[object, ...]]:
    signatures = captured.signatures
    for path, (entry, base) in captured.upper.items():
        kind, inode, size, mtime_ns, ctime_ns = signatures[path]
        content = _pack_extents(entry.content, packs) if entry.content else None
        yield (
            # A time that SQLite cannot hold comes back as another one: such a file is read again.
            path, int(kind), _INODE.pack(inode), size, time_within(mtime_ns), ctime_ns, base,
            int(entry[0]), *entry[1:6], entry.target or None, entry.rdev, entry.hardlink, pack_xattrs(entry.xattrs),
            content,
        )  # fmt: skip


def _pack_extents(extents: tuple[Extent, ...], packs: dict[bytes, int]) -> bytes:
    parts = []
    for length, chunk, inside in extents:
        if chunk is None:
            parts.append(_EXTENT.pack(length, 0, 0, 0, 0, 0, 0, b""))
            continue
        name, pack, offset, stored, raw, codec = chunk
        if not pack:
            raise ValueError("a chunk whose pack is not known yet cannot be kept")
        number = packs.setdefault(pack, len(packs) + 1)
        parts.append(_EXTENT.pack(length, number, offset, stored, raw, codec, inside, name))
    return b"".join(parts)


def _read(path: Path, locator: str | None) -> Captured | None:
    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as db:
        if db.execute("PRAGMA user_version").fetchone()[0] != USER_VERSION:
            log.info("%s was written by another release: the next commit reads every file again", path)
            return None
        of_version = db.execute("SELECT locator FROM version").fetchone()[0]
        if locator is not None and locator != of_version:
            log.info("%s is behind the last commit: the next one reads every file again", path)
            return None
        torn = tuple(bytes(row[0]) for row in db.execute("SELECT path FROM torn"))
        packs = {number: bytes(pack) for number, pack in db.execute("SELECT id, digest FROM pack")}
        signatures: dict[bytes, Signature] = {}
        upper: dict[bytes, Upper] = {}
        kinds = {int(kind): kind for kind in Kind}
        for (
            name, signed_kind, inode, signed_size, signed_mtime_ns, ctime_ns, base, kind, mode, uid, gid, mtime_ns,
            size, target, rdev, hardlink, xattrs, content,
        ) in db.execute("SELECT * FROM path ORDER BY rowid"):  # fmt: skip
            signatures[name] = _new_signature(
                (kinds[signed_kind], _INODE.unpack(inode)[0], signed_size, signed_mtime_ns, ctime_ns)
            )
            extents = _unpack_extents(content, packs) if content else ()
            entry = _new_entry(
                (
                    kinds[kind],
                    mode,
                    uid,
                    gid,
                    mtime_ns,
                    size,
                    target or b"",
                    rdev,
                    hardlink,
                    unpack_xattrs(xattrs),
                    extents,
                )
            )
            upper[name] = _new_upper((entry, base))
        return Captured(signatures, upper, torn)


def _unpack_extents(content: bytes, packs: Mapping[int, bytes]) -> tuple[Extent, ...]:
    extents = []
    for length, number, offset, stored, raw, codec, inside, name in _EXTENT.iter_unpack(content):
        chunk = _new_chunk((name, packs[number], offset, stored, raw, codec)) if number else None
        extents.append(_new_extent((length, chunk, inside)))
    return tuple(extents)

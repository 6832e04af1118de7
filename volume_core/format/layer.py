"""A layer's index: a SQLite file that says what one commit changed.

The schema below is the canonical reference; docs/format/layer.md explains it.  Reading and writing
go through a connection that the caller opened (in memory or on a file): nothing here opens anything.

Always true of a finished index:

  1. Directories are numbered in the order of their paths, entries in the order of (directory, name).
     So one directory's entries lie side by side, and the file is a function of the rows alone.
  2. It is self-contained: every chunk that a row names has its row in `chunk`, whatever layer's
     commit stored the pack.
  3. A hard link group (files that share one inode) lies in one layer, whole; its number is the id of
     its first entry.
  4. No overlay marker is in it: whiteouts and opaque directories are kinds, never devices or xattrs.
"""

from __future__ import annotations

import functools
import itertools
import sqlite3
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from volume_core.errors import CorruptObjectError
from volume_core.format.entries import ChunkRef, Entry, Extent, Kind

USER_VERSION = 1  # DO NOT CHANGE: on disk
APPLICATION_ID = 0x564F4C31  # "VOL1"

# `content` of an entry: NULL for an empty file or another kind; an INTEGER is the id of the one chunk
# that holds the whole file; a BLOB is an array of extents (length u64, chunk id u32 where 0 is a
# hole, offset in the chunk u32), little-endian.
# `xattrs`: NULL, or name length u16, value length u32, name, value, repeated; sorted by name.
SCHEMA = """
CREATE TABLE dir (id INTEGER PRIMARY KEY, path BLOB NOT NULL UNIQUE);
CREATE TABLE entry (
    id INTEGER PRIMARY KEY, dir INTEGER NOT NULL, name BLOB NOT NULL, kind INTEGER NOT NULL,
    mode INTEGER NOT NULL, uid INTEGER NOT NULL, gid INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    size INTEGER NOT NULL, target BLOB, rdev INTEGER NOT NULL, hardlink INTEGER NOT NULL,
    xattrs BLOB, content
);
CREATE TABLE pack (id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE);
CREATE TABLE chunk (
    id INTEGER PRIMARY KEY, digest BLOB NOT NULL, pack INTEGER NOT NULL, offset INTEGER NOT NULL,
    length INTEGER NOT NULL, raw_length INTEGER NOT NULL, codec INTEGER NOT NULL
);
"""
INDEXES = """
CREATE UNIQUE INDEX entry_name ON entry (dir, name);
CREATE INDEX entry_hardlink ON entry (hardlink) WHERE hardlink != 0;
CREATE UNIQUE INDEX chunk_digest ON chunk (digest);
"""
ROOT_DIR = 0  # the directory id under which the root's own row stands, with the name b""

# A range of ids is read whole as long as it has at most so many rows for each that is wanted.
_SPARSE = 4

# What SQLite and its module raise of a file that is damaged; its messages may quote bytes that are no text.
BROKEN = (sqlite3.DatabaseError, UnicodeDecodeError)

_EXTENT = struct.Struct("<QII")
_XATTR = struct.Struct("<HI")
_COLUMNS = "id, dir, name, kind, mode, uid, gid, mtime_ns, size, target, rdev, hardlink, xattrs, content"


class Row(NamedTuple):
    """One row of `entry`, as it lies: numbers mean something within this layer only."""

    id: int
    dir: int
    name: bytes
    kind: int
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int
    target: bytes | None
    rdev: int
    hardlink: int
    xattrs: bytes | None
    content: int | bytes | None


class Told(NamedTuple):
    """What a row shows.  `digest` is that of a file's bytes where they are one whole chunk, else None."""

    name: bytes
    kind: int
    mode: int
    size: int
    target: bytes | None
    rdev: int
    xattrs: bytes | None
    digest: bytes | None


_new_told = functools.partial(tuple.__new__, Told)
_new_row = functools.partial(tuple.__new__, Row)
_new_chunk = functools.partial(tuple.__new__, ChunkRef)
_new_extent = functools.partial(tuple.__new__, Extent)


class LayerReader:
    """Questions to one layer's index.  Used by one thread at a time.

    *connection* is to a file whose digest was verified.  A file that is no layer index raises
    CorruptObjectError here; what is broken inside raises it at the question that finds it.
    """

    def __init__(self, connection: sqlite3.Connection, name: str = "layer") -> None:
        self.name = name
        self._db = connection
        self._db.execute("PRAGMA trusted_schema = OFF")
        try:
            found = self._db.execute("PRAGMA user_version").fetchone()[0]
            kind = self._db.execute("PRAGMA application_id").fetchone()[0]
        except BROKEN as error:
            raise CorruptObjectError(f"{name}: not a layer index ({error})") from error
        if (found, kind) != (USER_VERSION, APPLICATION_ID):
            raise CorruptObjectError(
                f"{name}: layer index version {found} (id {kind:#x}); this release reads {USER_VERSION}"
            )

    def _all(self, sql: str, *args: object) -> Iterator[Any]:
        try:
            # chain() has no close(): a generator dropped half-way must not close the cursor of a closed database.
            yield from itertools.chain(self._db.execute(sql, args))
        except sqlite3.ProgrammingError:
            raise  # a closed reader is used: the index is not to blame
        except BROKEN as error:
            raise CorruptObjectError(f"{self.name}: its index cannot be read ({error})") from error

    def _one(self, sql: str, *args: object) -> Any:
        """Return the only row, or None."""
        try:
            return self._db.execute(sql, args).fetchone()
        except sqlite3.ProgrammingError:
            raise
        except BROKEN as error:
            raise CorruptObjectError(f"{self.name}: its index cannot be read ({error})") from error

    def directory(self, path: bytes) -> int | None:
        """Return the id of the directory at *path*, or None if no row of this layer lies in it."""
        found = self._one("SELECT id FROM dir WHERE path = ?", path)
        return found[0] if found else None

    def path(self, directory: int) -> bytes:
        """Return the path of a directory id; b"" for the root and for ROOT_DIR."""
        if directory == ROOT_DIR:
            return b""
        found = self._one("SELECT path FROM dir WHERE id = ?", directory)
        if found is None:
            raise CorruptObjectError(f"{self.name}: no directory {directory} in its index")
        return bytes(found[0])

    def directories(self, below: bytes = b"") -> Iterator[bytes]:
        """Yield, in order, the paths of this layer's directories at or below *below*."""
        if not below:
            yield from (bytes(path) for (path,) in self._all("SELECT path FROM dir ORDER BY id"))
            return
        # "0" is the byte after "/": the range holds the path itself and everything below it.
        query = "SELECT path FROM dir WHERE path = ? OR (path > ? AND path < ?) ORDER BY id"
        yield from (bytes(path) for (path,) in self._all(query, below, below + b"/", below + b"0"))

    def root(self) -> Row | None:
        """Return the root directory's own row, if this layer changed it."""
        return self.row_named(ROOT_DIR, b"")

    def row_named(self, directory: int, name: bytes) -> Row | None:
        """Return the row of *name* in a directory id, or None."""
        found = self._one(f"SELECT {_COLUMNS} FROM entry WHERE dir = ? AND name = ?", directory, name)
        return _new_row(found) if found else None

    def row(self, row_id: int) -> Row | None:
        """Return the row with that id, or None."""
        found = self._one(f"SELECT {_COLUMNS} FROM entry WHERE id = ?", row_id)
        return _new_row(found) if found else None

    def rows(self, directory: int, after: bytes = b"") -> Iterator[Row]:
        """Yield the rows of a directory id in the order of their names, from the first that is greater than *after*."""
        query = f"SELECT {_COLUMNS} FROM entry WHERE dir = ? AND name > ? ORDER BY name"
        return map(_new_row, self._all(query, directory, after))

    def whole_files(self, directory: int, after: bytes = b"") -> Iterator[tuple[int, int, bytes, tuple[Extent, ...]]]:
        """Yield (id, hardlink, name, extents) of those of rows() that are files of one whole chunk.

        Rows and chunks come with one question: a third of the time that rows() and then extents_of() take.
        """
        for row_id, link, name, size, *chunk in self._all(_WHOLE_FILES, directory, after, int(Kind.FILE)):
            yield row_id, link, name, (_new_extent((size, _new_chunk(chunk), 0)),)

    def told(self, directory: int) -> Iterator[Told]:
        """Yield what rows() does, of each what it shows and nothing of how it is stored."""
        return map(_new_told, self._all(_TOLD, directory))

    def links(self, hardlink: int) -> list[Row]:
        """Return every row of a hard link group."""
        return [_new_row(r) for r in self._all(f"SELECT {_COLUMNS} FROM entry WHERE hardlink = ?", hardlink)]

    def has_links(self) -> bool:
        """Whether any row is one of a hard link group."""
        return self._one("SELECT 1 FROM entry WHERE hardlink != 0 LIMIT 1") is not None

    def has_xattrs(self) -> bool:
        """Whether any row has extended attributes; reads the whole index where none has."""
        return self._one("SELECT 1 FROM entry WHERE xattrs IS NOT NULL LIMIT 1") is not None

    def owners(self) -> Iterator[tuple[int, int]]:
        """Yield each (uid, gid) that a row has, once; reads the whole index."""
        return self._all("SELECT DISTINCT uid, gid FROM entry WHERE kind <> ?", int(Kind.WHITEOUT))

    def counts(self) -> tuple[int, int]:
        """Return (rows of entry, rows of chunk)."""
        rows = self._one("SELECT (SELECT count(*) FROM entry), (SELECT count(*) FROM chunk)")
        return rows[0], rows[1]

    def chunk(self, chunk_digest: bytes) -> ChunkRef | None:
        """Return where the chunk with that digest lies, or None if no row here names it."""
        query = _CHUNK + "WHERE chunk.digest = ?"
        found = self._one(query, chunk_digest)
        return ChunkRef(*found) if found else None

    def chunks(self) -> Iterator[ChunkRef]:
        """Yield every chunk that this layer's rows name."""
        return (ChunkRef(*found) for found in self._all(_CHUNK))

    def packs(self) -> list[bytes]:
        """Return the digests of all packs that this layer's rows need."""
        return [bytes(found[0]) for found in self._all("SELECT digest FROM pack ORDER BY id")]

    def _chunk_by_id(self, chunk_id: int) -> ChunkRef:
        found = self._one(_CHUNK + "WHERE chunk.id = ?", chunk_id)
        if found is None:
            raise CorruptObjectError(f"{self.name}: no chunk {chunk_id} in its index")
        return ChunkRef(*found)

    def _chunks_by_id(self, ids: Collection[int]) -> Mapping[int, ChunkRef]:
        """Return several chunks by id.  What was stored together is numbered together: mostly one range has all."""
        low, high = min(ids), max(ids)
        if high - low > _SPARSE * len(ids):
            return {each: self._chunk_by_id(each) for each in ids}
        query = "SELECT chunk.id," + _CHUNK.removeprefix("SELECT") + "WHERE chunk.id BETWEEN ? AND ?"
        found = {each: ChunkRef(*fields) for each, *fields in self._all(query, low, high)}
        for each in ids:
            if each not in found:
                raise CorruptObjectError(f"{self.name}: no chunk {each} in its index")
        return found

    def extents(self, row: Row) -> tuple[Extent, ...]:
        """Return where the bytes of a file's row lie; they cover `row.size` exactly."""
        if row.content is None:
            return (Extent(row.size, None),) if row.size and row.kind == Kind.FILE else ()
        if isinstance(row.content, int):
            chunk = self._chunk_by_id(row.content)
            if row.size <= chunk.raw_length:
                return (Extent(row.size, chunk),)
            return self._covering(row, (Extent(row.size, chunk),))
        return self._covering(row, self._unpack_extents(row.content))

    def extents_of(self, rows: Sequence[Row]) -> list[tuple[Extent, ...]]:
        """Return what extents() would of each row; for neighbours, with one question instead of one for each."""
        ids = {row.content for row in rows if isinstance(row.content, int)}
        chunks = self._chunks_by_id(ids) if ids else {}
        found: list[tuple[Extent, ...]] = []
        for row in rows:
            chunk = chunks[row.content] if isinstance(row.content, int) else None
            if chunk is not None and row.size <= chunk.raw_length:
                found.append((Extent(row.size, chunk),))
            else:
                found.append(self.extents(row))
        return found

    def _covering(self, row: Row, extents: tuple[Extent, ...]) -> tuple[Extent, ...]:
        if sum(extent.length for extent in extents) != row.size or not all(map(_lies_within, extents)):
            raise CorruptObjectError(f"{self.name}: the extents of {row.name!r} do not cover its {row.size} bytes")
        return extents

    def _unpack_extents(self, content: bytes) -> tuple[Extent, ...]:
        if len(content) % _EXTENT.size:
            raise CorruptObjectError(f"{self.name}: an extent array was cut short")
        extents = list(_EXTENT.iter_unpack(content))
        ids = {chunk for _, chunk, _ in extents if chunk}
        chunks = self._chunks_by_id(ids) if ids else {}
        return tuple(Extent(length, chunks[chunk] if chunk else None, offset) for length, chunk, offset in extents)

    def entry(self, row: Row) -> Entry:
        """Return *row* as a value that stands for itself, its extents included."""
        return self._entry(row, self.extents(row))

    def entries(self, rows: Sequence[Row]) -> list[Entry]:
        """Return what entry() would of each row; for neighbours, with one question instead of one for each."""
        return list(map(self._entry, rows, self.extents_of(rows)))

    def _entry(self, row: Row, extents: tuple[Extent, ...]) -> Entry:
        try:
            kind = Kind(row.kind)
        except ValueError as error:
            raise CorruptObjectError(f"{self.name}: {row.name!r} is of no kind known here ({row.kind})") from error
        return Entry(
            kind, row.mode, row.uid, row.gid, row.mtime_ns, row.size, row.target or b"",
            row.rdev, row.hardlink, unpack_xattrs(row.xattrs), extents,
        )  # fmt: skip

    def close(self) -> None:
        """Close the connection."""
        self._db.close()


_CHUNK = (
    "SELECT chunk.digest, pack.digest, chunk.offset, chunk.length, chunk.raw_length, chunk.codec "
    "FROM chunk JOIN pack ON pack.id = chunk.pack "
)
# CROSS JOIN: asked in the order written here, which is that of the names.
_WHOLE_FILES = (
    "SELECT entry.id, entry.hardlink, entry.name, entry.size, "
    "chunk.digest, pack.digest, chunk.offset, chunk.length, chunk.raw_length, chunk.codec "
    "FROM entry CROSS JOIN chunk ON chunk.id = entry.content CROSS JOIN pack ON pack.id = chunk.pack "
    "WHERE entry.dir = ? AND entry.name > ? AND entry.kind = ? AND entry.size = chunk.raw_length ORDER BY entry.name"
)

_TOLD = (
    "SELECT entry.name, entry.kind, entry.mode, entry.size, entry.target, entry.rdev, entry.xattrs, chunk.digest "
    "FROM entry LEFT JOIN chunk ON chunk.id = entry.content AND chunk.raw_length = entry.size "
    "WHERE entry.dir = ? ORDER BY entry.name"
)


def _lies_within(extent: Extent) -> bool:
    return extent.chunk is None or extent.chunk_offset + extent.length <= extent.chunk.raw_length


class _Writer:
    """Numbers directories, packs, chunks and links while rows go by."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self._packs: dict[bytes, int] = {}
        self._chunks: dict[bytes, int] = {}
        self._chunk_rows: list[tuple[object, ...]] = []
        self._links: dict[int, int] = {}
        self._dirs: list[tuple[int, bytes]] = []
        self._previous: tuple[bytes, bytes] | None = None

    def row(self, row_id: int, directory: bytes, name: bytes, entry: Entry) -> tuple[object, ...]:
        """Return the columns of one entry; *row_id* counts from 1 in the order of the calls."""
        if self._previous is not None and self._previous >= (directory, name):
            raise ValueError(f"rows are not in order: {name!r} of {directory!r} after {self._previous!r}")
        self._previous = (directory, name)
        link = self._links.setdefault(entry.hardlink, row_id) if entry.hardlink else 0
        return (
            row_id, self._directory(directory, name), name, int(entry.kind), entry.mode, entry.uid, entry.gid,
            entry.mtime_ns, entry.size, entry.target or None, entry.rdev, link, pack_xattrs(entry.xattrs),
            self._content(name, entry),
        )  # fmt: skip

    def _directory(self, path: bytes, name: bytes) -> int:
        if not name:
            if path:
                raise ValueError(f"a row of {path!r} has no name, as only the root has")
            return ROOT_DIR
        if not self._dirs or self._dirs[-1][1] != path:
            self._dirs.append((len(self._dirs) + 1, path))
        return self._dirs[-1][0]

    def _content(self, name: bytes, entry: Entry) -> int | bytes | None:
        extents = entry.content
        if sum([extent.length for extent in extents]) != entry.size:
            raise ValueError(f"the content of {name!r} does not cover its {entry.size} bytes")
        if not extents:
            return None
        if len(extents) == 1:
            only = extents[0]
            if only.chunk is None:
                return None  # a file that is one hole: its size says all
            if only.chunk_offset == 0 and only.length == only.chunk.raw_length:
                return self._chunk(only.chunk)
        return b"".join(_EXTENT.pack(e.length, self._chunk(e.chunk) if e.chunk else 0, e.chunk_offset) for e in extents)

    def _chunk(self, chunk: ChunkRef) -> int:
        number = self._chunks.get(chunk.digest)
        if number is None:
            number = self._chunks[chunk.digest] = len(self._chunks) + 1
            pack = self._packs.setdefault(chunk.pack, len(self._packs) + 1)
            self._chunk_rows.append(
                (number, chunk.digest, pack, chunk.offset, chunk.length, chunk.raw_length, int(chunk.codec))
            )
        return number

    def finish(self) -> None:
        self._db.executemany("INSERT INTO dir VALUES (?, ?)", self._dirs)
        self._db.executemany("INSERT INTO pack VALUES (?, ?)", [(n, d) for d, n in self._packs.items()])
        self._db.executemany("INSERT INTO chunk VALUES (?, ?, ?, ?, ?, ?, ?)", self._chunk_rows)


def write_layer(connection: sqlite3.Connection, rows: Iterable[tuple[bytes, bytes, Entry]]) -> int:
    """Fill an empty database with *rows*: (directory path, name, entry), sorted; return how many.

    The root directory's own row is (b"", b"", entry) and comes first.  `hardlink` of an entry is any
    number that is equal for the names of one file.  Raises ValueError where the order is broken.
    """
    connection.executescript(
        f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {USER_VERSION};" + SCHEMA
    )
    writer = _Writer(connection)
    connection.execute("BEGIN")
    marks = ", ".join("?" * len(Row._fields))
    cursor = connection.executemany(
        f"INSERT INTO entry VALUES ({marks})",
        (writer.row(number, directory, name, entry) for number, (directory, name, entry) in enumerate(rows, 1)),
    )
    writer.finish()
    connection.commit()
    connection.executescript(INDEXES)
    return max(cursor.rowcount, 0)


def data_bytes(row: Row) -> int:
    """Return how many of a file's bytes are no hole: what st_blocks counts, without asking for its chunks."""
    content = row.content
    if content is None:
        return 0
    if isinstance(content, int):
        return row.size
    if len(content) % _EXTENT.size:
        raise CorruptObjectError(f"the extent array of {row.name!r} was cut short")
    return sum(length for length, chunk, _ in _EXTENT.iter_unpack(content) if chunk)


def pack_xattrs(xattrs: tuple[tuple[bytes, bytes], ...]) -> bytes | None:
    """Return xattrs as they lie in a row; None for none."""
    if not xattrs:
        return None
    return b"".join(_XATTR.pack(len(name), len(value)) + name + value for name, value in xattrs)


def unpack_xattrs(data: bytes | None) -> tuple[tuple[bytes, bytes], ...]:
    """Return the (name, value) pairs of a row's xattrs; the inverse of pack_xattrs."""
    pairs: list[tuple[bytes, bytes]] = []
    position = 0
    while data and position < len(data):
        try:
            name_length, value_length = _XATTR.unpack_from(data, position)
        except struct.error as error:
            raise CorruptObjectError("an xattr list was cut short") from error
        middle = position + _XATTR.size + name_length
        end = middle + value_length
        if end > len(data):
            raise CorruptObjectError("an xattr list was cut short")
        pairs.append((data[position + _XATTR.size : middle], data[middle:end]))
        position = end
    return tuple(pairs)

"""Whether a layer index keeps the rules that its readers rely on.

Why: the digest of an index says that it is the file its writer made, not that the writer meant well or
worked well.  An index from a store one does not own could name "../../etc/passwd", a chunk of a
terabyte, or a view in place of a table.  So each index is checked once, when it comes out of the store,
and no reader behind that needs to.

Always true after check_layer: tables and nothing else; every column of its type and range; names and
paths without empty, "." or ".." parts; every number that names a row names one; every file's extents
cover its size; every xattr list can be unpacked.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from volume_core.errors import CorruptObjectError
from volume_core.format.digests import DIGEST_BYTES
from volume_core.format.entries import CHUNK_BYTES, Codec, Kind
from volume_core.format.layer import BROKEN, LayerReader, unpack_xattrs
from volume_core.format.pack import HEADER_BYTES

NAME_BYTES_MAX = 255  # NAME_MAX of Linux
# What compression makes of a chunk that cannot be compressed, and some.
STORED_BYTES_MAX = CHUNK_BYTES + (CHUNK_BYTES >> 7) + 1024

_TABLES = {
    "dir": "id path",
    "entry": "id dir name kind mode uid gid mtime_ns size target rdev hardlink xattrs content",
    "pack": "id digest",
    "chunk": "id digest pack offset length raw_length codec",
}
_INTEGERS = {
    "entry": "dir kind mode uid gid mtime_ns size rdev hardlink",
    "chunk": "pack offset length raw_length codec",
}


def _integers(table: str) -> str:
    return " AND ".join(f"typeof({column}) = 'integer'" for column in _INTEGERS[table].split())


# Each selects something exactly where a rule is broken.
_RULES = (
    (
        "a pack without a digest",
        f"SELECT 1 FROM pack WHERE typeof(digest) != 'blob' OR length(digest) != {DIGEST_BYTES}",
    ),
    (
        "a chunk that none can be",
        f"""SELECT 1 FROM chunk WHERE NOT ({_integers("chunk")} AND typeof(digest) = 'blob'
            AND length(digest) = {DIGEST_BYTES} AND offset BETWEEN {HEADER_BYTES} AND {1 << 62}
            AND length BETWEEN 1 AND {STORED_BYTES_MAX} AND raw_length BETWEEN 1 AND {CHUNK_BYTES}
            AND (codec = {Codec.NONE:d} AND length = raw_length OR codec = {Codec.ZSTD:d}))""",
    ),
    ("a chunk in no pack", "SELECT 1 FROM chunk WHERE pack NOT IN (SELECT id FROM pack)"),
    (
        "an entry that none can be",
        f"""SELECT 1 FROM entry WHERE NOT ({_integers("entry")} AND id BETWEEN 1 AND {(1 << 40) - 1}
            AND kind BETWEEN {Kind.FILE:d} AND {Kind.WHITEOUT:d} AND mode BETWEEN 0 AND 4095
            AND uid BETWEEN 0 AND 4294967295 AND gid BETWEEN 0 AND 4294967295 AND size >= 0
            AND rdev BETWEEN 0 AND {(1 << 63) - 1} AND typeof(xattrs) IN ('blob', 'null')
            AND (content IS NULL OR kind = {Kind.FILE:d} AND typeof(content) IN ('integer', 'blob'))
            AND CASE kind WHEN {Kind.SYMLINK:d} THEN typeof(target) = 'blob' AND instr(target, x'00') = 0
                ELSE target IS NULL END)""",
    ),
    (
        "an entry that has no proper name",
        f"""SELECT 1 FROM entry WHERE typeof(name) != 'blob' OR CASE dir WHEN 0 THEN length(name) != 0
            OR kind NOT IN ({Kind.DIRECTORY:d}, {Kind.OPAQUE:d})
            ELSE length(name) NOT BETWEEN 1 AND {NAME_BYTES_MAX} OR instr(name, x'2f') OR instr(name, x'00')
            OR name IN (x'2e', x'2e2e') END""",
    ),
    ("an entry in no directory", "SELECT 1 FROM entry WHERE dir != 0 AND dir NOT IN (SELECT id FROM dir)"),
    (
        "a link group that has no first entry",
        """SELECT 1 FROM entry AS other WHERE hardlink != 0 AND NOT EXISTS
           (SELECT 1 FROM entry WHERE entry.id = other.hardlink AND entry.hardlink = other.hardlink)""",
    ),
    (
        "a file whose chunk is not there or has another size",
        """SELECT 1 FROM entry WHERE typeof(content) = 'integer' AND NOT EXISTS
           (SELECT 1 FROM chunk WHERE chunk.id = content AND raw_length = size)""",
    ),
)


def check_layer(connection: sqlite3.Connection, name: str) -> None:
    """Raise CorruptObjectError naming *name* and the rule unless the index keeps every rule."""
    try:
        for problem in _problems(connection, name):
            raise CorruptObjectError(f"{name}: {problem}")
    except BROKEN as error:
        raise CorruptObjectError(f"{name}: its index cannot be read ({error})") from error


def _problems(connection: sqlite3.Connection, name: str) -> Iterator[str]:
    yield from _schema_problems(connection)
    # Not quick_check: an index that says another name than its table would be believed by some questions.
    for (found,) in connection.execute("PRAGMA integrity_check(1)"):
        if found != "ok":
            yield f"its index is damaged ({found})"
    for problem, rule in _RULES:
        if connection.execute(f"{rule} LIMIT 1").fetchone():
            yield f"its index has {problem}"
    for (path,) in connection.execute("SELECT path FROM dir"):
        if not _is_path(path):
            yield f"its index has a directory that none can be: {path!r:.300}"
    reader = LayerReader(connection, name)
    query = "SELECT id FROM entry WHERE xattrs IS NOT NULL OR typeof(content) = 'blob'"
    for row in filter(None, (reader.row(row_id) for (row_id,) in connection.execute(query))):
        reader.extents(row)
        try:
            unpack_xattrs(row.xattrs)
        except CorruptObjectError as error:
            yield f"{row.name!r}: {error}"


def _schema_problems(connection: sqlite3.Connection) -> Iterator[str]:
    # A view or a virtual table has no page of its own; a trigger could act, though nothing here writes.
    query = "SELECT type, name, rootpage FROM sqlite_schema"
    for kind, name, page in connection.execute(query):
        if not page or kind not in ("table", "index") or (kind == "table" and name not in _TABLES):
            yield f"its index has a {kind} {name!r}, which no layer has"
    for table, columns in _TABLES.items():
        found = [row[1] for row in connection.execute(f"PRAGMA table_xinfo({table})")]
        if found != columns.split():
            yield f"its index has no proper table {table!r}"


def _is_path(path: object) -> bool:
    if path == b"":
        return True
    return isinstance(path, bytes) and all(
        part not in (b"", b".", b"..") and len(part) <= NAME_BYTES_MAX and b"\0" not in part
        for part in path.split(b"/")
    )

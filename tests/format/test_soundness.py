"""Soundness: an index that is whole and hashes right can still be written by somebody who means harm."""

from __future__ import annotations

import contextlib
import sqlite3

import pytest

from volume_core.errors import CorruptObjectError
from volume_core.format.digests import digest
from volume_core.format.entries import WHITEOUT, ChunkRef, Entry, Extent, Kind
from volume_core.format.layer import write_layer
from volume_core.format.soundness import check_layer

CHUNK = ChunkRef(digest(b"x"), digest(b"p"), 32, 10, 10)
ROWS = [
    (b"", b"", Entry(Kind.DIRECTORY, 0o755)),
    (b"", b"d", Entry(Kind.OPAQUE, 0o755)),
    (b"", b"gone", WHITEOUT),
    (b"", b"link", Entry(Kind.SYMLINK, target=b"/etc/passwd")),
    (b"", b"part", Entry(Kind.FILE, size=12, content=(Extent(5, CHUNK, 5), Extent(7, None)))),
    (b"", b"whole", Entry(Kind.FILE, size=10, content=(Extent(10, CHUNK),), xattrs=((b"user.k", b"v"),))),
    (b"d", b"one", Entry(Kind.FILE, hardlink=1)),
    (b"d", b"other", Entry(Kind.FILE, hardlink=1)),
    (b"d/e", b"dev", Entry(Kind.CHAR, 0o600, rdev=259)),
]


@pytest.fixture
def index():
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        write_layer(connection, ROWS)
        yield connection


def test_what_a_commit_writes_is_sound(index):
    check_layer(index, "it")


ENTRY = [
    "name = x'2e2e'",
    "name = x'2e'",
    "name = x'612f62'",
    "name = x'6100'",
    "name = x''",
    "name = zeroblob(256)",
    "name = 'text'",
    "dir = 99",
    "dir = 0",
    "dir = 'x'",
    "kind = 0",
    "kind = 9",
    "kind = 'FILE'",
    "kind = 1.5",
    "mode = 65535",
    "mode = -1",
    "uid = 4294967296",
    "uid = -1",
    "gid = 'root'",
    "mtime_ns = 'now'",
    "mtime_ns = 1e30",
    "size = -1",
    "size = 11",
    "size = 9",
    "rdev = -1",
    "target = x'61'",
    "target = 'text'",
    "hardlink = 99",
    "hardlink = 1",
    "xattrs = x'01'",
    "xattrs = 'text'",
    "content = 99",
    "content = -1",
    "content = 1.5",
    "content = 'text'",
    "content = x'01'",
    "content = zeroblob(16)",
    "content = x'0a000000000000000900000000000000'",
    "content = x'0a000000000000000100000001000000'",
    "kind = 2",
    "kind = 8",
    "id = 1 << 40",
    "id = -5",
]


@pytest.mark.parametrize(
    "statement",
    [
        *(f"UPDATE OR IGNORE entry SET {change} WHERE name = x'77686f6c65'" for change in ENTRY),
        "UPDATE entry SET target = NULL WHERE kind = 4",
        "UPDATE entry SET target = x'6100' WHERE kind = 4",
        "UPDATE entry SET target = 'text' WHERE kind = 4",
        "UPDATE entry SET kind = 1 WHERE dir = 0",
        "UPDATE entry SET name = x'61' WHERE dir = 0",
        "UPDATE entry SET hardlink = 0 WHERE name = x'6f6e65'",
        "UPDATE dir SET path = x'2e2e' WHERE id = 2",
        "UPDATE dir SET path = x'2f657463' WHERE id = 2",
        "UPDATE dir SET path = x'642f' WHERE id = 2",
        "UPDATE dir SET path = x'642f2f65' WHERE id = 2",
        "UPDATE dir SET path = x'642f2e' WHERE id = 2",
        "UPDATE dir SET path = x'6400' WHERE id = 2",
        "UPDATE dir SET path = zeroblob(256) WHERE id = 2",
        "UPDATE dir SET path = 'text' WHERE id = 2",
        "UPDATE dir SET path = 5 WHERE id = 2",
        "UPDATE pack SET digest = x'00'",
        "UPDATE pack SET digest = 'text'",
        "DELETE FROM pack",
        "UPDATE chunk SET digest = x'00'",
        "UPDATE chunk SET digest = 'text'",
        "UPDATE chunk SET pack = 9",
        "UPDATE chunk SET offset = 31",
        "UPDATE chunk SET offset = -1",
        "UPDATE chunk SET offset = 9223372036854775807",
        "UPDATE chunk SET offset = 1.5",
        "UPDATE chunk SET length = 0",
        "UPDATE chunk SET length = 9",
        "UPDATE chunk SET length = 1 << 40, codec = 1",
        "UPDATE chunk SET raw_length = 0",
        "UPDATE chunk SET raw_length = 1 << 40, codec = 1",
        "UPDATE chunk SET codec = 2",
        "UPDATE chunk SET codec = 'zstd'",
        "DELETE FROM chunk",
        "CREATE TABLE more (x)",
        "CREATE TRIGGER t AFTER INSERT ON entry BEGIN DELETE FROM entry; END",
        "CREATE VIEW v AS SELECT 1",
        "CREATE VIRTUAL TABLE f USING fts5(x)",
        "ALTER TABLE chunk ADD COLUMN more",
        "ALTER TABLE chunk RENAME COLUMN codec TO other",
        "ALTER TABLE pack RENAME TO other",
        "ALTER TABLE pack ADD COLUMN more AS (1)",
    ],
)
def test_an_index_that_breaks_a_rule_is_refused(index, statement):
    changes = index.total_changes
    version = index.execute("PRAGMA schema_version").fetchone()
    index.execute(statement)
    assert (changes, version) != (index.total_changes, index.execute("PRAGMA schema_version").fetchone())

    with pytest.raises(CorruptObjectError, match="it: "):
        check_layer(index, "it")


def test_a_view_in_place_of_a_table_is_refused(index):
    index.execute("ALTER TABLE pack RENAME TO chunk_2")
    index.execute("DROP TABLE chunk")
    index.execute("ALTER TABLE chunk_2 RENAME TO chunk")
    index.execute("CREATE VIEW pack AS SELECT 1 AS id, randomblob(32) AS digest")

    with pytest.raises(CorruptObjectError, match="a view 'pack', which no layer has"):
        check_layer(index, "it")


def test_what_is_no_database_is_refused():
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(b"x" * 8192)

        with pytest.raises(CorruptObjectError, match="it: "):
            check_layer(connection, "it")


def test_an_index_whose_search_tree_lies_is_refused(index):
    """Some questions are answered by an index's copy of a column: it must be the table's."""
    page = index.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'entry_name'").fetchone()[0]
    size = index.execute("PRAGMA page_size").fetchone()[0]
    data = bytearray(index.serialize())
    place = data.index(b"whole", (page - 1) * size, page * size)
    data[place : place + 5] = b"../xx"
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(bytes(data))
        names = [name for (name,) in connection.execute("SELECT name FROM entry WHERE dir = 1 ORDER BY name")]

        assert b"../xx" in names
        with pytest.raises(CorruptObjectError):
            check_layer(connection, "it")

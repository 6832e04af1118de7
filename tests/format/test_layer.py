"""Layer indexes: what is written comes back, in one file for one set of rows; damage is found out."""

from __future__ import annotations

import contextlib
import random
import sqlite3
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from volume_core.errors import CorruptObjectError
from volume_core.format.digests import digest
from volume_core.format.entries import CHUNK_BYTES, WHITEOUT, ChunkRef, Codec, Entry, Extent, Kind, join, split
from volume_core.format.layer import (
    LayerReader,
    Row,
    data_bytes,
    pack_xattrs,
    unpack_xattrs,
    write_layer,
)
from volume_core.format.soundness import check_layer

NAME = st.binary(min_size=1, max_size=5).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)
PATH = st.lists(NAME, max_size=3).map(b"/".join)
UID = st.integers(0, (1 << 32) - 1)
XATTRS = st.dictionaries(st.binary(min_size=1, max_size=8), st.binary(max_size=20), max_size=3).map(
    lambda pairs: tuple(sorted(pairs.items()))
)


@st.composite
def contents(draw) -> tuple[Extent, ...]:
    """Whole chunks, parts of chunks and holes, in any number."""
    extents = []
    for _ in range(draw(st.integers(0, 4))):
        length = draw(st.integers(1, 5000))
        seed = draw(st.integers(0, 5) | st.none())
        if seed is None:
            extents.append(Extent(length, None))
            continue
        raw_length = draw(st.sampled_from([length, CHUNK_BYTES]))
        codec = Codec.NONE if raw_length == length else Codec.ZSTD
        stored = raw_length if codec is Codec.NONE else 999
        chunk = ChunkRef(
            digest(b"%d/%d" % (seed, length)), digest(b"%d" % (seed % 2)), 32 + seed, stored, raw_length, codec
        )
        extents.append(Extent(length, chunk, draw(st.integers(0, raw_length - length))))
    return tuple(extents)


@st.composite
def entries(draw) -> Entry:
    kind = draw(st.sampled_from(Kind))
    if kind is Kind.WHITEOUT:
        return WHITEOUT
    content = draw(contents()) if kind is Kind.FILE else ()
    return Entry(
        kind,
        draw(st.integers(0, 0o7777)),
        draw(UID),
        draw(UID),
        draw(st.integers(-(1 << 63), (1 << 63) - 1)),
        sum(extent.length for extent in content),
        draw(st.binary(min_size=1, max_size=20).filter(lambda t: b"\0" not in t)) if kind is Kind.SYMLINK else b"",
        draw(st.integers(0, 1 << 40)) if kind in (Kind.CHAR, Kind.BLOCK) else 0,
        draw(st.integers(0, 2)) if kind is Kind.FILE else 0,
        draw(XATTRS),
        content,
    )


ROWS = st.dictionaries(PATH, entries(), max_size=10).map(
    lambda found: sorted(
        (*split(path), entry) for path, entry in found.items() if path or entry.kind in (Kind.DIRECTORY, Kind.OPAQUE)
    )
)


def write(rows) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    assert len(rows) == write_layer(connection, rows)
    return connection


def everything(reader: LayerReader) -> dict[bytes, Entry]:
    """All rows by path, asked for in every way a reader can be asked."""
    found = {}
    root = reader.root()
    if root is not None:
        found[b""] = reader.entry(root)
    for path in reader.directories():
        number = reader.directory(path)
        rows = list(reader.rows(number))
        assert path == reader.path(number)
        assert list(map(reader.extents, rows)) == reader.extents_of(rows)
        for row in rows:
            assert row == reader.row(row.id) == reader.row_named(number, row.name)
            found[join(path, row.name)] = reader.entry(row)
    return found


def expected(rows) -> dict[bytes, Entry]:
    """The entries with their link numbers as a layer gives them, and a file that is one hole as it says it."""
    first: dict[int, int] = {}
    found = {}
    for number, (directory, name, entry) in enumerate(rows, 1):
        link = first.setdefault(entry.hardlink, number) if entry.hardlink else 0
        found[join(directory, name)] = entry._replace(hardlink=link)
    return found


@given(ROWS)
def test_rows_come_back_as_they_were_written(rows):
    with contextlib.closing(write(rows)) as connection:
        check_layer(connection, "it")
        reader = LayerReader(connection)

        assert expected(rows) == everything(reader)
        chunks = {extent.chunk for *_, entry in rows for extent in entry.content if extent.chunk}
        assert {chunk.digest for chunk in chunks} == {chunk.digest for chunk in reader.chunks()}
        assert {chunk.pack for chunk in reader.chunks()} == set(reader.packs())
        assert (len(rows), len(list(reader.chunks()))) == reader.counts()
        assert any(entry.xattrs for *_, entry in rows) == reader.has_xattrs()
        owners = [(entry.uid, entry.gid) for *_, entry in rows if entry.kind is not Kind.WHITEOUT]
        assert sorted(set(owners)) == sorted(reader.owners())
        for chunk in reader.chunks():
            assert chunk == reader.chunk(chunk.digest)


@given(ROWS)
@settings(max_examples=30)
def test_one_set_of_rows_is_one_file(rows):
    with contextlib.closing(write(rows)) as one, contextlib.closing(write(rows)) as other:
        assert one.serialize() == other.serialize()


@given(ROWS)
@settings(max_examples=30)
def test_names_of_one_inode_are_found_together(rows):
    with contextlib.closing(write(rows)) as connection:
        reader = LayerReader(connection)
        for row in filter(None, map(reader.row, range(1, len(rows) + 1))):
            if row.hardlink:
                names = {join(reader.path(link.dir), link.name) for link in reader.links(row.hardlink)}

                assert names == {p for p, entry in expected(rows).items() if entry.hardlink == row.hardlink}


def test_rows_can_be_read_on_from_any_name():
    names = [b"a", b"a\xff", b"b", b"\xfe", b"\xff\xff"]
    with contextlib.closing(write([(b"", name, WHITEOUT) for name in names])) as connection:
        reader = LayerReader(connection)
        for after in (b"", b"`", *names, b"\xff\xff\xff"):
            assert [name for name in names if name > after] == [row.name for row in reader.rows(1, after)]


def test_directories_below_a_path_are_no_neighbours_of_it():
    paths = [b"", b"a", b"a-b", b"a/b", b"a/b/c", b"a0", b"b"]
    with contextlib.closing(write([(path, b"x", WHITEOUT) for path in paths])) as connection:
        reader = LayerReader(connection)

        assert paths == list(reader.directories())
        assert [b"a", b"a/b", b"a/b/c"] == list(reader.directories(b"a"))
        assert [] == list(reader.directories(b"c"))
        assert reader.directory(b"c") is None


def test_what_is_not_there_is_none():
    with contextlib.closing(write([(b"", b"x", WHITEOUT)])) as connection:
        reader = LayerReader(connection)

        assert reader.root() is reader.row(9) is reader.row_named(1, b"y") is reader.chunk(digest(b"")) is None
        assert [] == reader.links(5) == list(reader.rows(9))
        assert b"" == reader.path(0)
        with pytest.raises(CorruptObjectError, match="no directory 9"):
            reader.path(9)


FILE = Entry(Kind.FILE, size=3, content=(Extent(3, None),))


@pytest.mark.parametrize(
    "rows",
    [
        [(b"", b"b", WHITEOUT), (b"", b"a", WHITEOUT)],
        [(b"", b"a", WHITEOUT), (b"", b"a", WHITEOUT)],
        [(b"b", b"a", WHITEOUT), (b"a", b"a", WHITEOUT)],
        [(b"a", b"b", WHITEOUT), (b"", b"", Entry(Kind.DIRECTORY))],
        [(b"a", b"", WHITEOUT)],
        [(b"", b"a", FILE._replace(size=4))],
        [(b"", b"a", FILE._replace(content=()))],
        [(b"", b"a", FILE._replace(size=0))],
    ],
    ids=["names", "twice", "directories", "root last", "no name", "too short", "no content", "too long"],
)
def test_rows_that_break_a_rule_are_not_written(rows):
    with contextlib.closing(sqlite3.connect(":memory:")) as connection, pytest.raises(ValueError):
        write_layer(connection, rows)


def test_an_index_without_rows_is_a_layer():
    with contextlib.closing(write([])) as connection:
        check_layer(connection, "it")

        assert (0, 0) == LayerReader(connection).counts()


@given(XATTRS)
def test_xattrs_come_back(xattrs):
    assert xattrs == unpack_xattrs(pack_xattrs(xattrs))
    assert (pack_xattrs(xattrs) is None) == (not xattrs)


@given(XATTRS.filter(bool), st.integers(0))
def test_a_cut_xattr_list_is_refused_or_has_lost_whole_pairs(xattrs, cut):
    data = pack_xattrs(xattrs)
    cut %= len(data)
    try:
        found = unpack_xattrs(data[:cut])
    except CorruptObjectError:
        return

    assert found == xattrs[: len(found)]
    assert pack_xattrs(found) == (data[:cut] or None)


def test_the_bytes_of_a_sparse_file_are_counted_without_its_holes():
    chunk = ChunkRef(digest(b"x"), digest(b"p"), 32, 10, 10)
    rows = [
        (b"", b"empty", Entry(Kind.FILE)),
        (b"", b"hole", Entry(Kind.FILE, size=7, content=(Extent(7, None),))),
        (b"", b"mixed", Entry(Kind.FILE, size=17, content=(Extent(7, None), Extent(4, chunk, 2), Extent(6, chunk)))),
        (b"", b"whole", Entry(Kind.FILE, size=10, content=(Extent(10, chunk),))),
    ]
    with contextlib.closing(write(rows)) as connection:
        found = list(LayerReader(connection).rows(1))

        assert [0, 0, 10, 10] == list(map(data_bytes, found))
        with pytest.raises(CorruptObjectError):
            data_bytes(found[2]._replace(content=b"x" * 17))


# Damage.


def row(**columns) -> Row:
    plain = Row(1, 1, b"x", int(Kind.FILE), 0o644, 0, 0, 0, 10, None, 0, 0, None, 1)
    return plain._replace(**columns)


@pytest.mark.parametrize(
    "wrong",
    [
        row(size=11),
        row(size=9, content=b"\0" * 16),
        row(content=7),
        row(content=b"\x0a" + b"\0" * 7 + b"\x09" + b"\0" * 7),
        row(content=b"\x0a" + b"\0" * 7 + b"\x01" + b"\0" * 3 + b"\x01" + b"\0" * 3),
        row(content=b"\x0a" + b"\0" * 14),
        row(kind=9),
        row(kind=0),
        row(xattrs=b"\x01"),
        row(xattrs=b"\x01\0\xff\0\0\0a"),
    ],
    ids=["size", "cover", "chunk", "chunk of extent", "beyond chunk", "cut", "kind 9", "kind 0", "xattrs", "xattr"],
)
def test_a_broken_row_is_found_out(wrong):
    chunk = ChunkRef(digest(b"x"), digest(b"p"), 32, 10, 10)
    rows = [(b"", b"x", Entry(Kind.FILE, size=10, content=(Extent(10, chunk),)))]
    with contextlib.closing(write(rows)) as connection, pytest.raises(CorruptObjectError):
        LayerReader(connection).entry(wrong)


def test_chunks_far_apart_are_asked_for_one_by_one():
    chunks = [ChunkRef(digest(b"%d" % n), digest(b"p"), 32 + n, 1, 1) for n in range(100)]
    rows = [(b"", b"%03d" % n, Entry(Kind.FILE, size=1, content=(Extent(1, chunk),))) for n, chunk in enumerate(chunks)]
    with contextlib.closing(write(rows)) as connection:
        reader = LayerReader(connection)
        found = list(reader.rows(1))

        assert [(Extent(1, chunks[0]),), (Extent(1, chunks[99]),)] == reader.extents_of([found[0], found[99]])
        with pytest.raises(CorruptObjectError):
            reader.extents_of([found[0]._replace(content=105), found[0]])


@pytest.mark.parametrize("data", [b"x" * 4096, b"SQLite format 3\0" + b"x" * 4096], ids=["no SQLite", "header only"])
def test_what_is_no_database_is_no_layer(data):
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(data)

        with pytest.raises(CorruptObjectError, match="it"):
            LayerReader(connection, "it")


@pytest.mark.parametrize("pragma", ["user_version = 2", "application_id = 1"])
def test_a_database_of_another_kind_or_version_is_no_layer(pragma):
    with contextlib.closing(write([])) as connection:
        connection.execute(f"PRAGMA {pragma}")

        with pytest.raises(CorruptObjectError, match="this release reads 1"):
            LayerReader(connection)


def test_a_closed_reader_is_no_damage():
    reader = LayerReader(write([(b"", b"x", WHITEOUT)]))
    reader.close()

    with pytest.raises(sqlite3.ProgrammingError):
        reader.root()
    with pytest.raises(sqlite3.ProgrammingError):
        list(reader.rows(1))


def sample() -> bytes:
    """An index with everything in it, of a few pages."""
    chunks = [ChunkRef(digest(b"%d" % n), digest(b"p"), 32 + n, 5, 5) for n in range(20)]
    rows = [(b"", b"", Entry(Kind.DIRECTORY, 0o755))]
    for number in range(120):
        content = (Extent(5, chunks[number % 20]), Extent(5, None)) if number % 3 else (Extent(5, chunks[number % 20]),)
        size = sum(extent.length for extent in content)
        entry = Entry(
            Kind.FILE, size=size, content=content, xattrs=((b"user.x", b"y"),) * (number % 2), hardlink=number % 5
        )
        rows.append((b"dir%d" % (number // 30), b"%03d" % number, entry))
    rows.append((b"dir9", b"link", Entry(Kind.SYMLINK, target=b"somewhere")))
    with contextlib.closing(write(rows)) as connection:
        return connection.serialize()


def damaged(seed: int, count: int) -> Iterator[bytes]:
    """Copies of the sample, each with one to three bytes flipped, or cut short."""
    source = random.Random(seed)
    whole = sample()
    for number in range(count):
        data = bytearray(whole)
        if number % 10 == 0:
            yield bytes(data[: source.randrange(len(data))])
            continue
        for _ in range(source.randint(1, 3)):
            data[source.randrange(len(data))] ^= source.randint(1, 255)
        yield bytes(data)


@pytest.mark.parametrize("seed", range(4))
def test_damage_that_no_digest_was_asked_about_gives_no_other_error(seed):
    """What check_layer lets pass can be read to the end, whatever it says; all else is CorruptObjectError."""
    passed = 0
    for data in damaged(seed, 250):
        with contextlib.closing(sqlite3.connect(":memory:")) as connection:
            try:
                connection.deserialize(data)
                check_layer(connection, "it")
            except CorruptObjectError:
                continue
            except sqlite3.Error:
                assert not data  # SQLite deserializes anything but nothing
                continue
            passed += 1
            everything(LayerReader(connection, "it"))

    assert 0 < passed < 250


@pytest.mark.parametrize("seed", range(4))
def test_a_reader_of_a_damaged_index_says_so_or_gives_what_it_finds(seed):
    for data in damaged(100 + seed, 250):
        with contextlib.closing(sqlite3.connect(":memory:")) as connection, contextlib.suppress(CorruptObjectError):
            connection.deserialize(data or b"x")
            reader = LayerReader(connection, "it")
            for number in range(8):
                rows = list(reader.rows(number))
                list(map(reader.row, range(50)))
                list(map(reader.links, range(5)))
                reader.extents_of(rows)
            reader.counts()
            reader.packs()
            list(reader.chunks())

"""The digest of what a tree holds: over random stacks, equal exactly where a reader sees the same."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volume_core.domain.contents import content_digest
from volume_core.domain.diff import rows_between
from volume_core.domain.view import View
from volume_core.errors import StorageError
from volume_core.format.digests import digest
from volume_core.format.entries import CHUNK_BYTES, ChunkRef, Entry, Extent, Kind, split
from volume_core.testing.stacks import Fork, Shown, Stack, forks, reader_of, shown_tree, stacks


def chunk(data: bytes, pack: bytes = b"pack") -> ChunkRef:
    return ChunkRef(digest(data), digest(pack), 32, len(data), len(data))


def file(*parts: bytes | int | Extent, **attributes) -> Entry:
    """A file of chunks (bytes), holes (their lengths), and extents."""
    extents = tuple(
        part
        if isinstance(part, Extent)
        else Extent(part, None)
        if isinstance(part, int)
        else Extent(len(part), chunk(part))
        for part in parts
    )
    return Entry(Kind.FILE, 0o644, size=sum(extent.length for extent in extents), content=extents, **attributes)


class Bytes:
    """Reads extents whose chunks were made of these, and remembers how often it was asked."""

    def __init__(self, *datas: bytes) -> None:
        self._datas = {digest(data): data for data in datas}
        self.asked: list[tuple[Extent, ...]] = []

    def __call__(self, extents: tuple[Extent, ...]) -> bytes:
        self.asked.append(extents)
        return b"".join(
            self._datas[each.chunk.digest][each.chunk_offset :][: each.length] if each.chunk else bytes(each.length)
            for each in extents
        )


def nothing_is_read(_extents: tuple[Extent, ...]) -> bytes:
    raise AssertionError("bytes of a file were asked for")


def view_of(*layers: dict[bytes, Entry]) -> View:
    return View([reader_of(sorted((*split(path), entry) for path, entry in rows.items())) for rows in layers])


def digest_of_tree(*layers: dict[bytes, Entry], read=nothing_is_read) -> str:
    return content_digest(view_of(*layers), read)


def spelled(extents: tuple[Extent, ...]) -> bytes:
    """A reading of chunks that have no bytes: what the extents say, for they are the content here."""
    return repr([(each.length, each.chunk and each.chunk.digest, each.chunk_offset) for each in extents]).encode()


def visible(view: View) -> dict[bytes, tuple]:
    """What the digest is said to count, path by path; contents of a random stack are known by their extents."""
    found = {}
    for path, (entry, _) in shown_tree(view).items():
        mode = 0 if entry.kind is Kind.SYMLINK else entry.mode
        xattrs = [pair for pair in entry.xattrs if pair[0].startswith(b"user.")]
        content = [(each.length, each.chunk and each.chunk.digest, each.chunk_offset) for each in entry.content]
        found[path] = (entry.kind, mode, entry.size, entry.target, entry.rdev, xattrs, content)
    return found


@given(forks())
def test_digests_are_equal_exactly_where_all_that_is_counted_is(fork: Fork):
    sides = [stack.view() for stack in fork]
    for one in sides:
        for other in sides:
            is_equal = content_digest(one, spelled) == content_digest(other, spelled)
            assert is_equal == (visible(one) == visible(other))


@given(stacks(), st.integers(0, 5))
def test_how_a_tree_is_layered_does_not_matter(stack: Stack, kept: int):
    view, below = stack.view(), View(stack.readers()[:kept])
    compacted = View([*below.layers, reader_of(rows_between(below, view))])
    assert content_digest(view, spelled) == content_digest(compacted, spelled)


@given(stacks())
def test_a_random_tree_is_hashed_as_it_is_documented(stack: Stack):
    assert content_digest(stack.view(), spelled) == documented(stack)


def documented(stack: Stack) -> str:
    """The digest by the words of contents.py, from a mapping of paths."""
    parts = [b"volume content 1\n"]

    def add(path: bytes) -> None:
        entry = stack.tree[path].entry
        mode = 0 if entry.kind is Kind.SYMLINK else entry.mode
        xattrs = [pair for pair in entry.xattrs if pair[0].startswith(b"user.")]
        parts.append(struct.pack("<BHI", entry.kind, mode, len(path)) + path + struct.pack("<I", len(xattrs)))
        parts.extend(struct.pack("<I", len(text)) + text for pair in xattrs for text in pair)
        if entry.kind is Kind.FILE:
            parts.append(struct.pack("<Q", entry.size))
            if entry.size:  # one cell, for no file of a random stack is larger
                parts.append(struct.pack("<Q", 1) + one_cell(entry))
        elif entry.kind is Kind.SYMLINK:
            parts.append(struct.pack("<I", len(entry.target)) + entry.target)
        elif entry.kind in (Kind.CHAR, Kind.BLOCK):
            parts.append(struct.pack("<Q", entry.rdev))
        for child in stack.children(path):
            add(child)

    add(b"")
    return digest(b"".join(parts)).hex()


def one_cell(entry: Entry) -> bytes:
    first = entry.content[0]
    if len(entry.content) == 1:
        return first.chunk.digest if first.chunk else digest(bytes(entry.size))
    return digest(spelled(entry.content))


TREE = {
    b"": Entry(Kind.DIRECTORY, 0o750),
    b"d": Entry(Kind.DIRECTORY, 0o755),
    b"d/empty": file(),
    b"d/f": file(b"text", uid=3, gid=4, mtime_ns=5),
    b"d/hole": file(1 << 62),
    b"d/x": file(b"x", xattrs=((b"security.selinux", b"here"), (b"user.a", b"1"))),
    b"l": Entry(Kind.SYMLINK, 0o777, target=b"\xff"),
    b"p": Entry(Kind.FIFO, 0o600),
    b"z": Entry(Kind.BLOCK, 0o600, rdev=1793),
}


def test_the_digests_of_this_release_are_those_of_every_other():
    """DO NOT CHANGE these: engines' caches hold digests."""
    assert digest_of_tree() == EMPTY_DIGEST
    assert digest_of_tree(TREE) == TREE_DIGEST


EMPTY_DIGEST = "3ee48f0d4d47e84bb68ec968b01a4cb28bbf37144b22c3dbb054216b2004219f"
TREE_DIGEST = "fafac68e01eb1d65f592eade5291d6af255ce1659824a408a500ad5a8e09217a"

CHANGES = {
    "the root's mode": {b"": Entry(Kind.DIRECTORY, 0o700)},
    "a directory's mode": {b"d": Entry(Kind.DIRECTORY, 0o700)},
    "a byte": {b"d/f": file(b"tex.")},
    "a byte more": {b"d/f": file(b"text.")},
    "a file's mode": {b"d/f": file(b"text")._replace(mode=0o744)},
    "set-user-id": {b"d/f": file(b"text")._replace(mode=0o4644)},
    "the length of a hole": {b"d/hole": file((1 << 62) + 1)},
    "an attribute": {b"d/x": file(b"x", xattrs=((b"user.a", b"2"),))},
    "an attribute's name": {b"d/x": file(b"x", xattrs=((b"user.b", b"1"),))},
    "no attribute": {b"d/x": file(b"x")},
    "an attribute of a directory": {b"d": Entry(Kind.DIRECTORY, 0o755, xattrs=((b"user.a", b"1"),))},
    "a symlink's target": {b"l": Entry(Kind.SYMLINK, 0o777, target=b"\xfe")},
    "a kind": {b"p": Entry(Kind.SYMLINK, 0o600)},
    "a device's number": {b"z": Entry(Kind.BLOCK, 0o600, rdev=1792)},
    "a device's kind": {b"z": Entry(Kind.CHAR, 0o600, rdev=1793)},
    "a path more": {b"d/n": file()},
    "a path less": {b"d/f": Entry(Kind.WHITEOUT)},
    "an empty directory": {b"n": Entry(Kind.DIRECTORY, 0o755)},
    "all below a directory": {b"d": Entry(Kind.OPAQUE, 0o755)},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_what_a_program_sees_changes_the_digest(change: dict[bytes, Entry]):
    assert digest_of_tree(TREE, change) != digest_of_tree(TREE)


UNSEEN = {
    "owner": {b"d/f": file(b"text", uid=9, gid=9)},
    "time": {b"d/f": file(b"text", mtime_ns=9)},
    "a directory's time": {b"d": Entry(Kind.DIRECTORY, 0o755, mtime_ns=9)},
    "another pack": {b"d/f": file(Extent(4, chunk(b"text", b"other")))},
    "an attribute of the machine": {b"d/x": file(b"x", xattrs=((b"trusted.t", b""), (b"user.a", b"1")))},
    "a symlink's mode": {b"l": Entry(Kind.SYMLINK, 0o755, target=b"\xff")},
    "a hard link instead of a copy": {b"d/f": file(b"text", hardlink=7), b"d/g": file(b"text", hardlink=7)},
}


@pytest.mark.parametrize("change", UNSEEN.values(), ids=UNSEEN.keys())
def test_what_a_program_does_not_see_does_not(change: dict[bytes, Entry]):
    copies = {path: entry._replace(hardlink=0) for path, entry in change.items() if path not in TREE}
    assert digest_of_tree(TREE, change) == digest_of_tree(TREE, copies)


def test_the_directory_that_a_file_lies_in_matters():
    a, b = Entry(Kind.DIRECTORY, 0o755), Entry(Kind.DIRECTORY, 0o755)
    assert digest_of_tree({b"a": a, b"b": b, b"a/f": file()}) != digest_of_tree({b"a": a, b"b": b, b"b/f": file()})


# Contents that are equal, whatever is stored: (one way, another, the chunks that have to be read).
CELL = b"c" * CHUNK_BYTES
ZEROS = bytes(CHUNK_BYTES)
SAME_BYTES = {
    "a hole, or stored zeros": ([900], [bytes(900)], 0),
    "a cell that is a hole, or stored zeros": ([CELL, CHUNK_BYTES, b"end"], [CELL, ZEROS, b"end"], 0),
    "holes of many cells": ([3 * CHUNK_BYTES + 5], [ZEROS, CHUNK_BYTES, ZEROS, bytes(5)], 0),
    "holes end to end": ([CHUNK_BYTES + 5, CHUNK_BYTES, 7], [2 * CHUNK_BYTES + 12], 0),
    "a hole behind data": ([b"data", 5], [b"data" + bytes(5)], 1),
    "a hole before data": ([5, b"data"], [bytes(5) + b"data"], 1),
    "a hole across cells": (
        [b"data", 2 * CHUNK_BYTES, b"data"],
        [b"data" + bytes(CHUNK_BYTES - 4), ZEROS, bytes(4) + b"data"],
        2,
    ),
    "chunks that are no cells": ([CELL[:5], CELL[5:], b"e", b"nd"], [CELL, b"end"], 2),
    "a part of a chunk": ([Extent(2, chunk(b"text"), 1)], [b"ex"], 1),
}


@pytest.mark.parametrize(("one", "other", "reads"), SAME_BYTES.values(), ids=SAME_BYTES.keys())
def test_equal_bytes_count_as_equal_however_they_are_stored(one: list, other: list, reads: int):
    read = Bytes(CELL, CELL[:5], CELL[5:], b"e", b"nd", b"data", b"text")
    found = digest_of_tree({b"f": file(*one)}, read=read)
    assert len(read.asked) == reads
    assert found == digest_of_tree({b"f": file(*other)})
    assert all(sum(extent.length for extent in extents) <= CHUNK_BYTES for extents in read.asked)


def test_what_reading_fails_with_is_passed_on():
    def fail(_extents):
        raise StorageError("gone", transient=True)

    with pytest.raises(StorageError, match="gone"):
        digest_of_tree({b"f": file(b"data", 5)}, read=fail)


def test_an_order_of_names_that_is_not_that_of_paths():
    """`a-` sorts before `a/x` as a path, and behind `a` as a name."""
    tree = {b"a": Entry(Kind.DIRECTORY, 0o755), b"a/x": file(b"1"), b"a-": file(b"2")}
    shown = {b"": Entry(Kind.DIRECTORY, 0o755), **tree}
    stack = Stack(tree={path: Shown(entry, None) for path, entry in shown.items()})
    assert digest_of_tree(tree) == documented(stack)

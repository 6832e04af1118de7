"""Every opcode's answer, asked without a kernel, from real layers."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

import pytest
from server_kit import write_index

from volume_core.errors import CorruptObjectError
from volume_core.format.entries import WHITEOUT, ChunkRef, Entry, Extent, Kind
from volume_core.mount import protocol as fuse
from volume_core.mount.recent import Recent
from volume_core.mount.requests import Fetch, Interrupt, Refused, Requests, Totals
from volume_core.parts.indexes import open_view

DIRECTORY = Entry(Kind.DIRECTORY, 0o755)


def chunk(number: int, length: int) -> ChunkRef:
    return ChunkRef(number.to_bytes(32), b"p" * 32, 32, length, length)


def file(size: int = 0, number: int = 1, **more: object) -> Entry:
    content = (Extent(size, chunk(number, size)),) if size else ()
    return Entry(Kind.FILE, 0o644, size=size, content=content, **more)


def request(opcode: int, body: bytes = b"") -> tuple[bytearray, int]:
    data = bytearray(40) + body
    return data, len(data)


class Asked:
    """Requests about the layers that *stacks* describe, oldest first."""

    def __init__(self, home: Path, *stacks: dict[bytes, Entry], local: bytes | None = None) -> None:
        self.read: list[tuple[tuple[Extent, ...], int, int]] = []
        self.touched: list[bytes] = []
        self.local = local
        self.layers = [write_index(home, {b"": DIRECTORY, **rows}) for rows in stacks]
        self.requests = self.again()

    def again(self) -> Requests:
        """What another server of the same stack would be."""
        return Requests(
            open_view(self.layers), Totals(10_000, 12), self.read_local, lambda node: self.touched.append(node.path)
        )

    def read_local(self, extents: tuple[Extent, ...], offset: int, size: int) -> bytes | None:
        self.read.append((extents, offset, size))
        return None if self.local is None else self.local[offset : offset + size]

    def __call__(self, opcode: int, number: int = 1, body: bytes = b"", requests: Requests | None = None):
        return (requests or self.requests).handlers[opcode](number, *request(opcode, body))

    def errno(self, opcode: int, number: int = 1, body: bytes = b"") -> int:
        with pytest.raises(Refused) as refused:
            self(opcode, number, body)
        return refused.value.number

    def number(self, path: bytes) -> int:
        number = 1
        for name in path.split(b"/"):
            number = struct.unpack_from("<Q", self(fuse.LOOKUP, number, name + b"\0"))[0]
        return number

    def attributes(self, path: bytes) -> dict[str, int]:
        answer = self(fuse.GETATTR, self.number(path), bytes(16))
        names = "ino size blocks atime mtime ctime atimensec mtimensec ctimensec mode nlink uid gid rdev blksize flags"
        return dict(zip(names.split(), struct.unpack_from("<QQQqqqIIIIIIIIII", answer, 16), strict=True))

    def page(self, number: int, offset: int, size: int, requests: Requests | None = None, plus: bool = True):
        """One answer of READDIRPLUS (READDIR): [(name, ino, following, node of the entry)]."""
        opcode = fuse.READDIRPLUS if plus else fuse.READDIR
        data = self(opcode, number, struct.pack("<QQI4xQII", 0, offset, size, 0, 0, 0), requests)
        assert len(data) <= size
        found = []
        while data:
            node = struct.unpack_from("<Q", data)[0] if plus else 0
            data = data[128:] if plus else data
            ino, following, length, _ = fuse.DIRENT.unpack_from(data)
            found.append((data[24 : 24 + length], ino, following, node))
            data = data[24 + length + 7 & ~7 :] if length % 8 else data[24 + length :]
        return found

    def listing(self, number: int, size: int = 4096, fresh: bool = False, plus: bool = True):
        """All pages; *fresh* asks another server for each."""
        found, offset = [], 0
        while page := self.page(number, offset, size, self.again() if fresh else None, plus):
            found += page
            offset = page[-1][2]
        return found


@pytest.fixture
def ask(tmp_path):
    return lambda *stacks, **more: Asked(tmp_path, *stacks, **more)


def test_lookup_says_for_ever(ask):
    answer = ask({b"a": file(4097)})(fuse.LOOKUP, 1, b"a\0")
    node, generation, entry_valid, attr_valid = struct.unpack_from("<QQQQ", answer)

    assert (0, True, True) == (generation, entry_valid > 1e9, attr_valid > 1e9)
    assert node > 1


def test_a_missing_name_is_remembered_as_missing(ask):
    assert fuse.NEGATIVE_ENTRY == ask({})(fuse.LOOKUP, 1, b"no\0")


def test_lookup_of_the_dots_serves_file_handles(ask):
    asked = ask({b"d": DIRECTORY, b"d/e": DIRECTORY, b"d/e/f": file(1)})

    def node(number: int, name: bytes) -> int:
        return struct.unpack_from("<Q", asked(fuse.LOOKUP, number, name))[0]

    for path in (b"d", b"d/e", b"d/e/f"):
        assert asked.number(path) == node(asked.number(path), b".\0")
    assert asked.number(b"d") == node(asked.number(b"d/e"), b"..\0")
    assert 1 == node(asked.number(b"d"), b"..\0")
    assert 1 == node(1, b"..\0")


def test_another_server_knows_every_number(ask):
    asked = ask({b"d": DIRECTORY, b"d/f": file(9)}, {b"d/g": file(8)})
    numbers = [asked.number(path) for path in (b"d", b"d/f", b"d/g")]
    first = [asked(fuse.GETATTR, number, bytes(16)) for number in numbers]

    assert first == [asked(fuse.GETATTR, number, bytes(16), asked.again()) for number in numbers]


@pytest.mark.parametrize("number", [0, 2, 99, 1 << 40, (1 << 40) + 500, (9 << 40) + 1, (1 << 64) - 1])
def test_an_unknown_node_is_stale(ask, number):
    assert errno.ESTALE == ask({b"a": file(1)}).errno(fuse.GETATTR, number, bytes(16))


@pytest.mark.parametrize(
    ("mtime_ns", "seconds", "nanoseconds"),
    [(0, 0, 0), (1_700_000_000_123_456_789, 1_700_000_000, 123_456_789), (-1, -1, 999_999_999)],
)
def test_times_are_exact(ask, mtime_ns, seconds, nanoseconds):
    found = ask({b"a": file(mtime_ns=mtime_ns)}).attributes(b"a")

    assert (seconds, nanoseconds) == (found["mtime"], found["mtimensec"])


@pytest.mark.parametrize(
    ("expected", "entry"),
    [
        ({"mode": 0o104755, "size": 0, "blocks": 0, "nlink": 1}, file()._replace(mode=0o4755)),
        ({"mode": 0o100644, "size": 4097, "blocks": 9, "uid": 7, "gid": 8}, file(4097, uid=7, gid=8)),
        ({"mode": 0o041777, "nlink": 1, "size": 4096}, Entry(Kind.DIRECTORY, 0o1777)),
        ({"mode": 0o120777, "size": 5, "blocks": 0}, Entry(Kind.SYMLINK, 0o777, target=b"a/b/c")),
        ({"mode": 0o010600, "size": 0}, Entry(Kind.FIFO, 0o600)),
        ({"mode": 0o020600, "rdev": 0x12345}, Entry(Kind.CHAR, 0o600, rdev=0x12345)),
        ({"mode": 0o060600, "rdev": 0x801}, Entry(Kind.BLOCK, 0o600, rdev=0x801)),
    ],
)
def test_attributes(ask, expected, entry):
    found = ask({b"a": entry}).attributes(b"a")

    assert expected == {key: found[key] for key in expected}


def test_holes_take_no_blocks(ask):
    content = (Extent(1 << 20, None), Extent(4096, chunk(1, 4096)), Extent(1 << 20, None))
    size = (2 << 20) + 4096
    asked = ask(
        {
            b"some": Entry(Kind.FILE, size=size, content=content),
            b"all": Entry(Kind.FILE, size=9, content=(Extent(9, None),)),
        }
    )

    assert (size, 8) == (asked.attributes(b"some")["size"], asked.attributes(b"some")["blocks"])
    assert (9, 0) == (asked.attributes(b"all")["size"], asked.attributes(b"all")["blocks"])


def test_names_of_one_file_share_a_node(ask):
    linked = file(3, hardlink=5)
    asked = ask({b"a": linked, b"b": linked, b"d": DIRECTORY, b"d/c": linked}, {b"b": WHITEOUT})

    assert asked.number(b"a") == asked.number(b"d/c")
    assert 2 == asked.attributes(b"a")["nlink"]


def test_readlink(ask):
    target = b"x" * 4095
    asked = ask({b"a": Entry(Kind.SYMLINK, 0o777, target=target), b"f": file()})

    assert target == asked(fuse.READLINK, asked.number(b"a"))
    assert errno.EINVAL == asked.errno(fuse.READLINK, asked.number(b"f"))


# Directories.


def names_of(listing) -> list[bytes]:
    return [name for name, *_ in listing]


NAMES = [b"%04d" % number for number in range(150)] + [b"\xff" * 255, b"n" * 255, b"with space"]


@pytest.mark.parametrize("plus", [True, False])
@pytest.mark.parametrize("fresh", [False, True])
def test_a_listing_is_whole_however_it_is_asked_for(ask, plus, fresh):
    asked = ask({name: file(1) for name in NAMES})

    found = asked.listing(1, 1024, fresh, plus)

    assert [b".", b"..", *sorted(NAMES)] == names_of(found)
    assert len(found) == len({following for _, _, following, _ in found})


@pytest.mark.parametrize("fresh", [False, True])
def test_a_listing_of_several_layers_is_what_they_show(ask, fresh):
    old = {b"d": DIRECTORY, **{b"d/%03d" % n: file(1) for n in range(0, 300, 2)}}
    new = {**{b"d/%03d" % n: file(2) for n in range(0, 300, 3)}, **{b"d/%03d" % n: WHITEOUT for n in range(0, 300, 10)}}
    asked = ask(old, new)
    shown = sorted(b"%03d" % n for n in range(300) if (n % 2 == 0 or n % 3 == 0) and n % 10)

    found = asked.listing(asked.number(b"d"), 2048, fresh)

    assert [b".", b"..", *shown] == names_of(found)
    assert all(asked.number(b"d/" + name) == ino for name, ino, _, _ in found[2:])


def test_the_dots_have_the_right_numbers_and_no_node(ask):
    asked = ask({b"d": DIRECTORY, b"d/e": DIRECTORY})
    d, e = asked.number(b"d"), asked.number(b"d/e")

    assert [(b".", e, 1, 0), (b"..", d, 2, 0)] == asked.listing(e)
    assert [(b".", 1, 1, 0), (b"..", 1, 2, 0)] == asked.listing(1)[:2]


def test_two_readers_of_one_directory_do_not_disturb_each_other(ask):
    asked = ask({name: file(1) for name in NAMES})
    first = asked.page(1, 0, 1024)
    second = asked.page(1, 0, 1024)

    assert first == second
    assert asked.page(1, first[-1][2], 1024) == asked.page(1, second[-1][2], 1024)


def test_the_next_page_can_be_ready_before_it_is_asked_for(ask):
    asked = ask({name: file(1) for name in NAMES}, {b"%04d" % number: WHITEOUT for number in range(0, 150, 7)})
    expected, found, offset, prepared = asked.listing(1, 1024, fresh=True), [], 0, []
    while page := asked.page(1, offset, 1024):
        found += page
        offset = page[-1][2]
        asked.requests.prepare(lambda: True)
        asked.requests.prepare(lambda: True)  # one page and no more
        prepared.append(len(asked.requests._prepared))

    assert expected == found
    assert [1] * (len(prepared) - 1) + [0] == prepared


def test_nothing_is_prepared_while_somebody_waits(ask):
    asked = ask({name: file(1) for name in NAMES})
    asked.page(1, 0, 1024)
    asked.requests.prepare(lambda: False)

    assert {} == asked.requests._prepared
    asked.requests.prepare(lambda: True)
    assert 1 == len(asked.requests._prepared)


def test_a_page_that_cannot_be_prepared_is_an_error_when_it_is_asked_for(ask, monkeypatch):
    asked = ask({name: file(1) for name in NAMES})
    offset = asked.page(1, 0, 1024)[-1][2]

    def broken(*_):
        raise CorruptObjectError("its index cannot be read")

    monkeypatch.setattr(asked.requests, "_resume", broken)
    asked.requests.prepare(lambda: True)
    assert {} == asked.requests._prepared
    with pytest.raises(CorruptObjectError):
        asked.page(1, offset, 1024)


def test_pages_that_nobody_asks_for_are_forgotten(ask):
    directories = {b"d%02d" % n: DIRECTORY for n in range(20)}
    asked = ask(directories | {b"%s/%03d" % (d, n): file(1) for d in directories for n in range(40)})
    for name in directories:
        asked.page(asked.number(name), 0, 2048)
        asked.requests.prepare(lambda: True)

    assert 4 == len(asked.requests._prepared)


def test_a_listing_can_be_continued_at_any_entry(ask):
    asked = ask({name: file(1) for name in NAMES})
    found = asked.listing(1)

    for place in (0, 1, 5, 70, len(found) - 1):
        assert found[place + 1 : place + 3] == asked.page(1, found[place][2], 4096)[:2]


def test_abandoned_listings_are_forgotten(ask):
    directories = {b"d%02d" % n: DIRECTORY for n in range(40)}
    asked = ask(directories | {b"%s/%03d" % (d, n): file(1) for d in directories for n in range(40)})
    for name in directories:
        asked.page(asked.number(name), 0, 2048)

    assert len(asked.requests._listings) <= 16
    assert 42 == len(asked.listing(asked.number(b"d00"), 2048))


@pytest.mark.parametrize("offset", [(1 << 40) + 999, (7 << 40) + 1, (1 << 63) - 1])
def test_an_offset_that_nobody_gave_is_refused(ask, offset):
    body = struct.pack("<QQI20x", 0, offset, 4096)

    assert errno.EINVAL == ask({b"a": file(1)}).errno(fuse.READDIRPLUS, 1, body)


def test_a_file_has_no_listing_and_no_names(ask):
    asked = ask({b"a": file(1)})

    assert errno.ENOTDIR == asked.errno(fuse.READDIRPLUS, asked.number(b"a"), bytes(40))
    assert errno.ENOTDIR == asked.errno(fuse.LOOKUP, asked.number(b"a"), b"x\0")


# Bytes.


def read_body(offset: int, size: int) -> bytes:
    return struct.pack("<QQIIQII", 0, offset, size, 0, 0, 0, 0)


def test_read_gives_what_is_here(ask):
    asked = ask({b"a": file(5)}, local=b"hello")
    number = asked.number(b"a")

    assert b"hello" == asked(fuse.READ, number, read_body(0, 4096))
    assert b"lo" == asked(fuse.READ, number, read_body(3, 4096))
    assert b"" == asked(fuse.READ, number, read_body(5, 4096))
    assert b"" == asked(fuse.READ, number, read_body(1 << 40, 4096))
    assert [b"a"] == asked.touched  # only the beginning of a file counts as touching it


def test_what_is_not_here_is_for_another_thread(ask):
    asked = ask({b"d": DIRECTORY, b"d/a": file(5000)})

    assert Fetch((Extent(5000, chunk(1, 5000)),), 4096, 904, b"d/a") == asked(
        fuse.READ, asked.number(b"d/a"), read_body(4096, 4096)
    )


def test_an_empty_file_is_never_asked_for(ask):
    asked = ask({b"a": file()})

    assert b"" == asked(fuse.READ, asked.number(b"a"), read_body(0, 4096))
    assert [] == asked.read


def test_directories_and_fifos_are_not_read(ask):
    asked = ask({b"d": DIRECTORY, b"p": Entry(Kind.FIFO, 0o600)})

    assert errno.EISDIR == asked.errno(fuse.READ, asked.number(b"d"), read_body(0, 10))
    assert errno.EINVAL == asked.errno(fuse.READ, asked.number(b"p"), read_body(0, 10))


@pytest.mark.parametrize(
    ("whence", "offset", "expected"),
    [
        (os.SEEK_DATA, 0, 100),
        (os.SEEK_DATA, 150, 150),
        (os.SEEK_DATA, 200, errno.ENXIO),
        (os.SEEK_HOLE, 0, 0),
        (os.SEEK_HOLE, 100, 200),
        (os.SEEK_HOLE, 299, 299),
        (os.SEEK_HOLE, 300, errno.ENXIO),
        (os.SEEK_SET, 0, errno.EINVAL),
    ],
)
def test_holes_are_found(ask, whence, offset, expected):
    content = (Extent(100, None), Extent(50, chunk(1, 100)), Extent(50, chunk(1, 100), 50), Extent(100, None))
    asked = ask({b"a": Entry(Kind.FILE, size=300, content=content)})
    number, body = asked.number(b"a"), struct.pack("<QQII", 0, offset, whence, 0)

    if expected in (errno.ENXIO, errno.EINVAL):
        assert expected == asked.errno(fuse.LSEEK, number, body)
    else:
        assert expected == struct.unpack("<Q", asked(fuse.LSEEK, number, body))[0]


def test_a_file_without_holes_ends_in_one(ask):
    asked = ask({b"a": file(10)})

    assert (
        10 == struct.unpack("<Q", asked(fuse.LSEEK, asked.number(b"a"), struct.pack("<QQII", 0, 3, os.SEEK_HOLE, 0)))[0]
    )


# Extended attributes.

XATTRS = ((b"user.a", b"1" * 100), (b"user.empty", b""))


def xattr_body(size: int, name: bytes = b"") -> bytes:
    return struct.pack("<II", size, 0) + (name + b"\0" if name else b"")


def test_xattrs(ask):
    asked = ask({b"a": file()._replace(xattrs=XATTRS), b"b": file()})
    a, b = asked.number(b"a"), asked.number(b"b")

    assert b"1" * 100 == asked(fuse.GETXATTR, a, xattr_body(100, b"user.a"))
    assert 100 == struct.unpack("<II", asked(fuse.GETXATTR, a, xattr_body(0, b"user.a")))[0]
    assert b"" == asked(fuse.GETXATTR, a, xattr_body(1, b"user.empty"))
    assert errno.ERANGE == asked.errno(fuse.GETXATTR, a, xattr_body(99, b"user.a"))
    assert errno.ENODATA == asked.errno(fuse.GETXATTR, a, xattr_body(99, b"user.b"))
    assert errno.ENODATA == asked.errno(fuse.GETXATTR, b, xattr_body(99, b"user.a"))
    assert b"user.a\0user.empty\0" == asked(fuse.LISTXATTR, a, xattr_body(100))
    assert errno.ERANGE == asked.errno(fuse.LISTXATTR, a, xattr_body(17))
    assert 18 == struct.unpack("<II", asked(fuse.LISTXATTR, a, xattr_body(0)))[0]
    assert 0 == struct.unpack("<II", asked(fuse.LISTXATTR, b, xattr_body(0)))[0]


def test_where_nothing_has_xattrs_the_kernel_is_told_not_to_ask(ask):
    asked = ask({b"a": file()}, {b"b": file()})

    assert errno.ENOSYS == asked.errno(fuse.GETXATTR, asked.number(b"a"), xattr_body(99, b"security.capability"))


# The rest.


def test_statfs_is_full(ask):
    found = fuse.STATFS_OUT.unpack(ask({})(fuse.STATFS))

    assert (3, 0, 0, 12, 0, 4096, 255, 4096) == found


@pytest.mark.parametrize("opcode", fuse.CHANGING)
def test_nothing_can_be_changed(ask, opcode):
    assert errno.EROFS == ask({}).errno(opcode, 1, bytes(200))


def test_opening_needs_no_answer_but_for_writing_is_refused(ask):
    asked = ask({})

    assert errno.ENOSYS == asked.errno(fuse.OPEN, 1, struct.pack("<II", os.O_RDONLY, 0))
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDWR | os.O_TRUNC):
        assert errno.EROFS == asked.errno(fuse.OPEN, 1, struct.pack("<II", flags, 0))


@pytest.mark.parametrize("opcode", [fuse.OPENDIR, fuse.FLUSH, fuse.FSYNC, fuse.ACCESS, fuse.STATX, 0, 63])
def test_what_the_kernel_can_do_without_is_not_known(ask, opcode):
    assert errno.ENOSYS == ask({}).errno(opcode, 1, bytes(100))


def test_ioctls_are_for_terminals(ask):
    assert errno.ENOTTY == ask({}).errno(fuse.IOCTL, 1, bytes(100))


def test_some_requests_get_no_answer(ask):
    asked = ask({})

    assert asked(fuse.FORGET, 1, bytes(8)) is None
    assert asked(fuse.BATCH_FORGET, 0, bytes(24)) is None
    assert Interrupt(42) == asked(fuse.INTERRUPT, 0, struct.pack("<Q", 42))


def test_a_kernel_that_lacks_what_we_need_is_refused(ask):
    asked = ask({})
    flags = fuse.REQUIRED & ~(1 << 17)

    assert errno.EPROTO == asked.errno(fuse.INIT, 0, struct.pack("<IIIII44x", 7, 41, 0, flags, 0))
    assert errno.EPROTO == asked.errno(fuse.INIT, 0, struct.pack("<IIIII44x", 7, 27, 0, fuse.REQUIRED, 0))
    assert errno.EPROTO == asked.errno(fuse.INIT, 0, struct.pack("<IIIII44x", 8, 41, 0, fuse.REQUIRED, 0))
    assert 64 == len(asked(fuse.INIT, 0, struct.pack("<IIIII44x", 7, 41, 0, fuse.REQUIRED, 0)))


def test_an_empty_stack_shows_an_empty_root(tmp_path):
    requests = Requests(open_view([]), Totals(0, 0), lambda *_: None)
    asked = Asked(tmp_path, {})

    assert [b".", b".."] == names_of(asked.page(1, 0, 4096, requests))
    assert struct.unpack_from("<Q", requests.handlers[fuse.STATFS](1, *request(fuse.STATFS)))[0] > 0


# The bounded memory behind it.


def test_recent_keeps_what_was_used_and_forgets_the_rest():
    recent: Recent[int, str] = Recent(4)
    for number in range(100):
        recent.put(number, str(number))
        recent.get(0)

    assert "0" == recent.get(0)
    assert [number for number in range(100) if recent.get(number)][-1] == 99
    assert sum(recent.get(number) is not None for number in range(100)) <= 8


def test_recent_counts_weights():
    recent: Recent[int, bytes] = Recent(10, len)
    for number in range(100):
        recent.put(number, bytes(5))

    assert sum(recent.get(number) is not None for number in range(100)) <= 4

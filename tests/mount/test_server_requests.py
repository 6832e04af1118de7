"""Every opcode's answer, asked without a kernel, from real layers."""

from __future__ import annotations

import errno
import os
import struct

import pytest
from server_asking import DIRECTORY, Asked, chunk, file, names_of, request
from server_kit import write_index

from volume_core.format.entries import WHITEOUT, Entry, Extent, Kind
from volume_core.mount import protocol as fuse
from volume_core.mount.recent import Recent
from volume_core.mount.requests import Fetch, Interrupt, Requests, Totals
from volume_core.parts.indexes import open_view


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


@pytest.mark.parametrize(("acls", "xattrs", "expected"), [(1, 1, True), (1, 0, False), (0, 1, False)])
def test_access_lists_are_checked_where_there_may_be_some(tmp_path, acls, xattrs, expected):
    index = write_index(tmp_path, {b"": DIRECTORY, b"a": file()._replace(xattrs=XATTRS if xattrs else ())})
    requests = Requests(open_view([index]), Totals(0, 0), lambda *_: None, acls=bool(acls))
    body = struct.pack("<IIIII44x", 7, 41, 0, 0xFFFFFFFF, 0)

    found = struct.unpack_from("<I", requests.handlers[fuse.INIT](0, *request(fuse.INIT, body)), 12)[0]

    assert expected == bool(found & fuse.POSIX_ACL)


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

"""The layouts of the kernel's protocol, against the C structures' sizes and against bytes written by hand."""

from __future__ import annotations

import struct

import pytest

from volume_core.errors import BusyError, CorruptObjectError, NotFoundError, ReadOnlyError, StorageError, VolumeError
from volume_core.mount import protocol as fuse
from volume_core.mount.errnos import ERRNO, errno_of


def init_request(minor: int = 41, flags: int = (1 << 64) - 1) -> bytes:
    body = struct.pack("<IIIII44x", 7, minor, 131072, flags & 0xFFFFFFFF, flags >> 32)
    return struct.pack("<IIQQIIIHH", 40 + len(body), fuse.INIT, 2, 0, 0, 0, 0, 0, 0) + body


@pytest.mark.parametrize(
    ("size", "layout"),
    [
        (40, fuse.IN_HEADER),
        (16, fuse.OUT_HEADER),
        (104, fuse.ATTR_OUT),
        (128, fuse.ENTRY_OUT),
        (24, fuse.DIRENT),
        (152, fuse.DIRENTPLUS),
        (80, fuse.STATFS_OUT),
        (8, fuse.XATTR_IN),
        (8, fuse.XATTR_OUT),
        (24, fuse.LSEEK_IN),
        (8, fuse.LSEEK_OUT),
        (8, fuse.OPEN_IN),
    ],
)
def test_every_layout_is_as_long_as_the_structure(size, layout):
    assert size == layout.size


def test_a_request_header_gives_opcode_unique_and_node():
    request = struct.pack("<IIQQIIIHH", 64, 15, 77, 1 << 41, 1000, 1000, 4242, 0, 0)

    assert (15, 77, 1 << 41) == fuse.IN_HEADER.unpack(request)


def test_init_takes_what_it_wants_and_no_more():
    answer = fuse.init_answer(fuse.init_flags(init_request())[2])
    major, minor, readahead, low = struct.unpack_from("<IIII", answer)
    high = struct.unpack_from("<I", answer, 32)[0]

    assert (7, 40, 8 << 20) == (major, minor, readahead)
    assert 64 == len(answer)
    assert low & (1 << 17) and low & (1 << 24)  # no OPEN, no OPENDIR
    assert not low & (1 << 12)  # AUTO_INVAL_DATA would ask for attributes at each read
    assert not low & (1 << 16)  # WRITEBACK_CACHE
    assert high == 1 << 7  # RESEND


def test_init_offers_nothing_that_the_kernel_did_not():
    offered = fuse.REQUIRED | 1
    answer = fuse.init_answer(fuse.init_flags(init_request(31, offered))[2])

    assert offered == struct.unpack_from("<I", answer, 12)[0]
    assert 0 == struct.unpack_from("<I", answer, 32)[0]


def test_a_kernel_without_init_ext_has_no_high_flags():
    request = init_request(34, fuse.REQUIRED)[:56]  # what kernels before 5.17 send

    assert (7, 34, fuse.REQUIRED) == fuse.init_flags(request)


@pytest.mark.parametrize("length", [1, 7, 8, 9, 255])
def test_directory_entries_are_padded_to_eight_bytes(length):
    name = b"n" * length
    record = fuse.directory_entry(5, 99, 0o100644, name)

    assert 0 == len(record) % 8
    assert (5, 99, length, 8) == fuse.DIRENT.unpack_from(record)
    assert name == record[24 : 24 + length]
    assert not record[24 + length :].strip(b"\0")


def test_an_entry_without_attributes_names_no_node():
    record = fuse.directory_entry_unknown(5, 1, 0o040000, b".")

    assert bytes(128) == record[:128]
    assert fuse.directory_entry(5, 1, 0o040000, b".") == record[128:]


def test_a_store_message_says_how_long_it_is():
    header = fuse.store_header(9, 0, 4096)

    assert (40 + 4096, 4, 0, 9, 0, 4096) == struct.unpack("<IiQQQI4x", header)


def test_a_negative_entry_is_node_zero_for_ever():
    node, _, valid = struct.unpack_from("<QQQ", fuse.NEGATIVE_ENTRY)

    assert 0 == node
    assert valid >= 86400 * 365


def test_every_error_of_ours_has_an_errno():
    def kinds(of: type[VolumeError]) -> set[type[VolumeError]]:
        return {of}.union(*map(kinds, of.__subclasses__()))

    ours = {kind for kind in kinds(VolumeError) if kind.__module__ == "volume_core.errors"}

    assert ours == set(ERRNO)


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (5, CorruptObjectError("pack")),
        (5, StorageError("no answer", transient=True)),
        (2, NotFoundError("gone")),
        (30, ReadOnlyError("no")),
        (16, BusyError("busy")),
        (28, OSError(28, "full")),
        (5, ZeroDivisionError()),
    ],
)
def test_errno_of(number, error):
    assert number == errno_of(error)

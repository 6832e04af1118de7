"""The judge must be harder to please than any test that relies on it: it notices every single difference."""

import os
import stat

import pytest

from volume_core.testing.oracle import assert_same_tree, data_segments, describe, differences

MTIME_NS = 1_700_000_000_123_456_789


def make(root):
    """Make a tree that holds one of everything a user may make; equal at each call."""
    (root / "dir" / "empty").mkdir(parents=True)
    (root / "file").write_bytes(b"content")
    (root / "script").write_bytes(b"#!/bin/sh\n")
    os.chmod(root / "script", 0o755)
    os.link(root / "file", root / "dir" / "second name")
    (root / "alone").write_bytes(b"content")
    os.symlink("nowhere", root / "link")
    os.mkfifo(root / "fifo", 0o640)
    os.close(os.open(os.fsencode(root) + b"/\xff\xfe", os.O_CREAT | os.O_WRONLY, 0o600))
    with open(root / "sparse", "wb") as file:
        file.truncate(1 << 20)
        file.seek(512 << 10)
        file.write(b"x")
    os.setxattr(root / "file", "user.colour", b"red")
    os.setxattr(root / "dir", "user.empty", b"")
    stamp(root)
    return root


def stamp(root):
    for directory, names, files in os.walk(os.fsencode(root), topdown=False):
        for name in names + files:
            os.utime(os.path.join(directory, name), ns=(0, MTIME_NS), follow_symlinks=False)
    os.utime(root, ns=(0, MTIME_NS))


@pytest.fixture
def pair(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    return make(tmp_path / "a"), make(tmp_path / "b")


def test_two_trees_made_alike_are_the_same(pair):
    assert_same_tree(*pair)

    assert describe(pair[0]) == describe(pair[1])


def remake(path, data):
    path.unlink()
    path.write_bytes(data)


def swap_kind(path):
    path.unlink()
    path.mkdir()


def fill_hole(root):
    with open(root / "sparse", "r+b") as file:
        file.write(bytes(4096))


def dig_hole(root):
    with open(root / "sparse", "r+b") as file:
        file.truncate(0)
        file.truncate(1 << 20)
        file.seek((512 << 10) + 4096)
        file.write(b"x")


def change_one_byte_only(root):
    with open(root / "sparse", "r+b") as file:
        file.seek(512 << 10)
        file.write(b"y")


def break_link(root):
    remake(root / "dir" / "second name", b"content")
    os.setxattr(root / "dir" / "second name", "user.colour", b"red")


def retarget(root):
    (root / "link").unlink()
    os.symlink("elsewhere", root / "link")


CHANGES = {
    "mode": ("mode", lambda r: os.chmod(r / "script", 0o754)),
    "mode of a directory": ("mode", lambda r: os.chmod(r / "dir", 0o700)),
    "mode of the root": ("mode", lambda r: os.chmod(r, 0o711)),
    "setuid bit": ("mode", lambda r: os.chmod(r / "script", 0o4755)),
    "mtime by one nanosecond": ("mtime_ns", lambda r: os.utime(r / "file", ns=(0, MTIME_NS + 1))),
    "mtime of a directory": ("mtime_ns", lambda r: os.utime(r / "dir" / "empty", ns=(0, MTIME_NS - 1))),
    "mtime of a symlink": ("mtime_ns", lambda r: os.utime(r / "link", ns=(0, 1), follow_symlinks=False)),
    "mtime of the root": ("mtime_ns", lambda r: os.utime(r, ns=(0, 1))),
    "xattr value": ("xattrs", lambda r: os.setxattr(r / "file", "user.colour", b"blue")),
    "xattr more": ("xattrs", lambda r: os.setxattr(r / "alone", "user.more", b"")),
    "xattr of a directory gone": ("xattrs", lambda r: os.removexattr(r / "dir", "user.empty")),
    "content of the same length": ("digest", lambda r: remake(r / "alone", b"CONTENT")),
    "content behind a hole": ("digest", change_one_byte_only),
    "size": ("size", lambda r: os.truncate(r / "sparse", (1 << 20) + 1)),
    "a hole filled with zeros": ("data", fill_hole),
    "a hole moved": ("data", dig_hole),
    "hard link broken": ("links", break_link),
    "hard link more": ("links", lambda r: (os.unlink(r / "alone"), os.link(r / "file", r / "alone"))),
    "symlink target": ("target", retarget),
    "kind": ("kind", lambda r: swap_kind(r / "alone")),
    "a path missing": ("missing", lambda r: (r / "fifo").unlink()),
    "a path more": ("not expected", lambda r: os.mkfifo(r / "dir" / "more")),
    "a name in another spelling": (
        "missing",
        lambda r: os.rename(os.fsencode(r) + b"/\xff\xfe", os.fsencode(r) + b"/\xff\xff"),
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_it_notices(pair, name):
    field, change = CHANGES[name]
    good, other = pair
    change(other)
    if "mtime" not in name:
        stamp(other)  # so that the difference under test is the only one

    found = differences(describe(good), describe(other))

    assert any(f": {field}" in line for line in found), found
    with pytest.raises(AssertionError, match="the trees differ"):
        assert_same_tree(good, other)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away and make devices")
@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("uid", lambda r: os.chown(r / "file", 1234, -1)),
        ("gid", lambda r: os.chown(r / "dir", -1, 1234)),
        ("uid", lambda r: os.lchown(r / "link", 1234, -1)),
        ("rdev", lambda r: (os.unlink(r / "dev"), os.mknod(r / "dev", stat.S_IFCHR | 0o600, os.makedev(1, 5)))),
    ],
)
def test_it_notices_owners_and_devices(pair, field, change):
    for root in pair:
        os.mknod(root / "dev", stat.S_IFCHR | 0o600, os.makedev(1, 3))
        stamp(root)
    assert_same_tree(*pair)

    change(pair[1])
    stamp(pair[1])

    assert any(f": {field} is" in line for line in differences(describe(pair[0]), describe(pair[1])))


def test_a_digest_does_not_depend_on_what_is_a_hole(tmp_path):
    (tmp_path / "stored").write_bytes(bytes(300_000) + b"x" + bytes(300_000))
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(600_001)
        file.seek(300_000)
        file.write(b"x")
    found = describe(tmp_path)

    assert found[b"stored"].digest == found[b"sparse"].digest
    assert found[b"stored"].data != found[b"sparse"].data


def test_segments_are_rounded_out_to_blocks_and_end_with_the_file(tmp_path):
    with open(tmp_path / "file", "w+b") as file:
        file.truncate(100_001)
        file.seek(20_000)
        file.write(b"a")
        file.seek(100_000)
        file.write(b"b")
        file.flush()

        assert ((16384, 20480), (98304, 100_001)) == data_segments(file.fileno(), 100_001)


def test_what_is_ignored_is_named_right(pair):
    with pytest.raises(ValueError, match="colour"):
        differences({}, {}, ignore={"colour"})

    os.chmod(pair[1] / "script", 0o700)
    assert_same_tree(*pair, ignore={"mode"})


def test_a_path_of_twenty_thousand_bytes_is_seen(tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY)
    for _ in range(100):
        os.mkdir("n" * 200, dir_fd=fd)
        below = os.open("n" * 200, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("end", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)

    assert b"/".join([b"n" * 200] * 100 + [b"end"]) in describe(tmp_path)

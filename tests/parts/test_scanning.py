"""A working tree is walked: real overlays' uppers, and whatever else a file system can hold."""

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from overlay_kit import beside, public_place, wait_until

from volume_core.errors import VolumeError
from volume_core.format.entries import WHITEOUT, Kind
from volume_core.parts import scanning
from volume_core.parts.dialects import KERNEL, PLAIN, USERXATTR
from volume_core.parts.scanning import DESCRIPTORS_MAX, Directories, Signature, differences, is_settled, scan
from volume_core.parts.trees import remove_tree
from volume_core.testing.users import as_nobody

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may do this")


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "tree"
    root.mkdir()
    yield root
    remove_tree(root)


# -- markers, written by hand


def test_a_whiteout_in_the_form_of_an_xattr(tree):
    (tree / "gone").touch()
    os.setxattr(tree / "gone", "user.overlay.whiteout", b"y")
    os.setxattr(tree, "user.overlay.opaque", b"x")  # holds such files; is not opaque
    (tree / "full").write_bytes(b"not empty, so none")
    os.setxattr(tree / "full", "user.overlay.whiteout", b"y")
    found = scan(tree, USERXATTR).items

    assert WHITEOUT == found[b"gone"].entry
    assert (b"", ()) == (found[b""].base, found[b""].entry.xattrs)
    assert (Kind.FILE, ()) == (found[b"full"].entry.kind, found[b"full"].entry.xattrs)


@needs_root
def test_a_whiteout_has_no_signature_but_its_kind(tree):
    os.mknod(tree / "one", stat.S_IFCHR)
    before = scan(tree, KERNEL)
    os.link(tree / "one", tree / "two")  # moves the inode's time stamps
    after = scan(tree, KERNEL)

    assert before.items[b"one"] is after.items[b"one"]
    assert {b"", b"two"} == differences(before, after)


@needs_root
def test_a_plain_directory_stands_for_itself(tree):
    for name in ("user.overlay.opaque", "trusted.overlay.opaque", "user.fuseoverlayfs.opaque"):
        os.setxattr(tree, name, b"y")
    (tree / ".wh..wh..opq").touch()
    (tree / ".wh.name").mkdir()
    os.mknod(tree / "null", stat.S_IFCHR)
    found = scan(tree, PLAIN)

    assert {b"", b".wh..wh..opq", b".wh.name"} == set(found.items)
    assert [b"null"] == found.left_out  # no layer may hold a device 0/0
    assert {None} == {item.base for item in found.items.values()}
    assert () == found.items[b""].entry.xattrs


def test_redirects_lead_to_paths_of_the_base(tree):
    for path in ("a/b/c", "opaque/in"):
        (tree / path).mkdir(parents=True)
    os.setxattr(tree / "a", "user.overlay.redirect", b"was")
    os.setxattr(tree / "a/b", "user.overlay.redirect", b"/x/y")
    os.setxattr(tree / "opaque", "user.overlay.opaque", b"y")
    os.setxattr(tree / "opaque/in", "user.overlay.redirect", b"/z")
    (tree / "a/b/file").write_bytes(b"zeros")
    os.setxattr(tree / "a/b/file", "user.overlay.metacopy", b"")
    found = scan(tree, USERXATTR).items

    bases = {path: found[path].base for path in (b"", b"a", b"a/b", b"a/b/c", b"opaque", b"opaque/in", b"a/b/file")}
    assert {
        b"": b"", b"a": b"was", b"a/b": b"x/y", b"a/b/c": b"x/y/c", b"opaque": None, b"opaque/in": b"z",
        b"a/b/file": b"x/y/file",
    } == bases  # fmt: skip
    assert found[b"a/b/file"].metacopy


# -- what a file system can hold


def test_every_kind_and_attribute(tree):
    (tree / "dir").mkdir(mode=0o2750)
    (tree / "dir/file").write_bytes(b"12345")
    os.chmod(tree / "dir/file", 0o4751)
    os.utime(tree / "dir/file", ns=(1, -1_000_000_001))
    os.setxattr(tree / "dir/file", "user.b", b"2")
    os.setxattr(tree / "dir/file", "user.a", b"1")
    os.symlink(b"\xff/nowhere", os.fsencode(tree) + b"/link")
    os.mkfifo(tree / "fifo")
    status = os.stat(tree / "dir/file")
    found = scan(tree, PLAIN).items
    entry = found[b"dir/file"].entry

    assert [b"", b"fifo", b"link", b"dir", b"dir/file"] == list(found)
    assert (Kind.FILE, 0o4751, status.st_uid, status.st_gid, -1_000_000_001, 5) == entry[:6]
    assert (((b"user.a", b"1"), (b"user.b", b"2")), ()) == (entry.xattrs, entry.content)
    assert (Kind.SYMLINK, b"\xff/nowhere", 0, 0o777) == tuple(
        getattr(found[b"link"].entry, name) for name in ("kind", "target", "size", "mode")
    )
    assert (Kind.FIFO, 0, 0) == (found[b"fifo"].entry.kind, found[b"fifo"].entry.rdev, found[b"fifo"].entry.size)
    assert Signature.of(status) == found[b"dir/file"].signature


def test_names_of_one_inode_have_one_key(tree):
    (tree / "one").touch()
    (tree / "sub").mkdir()
    os.link(tree / "one", tree / "sub/two")
    os.symlink("x", tree / "l1")
    os.link(tree / "l1", tree / "l2", follow_symlinks=False)
    (tree / "alone").touch()
    found = scan(tree, PLAIN).items
    keys = {path: item.key for path, item in found.items()}

    assert keys[b"one"] == keys[b"sub/two"] != 0
    assert keys[b"l1"] == keys[b"l2"] not in (0, keys[b"one"])
    assert (0, 2) == (keys[b"alone"], found[b"one"].nlink)


def test_a_socket_is_left_out(tree):
    with socket.socket(socket.AF_UNIX) as server:
        here = os.open(tree, os.O_RDONLY)
        server.bind(f"/proc/self/fd/{here}/socket")
        os.close(here)
        found = scan(tree, PLAIN)

    assert ([b""], [b"socket"]) == (list(found.items), found.left_out)


def test_any_bytes_are_names(tree):
    names = {
        b"\xff\xfe",
        b"new\nline",
        b" ",
        b"-",
        b"*",
        bytes(range(1, 32)),
        "é".encode(),
        "é".encode("latin-1"),
        b"n" * 255,
    }
    for name in names:
        os.close(os.open(os.fsencode(tree) + b"/" + name, os.O_CREAT))
        os.mkdir(os.fsencode(tree) + b"/" + name[:200] + b"_")
        os.close(os.open(os.fsencode(tree) + b"/" + name[:200] + b"_/" + name, os.O_CREAT))

    expected = {b"", *names, *(n[:200] + b"_" for n in names), *(n[:200] + b"_/" + n for n in names)}
    assert expected == set(scan(tree, PLAIN).items)


def make_deep(root, depth, name):
    """A directory in a directory in a directory, each with another beside it."""
    fd = os.open(root, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=fd)
        os.mkdir(b"zzz", dir_fd=fd)
        below = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)


def test_depth_has_no_limit_and_takes_few_descriptors(tree, monkeypatch):
    make_deep(tree, 1100, b"d")
    opened = []
    real_open = os.open

    def counting(*args, **kwargs):
        fd = real_open(*args, **kwargs)
        opened.append(fd)
        return fd

    monkeypatch.setattr(os, "open", counting)
    before = len(os.listdir("/proc/self/fd"))
    found = scan(tree, PLAIN)

    assert 1 + 2 * 1100 == len(found.items)
    assert b"/".join([b"d"] * 1099 + [b"zzz"]) in found.items
    assert set() == found.moved
    assert max(opened) < before + DESCRIPTORS_MAX + 10
    assert before == len(os.listdir("/proc/self/fd"))


def test_paths_longer_than_the_kernel_takes_at_once(tree):
    make_deep(tree, 40, b"n" * 255)
    found = scan(tree, PLAIN).items

    assert 1 + 2 * 40 == len(found)
    assert b"/".join([b"n" * 255] * 40) in found


@needs_root
def test_what_this_user_may_not_read_is_named():
    script = """if 1:
        import sys
        from pathlib import Path
        from volume_core.errors import VolumeError
        from volume_core.parts.capturing import capture
        from volume_core.parts.dialects import PLAIN
        from volume_core.parts.scanning import scan
        try:
            scan(Path(sys.argv[1]), PLAIN)
            capture(Path(sys.argv[1]), PLAIN, lambda fd, size: (), lambda path: ())
        except VolumeError as error:
            print(error)
    """
    with public_place() as place:
        for name in ("secret", "closed", "open"):
            (place / name).mkdir()
        (place / "open/secret").write_bytes(b"s")
        (place / "open/secret").chmod(0)
        (place / "closed").chmod(0)

        def said():
            command = as_nobody([sys.executable, "-c", script, str(place)])
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            assert (0, "") == (done.returncode, done.stderr)
            return done.stdout

        assert (
            "this user may not read 'closed', so the tree cannot be committed: make it readable (chmod u+rX)" in said()
        )
        (place / "closed").rmdir()
        assert "this user may not read 'open/secret', so" in said()


# -- a tree that moves


def test_a_symlink_on_the_way_is_never_followed(tree, tmp_path):
    (tmp_path / "outside/in").mkdir(parents=True)
    (tree / "a/in").mkdir(parents=True)
    with Directories(tree) as directories:
        directories.open(b"a/in")
        directories.open(b"")
        (tree / "a").rename(tmp_path / "away")
        (tree / "a").symlink_to(tmp_path / "outside")

        with pytest.raises(NotADirectoryError):
            directories.open(b"a/in")
        with pytest.raises(NotADirectoryError):
            directories.open(b"a")


def test_a_directory_that_turns_into_a_symlink_under_the_scan(tree, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").touch()
    (tree / "dir").mkdir()
    (tree / "dir/mine").touch()
    (tree / "stand-in").symlink_to(tmp_path / "outside")
    program = """
        import os, sys
        os.chdir(sys.argv[1])
        print("ready", flush=True)
        while True:
            os.rename("dir", "aside")
            os.rename("stand-in", "dir")
            os.rename("dir", "stand-in")
            os.rename("aside", "dir")
    """
    seen = set()

    def look():
        found = scan(tree, PLAIN)
        assert [] == [path for path in found.items if b"secret" in path]
        seen.update(("moved",) if b"dir" in found.moved else ())
        seen.update(found.items[path].entry.kind for path in (b"dir",) if path in found.items)
        return {"moved", Kind.DIRECTORY, Kind.SYMLINK} <= seen

    with beside(program, tree):
        wait_until(look)


def test_what_comes_and_goes_under_the_scan_is_no_error(tree):
    for number in range(1, 50, 2):
        (tree / f"dir{number}").mkdir()
    program = """
        import os, shutil, sys
        os.chdir(sys.argv[1])
        print("ready", flush=True)
        while True:
            for number in range(0, 50, 2):
                here = f"dir{number}"
                os.makedirs(here + "/sub/sub")
                open(here + "/sub/file", "w").close()
                shutil.rmtree(here)
                open(here, "w").close()
                os.unlink(here)
    """
    steady = {b"dir%d" % number for number in range(1, 50, 2)}
    moved = set()

    def look():
        found = scan(tree, PLAIN)
        assert steady <= found.items.keys()
        assert not steady & found.moved
        moved.update(found.moved)
        return len(moved) > 2

    with beside(program, tree):
        wait_until(look)


def test_a_second_scan_hands_out_what_did_not_change(tree):
    for name in ("same", "changed", "gone", "distrusted"):
        (tree / name).write_bytes(b"1")
    before = scan(tree, PLAIN)
    (tree / "changed").chmod(0o600)
    (tree / "gone").unlink()
    (tree / "new").touch()
    after = scan(tree, PLAIN, before.items, {b"distrusted"})

    assert after.items[b"same"] is before.items[b"same"]
    assert after.items[b"distrusted"] == before.items[b"distrusted"]
    assert after.items[b"distrusted"] is not before.items[b"distrusted"]
    assert {b"", b"changed", b"gone", b"new"} == differences(before, after)
    assert after.items[b"distrusted"] is before.items[b"distrusted"]


def test_what_goes_through_a_fifo_does_not_move_it(tree):
    os.mkfifo(tree / "fifo")
    before = scan(tree, PLAIN)
    fd = os.open(tree / "fifo", os.O_RDWR | os.O_NONBLOCK)
    os.write(fd, b"x")
    os.close(fd)
    os.utime(tree / "fifo", ns=(5, 5))

    assert set() == differences(before, scan(tree, PLAIN, before.items))
    (tree / "fifo").chmod(0o600)
    assert {b"fifo"} == differences(before, scan(tree, PLAIN, before.items))


def test_a_path_as_new_as_the_clock_is_fresh(tree, monkeypatch):
    (tree / "file").touch()
    stamp_ns = os.stat(tree / "file").st_ctime_ns
    monkeypatch.setattr(scanning, "now_ns", lambda: stamp_ns)
    assert b"file" in scan(tree, PLAIN).fresh

    monkeypatch.setattr(scanning, "now_ns", lambda: max(stamp_ns, os.stat(tree).st_ctime_ns) + 1)
    assert set() == scan(tree, PLAIN).fresh


@pytest.mark.parametrize(
    ("ctime_ns", "clock_ns", "settled"),
    [
        (5_000_000_001, 5_000_000_001, False),
        (5_000_000_001, 5_000_000_002, True),
        (5_000_000_000, 5_999_999_999, False),  # a file system that keeps whole seconds
        (5_000_000_000, 6_000_000_000, True),
        (6_000_000_001, 5_000_000_000, False),
    ],
)
def test_settled_is_what_a_later_change_cannot_equal(ctime_ns, clock_ns, settled):
    assert settled == is_settled(ctime_ns, clock_ns)


def test_a_tree_that_is_not_there():
    with pytest.raises(FileNotFoundError):
        scan(Path("/nowhere/at/all"), PLAIN)


def test_an_error_of_the_disk_names_the_path(tree, monkeypatch):
    (tree / "bad").symlink_to("x")

    def readlink(*args, **kwargs):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "readlink", readlink)
    with pytest.raises(VolumeError, match="'bad' cannot be read: Input/output error"):
        scan(tree, PLAIN)

"""The server under the real kernel: what a mounted version looks like to programs."""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import signal
import stat
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from server_kit import DEADLINE_S, Gate, Version, eventually, mounted, write_index

from volume_core.format.entries import Entry, Kind
from volume_core.testing.oracle import assert_same_tree

pytestmark = pytest.mark.fuse

MIB = 1 << 20


def write(path: Path, data: bytes, **more: int) -> None:
    path.write_bytes(data)
    if more:
        os.chmod(path, more["mode"])


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "tree"
    root.mkdir()
    return root


def small_files(directory: Path, count: int, size: int = 3000) -> None:
    directory.mkdir(exist_ok=True)
    for number in range(count):
        (directory / f"{number:04}").write_bytes(number.to_bytes(4) * (size // 4))


def fill_with_everything(root: Path) -> None:
    (root / "empty").touch()
    write(root / "set-uid", b"x" * 5000, mode=0o4755)
    write(root / "big", os.urandom(9 * MIB + 17))
    with open(root / "sparse", "wb") as file:
        file.seek(3 * MIB)
        file.write(b"middle" * 1000)
        file.truncate(20 * MIB)
    with open(root / "hole", "wb") as file:
        file.truncate(5 * MIB)
    os.symlink("/nowhere/at/all", root / "dangling")
    os.symlink("x" * 4000, root / "long-link")
    os.mkfifo(root / "fifo", 0o640)
    os.mknod(root / "char", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.mknod(root / "block", stat.S_IFBLK | 0o600, os.makedev(259, 70_000))
    os.makedirs(root / "a" / "b" / "c")
    os.link(root / "big", root / "a" / "b" / "link")
    os.link(root / "big", root / "a" / "other-link")
    os.setxattr(root / "empty", "user.note", b"\0\xff" * 500)
    os.setxattr(root / "a", "user.directory", b"")
    os.chown(root / "empty", 12345, 54321)
    for name in (b"\xff\xfe\n", b"n" * 255, b" ", b"~", "日本".encode()):
        Path(os.fsdecode(os.path.join(os.fsencode(root), name))).write_bytes(name)
    os.utime(root / "empty", ns=(5, 1_234_567_890_123_456_789))
    os.utime(root / "a", ns=(0, -1_500_000_000))
    os.chmod(root / "a", 0o2750)


def test_everything_a_tree_can_hold_is_shown(tmp_path, tree):
    fill_with_everything(tree)

    with mounted(tmp_path, Version(tmp_path, tree)) as mount:
        assert_same_tree(tree, mount.path)
        for path in ("big", "sparse", "hole"):
            assert os.stat(tree / path).st_blocks <= os.stat(mount.path / path).st_blocks + 16
        assert 0 == os.stat(mount.path / "hole").st_blocks
        assert "" == mount.text()


def test_an_empty_tree(tmp_path, tree):
    with mounted(tmp_path, Version(tmp_path, tree)) as mount:
        assert [] == os.listdir(mount.path)
        with pytest.raises(FileNotFoundError):
            os.stat(mount.path / "nothing")


def test_inode_numbers_of_the_dots(tmp_path, tree):
    (tree / "a" / "b").mkdir(parents=True)

    with mounted(tmp_path, Version(tmp_path, tree)) as mount:
        inodes = {path: os.stat(mount.path / path).st_ino for path in (".", "a", "a/b")}
        listed = subprocess.run(["ls", "-ai1", mount.path / "a" / "b"], capture_output=True, text=True, check=True)

        assert inodes["a"] == os.stat(mount.path / "a" / "b" / "..").st_ino
        assert [f"{inodes['a/b']} .", f"{inodes['a']} .."] == [line.strip() for line in listed.stdout.splitlines()]
        assert {"b": inodes["a/b"]} == {entry.name: entry.inode() for entry in os.scandir(mount.path / "a")}


def test_what_was_seen_once_is_never_asked_for_again(tmp_path, tree):
    """The server is stopped: whatever the kernel still asked would hang."""
    small_files(tree / "d", 30)
    os.symlink("d", tree / "link")

    def look(root: Path) -> list[object]:
        seen: list[object] = [os.listdir(root / "d"), os.readlink(root / "link"), os.path.exists(root / "missing")]
        for path in sorted((root / "d").iterdir()):
            seen += [os.stat(path).st_size, path.is_dir()]
            fd = os.open(path, os.O_RDONLY)
            seen.append(os.read(fd, 10_000))
            os.close(fd)
        return seen

    with mounted(tmp_path, Version(tmp_path, tree)) as mount, ThreadPoolExecutor(1) as thread:
        first = look(mount.path)
        look(mount.path)  # a listing is cached when it is read the second time
        mount.server.signal(signal.SIGSTOP)
        try:
            assert first == thread.submit(look, mount.path).result(DEADLINE_S)
        finally:
            mount.server.signal(signal.SIGCONT)


def test_it_is_really_read_only(tmp_path, tree):
    (tree / "f").write_bytes(b"x")

    with mounted(tmp_path, Version(tmp_path, tree)) as mount:
        attempts = [
            lambda: os.open(mount.path / "f", os.O_WRONLY),
            lambda: os.open(mount.path / "f", os.O_RDWR),
            lambda: os.open(mount.path / "new", os.O_CREAT | os.O_WRONLY),
            lambda: os.unlink(mount.path / "f"),
            lambda: os.mkdir(mount.path / "d"),
            lambda: os.rename(mount.path / "f", mount.path / "g"),
            lambda: os.chmod(mount.path / "f", 0o600),
            lambda: os.utime(mount.path / "f"),
            lambda: os.truncate(mount.path / "f", 0),
            lambda: os.setxattr(mount.path / "f", "user.a", b""),
            lambda: os.symlink("f", mount.path / "s"),
            lambda: os.link(mount.path / "f", mount.path / "l"),
        ]
        for attempt in attempts:
            with pytest.raises(OSError) as refused:
                attempt()
            assert errno.EROFS == refused.value.errno


def test_statfs_makes_sense_in_df(tmp_path, tree):
    (tree / "f").write_bytes(bytes(10 * MIB))
    version = Version(tmp_path, tree)

    with mounted(tmp_path, version) as mount:
        found = os.statvfs(mount.path)

        assert 10 * MIB == found.f_blocks * found.f_frsize
        assert (0, 0, version.inode_count, 255) == (found.f_bfree, found.f_ffree, found.f_files, found.f_namemax)
        shown = subprocess.run(["df", "--output=size,pcent", mount.path], capture_output=True, text=True, check=True)
        assert ["10240", "100%"] == shown.stdout.split()[-2:]


def test_xattrs(tmp_path, tree):
    (tree / "with").touch()
    (tree / "without").touch()
    os.setxattr(tree / "with", "user.key", b"value")

    with mounted(tmp_path, Version(tmp_path, tree)) as mount:
        assert b"value" == os.getxattr(mount.path / "with", "user.key")
        assert ["user.key"] == os.listxattr(mount.path / "with")
        assert [] == os.listxattr(mount.path / "without")
        with pytest.raises(OSError) as missing:
            os.getxattr(mount.path / "without", "user.key")
        assert errno.ENODATA == missing.value.errno


def test_without_any_xattrs(tmp_path, tree):
    (tree / "f").touch()

    with mounted(tmp_path, Version(tmp_path, tree)) as mount:
        assert [] == os.listxattr(mount.path / "f")
        with pytest.raises(OSError) as missing:
            os.getxattr(mount.path / "f", "user.key")
        assert errno.EOPNOTSUPP == missing.value.errno


def test_files_can_be_mapped(tmp_path, tree):
    data = os.urandom(5 * MIB + 5)
    (tree / "f").write_bytes(data)

    with mounted(tmp_path, Version(tmp_path, tree)) as mount, open(mount.path / "f", "rb") as file:
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as shared:
            assert data == shared[:]
        with mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE) as private:
            private[0:4] = b"mine"
            assert data[4:] == private[4:]


def test_programs_run_from_the_mount(tmp_path, tree):
    shutil.copy("/bin/echo", tree / "echo")
    write(tree / "script", b"#!/bin/sh\nexec $(dirname $0)/echo from $1\n", mode=0o755)
    (tree / "package").mkdir()
    (tree / "package" / "__init__.py").write_text("value = 42\n")

    with mounted(tmp_path, Version(tmp_path, tree)) as mount:
        said = subprocess.run([mount.path / "script", "here"], capture_output=True, text=True, check=True).stdout
        code = "import package; print(package.value)"
        found = subprocess.run(
            [sys.executable, "-B", "-c", code], cwd=mount.path, capture_output=True, text=True, check=True
        )

        assert "from here\n" == said
        assert "42\n" == found.stdout


def test_modes_protect(tmp_path, tree):
    write(tree / "secret", b"x", mode=0o600)
    write(tree / "open", b"y", mode=0o644)

    with mounted(tmp_path, Version(tmp_path, tree)) as mount:
        # pytest's directories belong to root alone: the other user gets in by the descriptor.
        fd = os.open(mount.path, os.O_RDONLY)
        code = (
            f"import os; os.fchdir({fd}); os.setgid(65534); os.setuid(65534); print(open('open').read())\n"
            "try: open('secret')\nexcept PermissionError: print('refused')"
        )
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, pass_fds=(fd,))
        os.close(fd)

        assert ["y", "refused"] == said.stdout.split()


def access_list(*entries: tuple[int, int, int]) -> bytes:
    """The xattr of (tag, permissions, id): linux/posix_acl_xattr.h, version 2."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


USER_OBJ, USER, GROUP_OBJ, MASK, OTHER, NOBODY = 0x01, 0x02, 0x04, 0x10, 0x20, 0xFFFFFFFF


@pytest.mark.parametrize("acls", [True, False])
def test_access_lists_protect_where_modes_do(tmp_path, tree, acls):
    """One user is let in by name; the group is not, although the mode (the mask) looks as if it were."""
    write(tree / "f", b"x", mode=0o600)
    os.chown(tree / "f", 0, 65534)
    entries = ((USER_OBJ, 6, NOBODY), (USER, 4, 1000), (GROUP_OBJ, 0, NOBODY), (MASK, 4, NOBODY), (OTHER, 0, NOBODY))
    os.setxattr(tree / "f", "system.posix_acl_access", access_list(*entries))

    with mounted(tmp_path, Version(tmp_path, tree), acls=acls) as mount:
        fd = os.open(mount.path, os.O_RDONLY)

        def may_read(user: int, group: int) -> bool:
            code = f"import os; os.fchdir({fd}); os.setgroups([]); os.setgid({group}); os.setuid({user}); open('f')"
            return not subprocess.run(
                [sys.executable, "-c", code], stderr=subprocess.DEVNULL, pass_fds=(fd,), check=False
            ).returncode

        found = may_read(1000, 1000), may_read(2000, 65534), may_read(2000, 2000)
        os.close(fd)

        assert ((True, False, False) if acls else (False, True, False)) == found
        assert os.getxattr(tree / "f", "system.posix_acl_access") == os.getxattr(
            mount.path / "f", "system.posix_acl_access"
        )


def test_what_was_fetched_is_read_from_the_cache(tmp_path, tree):
    small_files(tree, 20)
    version, gate = Version(tmp_path, tree), Gate(tmp_path)
    far = {"store": gate.url(version), "environ": gate.environ, "cache_dir": os.fspath(tmp_path / "cache")}

    with mounted(tmp_path, version, **far) as mount:
        assert (tree / "0003").read_bytes() == (mount.path / "0003").read_bytes()
    calls = gate.calls()
    gate.kill()
    with mounted(tmp_path, version, **far) as mount:
        assert_same_tree(tree, mount.path)
    assert calls == gate.calls()


def test_a_dead_store_is_an_error_and_no_hang(tmp_path, tree):
    small_files(tree, 20)
    version, gate = Version(tmp_path, tree), Gate(tmp_path)
    gate.kill()

    with mounted(tmp_path, version, store=gate.url(version), environ=gate.environ) as mount:
        for name in ("0000", "0001"):
            with pytest.raises(OSError) as failed:
                (mount.path / name).read_bytes()
            assert errno.EIO == failed.value.errno
        assert 20 == len(os.listdir(mount.path))
        assert 1 == mount.text().count("no route to host")  # said once, not for each read
        gate.revive()
        assert_same_tree(tree, mount.path)


def test_damaged_bytes_are_an_error_never_read(tmp_path, tree):
    (tree / "bad").write_bytes(b"A" * 5000)
    (tree / "good").write_bytes(b"B" * 5000)
    version = Version(tmp_path, tree)
    (pack,) = version.packs()
    data = bytearray(pack.read_bytes())
    offset = data.index(b"A" * 5000)
    data[offset + 4999] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(data)

    with mounted(tmp_path, version) as mount:
        with pytest.raises(OSError) as failed:
            (mount.path / "bad").read_bytes()
        assert errno.EIO == failed.value.errno
        assert b"B" * 5000 == (mount.path / "good").read_bytes()
        eventually(lambda: f"offset {offset}" in mount.text(), "the log names the place")
        assert pack.name in mount.text()
        assert "bad: cannot be read" in mount.text()


def test_a_missing_pack_is_an_error_of_reading(tmp_path, tree):
    (tree / "f").write_bytes(b"A" * 5000)
    version = Version(tmp_path, tree)
    version.packs()[0].unlink()

    with mounted(tmp_path, version) as mount:
        with pytest.raises(OSError) as failed:
            (mount.path / "f").read_bytes()
        assert errno.EIO == failed.value.errno


@pytest.mark.slow
def test_a_directory_of_100_000_entries(tmp_path):
    count = 100_000
    rows = {b"": Entry(Kind.DIRECTORY, 0o755), b"d": Entry(Kind.DIRECTORY, 0o755)}
    rows |= {b"d/entry-%06d" % number: Entry(Kind.FILE, 0o644, mtime_ns=number) for number in range(count)}
    tree = tmp_path / "none"
    tree.mkdir()
    version = Version(tmp_path, tree)
    version.index = write_index(tmp_path, rows)

    with mounted(tmp_path, version) as mount:
        begin = time.monotonic()
        found = [(entry.name, entry.stat().st_mtime_ns) for entry in os.scandir(mount.path / "d")]
        took_s = time.monotonic() - begin
        status = Path(f"/proc/{mount.server.pid}/status").read_text()
        peak_kb = int(status.partition("VmHWM:")[2].split()[0])

        assert [(f"entry-{number:06}", number) for number in range(count)] == found
        assert peak_kb < 120 << 10
        assert took_s < 10  # a page that starts from the beginning would take minutes


def test_paths_of_4000_characters(tmp_path, tree):
    fd = os.open(tree, os.O_RDONLY)
    for _ in range(16):
        os.mkdir("x" * 250, dir_fd=fd)
        below = os.open("x" * 250, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("file", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=fd))
    os.close(fd)
    deep = b"/".join([b"x" * 250] * 16)
    rows = {b"/".join([b"x" * 250] * depth): Entry(Kind.DIRECTORY, 0o755) for depth in range(17)}
    rows[deep + b"/file"] = Entry(Kind.FILE, 0o644, mtime_ns=77)
    empty = tmp_path / "empty"
    empty.mkdir()
    version = Version(tmp_path, empty)
    version.index = write_index(tmp_path, rows)

    with mounted(tmp_path, version) as mount:
        fd = os.open(mount.path, os.O_RDONLY)
        for _ in range(16):
            below = os.open("x" * 250, os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = below
        assert 77 == os.stat("file", dir_fd=fd).st_mtime_ns
        os.close(fd)
        shutil.rmtree(tree)

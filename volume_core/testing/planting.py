"""A tree that holds one of everything that any user can make, and the changes that programs make to trees.

Always true: two trees that were planted are equal, times included; two that were changed alike are
equal but for times.  Neither asks for a privilege, or for anything that some driver may refuse.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import shutil
from pathlib import Path

MTIME_NS = 1_650_000_000_123_456_789
BIG = hashlib.shake_256(b"big").digest(5 << 20)  # more than one chunk


def plant(root: Path, *, name_bytes: int = 255) -> Path:
    """Fill *root*, an empty directory, with one of everything that any user can make; return it.

    *name_bytes* is the length of the longest name.
    """
    (root / "empty directory").mkdir()
    (root / "dir" / "sub" / "subsub").mkdir(parents=True)
    for number in range(40):
        (root / "dir" / f"file {number:02}").write_bytes(b"%d\n" % number * (number * 97))
    (root / "dir" / "sub" / "big").write_bytes(BIG)
    (root / "dir" / "sub" / "subsub" / "leaf").write_bytes(b"leaf")
    (root / "nothing").touch()
    (root / "script").write_bytes(b'#!/bin/sh\necho ran from $(dirname "$0")\n')
    os.chmod(root / "script", 0o755)
    os.symlink("dir/sub", root / "to a directory")
    os.symlink("/no/such/path", root / "dangling")
    os.symlink("x" * 2000, root / "long")
    os.mkfifo(root / "fifo", 0o640)
    (root / "one").write_bytes(b"linked")
    os.link(root / "one", root / "dir" / "two")
    with open(root / "sparse", "wb") as file:
        file.truncate(1 << 30)
        file.seek(20 << 20)
        file.write(b"island")
    for name in (b"\xff\xfe not text", b"n" * name_bytes, b".hidden", b"new\nline", b"comma, colon: \\ back"):
        with open(os.path.join(os.fsencode(root), name), "wb") as file:
            file.write(name)
    os.setxattr(root / "nothing", "user.colour", b"blue\0green")
    os.setxattr(root / "dir", "user.of a directory", b"")
    os.chmod(root / "dir" / "file 01", 0o600)
    os.chmod(root / "empty directory", 0o711)
    _deep(root)
    for directory, names, files in os.walk(os.fsencode(root), topdown=False):
        for number, each in enumerate(sorted(names + files)):
            os.utime(os.path.join(directory, each), ns=(0, MTIME_NS + number), follow_symlinks=False)
    os.utime(root, ns=(0, MTIME_NS))
    return root


def _deep(root: Path) -> None:
    """Make a path of more than 3,800 characters."""
    fd = os.open(root, os.O_RDONLY)
    for _ in range(19):
        os.mkdir("d" * 200, dir_fd=fd)
        below = os.open("d" * 200, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    end = os.open("end", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=fd)
    os.write(end, b"deep down")
    os.close(end)
    os.close(fd)


def change(root: Path) -> None:
    """Do to a planted tree what programs do to trees; a tree that is treated alike ends alike, but for times."""
    _change_files(root)
    shutil.move(root / "dir" / "sub", root / "moved")  # a rename, or a copy where renaming is refused (EXDEV)
    (root / "moved" / "subsub" / "leaf").write_bytes(b"changed after the move")
    shutil.rmtree(root / "empty directory")
    (root / "empty directory").write_bytes(b"a file now")
    (root / "nothing").unlink()
    (root / "nothing").mkdir()
    (root / "nothing" / "inside").write_bytes(b"a directory now")
    (root / "dir" / "file 20").unlink()
    (root / "dir" / "file 20").write_bytes(b"made again")
    shutil.rmtree(root / "moved" / "subsub")
    (root / "moved" / "subsub").mkdir()
    (root / "moved" / "subsub" / "other").write_bytes(b"nothing of before shows through")
    (root / "dangling").unlink()
    os.symlink("elsewhere", root / "dangling")
    (root / "new" / "tree").mkdir(parents=True)
    (root / "new" / "first").write_bytes(b"two names")
    os.link(root / "new" / "first", root / "new" / "tree" / "second")
    os.mkfifo(root / "new" / "fifo")
    with open(root / "new" / "sparse", "wb") as file:
        file.truncate(8 << 20)
        file.seek(6 << 20)
        file.write(b"end")


def _change_files(root: Path) -> None:
    files = root / "dir"
    with open(files / "file 10", "ab") as file:
        file.write(b"appended")
    os.truncate(files / "file 11", 7)
    with open(files / "sub" / "big", "r+b") as big:
        big.seek(3 << 20)
        big.write(b"in the middle")
    (files / "file 12").unlink()
    os.rename(files / "file 13", files / "renamed")
    os.rename(files / "file 14", files / "file 15")  # over another
    os.chmod(files / "file 16", 0o700)
    os.utime(files / "file 17", ns=(5, 1))
    os.setxattr(files / "file 18", "user.added", b"x")
    os.removexattr(root / "dir", "user.of a directory")
    os.chmod(root / "dir", 0o750)
    with open(files / "file 19", "r+b") as stored, mmap.mmap(stored.fileno(), 0) as mapped:
        mapped[:4] = b"MMAP"
        mapped.flush()

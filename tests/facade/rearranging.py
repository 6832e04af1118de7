"""What programs do to trees, step by step: each step treats two equal trees alike.

Always true: a step leaves the times of what it touched to the clock, so two trees that were treated alike
are equal but for times.
"""

from __future__ import annotations

import errno
import mmap
import os
import shutil
from pathlib import Path

from tree_kit import CHUNK_BYTES, noise


def plant_for_steps(root: Path) -> None:
    """Fill *root* with what the steps work on."""
    root.chmod(0o755)
    for directory in ("a/b/c", "swap/one", "swap/two", "goes", "replaced/deep/er", "again/sub", "target/of", "empty"):
        (root / directory).mkdir(parents=True)
        (root / directory / "inside").write_text(directory)
    for number in range(12):
        (root / f"file {number:02}").write_bytes(noise(3000 + number, number))
        (root / "a" / f"file {number:02}").write_bytes(noise(300 + number, 100 + number))
    (root / "empty" / "inside").unlink()
    (root / "big").write_bytes(noise(3 * CHUNK_BYTES, 7))
    (root / "removed too").write_text("x")


def rename_files(root: Path) -> None:
    """Once, twice, over another, into a new directory, swapped, and there and back."""
    os.rename(root / "file 00", root / "once")
    os.rename(root / "file 01", root / "passing")
    os.rename(root / "passing", root / "a" / "twice")
    os.rename(root / "file 02", root / "file 03")
    (root / "new" / "er").mkdir(parents=True)
    os.rename(root / "a" / "file 00", root / "new" / "er" / "moved in")
    _swap(root / "file 04", root / "a" / "file 04")
    os.rename(root / "file 05", root / "away")
    os.rename(root / "away", root / "file 05")
    (root / "file 00").write_text("another under the old name")


def rename_directories(root: Path) -> None:
    """Nested, twice, swapped, over an empty one, into what was moved itself, with files of the base below."""
    _move(root / "a" / "b" / "c", root / "c")
    _move(root / "a", root / "A")
    _move(root / "A", root / "new" / "A")
    _move(root / "c", root / "new" / "A" / "b" / "c again")
    (root / "new" / "A" / "b" / "c again" / "inside").write_text("changed after two moves")
    _swap(root / "swap" / "one", root / "swap" / "two")
    _move(root / "goes", root / "empty")
    (root / "goes").mkdir()
    (root / "goes" / "else").write_text("another directory under the old name")
    _move(root / "target", root / "swap" / "two" / "target")
    _move(root / "swap", root / "swapped")


def replace_kinds(root: Path) -> None:
    """A directory by a file, a file by a directory, and one of them back."""
    shutil.rmtree(root / "replaced")
    (root / "replaced").write_text("a file now")
    (root / "file 06").unlink()
    (root / "file 06" / "deep").mkdir(parents=True)
    (root / "file 06" / "deep" / "leaf").write_text("a directory now")
    (root / "file 07").unlink()
    os.symlink("file 08", root / "file 07")
    shutil.rmtree(root / "again")
    (root / "again").mkdir()
    (root / "again" / "only this").write_text("nothing of before shows through")
    (root / "removed too").unlink()


def replace_back(root: Path) -> None:
    """What `replace_kinds` did, undone by other means, and some of it done once more."""
    (root / "replaced").unlink()
    (root / "replaced" / "deep").mkdir(parents=True)
    (root / "replaced" / "deep" / "other").write_text("a directory again")
    shutil.rmtree(root / "file 06")
    (root / "file 06").write_text("a file again")
    (root / "file 07").unlink()
    (root / "file 07").mkdir()
    shutil.rmtree(root / "again")
    os.mkfifo(root / "again")
    os.unlink(root / "again")
    (root / "again" / "sub").mkdir(parents=True)
    os.symlink("loop", root / "removed too")


def edit(root: Path) -> None:
    """Append, truncate, grow, overwrite, punch, map, and save as editors do."""
    with open(root / "file 08", "ab") as file:
        file.write(b"appended")
    os.truncate(root / "file 09", 5)
    os.truncate(root / "file 10", 1 << 20)
    with open(root / "big", "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[CHUNK_BYTES + 5 : CHUNK_BYTES + 9] = b"here"
        os.pwrite(file.fileno(), b"there", 9)
    os.truncate(root / "big", 2 * CHUNK_BYTES + 1)
    (root / "file 11~").write_bytes(noise(2000, 50))
    os.rename(root / "file 11~", root / "file 11")
    with open(root / "file 00", "w"):
        pass


def link(root: Path) -> None:
    """More names for what is there, fewer for others."""
    os.link(root / "file 08", root / "another name")
    os.link(root / "file 08", root / "new" / "third name")
    (root / "file 08").unlink()
    os.link(root / "file 09", root / "short-lived")
    (root / "short-lived").unlink()
    with open(root / "another name", "ab") as file:
        file.write(b" by one of its names")


def set_attributes(root: Path) -> None:
    """chmod, chown, utime and xattrs alone: of files, of directories with much below, and of the root."""
    os.chmod(root / "file 10", 0o4711)
    os.chown(root / "file 11", 123, 456)
    os.utime(root / "big", ns=(0, 987_654_321))
    os.setxattr(root / "file 09", "user.seen", b"1")
    os.chmod(root / "new", 0o2770)
    os.chown(root / "new" / "A", 1, 2)
    os.setxattr(root / "swapped", "user.seen", b"2")
    os.utime(root / "swapped" / "two", ns=(0, 5))
    os.chmod(root, 0o751)
    os.lchown(root / "removed too", 9, 9)


def delete_most(root: Path) -> None:
    """Remove what was moved, what was changed and what never was."""
    shutil.rmtree(root / "new" / "A" / "b")
    shutil.rmtree(root / "swapped" / "two")
    for number in range(5, 9):
        found = root / f"file {number:02}"
        if found.is_dir():
            found.rmdir()
        elif found.exists():
            found.unlink()
    (root / "another name").unlink()
    (root / "new" / "A" / "b").mkdir()


STEPS = (rename_files, rename_directories, replace_kinds, replace_back, edit, link, set_attributes, delete_most)


def _swap(one: Path, other: Path) -> None:
    _move(one, one.with_name("in between"))
    _move(other, one)
    _move(one.with_name("in between"), other)


def _move(old: Path, new: Path) -> None:
    """Rename, or do what programs do where a directory of the base cannot be renamed (docs/posix.md)."""
    try:
        os.rename(old, new)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.copytree(old, new, symlinks=True, dirs_exist_ok=True)
        shutil.rmtree(old)

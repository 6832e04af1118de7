"""A lower directory with something of everything, and what programs do to a tree over it.

An operation takes the path of a mount.  Each one is one idea; `everything` is many of them in a row.
"""

import errno
import os
import random
import shutil
import stat
from pathlib import Path

PAGE = 4096
NAME_BYTES_MAX = 250  # fuse-overlayfs takes no longer ones: it keeps room for ".wh."
OLD_NS = 1_500_000_000_123_456_789


def write(path, data, mode="wb"):
    with open(path, mode) as file:
        file.write(data)


def make_lower(lower):
    """A tree with something of everything, all of it old."""
    for directory in ("d/sub/deep", "e", "f", "g", "n1/n2/n3", "empty", "swap1/in", "swap2"):
        (lower / directory).mkdir(parents=True)
    for name in (
        "d/a",
        "d/sub/b",
        "d/sub/deep/c",
        "f/f1",
        "g/g1",
        "g/g2",
        "n1/n2/n3/z",
        "swap1/in/1",
        "swap2/2",
        "doomed",
        ".opq",
    ):
        write(lower / name, f"content of {name}\n".encode())
    for name in ("file", "moved", "meta", "metadata", "linked", "touched"):
        write(lower / name, name.encode() * PAGE)
    write(lower / "e/e1", b"two names\n")
    os.link(lower / "e/e1", lower / "e/e2")
    os.setxattr(lower / "file", "user.k", b"v")
    os.setxattr(lower / "d", "user.d", b"directory")
    os.symlink("nowhere", lower / "link")
    os.mkfifo(lower / "fifo")
    write(lower / os.fsdecode(b"d/not utf-8 \xff\xfe"), b"any bytes")
    for path in sorted(lower.rglob("*"), reverse=True):
        os.utime(path, ns=(OLD_NS, OLD_NS), follow_symlinks=False)
    os.utime(lower, ns=(OLD_NS, OLD_NS))


def move(source, target):
    """mv: where the overlay refuses a rename (EXDEV) it is a copy."""
    assert not os.path.lexists(target)
    shutil.move(source, target)


def nothing(m):
    pass


def remove(m):
    os.unlink(m / "doomed")
    os.unlink(m / "link")
    os.unlink(m / ".opq")
    shutil.rmtree(m / "g")
    os.rmdir(m / "empty")


def remove_what_is_new(m):
    (m / "new").mkdir()
    write(m / "new/x", b"x")
    shutil.rmtree(m / "new")
    write(m / "d/y", b"y")
    os.unlink(m / "d/y")


def replace(m):
    shutil.rmtree(m / "g")
    (m / "g").mkdir()
    write(m / "g/g2", b"another g2")
    shutil.rmtree(m / "f")
    write(m / "f", b"a file where a directory was")
    os.unlink(m / "doomed")
    (m / "doomed/with/depth").mkdir(parents=True)
    os.unlink(m / "link")
    os.symlink("/absolute/" + "x" * 3000, m / "link")


def bring_back(m):
    os.unlink(m / "doomed")
    write(m / "doomed", b"again")
    shutil.rmtree(m / "n1")
    (m / "n1/n2/n3").mkdir(parents=True)
    (m / "n1/n2/n3/.opq").mkdir()
    shutil.rmtree(m / "n1/n2/n3/.opq")


def make(m):
    (m / "fresh/in/here").mkdir(parents=True)
    write(m / "fresh/in/file", b"f" * 3 * PAGE)
    (m / "d/sub/fresh").mkdir()
    write(m / "d/sub/fresh/file", b"in a new directory of an old one")
    os.mkfifo(m / "fresh/fifo", 0o600)
    os.symlink("in/file", m / "fresh/link")
    with open(m / "fresh/sparse", "wb") as file:
        file.truncate(50 * PAGE)
        file.seek(20 * PAGE)
        file.write(b"island" * PAGE)
    write(m / "fresh/nothing", b"")
    os.setxattr(m / "fresh/in/file", "user.one", b"\0\xff")
    os.setxattr(m / "fresh/in", "user.two", b"")
    write(m / os.fsdecode(b"fresh/\xff\n\\012 (deleted)"), b"odd name")
    write(m / ("fresh/" + "n" * NAME_BYTES_MAX), b"long name")
    os.chmod(m / "fresh/in/here", 0o2711)


def rename_directory(m):
    move(m / "d", m / "dd")


def rename_nested(m):
    move(m / "n1/n2", m / "n1/m2")
    move(m / "n1/m2/n3", m / "n1/m2/q3")
    move(m / "n1/m2/q3", m / "q3")


def rename_twice(m):
    move(m / "d", m / "dd")
    move(m / "dd", m / "ddd")
    write(m / "ddd/a", b"more", "ab")
    move(m / "ddd/sub", m / "sub")
    move(m / "sub", m / "ddd/sub")


def rename_there_and_back(m):
    move(m / "d", m / "dd")
    move(m / "dd", m / "d")


def rename_into_new(m):
    (m / "new/newer").mkdir(parents=True)
    move(m / "d/sub", m / "new/newer/sub")
    move(m / "new/newer/sub/deep", m / "new/deep2")
    os.unlink(m / "new/newer/sub/b")
    move(m / "n1", m / "new/n1")
    os.chmod(m / "new/n1/n2/n3/z", 0o600)


def swap(m):
    move(m / "swap1", m / "tmp")
    move(m / "swap2", m / "swap1")
    move(m / "tmp", m / "swap2")
    os.chmod(m / "swap2/in/1", 0o640)


def rename_over(m):
    shutil.rmtree(m / "g")
    move(m / "d", m / "g")
    os.unlink(m / "doomed")
    move(m / "moved", m / "doomed")
    (m / "d").mkdir()
    write(m / "d/a", b"unlike the old a")


def rename_files(m):
    move(m / "moved", m / "d/moved")
    move(m / "d/moved", m / "f/moved again")
    move(m / "d/a", m / "d/b")
    (m / "new").mkdir()
    move(m / "file", m / "new/file")
    os.setxattr(m / "new/file", "user.more", b"!")


def attributes(m):
    os.chmod(m / "meta", 0o4711)
    os.chmod(m / "d/sub/b", 0o600)
    os.utime(m / "touched", ns=(1, 1_234_567_890_987_654_321))
    os.setxattr(m / "file", "user.new", b"x" * 500)
    os.removexattr(m / "file", "user.k")
    os.chmod(m / "e", 0o700)
    if os.geteuid() == 0 and os.stat("/proc/self/ns/user").st_ino == 0xEFFFFFFD:  # in the first user namespace
        os.chown(m / "metadata", 5, 6)
        os.chown(m / "link", 7, 8, follow_symlinks=False)


def copied_up_later(m):
    """Attributes first, the data afterwards: a metacopy that stops being one."""
    os.chmod(m / "metadata", 0o600)
    write(m / "metadata", b"appended", "ab")
    move(m / "moved", m / "d/moved")
    with open(m / "d/moved", "r+b") as file:
        file.seek(PAGE)
        file.write(b"overwritten")
    os.chmod(m / "meta", 0o600)
    os.truncate(m / "meta", 100)
    os.chmod(m / "touched", 0o600)
    os.truncate(m / "touched", 0)


def unchanged(m):
    """Copied up, and the same."""
    for name in ("file", "d/a"):
        with open(m / name, "r+b"):
            pass
        os.utime(m / name, ns=(OLD_NS, OLD_NS))
    os.chmod(m / "meta", stat.S_IMODE(os.stat(m / "meta").st_mode))


def links(m):
    os.link(m / "linked", m / "d/linked")
    os.link(m / "linked", m / "f/linked")
    (m / "new").mkdir(exist_ok=True)
    write(m / "new/one", b"one")
    os.link(m / "new/one", m / "new/two")
    os.link(m / "new/one", m / "d/sub/three")
    os.link(m / "new/one", m / "gone")
    os.unlink(m / "gone")
    write(m / "alone", b"a name is left")
    os.link(m / "alone", m / "not alone")
    os.unlink(m / "alone")
    os.mkfifo(m / "new/fifo")
    os.link(m / "new/fifo", m / "new/fifo2")


def devices(m):
    os.mknod(m / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(m / "d/disk", 0o660 | stat.S_IFBLK, os.makedev(259, 700))


def everything(m):
    for operation in (make, attributes, rename_files, links, rename_into_new, swap, remove, rename_directory):
        operation(m)


OPERATIONS = {
    operation.__name__: operation
    for operation in (
        nothing, remove, remove_what_is_new, replace, bring_back, make, rename_directory, rename_nested, rename_twice,
        rename_there_and_back, rename_into_new, swap, rename_over, rename_files, attributes, copied_up_later, unchanged,
        links, everything,
    )
}  # fmt: skip


def at_random(m, seed, steps):
    """Do *steps* things that some program might do, chosen by *seed*."""
    chance = random.Random(seed)
    for _ in range(steps):
        paths = [Path(root) / name for root, below, files in os.walk(m) for name in (*below, *files)]
        directories = [m, *(path for path in paths if path.is_dir() and not path.is_symlink())]
        files = [path for path in paths if path.is_file() and not path.is_symlink()]
        target = chance.choice(directories) / chance.choice(("a", "b", "c", "d", "e1", "sub"))
        try:
            _random_step(chance, paths, directories, files, target)
        except OSError as error:
            if error.errno not in (
                errno.EEXIST,
                errno.ENOTEMPTY,
                errno.EINVAL,
                errno.EISDIR,
                errno.ENOTDIR,
                errno.EXDEV,
            ):
                raise


def _random_step(chance, paths, directories, files, target):
    match chance.randrange(11):
        case 0:
            os.mkdir(target)
        case 1:
            write(target, chance.randbytes(chance.choice((0, 10, 5000))))
        case 2 if paths:
            os.rename(chance.choice(paths), target)
        case 3 if directories[1:]:
            os.rename(chance.choice(directories[1:]), target)
        case 4 if files:
            os.chmod(chance.choice(files), chance.choice((0o600, 0o640, 0o755)))
        case 5 if files:
            write(chance.choice(files), b"more", "ab")
        case 6 if files:
            os.link(chance.choice(files), target)
        case 7 if paths:
            path = chance.choice(paths)
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else os.unlink(path)
        case 8 if files:
            os.rename(chance.choice(files), target)
        case 9 if directories[1:]:
            os.setxattr(chance.choice(directories[1:]), "user.r", chance.randbytes(3))
        case 10 if files:
            os.truncate(chance.choice(files), chance.choice((0, 3, 9000)))

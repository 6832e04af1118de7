"""What a directory tree is, seen with the eyes of a program: the judge of every mount, commit and copy.

It asks the kernel alone (stat, read, SEEK_DATA, listxattr) and shares nothing with the code it judges
but the opening of very long paths.

Always true: two trees are equal here exactly if no program could tell them apart by names, kinds,
modes, owners, modification times, targets, devices, xattrs, content, holes and hard links.  Left out is
what no copy can keep: inode numbers, access and change times, and the sizes of directories.

Holes are compared at blocks of 4 KiB, the grain of the file systems we stand on.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from volume_core.parts.trees import DIRECTORY_FLAGS, open_below

BLOCK_BYTES = 4096
CELL_BYTES = 64 << 10
_ZEROS = bytes(CELL_BYTES)
SHOWN_MAX = 30

_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
    stat.S_IFSOCK: "socket",
}


class Described(NamedTuple):
    """One path of a tree.

    `mode` is permission bits; `digest` is of a file's content whatever its holes; `data` are the (start, end)
    byte offsets of a file that are not holes; `links` are all paths of the tree that share the
    inode, () for one name alone.  What does not apply to a kind is empty.
    """

    kind: str
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int = 0
    target: bytes = b""
    rdev: int = 0
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    digest: str = ""
    data: tuple[tuple[int, int], ...] = ()
    links: tuple[bytes, ...] = ()


Tree = dict[bytes, Described]


def describe(tree: str | os.PathLike[str], *, xattr_prefixes: Collection[bytes] = (b"user.",)) -> Tree:
    """Return every path below *tree*, and the tree itself as b"", with all that a program can see.

    xattrs count where their name begins with one of *xattr_prefixes* (b"" is all).  Raises OSError
    where something cannot be read: a judge does not skip.
    """
    root_fd = os.open(tree, DIRECTORY_FLAGS & ~os.O_NOFOLLOW)
    found: Tree = {}
    names: dict[tuple[int, int], list[bytes]] = defaultdict(list)
    prefixes = tuple(xattr_prefixes)
    try:
        found[b""] = _describe_open(root_fd, os.fstat(root_fd), prefixes)
        pending = [b""]
        for directory in pending:  # grows while it is walked
            fd = open_below(root_fd, directory)
            try:
                for name in sorted(map(os.fsencode, os.listdir(fd))):
                    path = directory + b"/" + name if directory else name
                    status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                    found[path] = _describe(fd, name, status, prefixes)
                    if stat.S_ISDIR(status.st_mode):
                        pending.append(path)
                    elif status.st_nlink > 1:
                        names[status.st_dev, status.st_ino].append(path)
            finally:
                os.close(fd)
    finally:
        os.close(root_fd)
    for group in names.values():
        if len(group) > 1:
            for path in group:
                found[path] = found[path]._replace(links=tuple(sorted(group)))
    return found


def _describe(fd: int, name: bytes, status: os.stat_result, prefixes: tuple[bytes, ...]) -> Described:
    if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
        own = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
        try:
            return _describe_open(own, status, prefixes)
        finally:
            os.close(own)
    described = _attributes(status)
    if stat.S_ISLNK(status.st_mode):
        return described._replace(mode=0, target=os.readlink(name, dir_fd=fd))  # a symlink's mode means nothing
    if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        return described._replace(rdev=status.st_rdev)
    return described


def _describe_open(fd: int, status: os.stat_result, prefixes: tuple[bytes, ...]) -> Described:
    described = _attributes(status)._replace(xattrs=_xattrs(fd, prefixes))
    if stat.S_ISREG(status.st_mode):
        data = data_segments(fd, status.st_size)
        return described._replace(size=status.st_size, data=data, digest=_digest(fd, status.st_size, data))
    return described


def _attributes(status: os.stat_result) -> Described:
    kind = _KINDS[stat.S_IFMT(status.st_mode)]
    return Described(kind, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns)


def _xattrs(fd: int, prefixes: tuple[bytes, ...]) -> tuple[tuple[bytes, bytes], ...]:
    if not hasattr(os, "listxattr"):
        return ()
    names = sorted(map(os.fsencode, os.listxattr(fd)))
    return tuple((name, os.getxattr(fd, name)) for name in names if name.startswith(prefixes))


def data_segments(fd: int, size: int) -> tuple[tuple[int, int], ...]:
    """Return the (start, end) offsets of a file's data, rounded out to blocks, joined, within its *size*."""
    segments: list[tuple[int, int]] = []
    position = 0
    with contextlib.suppress(OSError):  # ENXIO: no data from here to the end
        while position < size:
            start = os.lseek(fd, position, os.SEEK_DATA)
            position = os.lseek(fd, start, os.SEEK_HOLE)
            low, high = start // BLOCK_BYTES * BLOCK_BYTES, min(-(-position // BLOCK_BYTES) * BLOCK_BYTES, size)
            if segments and segments[-1][1] >= low:
                low = segments.pop()[0]
            segments.append((low, high))
    return tuple(segments)


def _digest(fd: int, size: int, data: tuple[tuple[int, int], ...]) -> str:
    """Return a digest of content that does not depend on what is a hole and what is stored zeros.

    Cells of zeros are left out, whether they were read or are known to be holes.
    """
    digest = hashlib.sha256(size.to_bytes(8, "little"))
    position = 0
    for start, end in data:
        position = max(position, start // CELL_BYTES * CELL_BYTES)
        while position < end:
            cell = os.pread(fd, CELL_BYTES, position)
            if not cell:
                raise EOFError(f"a file of {size} bytes ended at {position} while it was read")
            if cell != _ZEROS[: len(cell)]:
                digest.update(position.to_bytes(8, "little") + cell)
            position += CELL_BYTES
    return digest.hexdigest()


def differences(
    expected: Mapping[bytes, Described], actual: Mapping[bytes, Described], *, ignore: Collection[str] = ()
) -> list[str]:
    """Return one line for each difference, in the order of the paths; *ignore* names fields of Described."""
    if unknown := set(ignore) - set(Described._fields):
        raise ValueError(f"a path has no {sorted(unknown)}")
    lines: list[str] = []
    for path in sorted(expected.keys() | actual.keys()):
        shown = os.fsdecode(path or b".").encode("unicode_escape").decode("ascii")
        if path not in actual:
            lines.append(f"{shown}: missing")
        elif path not in expected:
            lines.append(f"{shown}: not expected, a {actual[path].kind}")
        else:
            for name, wanted, got in zip(Described._fields, expected[path], actual[path], strict=True):
                if wanted != got and name not in ignore:
                    lines.append(f"{shown}: {name} is {_short(name, got)}, expected {_short(name, wanted)}")
    return lines


def _short(name: str, value: object) -> str:
    text = oct(value) if name == "mode" and isinstance(value, int) else repr(value)
    return text if len(text) <= 160 else f"{text[:157]}..."


TreeLike = str | os.PathLike[str] | Mapping[bytes, Described]


def assert_same_tree(expected: TreeLike, actual: TreeLike, *, ignore: Collection[str] = ()) -> None:
    """Raise AssertionError naming what differs, unless both are the same tree.

    Each is a directory or what `describe` returned of one.  *ignore* names fields of Described.
    """
    found = differences(_described(expected), _described(actual), ignore=ignore)
    if found:
        more = [f"... and {len(found) - SHOWN_MAX} more"] if len(found) > SHOWN_MAX else []
        raise AssertionError("\n".join([f"the trees differ in {len(found)} places:", *found[:SHOWN_MAX], *more]))


def _described(tree: TreeLike) -> Mapping[bytes, Described]:
    return tree if isinstance(tree, Mapping) else describe(Path(tree))

"""Shared mappings: who may be storing to a file without any call that the kernel puts a time stamp to.

The first store to a clean page of a shared mapping faults, and the fault moves the file's time stamps;
the stores after it do not.  Writing the page back makes it clean again, so that the next store faults
once more: after fdatasync, a time stamp that stands still proves that nothing was stored.  File systems
that live in memory never write back; there only the content can tell.

What can be known: the mappings of processes in this PID namespace whose /proc/<pid>/maps this user may
read.  Where one may not be read, `complete` is False and every file has to be taken for mapped.  A
process of another PID namespace that shares the mount cannot be seen at all.

Always true: a shared mapping counts even if it is read-only now.  It may have been writable a moment
ago, and its dirty pages be stored to without a fault once mprotect makes it so again.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

# A store to a mapping of these never becomes visible in a time stamp again once its page is dirty.
MEMORY_FILE_SYSTEMS = frozenset({"tmpfs", "ramfs", "hugetlbfs"})
# These take their time stamps from another machine's clock.
REMOTE_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "virtiofs", "ceph", "lustre", "afs", "glusterfs", "beegfs", "gpfs"}
)
# address, permissions (the last one "s": shared), offset, device, inode, path
_SHARED = re.compile(rb"^\S+ ...s \S+ ([0-9a-f]+):([0-9a-f]+) (\d+) +(/.*)$", re.MULTILINE)
_DELETED = b" (deleted)"


class Mapped(NamedTuple):
    """`paths`: what is mapped, relative to the tree, and perhaps names that only look like it.
    `complete`: whether that is all there can be."""

    paths: frozenset[bytes]
    complete: bool


class _Mapping(NamedTuple):
    device: int
    inode: int
    path: bytes


def mapped_files(root: Path, mount_path: Path | None, inodes: Callable[[], Mapping[int, bytes]]) -> Mapped:
    """Return which files of the tree at *root*, mounted at *mount_path*, are mapped shared by any process.

    *inodes* gives the path of each inode of *root*, should it be needed: processes in other mount
    namespaces see the mount under other paths.
    """
    if sys.platform != "linux":
        return Mapped(frozenset(), complete=False)
    tree_device = os.stat(root).st_dev
    places = [os.fsencode(os.path.realpath(root))]
    devices = {tree_device}
    if mount_path is not None:
        places.append(os.fsencode(os.path.realpath(mount_path)))
        devices.add(os.stat(mount_path).st_dev)
    found: set[bytes] = set()
    complete = True
    for data in _all_maps():
        if data is None:
            complete = False
            continue
        for mapping in _shared_mappings(data):
            inside = _inside(mapping.path, places)
            if inside is not None:
                found.update(_spellings(inside))
            elif mapping.device in devices:
                path = inodes().get(mapping.inode)
                if path is not None:
                    found.add(path)
                elif mapping.device != tree_device:
                    complete = False  # something of our mount, seen under a path that says not what
    return Mapped(frozenset(found), complete)


def _all_maps() -> Iterator[bytes | None]:
    """Yield what each process has mapped; None for one that may not be looked into."""
    pids = [name for name in os.listdir("/proc") if name.isdigit()]
    if "1" not in pids:
        yield None  # mounted with hidepid: others' processes are not even listed
    for pid in pids:
        try:
            with open(f"/proc/{pid}/maps", "rb", buffering=0) as file:
                yield file.read()
        except PermissionError:
            yield None
        except (FileNotFoundError, ProcessLookupError):
            continue  # gone since it was listed


def _shared_mappings(maps: bytes) -> Iterator[_Mapping]:
    for major, minor, inode, path in _SHARED.findall(maps):
        yield _Mapping(os.makedev(int(major, 16), int(minor, 16)), int(inode), path)


def _inside(path: bytes, places: list[bytes]) -> bytes | None:
    for place in places:
        if path.startswith(place) and path[len(place) : len(place) + 1] == b"/":
            return path[len(place) + 1 :]
    return None


def _spellings(path: bytes) -> set[bytes]:
    """Every name that /proc may mean by *path*: it spells a line feed out and marks what was deleted,
    and a name may look like either by itself."""
    names = {path, path.removesuffix(_DELETED)}
    return names | {name.replace(b"\\012", b"\n") for name in names}


def file_system(path: Path) -> str:
    """Return the type of the file system that *path* lies on, as mount(8) names it; "" where that is unknown."""
    device = os.stat(path).st_dev
    number = b"%d:%d" % (os.major(device), os.minor(device))
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        return ""
    for line in lines:
        # id parent major:minor root place options [optional ...] - type source options
        fields, _, rest = line.partition(b" - ")
        if fields.split(b" ", 3)[2] == number:
            return rest.split(b" ", 1)[0].decode()
    return ""


def write_back_all(fd: int) -> None:
    """Write all dirty pages of the file system of *fd* back, which cleans those of every mapping."""
    if sys.platform != "linux":
        os.sync()
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syncfs(fd):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number or errno.EIO))

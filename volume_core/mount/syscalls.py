"""The few system calls that Python does not wrap, and /proc/self/mountinfo.

Nothing is decided here: a call succeeds or raises OSError with the path it was about.

Always true: a call that may block lets other threads run (ctypes gives up the interpreter lock),
so that a server can be replaced while another thread waits for it inside the kernel.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import os
import re
import select
import struct
from typing import NamedTuple

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

FUSE_DEVICE = "/dev/fuse"
FUSE_DEV_IOC_CLONE = 0x8004E500  # _IOR(229, 0, u32)
CAP_SYS_ADMIN = 21
_WHOLE_RANGE = ["0", "0", "4294967295"]  # of ids: what the initial user namespace maps
_ESCAPED = re.compile(rb"\\([0-7]{3})")


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, path: str) -> None:
    if result:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), path)


def mount(source: str, path: str, kind: str, flags: int, options: str) -> None:
    """mount(2): put a file system of *kind* under *path*."""
    encoded = (os.fsencode(each) for each in (source, path, kind))
    _check(_libc().mount(*encoded, ctypes.c_ulong(flags), os.fsencode(options)), path)


def unmount(path: str, *, lazy: bool = False) -> None:
    """umount2(2): take away what is mounted at *path*; lazily, even while files are open."""
    _check(_libc().umount2(os.fsencode(path), UMOUNT_NOFOLLOW | (MNT_DETACH if lazy else 0)), path)


def syncfs(fd: int, path: str) -> None:
    """syncfs(2): write back what the file system of *fd* holds in memory."""
    _check(_libc().syncfs(fd), path)


def clone_fuse(fd: int) -> int:
    """Open a second queue to the FUSE connection of *fd*.

    What its reader took and did not answer fails when it is closed, while the connection lives on.
    """
    clone = os.open(FUSE_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(clone, FUSE_DEV_IOC_CLONE, struct.pack("I", fd))
    except BaseException:
        os.close(clone)
        raise
    return clone


def is_connected(fuse_fd: int) -> bool:
    """Whether the file system behind a /dev/fuse descriptor still exists; never blocks."""
    poll = select.poll()
    poll.register(fuse_fd, 0)
    return not any(events & select.POLLERR for _, events in poll.poll(0))


def may_mount() -> bool:
    """Whether this process may call mount(2)."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> CAP_SYS_ADMIN & 1)
    return False


def in_user_namespace() -> bool:
    """Whether ids here are mapped: a privilege then reaches no further than the namespace."""
    try:
        with open("/proc/self/uid_map", encoding="ascii") as file:
            return file.read().split() != _WHOLE_RANGE
    except FileNotFoundError:
        return False


def kernel_release() -> tuple[int, int]:
    """Return the kernel's version as (major, minor)."""
    numbers = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)


class MountPoint(NamedTuple):
    """One line of mountinfo.  `source` is what `df` shows; `device` is "major:minor"."""

    device: str
    path: str
    kind: str
    source: str


def mount_points() -> list[MountPoint]:
    """Return what this process sees mounted; of several at one path, the visible one comes last."""
    with open("/proc/self/mountinfo", "rb") as file:
        return [_mount_point(line) for line in file.read().splitlines()]


def mounted_at(path: str) -> MountPoint | None:
    """Return what is visible at *path* (without symlinks), or None if it is no mount point."""
    return next((each for each in reversed(mount_points()) if each.path == path), None)


def _mount_point(line: bytes) -> MountPoint:
    fields = line.split(b" ")
    kind, source = fields[fields.index(b"-", 6) + 1 :][:2]
    return MountPoint(fields[2].decode(), _unescaped(fields[4]), kind.decode(), _unescaped(source))


def _unescaped(field: bytes) -> str:
    return os.fsdecode(_ESCAPED.sub(lambda found: bytes([int(found[1], 8)]), field))

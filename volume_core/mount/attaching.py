"""Putting a FUSE view under a path, and taking any mount away again.

With the privilege to mount this is two system calls; without it, the setuid program `fusermount3` makes
them for us and hands back the descriptor.

Always true: what is refused is said in words that name what the machine lacks and how to grant it.
"""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import time

from volume_core.errors import BusyError, MountError
from volume_core.mount import syscalls
from volume_core.mount.busy import open_paths

FUSE_CONF = "/etc/fuse.conf"
FUSE_TYPE = "fuse.volume"
MAX_READ_BYTES = 1 << 20
READAHEAD_KIB = 4096  # four requests of the largest size in flight before a sequential reader asks
FUSERMOUNT_TIMEOUT_S = 20.0
BUSY_PATIENCE_S = 0.5  # for holders that /proc does not show: a process that is just exiting, a lazy flush
OTHER_DRIVERS = "driver='copy' works without it"

_DEVICE_REFUSED = {
    errno.ENOENT: f"there is no {syscalls.FUSE_DEVICE}: give it to the container (docker --device /dev/fuse; "
    "on Kubernetes a device plugin), or load the kernel's fuse module",
    errno.ENODEV: "the kernel has no fuse: load the module",
    errno.ENXIO: "the kernel has no fuse: load the module",
    errno.EACCES: f"this user may not open {syscalls.FUSE_DEVICE}: give it mode 0666",
    errno.EPERM: f"the container's device rules forbid {syscalls.FUSE_DEVICE}: give it as a device "
    "(docker --device /dev/fuse), not as a file",
}
_MOUNT_REFUSED = {
    errno.EPERM: "mount(2) is refused: it needs CAP_SYS_ADMIN (docker --cap-add SYS_ADMIN; on Kubernetes "
    "securityContext.capabilities.add: [SYS_ADMIN])",
    errno.EACCES: "mount(2) is refused although the privilege is there: a security module forbids it "
    "(AppArmor: docker --security-opt apparmor=unconfined)",
    errno.ENODEV: "the kernel does not know this file system: load its module",
}


def mount_refused(what: str, error: OSError) -> MountError:
    """Return the error for a mount(2) of *what* that failed with *error*."""
    reason = _MOUNT_REFUSED.get(error.errno or 0)
    return MountError(f"{what}: {f'{reason}; {OTHER_DRIVERS}' if reason else error}")


def may_allow_other() -> bool:
    """Whether other users than the mounting one can be let in."""
    return syscalls.may_mount() or "user_allow_other" in _configuration()


def _configuration() -> list[str]:
    try:
        with open(FUSE_CONF, encoding="utf-8", errors="replace") as file:
            return [line.strip() for line in file]
    except OSError:
        return []


def attach_view(path: str, source: str, *, allow_other: bool) -> int:
    """Mount a FUSE file system, read-only, at *path*; return the descriptor that a server answers on.

    Raises MountError.  Until a server answers, whoever touches the path waits.
    """
    if syscalls.may_mount():
        return _attach(path, source, allow_other)
    return _attach_by_program(path, source, allow_other)


def _attach(path: str, source: str, allow_other: bool) -> int:
    try:
        fd = os.open(syscalls.FUSE_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise MountError(f"a view cannot be mounted: {_DEVICE_REFUSED.get(error.errno or 0, error)}") from error
    options = f"fd={fd},rootmode=40000,user_id={os.geteuid()},group_id={os.getegid()},max_read={MAX_READ_BYTES}"
    options += ",default_permissions" + ",allow_other" * allow_other
    try:
        syscalls.mount(source, path, FUSE_TYPE, syscalls.MS_RDONLY | syscalls.MS_NOSUID | syscalls.MS_NODEV, options)
    except OSError as error:
        os.close(fd)
        raise mount_refused(f"the view at {path}", error) from error
    return fd


def _attach_by_program(path: str, source: str, allow_other: bool) -> int:
    options = f"ro,nosuid,nodev,subtype={FUSE_TYPE.removeprefix('fuse.')},fsname={source},max_read={MAX_READ_BYTES}"
    # Alone, the user may read whatever could be fetched with the same credentials: modes protect nothing.
    options += ",allow_other,default_permissions" * allow_other
    ours, theirs = socket.socketpair()
    with ours, theirs:
        environment = {**os.environ, "_FUSE_COMMFD": str(theirs.fileno())}
        _fusermount(["-o", options, "--", path], f"the view at {path}", environment, theirs.fileno())
        _, received, _, _ = socket.recv_fds(ours, 1, 1, socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT)
    return received[0]


def _fusermount(
    arguments: list[str], what: str, environment: dict[str, str] | None = None, fd: int | None = None
) -> None:
    """Run fusermount3; raises MountError with what it says."""
    for program in ("fusermount3", "fusermount"):
        try:
            done = subprocess.run(
                [program, *arguments],
                env={**(os.environ if environment is None else environment), "LC_ALL": "C"},
                pass_fds=() if fd is None else (fd,),
                stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                timeout=FUSERMOUNT_TIMEOUT_S, check=False,
            )  # fmt: skip
        except FileNotFoundError:
            continue
        except subprocess.TimeoutExpired as error:
            raise MountError(f"{what}: {program} did not end within {FUSERMOUNT_TIMEOUT_S:g} s") from error
        if done.returncode:
            said = done.stderr.strip() or f"exit status {done.returncode}"
            raise MountError(f"{what}: {said}{_hint(said)}")
        return
    raise MountError(
        f"{what}: this user may not mount, and there is no fusermount3: install the package fuse3; {OTHER_DRIVERS}"
    )


def _hint(said: str) -> str:
    if "not permitted" in said:
        return (
            " (fusermount3 needs its setuid bit, CAP_SYS_ADMIN in the container's bounding set, and "
            f"allowPrivilegeEscalation; {OTHER_DRIVERS})"
        )
    if "failed to open /dev/fuse" in said or "device not found" in said:
        return f" (give the container /dev/fuse, mode 0666; {OTHER_DRIVERS})"
    return ""


def detach(path: str, *, lazy: bool) -> None:
    """Take away what is mounted at *path*; it is no error if nothing is.

    Strict: raises BusyError naming what is open below it, and changes nothing.
    """
    patient_until = time.monotonic() + BUSY_PATIENCE_S
    while True:
        try:
            return _detach(path, lazy)
        except BlockingIOError:
            holders = open_paths(path)
            if not holders and time.monotonic() < patient_until:
                time.sleep(0.02)
                continue
        named = ", ".join(holders[:5]) or "by a process that this user may not look at, or a mount below it"
        raise BusyError(f"{path} is in use: {named}", holders)


def _detach(path: str, lazy: bool) -> None:
    """Unmount once; BlockingIOError stands for "busy", whoever was asked."""
    try:
        syscalls.unmount(path, lazy=lazy)
    except OSError as error:
        if error.errno in {errno.EINVAL, errno.ENOENT}:
            return
        if error.errno == errno.EBUSY:
            raise BlockingIOError(errno.EBUSY, "busy") from error
        if error.errno != errno.EPERM:
            raise MountError(f"{path} cannot be unmounted: {error.strerror}") from error
        try:
            _fusermount(["-u", *(["-z"] if lazy else []), "--", path], f"{path} cannot be unmounted")
        except MountError as refused:
            if syscalls.mounted_at(path) is None:
                return
            if "busy" in str(refused):
                raise BlockingIOError(errno.EBUSY, "busy") from refused
            raise


def raise_readahead(device: int) -> None:
    """Let sequential readers of the file system *device* (st_dev) be far ahead of them, where that is permitted."""
    path = f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb"
    try:
        with open(path, "r+", encoding="ascii") as file:
            if int(file.read()) < READAHEAD_KIB:
                file.seek(0)
                file.write(str(READAHEAD_KIB))
    except OSError:
        pass  # /sys is read-only in most containers: the kernel's default is slower, nothing else

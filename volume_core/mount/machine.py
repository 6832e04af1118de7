"""What this machine grants a process that wants to mount: facts, read once, judged elsewhere.

Always true: reading them changes nothing and mounts nothing; a fact that cannot be read is reported as
the value that promises least.
"""

from __future__ import annotations

import errno
import os
import platform
import re
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from volume_core.mount import syscalls

UNKNOWN = "unknown"
FUSE_CONF = Path("/etc/fuse.conf")
PROGRAM_TIMEOUT_S = 5.0
# What may stand under a state directory: a disk or memory of this machine, and no device of /proc or /sys.
DISKS = frozenset({"ext4", "xfs", "btrfs", "tmpfs", "ext3", "zfs", "f2fs", "bcachefs"})


@dataclass(frozen=True, slots=True)
class Disk:
    """A mounted file system in which this user may write."""

    path: str
    kind: str
    free_bytes: int


@dataclass(frozen=True, slots=True)
class Machine:
    """Everything that decides which driver works.

    `uid` is the effective one; capabilities are bit masks.  `fuse_device` is "ok" or the name of the errno with
    which /dev/fuse refused to be opened for reading and writing.  `upper_kind` is the type of the file
    system under `upper_dir`, or under its nearest ancestor that exists; `upper_writable` whether this user
    may write there.  `disks` are other places where an upper could lie.  Programs are paths, or None.
    """

    system: str = "Linux"
    kernel: tuple[int, int] = (6, 18)
    uid: int = 0
    cap_effective: int = (1 << 41) - 1
    cap_bounding: int = (1 << 41) - 1
    no_new_privs: bool = False
    user_namespace: bool = False
    root_is_mapped: bool = True
    fuse_device: str = "ok"
    file_systems: frozenset[str] = frozenset({"fuse", "overlay"})
    fusermount3: str | None = "/usr/bin/fusermount3"
    fusermount3_is_setuid: bool = True
    fuse_overlayfs: str | None = "/usr/bin/fuse-overlayfs"
    fuse_overlayfs_version: str = ""
    user_allow_other: bool = False
    apparmor: str = ""
    selinux: str = ""
    container: str = ""
    upper_dir: str = "/var/volumes"
    upper_kind: str = "ext4"
    upper_free_bytes: int = 100 << 30
    upper_writable: bool = True
    disks: tuple[Disk, ...] = ()

    def may(self, capability: int) -> bool:
        """Whether this process has that capability now."""
        return bool(self.cap_effective >> capability & 1)

    def could(self, capability: int) -> bool:
        """Whether a setuid program started by this process could have that capability."""
        return bool(self.cap_bounding >> capability & 1)


def read_machine(upper_dir: str | os.PathLike[str], *, versions: bool = False) -> Machine:
    """Return the facts of this process on this machine; *upper_dir* need not exist yet.

    Programs are asked for their versions only with *versions*: nothing else here starts a process.
    """
    directory = os.path.abspath(os.fspath(upper_dir))
    existing = nearest_existing(directory)
    status = _process_status()
    fusermount3, fuse_overlayfs = shutil.which("fusermount3"), shutil.which("fuse-overlayfs")
    points = syscalls.mount_points() if os.path.exists("/proc/self/mountinfo") else []
    return Machine(
        system=platform.system(),
        kernel=syscalls.kernel_release(),
        uid=os.geteuid(),
        cap_effective=int(status.get("CapEff", "0"), 16),
        cap_bounding=int(status.get("CapBnd", "0"), 16),
        no_new_privs=status.get("NoNewPrivs", "0") == "1",
        user_namespace=syscalls.in_user_namespace(),
        root_is_mapped=_root_is_mapped(),
        fuse_device=_fuse_device(),
        file_systems=_file_systems(),
        fusermount3=fusermount3,
        fusermount3_is_setuid=_is_setuid_root(fusermount3),
        fuse_overlayfs=fuse_overlayfs,
        fuse_overlayfs_version=program_version(fuse_overlayfs) if versions else "",
        user_allow_other=_user_allow_other(),
        apparmor=_first_line("/proc/self/attr/apparmor/current") or _label("/sys/module/apparmor"),
        selinux=_label("/sys/fs/selinux/enforce"),
        container=_container(),
        upper_dir=directory,
        upper_kind=_kind_at(existing, points),
        upper_free_bytes=_free_bytes(existing),
        upper_writable=os.access(existing, os.W_OK | os.X_OK),
        disks=tuple(_disks(points, existing)),
    )


def program_version(program: str | None) -> str:
    """Return the version that `program --version` prints on the line that names it; "" where none does."""
    if program is None:
        return ""
    try:
        asked = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=PROGRAM_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    # fuse-overlayfs prints the versions of all it stands on, its own somewhere among them.
    name = re.escape(os.path.basename(program))
    found = re.search(rf"^{name}\D*(\d+(?:\.\d+)+)", asked.stdout + asked.stderr, re.MULTILINE)
    return found[1] if found else ""


def _process_status() -> dict[str, str]:
    try:
        lines = Path("/proc/self/status").read_text(errors="replace").splitlines()
    except OSError:
        return {}
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _fuse_device() -> str:
    try:
        os.close(os.open(syscalls.FUSE_DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return "ok"


def _root_is_mapped() -> bool:
    """Whether uid 0 exists here: without it no setuid program of root's can help."""
    try:
        lines = Path("/proc/self/uid_map").read_text().splitlines()
    except OSError:
        return True
    return any(int(line.split()[0]) == 0 for line in lines)


def _file_systems() -> frozenset[str]:
    try:
        return frozenset(
            line.split()[-1] for line in Path("/proc/filesystems").read_text().splitlines() if line.split()
        )
    except OSError:
        return frozenset()


def _is_setuid_root(program: str | None) -> bool:
    if program is None:
        return False
    try:
        status = os.stat(program)
    except OSError:
        return False
    return bool(status.st_mode & stat.S_ISUID) and status.st_uid == 0


def _user_allow_other() -> bool:
    try:
        return any(line.strip() == "user_allow_other" for line in FUSE_CONF.read_text(errors="replace").splitlines())
    except OSError:
        return False


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace").strip("\0\n ")
    except OSError:
        return ""


def _label(switch: str) -> str:
    """The security label of this process, where the module behind *switch* is there."""
    return _first_line("/proc/self/attr/current") if os.path.exists(switch) else ""


def _container() -> str:
    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        return "kubernetes"
    for mark, name in (("/.dockerenv", "docker"), ("/run/.containerenv", "podman")):
        if os.path.exists(mark):
            return name
    return ""


def nearest_existing(path: str) -> str:
    """Return *path* without symlinks, or the nearest directory above it that exists."""
    while not os.path.exists(path) and path != "/":
        path = os.path.dirname(path)
    return os.path.realpath(path)


def _kind_at(path: str, points: list[syscalls.MountPoint]) -> str:
    """The type of the file system that *path* (without symlinks) lies on."""
    above = {"/"}
    while path != "/":
        above.add(path)
        path = os.path.dirname(path)
    holding = [point for point in points if point.path in above]
    # The longest path holds it; of several mounted at one path the last is the visible one.
    return max(enumerate(holding), key=lambda each: (len(each[1].path), each[0]))[1].kind if holding else UNKNOWN


def _free_bytes(path: str) -> int:
    try:
        found = os.statvfs(path)
    except OSError:
        return 0
    return found.f_bavail * found.f_frsize


def _disks(points: list[syscalls.MountPoint], besides: str) -> list[Disk]:
    """Where else an upper could lie, roomiest first."""
    found: dict[str, Disk] = {}
    for point in points:
        path = point.path
        if point.kind not in DISKS or path.startswith(("/dev", "/proc", "/sys", "/run/")) or path == besides:
            continue
        if (
            os.path.isdir(path)
            and os.access(path, os.W_OK | os.X_OK)
            and not besides.startswith(f"{path.rstrip('/')}/")
        ):
            found[path] = Disk(path, point.kind, _free_bytes(path))
    return sorted(found.values(), key=lambda disk: (-disk.free_bytes, disk.path))

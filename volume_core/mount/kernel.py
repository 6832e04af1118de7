"""The kernel driver: the FUSE view below, overlayfs on top for a writer.

A reader's view is mounted at its path as it is.  A writer's lies out of sight, and the overlay over it
sends every change into the working copy's upper directory: no server takes part in a write.

Always true:
  1. An overlay is `volatile` where the kernel can: an fsync is durable at commit, not before.
  2. The root of a fresh upper has the attributes of the view's root, which the overlay then shows.
  3. Nothing below an upper is removed here; its work directory is scratch, and emptied before each mount.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from volume_core.errors import MountError
from volume_core.mount import syscalls
from volume_core.mount.attaching import mount_refused
from volume_core.mount.plans import Plan

if TYPE_CHECKING:
    from volume_core.mount.request import Mounted, MountRequest

log = logging.getLogger(__name__)

NAME = "kernel"
KERNEL_DIALECT = "kernel"
USERXATTR_DIALECT = "userxattr"
OPTIONS_MAX_BYTES = 4095  # one page, with its NUL: what mount(2) takes
_SPECIAL = frozenset(",:\\\"' \t\n")


class KernelDriver:
    """FUSE and overlayfs, by the kernel: the fastest, for whoever has CAP_SYS_ADMIN (readers also with fusermount3)."""

    name = NAME

    def mount(self, request: MountRequest) -> Mounted:
        """Mount *request*; see volume_core.mount.request.Driver."""
        from volume_core.mount.mounting import mount_with

        return mount_with(self.name, request)


class _Feature(NamedTuple):
    option: str
    lost: str


# In the order in which they are given up when a kernel refuses: the cheapest loss first.
_FEATURES = (
    _Feature("xino=on", "inode numbers of base and changed files may differ in device"),
    _Feature("metacopy=on", "changing the attributes of a file copies it"),
    _Feature("volatile", "every fsync waits for the disk"),
    _Feature("redirect_dir=on", "renaming a directory of the base copies it (EXDEV)"),
    _Feature("index=off", "hard links may be indexed"),
)
# In a user namespace overlayfs may keep its markers in user.* only, and then cannot follow renames.
_USER_FEATURES = tuple(each for each in _FEATURES if each.option.partition("=")[0] in {"xino", "volatile", "index"})


def attach_overlay(plan: Plan, lower: str) -> str:
    """Mount the overlay of *plan* over the directory *lower*; return the dialect of its upper.

    Raises MountError with what the machine lacks.
    """
    assert plan.upper is not None
    assert plan.work is not None
    userxattr = syscalls.in_user_namespace()
    prepare_upper(plan.upper, plan.work, lower)
    features = _USER_FEATURES if userxattr else _FEATURES
    with contextlib.ExitStack() as stack:
        places = _places(stack, lower, plan.upper, plan.work)
        for given_up in range(len(features) + 1):
            wanted = [each.option for each in features[given_up:]]
            options = ",".join([places, *wanted, *(["userxattr"] if userxattr else [])])
            try:
                syscalls.mount(plan.source, plan.mount_path, "overlay", syscalls.MS_NOSUID | syscalls.MS_NODEV, options)
            except OSError as error:
                if error.errno == errno.EINVAL and wanted:
                    continue
                raise _refused(plan, error) from error
            for lost in features[:given_up]:
                log.warning("this kernel has no overlay option %s: %s", lost.option, lost.lost)
            break
    return USERXATTR_DIALECT if userxattr else KERNEL_DIALECT


def _places(stack: contextlib.ExitStack, lower: str, upper: str, work: str) -> str:
    """Return the three directories as mount options, whatever their names hold and however long they are.

    How a comma, a colon or a backslash is escaped has changed between kernels; a path through an open
    descriptor needs no escape.  Plain paths are kept readable for whoever reads /proc/mounts.
    """
    named = {"lowerdir": lower, "upperdir": upper, "workdir": work}
    readable = ",".join(f"{name}={path}" for name, path in named.items())
    # Beside them stands at most: all options, and what the kernel adds.
    if (
        not any(_SPECIAL & set(path) for path in named.values())
        and len(os.fsencode(readable)) < OPTIONS_MAX_BYTES - 256
    ):
        return readable
    for name, path in named.items():
        fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, fd)
        named[name] = f"/proc/self/fd/{fd}"
    return ",".join(f"{name}={path}" for name, path in named.items())


def prepare_upper(upper: str, work: str, lower: str) -> None:
    """Make an upper ready to be mounted over *lower*.

    A work directory that was used before holds the mark of a volatile mount, which refuses another one: it is
    emptied, since who asks for this mount has judged that the upper is whole.
    """
    if os.listdir(work):
        from pathlib import Path

        from volume_core.parts.trees import remove_tree

        remove_tree(Path(work), keep_root=True)
    elif not os.listdir(upper):
        _copy_attributes(lower, upper)
    with contextlib.suppress(FileExistsError):
        os.mkdir(os.path.join(work, "used"), 0o700)


def _copy_attributes(source: str, target: str) -> None:
    """Give the directory *target* owner, mode, extended attributes and times of *source*, as far as this user may."""
    seen = os.stat(source)
    with contextlib.suppress(PermissionError):
        os.chown(target, seen.st_uid, seen.st_gid)
    for name in os.listxattr(source):
        try:
            os.setxattr(target, name, os.getxattr(source, name))
        except OSError as error:
            if error.errno not in {errno.EPERM, errno.EACCES, errno.EOPNOTSUPP}:
                raise
    os.chmod(target, stat.S_IMODE(seen.st_mode))
    os.utime(target, ns=(seen.st_mtime_ns, seen.st_mtime_ns))


def _refused(plan: Plan, error: OSError) -> MountError:
    what = f"the overlay at {plan.mount_path}"
    assert plan.upper is not None
    kind = _file_system(plan.upper)
    if error.errno == errno.EINVAL:
        return MountError(
            f"{what}: overlayfs refuses {plan.upper}, which lies on {kind}: set VOLUME_STATE_DIR to a directory on a "
            "local file system (ext4, xfs, tmpfs; on Kubernetes an emptyDir), or use driver='copy'"
        )
    if error.errno == errno.EPERM and syscalls.may_mount():
        return MountError(
            f"{what}: overlayfs may not keep its marks (trusted.overlay.*) on {plan.upper}, which lies on {kind}: "
            "use a local file system, or driver='fuse-overlay' or 'copy'"
        )
    return mount_refused(what, error)


def _file_system(path: str) -> str:
    """Return the kind of file system that *path* lies on."""
    number = os.stat(path).st_dev
    device = f"{os.major(number)}:{os.minor(number)}"
    return next((each.kind for each in reversed(syscalls.mount_points()) if each.device == device), "an unknown kind")

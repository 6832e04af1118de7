"""Asking for a mount, and the handle of a live one: the side of whoever wants to work in the tree.

Always true: nothing here holds a descriptor of the mount, so a fork of this process keeps nothing alive;
a handle made from a mount's record is as good as the one that mount() returned.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from volume_core.errors import BusyError, MountError, StorageError
from volume_core.mount import control, stale, syscalls
from volume_core.mount.attaching import FUSE_CONF, may_allow_other
from volume_core.mount.busy import mapped_paths
from volume_core.mount.children import adopted_later, environment, reap
from volume_core.mount.plans import Plan, Process, Record, exclusively
from volume_core.parts.workcopies import boot_id

if TYPE_CHECKING:
    from volume_core.mount.request import MountRequest
    from volume_core.parts.state import State

SUPERVISOR = (sys.executable, "-P", "-m", "volume_core.mount.supervisor")
SERVER = (sys.executable, "-P", "-m", "volume_core.mount.server")
RESEND_SINCE = (6, 9)  # the first kernel that hands out again what a dead server had taken
UNDO_PATIENCE_S = 30.0  # beyond the time-out, for a supervisor to undo what it did


class LiveMount:
    """A mount kept by a supervisor.  See volume_core.mount.request.Mounted for what its methods promise."""

    def __init__(self, record: Record, path: Path | None = None) -> None:
        self._record = record
        self._path = Path(record.plan.mount_path) if path is None else path

    def __repr__(self) -> str:
        return f"LiveMount({str(self._path)!r}, driver={self.driver!r}, id={self.id!r})"

    @property
    def id(self) -> str:
        """The name of the mount's directory below `state/mounts`."""
        return self._record.plan.id

    @property
    def path(self) -> Path:
        """Where the tree is, as it was asked for."""
        return self._path

    @property
    def driver(self) -> str:
        """`kernel` or `fuse-overlay`."""
        return self._record.plan.driver

    @property
    def dialect(self) -> str:
        """The name of the dialect of the upper's markers."""
        return self._record.dialect

    @property
    def squashed_owner(self) -> tuple[int, int] | None:
        """The (uid, gid) that every file seems to have; then an owner found in the upper says nothing.  Else None."""
        return self._record.plan.squash

    @property
    def record(self) -> Record:
        """What the supervisor last wrote down; what was known before, where the mount is gone."""
        with contextlib.suppress(OSError, ValueError):
            self._record = Record.load(self._record.plan.directory)
        return self._record

    def is_alive(self) -> bool:
        """Whether the tree is mounted and answers; never blocks on the mount."""
        return os.path.isdir(self._record.plan.directory) and stale.works(self.record)

    def condition(self) -> stale.Condition:
        """Whether it is supervised, works without, or is dead."""
        return stale.judge(self.record, boot_id(), Process.of(os.getpid()))

    def settle(self) -> None:
        """Bring what the driver still caches into the upper.

        Raises StorageError when the kernel reports a write-back that was lost, MountError when the mount is gone,
        BusyError where what was stored to a mapped file cannot be waited for.
        """
        plan = self._record.plan
        if plan.upper is None:
            return
        if not self.is_alive():
            raise MountError(f"{plan.mount_path} is not mounted any more: {self._record.broken or 'it was unmounted'}")
        try:
            fd = os.open(plan.mount_path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                # A volatile overlay has nothing to write here, and tells of every write-back it lost.
                os.fsync(fd)
                if plan.driver != "kernel":
                    syscalls.syncfs(fd, plan.mount_path)
                    _fsync_mapped_files(fd, plan.mount_path)
            finally:
                os.close(fd)
        except OSError as error:
            raise StorageError(f"{plan.mount_path}: what was written cannot be kept: {error.strerror}") from error

    def unmount(self, *, lazy: bool = False) -> None:
        """Take the tree away; a writer's upper stays.

        Strict: raises BusyError naming what is open, and changes nothing.  Lazy: the path is free at once, and
        files that are still open go on working until they are closed.
        """
        directory = self._record.plan.directory
        try:
            control.ask(directory, {"command": "unmount", "lazy": lazy})
        except (FileNotFoundError, ConnectionError):
            self._unmount_unsupervised(lazy)
        reap()

    def _unmount_unsupervised(self, lazy: bool) -> None:
        directory = self._record.plan.directory
        with exclusively(os.path.dirname(directory)):
            try:
                record = Record.load(directory)
            except FileNotFoundError:
                return  # it was unmounted before
            stale.dismantle(record, lazy=lazy)


def _fsync_mapped_files(root_fd: int, root: str) -> None:
    """Wait until what was stored to mapped files below *root* has reached the program that keeps them.

    syncfs only begins that, on a FUSE file system.
    """
    for path in mapped_paths(root):
        try:
            if stat.S_ISREG(os.lstat(path, dir_fd=root_fd).st_mode):
                fd = _open_somehow(path, root_fd)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
        except (FileNotFoundError, NotADirectoryError):
            continue  # removed or renamed meanwhile: the scan, which compares twice, sees that
        except PermissionError as error:
            raise BusyError(
                f"{path} is mapped, and its mode forbids to wait for what was stored to it", [path]
            ) from error


def _open_somehow(path: str, root_fd: int) -> int:
    flags = os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, os.O_RDONLY | flags, dir_fd=root_fd)
    except PermissionError:
        return os.open(path, os.O_WRONLY | flags, dir_fd=root_fd)


def mount_with(driver: str, request: MountRequest) -> LiveMount:
    """Mount *request* with *driver* and return when the tree answers.

    Raises MountError, which says what the machine lacks; nothing is left mounted then.
    """
    request.state.prepare()
    plan = plan_for(driver, request)
    _start_supervisor(plan)
    record = Record.load(plan.directory)
    adopted_later(record.processes["supervisor"])
    return LiveMount(record, Path(os.path.abspath(request.mount_path)))


def live_mounts(state: State) -> list[LiveMount]:
    """Return what is mounted from *state*, after cleaning up what crashes left; ordered by path."""
    if not state.mounts.is_dir():
        return []
    clean(state)
    found = []
    for directory in state.mounts.iterdir():
        try:
            record = Record.load(str(directory))
        except (OSError, ValueError):
            continue  # the lock file; a mount that is just being made or unmounted
        if record.ready:
            found.append(LiveMount(record))
    return sorted(found, key=lambda each: each.path)


def clean(state: State) -> list[str]:
    """Take down what crashes left of mounts of *state*; return the paths that were freed."""
    if not state.mounts.is_dir():
        return []
    with exclusively(str(state.mounts)):
        return stale.clean(str(state.mounts), boot_id(), Process.of(os.getpid()))


def plan_for(driver: str, request: MountRequest) -> Plan:
    """Return *request* as plain values for a supervisor.  Raises MountError for what is not permitted here."""
    mount_id, copy = uuid.uuid4().hex[:16], request.working_copy
    return Plan(
        id=mount_id,
        directory=str(request.state.mounts / mount_id),
        mount_path=os.path.realpath(request.mount_path),
        driver=driver,
        volume=request.volume,
        store_url=request.store_url,
        region=request.region,
        locator=request.locator,
        layers=[os.path.abspath(path) for path in request.layers],
        used_bytes=request.used_bytes,
        inode_count=request.inode_count,
        cache_dir=str(request.state.cache),
        cache_limit_bytes=request.cache_limit_bytes,
        working_copy=copy.id if copy is not None else None,
        upper=str(copy.upper) if copy is not None else None,
        work=str(copy.work) if copy is not None else None,
        asker=Process.of(os.getpid()),
        detach=request.detach,
        allow_other=_allow_other(request.allow_other),
        squash=_squash(driver, request),
        resend=syscalls.kernel_release() >= RESEND_SINCE,
        timeout_s=request.timeout_s,
        boot_id=boot_id(),
        server=list(SERVER),
    )


def _allow_other(wanted: bool | None) -> bool:
    permitted = may_allow_other()
    if wanted and not permitted:
        raise MountError(
            f"other users cannot be let in: add the line user_allow_other to {FUSE_CONF}, or mount as root"
        )
    return permitted if wanted is None else wanted


def _squash(driver: str, request: MountRequest) -> tuple[int, int] | None:
    if driver != "fuse-overlay" or not request.writable:
        return None
    from volume_core.mount.fuse_overlay import squashed_owner

    return squashed_owner(request.layers)


def _start_supervisor(plan: Plan) -> None:
    """Start a supervisor and return when the tree is mounted; raises MountError."""
    ours, theirs = socket.socketpair()
    with ours, tempfile.TemporaryFile() as said:
        with theirs:
            # Where this process has no stdin or stdout, the socket may be 0 or 1, which a child gets anew.
            passed = fcntl.fcntl(theirs.fileno(), fcntl.F_DUPFD_CLOEXEC, 3)
            try:
                process = subprocess.Popen(
                    [*SUPERVISOR, str(passed)], pass_fds=(passed,), cwd="/", env=environment(),
                    stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True,
                )  # fmt: skip
            finally:
                os.close(passed)
        ours.settimeout(plan.timeout_s + UNDO_PATIENCE_S)
        try:
            control.send(ours, plan._asdict())
            answer = control.receive(ours)
        except TimeoutError as error:
            raise MountError(f"{plan.mount_path}: mounting took longer than {plan.timeout_s:g} s") from error
        except (OSError, ValueError) as error:
            said.seek(0)
            text = said.read().decode("utf-8", "replace").strip()
            raise MountError(
                f"{plan.mount_path}: the supervisor ended before it had mounted: {text or error}"
            ) from error
        finally:
            # The supervisor itself is its child, and nobody's when it has ended.
            process.wait()
    control.raise_error(answer)

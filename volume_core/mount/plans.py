"""What a supervisor is told to keep mounted, and what it writes down about it.

    state/mounts/lock            flock: held for the moment in which mounts are made known or cleaned up
    state/mounts/<id>/record.json   the plan, and the processes behind it; replaced whole
    state/mounts/<id>/supervisor    flock: held as long as the supervisor lives
    state/mounts/<id>/serving       flock: held as long as the supervisor or a server lives
    state/mounts/<id>/control.sock, log, view/

Always true:
  1. The record is there before anything is mounted, so that whatever a crash leaves can be found.
  2. Everything mounted carries the id: a path is only ever unmounted when what lies there is ours.
  3. Whether a process lives is asked of its lock, which the kernel gives up with it; a pid counts
     only together with its start time.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
from collections.abc import Iterator
from typing import Any, NamedTuple, Self

RECORD = "record.json"
SUPERVISOR_LOCK = "supervisor"
SERVING_LOCK = "serving"
CONTROL = "control.sock"
LOG = "log"
VIEW = "view"
FUSE_OVERLAY_KIND = "fuse.fuse-overlayfs"  # which gives every mount the same source


class Process(NamedTuple):
    """A process that cannot be mistaken for a later one of the same number.

    `started` is its start in clock ticks since boot; `namespace` tells pid namespaces apart.
    """

    pid: int
    started: int
    namespace: str = ""

    @classmethod
    def of(cls, pid: int) -> Self:
        """Return the process that now has that pid; `started` is -1 if there is none."""
        return cls(pid, _start_ticks(pid), pid_namespace())

    def open(self) -> int | None:
        """Return a pidfd, readable once the process is gone; None if it is gone already.

        Raises OSError (ENOSYS) where the kernel has no pidfds.
        """
        if self.namespace != pid_namespace():
            return None
        try:
            fd = os.pidfd_open(self.pid)
        except (ProcessLookupError, OverflowError):
            return None
        # Only now does the start time count: the descriptor keeps the pid from being used again.
        if _start_ticks(self.pid) == self.started:
            return fd
        os.close(fd)
        return None

    def is_alive(self) -> bool:
        """Whether it still runs; what has ended and was not waited for does not."""
        try:
            fd = self.open()
        except OSError:
            return self.namespace == pid_namespace() and _start_ticks(self.pid) == self.started
        if fd is None:
            return False
        try:
            return not select.select([fd], [], [], 0)[0]
        finally:
            os.close(fd)


def pid_namespace() -> str:
    """Return what names the space in which this process's pids are valid."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _start_ticks(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The second field, the name, may hold blanks and parentheses.
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, IndexError):
        return -1


class Plan(NamedTuple):
    """One mount, as plain values.  Paths are absolute and, but for `mount_path`, of this machine's state.

    `mount_path` has no symlinks.  `upper` is None for a reader.  `asker` is the process that called mount().
    `squash` (uid, gid) makes every file look theirs.  `boot_id` is that of the machine now; `server` is the
    command that serves the view.
    """

    id: str
    directory: str
    mount_path: str
    driver: str
    volume: str
    store_url: str
    region: str | None
    locator: str | None
    layers: list[str]
    used_bytes: int
    inode_count: int
    cache_dir: str
    cache_limit_bytes: int
    working_copy: str | None
    upper: str | None
    work: str | None
    asker: Process
    detach: bool
    allow_other: bool
    squash: tuple[int, int] | None
    resend: bool
    timeout_s: float
    boot_id: str
    server: list[str]

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> Self:
        """Return the plan that `fields` (of JSON) describe."""
        squash = fields["squash"]
        return cls(**fields | {"asker": Process(*fields["asker"]), "squash": tuple(squash) if squash else None})

    @property
    def owner(self) -> Process | None:
        """Whose end is the mount's end, too; None for a detached mount."""
        return None if self.detach else self.asker

    @property
    def view_path(self) -> str | None:
        """Where the FUSE view is mounted: a reader's at its path, a writer's out of sight, a new volume's nowhere."""
        if not self.layers:
            return None if self.upper else self.mount_path
        return os.path.join(self.directory, VIEW) if self.upper else self.mount_path

    @property
    def source(self) -> str:
        """What `df` shows, and what tells our mounts from all others."""
        version = self.locator.rpartition("/")[2].removesuffix(".json")[:12] if self.locator else "new"
        return f"volume:{self.volume}@{version}:{self.id}"

    @property
    def paths(self) -> list[str]:
        """What is mounted, lowest first."""
        view = self.view_path
        return [self.mount_path] if view in (None, self.mount_path) else [str(view), self.mount_path]


class Record(NamedTuple):
    """What a supervisor writes down: found by `status`, by whoever unmounts, and by the next start.

    `created`: the mount path was made for this mount and goes with it.  `broken` says why the tree gives
    errors only, until it is unmounted.  `processes` are for people; whether they live, their locks say.
    """

    plan: Plan
    dialect: str = "kernel"
    created: bool = False
    ready: bool = False
    broken: str | None = None
    processes: dict[str, Process] = {}

    def save(self) -> None:
        """Replace record.json, whole."""
        fields = {**self._asdict(), "plan": self.plan._asdict()}
        path = os.path.join(self.plan.directory, RECORD)
        temporary = f"{path}.tmp"
        with open(temporary, "w", encoding="ascii") as file:
            json.dump(fields, file, indent=1)
        os.replace(temporary, path)

    @classmethod
    def load(cls, directory: str) -> Self:
        """Read the record of the mount in *directory*; raises FileNotFoundError, or ValueError if it cannot be read."""
        with open(os.path.join(directory, RECORD), "rb") as file:
            data = file.read()
        try:
            fields = json.loads(data)
            plan = Plan.from_fields(fields.pop("plan"))
            processes = {name: Process(*each) for name, each in fields.pop("processes").items()}
            return cls(plan=plan, processes=processes, **fields)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{directory}: {RECORD} is not a record of this release: {error!r}") from error

    def is_ours(self, source: str, kind: str) -> bool:
        """Whether a file system with that source and kind, at one of our paths, is what this mount put there."""
        return source == self.plan.source or (self.plan.driver == "fuse-overlay" and kind == FUSE_OVERLAY_KIND)


def forget(directory: str) -> None:
    """Remove the directory of a mount whose file systems are gone, its record last; no error if it is not there.

    Nothing is removed below its directories: were one still a mount point, this would fail, not delete.
    """
    try:
        names = sorted(os.listdir(directory), key=lambda name: name == RECORD)
    except FileNotFoundError:
        return
    for name in names:
        path = os.path.join(directory, name)
        with contextlib.suppress(FileNotFoundError):
            try:
                os.unlink(path)
            except (IsADirectoryError, PermissionError):
                os.rmdir(path)
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(directory)


def hold(path: str) -> int:
    """Make the file *path* and lock it; the lock lasts as long as a copy of the descriptor."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)  # at most the instant in which somebody looks whether it is held
    return fd


def is_held(path: str) -> bool:
    """Whether some process holds the lock *path* now."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(fd, fcntl.LOCK_UN)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


@contextlib.contextmanager
def exclusively(mounts: str) -> Iterator[None]:
    """Be the only process that makes mounts known, or cleans up, below the directory *mounts*."""
    fd = hold(os.path.join(mounts, "lock"))
    try:
        yield
    finally:
        # Explicitly, since a child that another thread forks meanwhile has a copy of the descriptor.
        fcntl.flock(fd, fcntl.LOCK_UN)
        os.close(fd)

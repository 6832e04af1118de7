"""Working copies: the local directories in which a writer's changes lie until they are committed.

    work/<id>/record.json    what it is a working copy of; replaced whole, never rewritten in place
    work/<id>/upper/         the changes (of the copy driver: where its whole tree is kept once unmounted)
    work/<id>/work           overlay's scratch directory
    work/<id>/captured.sqlite   what the last commit captured; landing.sqlite: while a head is moved to it
    work/<id>/lock           flock: held by whoever may write below this directory

    made --locked--> in use --process gone--> left behind --recovered or discarded--> gone

Always true:
  1. Nothing here deletes changes but `discard`, and it takes the lock first.
  2. A directory whose record cannot be read is reported and left as it is.
  3. A record holds the id of the boot in which the copy was last in use: an upper is not synced as it
     is written, so one from another boot may be torn.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import fcntl
import functools
import json
import logging
import os
import stat
import subprocess
import sys
import time
import uuid
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

from volume_core.errors import BusyError, NotFoundError, VolumeError
from volume_core.parts.state import State
from volume_core.parts.trees import disk_usage_bytes, remove_tree

log = logging.getLogger(__name__)

FORMAT = "working-copy/1"
RECORD = "record.json"
MAKING = ".making-"  # such a directory is being filled by `create`
DISCARDED = ".discarded-"  # such a directory is being deleted; a later start finishes that
MAKING_AGE_MAX_S = 3600
LOCK_PATIENCE_S = 0.25  # a probe by `in_use` holds the lock for microseconds: nobody is refused for that


@functools.cache
def boot_id() -> str:
    """Return what tells this boot of the machine from every other; "" where nothing does."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        if sys.platform != "darwin":
            return ""
    asked = subprocess.run(["sysctl", "-n", "kern.bootsessionuuid"], capture_output=True, text=True, check=False)
    return asked.stdout.strip()


@dataclass(frozen=True, slots=True)
class Record:
    """What record.json says.  `base` and `parent` are locators, None before the first commit.

    `base` is the version over which `upper` was written, and the only one it may ever be mounted
    over; `parent` is this copy's own last commit, or the base.  `tree` is where the changes lie if not
    in `upper`, and `tree_inode` its root's inode: whatever else lies there by then is not this copy's.
    `ready` is False until the driver has finished making the tree.  `notes` is the caller's.
    """

    id: str
    volume: str
    store_url: str
    base: str | None = None
    parent: str | None = None
    driver: str = ""
    dialect: str = ""
    mount_path: str = ""
    boot_id: str = ""
    created_at: str = ""
    tree: str | None = None
    tree_inode: int = 0
    ready: bool = True
    notes: dict[str, str] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Return the record as JSON."""
        # ASCII only: lone surrogates, which stand for bytes that are no text, survive as escapes.
        return json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, sort_keys=True, indent=1).encode("ascii")

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Decode record.json; raises ValueError saying what is wrong with it."""
        fields: Any = json.loads(data)
        if not isinstance(fields, dict) or fields.pop("format", None) != FORMAT:
            raise ValueError(f"it is not a {FORMAT} record")
        known = {each.name: each for each in dataclasses.fields(cls)}
        if unknown := sorted(set(fields) - set(known)):
            raise ValueError(f"it has fields this release does not know: {', '.join(unknown)}")
        try:
            record = cls(**fields)
        except TypeError as error:
            raise ValueError(f"a field is missing ({error})") from error
        for name, wanted in _TYPES.items():
            if not isinstance(getattr(record, name), wanted):
                raise ValueError(f"its {name} is {getattr(record, name)!r}")
        return record


_TEXT_OR_NONE = (str, type(None))
_TYPES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("id", "volume", "store_url", "driver", "dialect", "mount_path", "boot_id", "created_at"), str),
    **dict.fromkeys(("base", "parent", "tree"), _TEXT_OR_NONE),
    "tree_inode": int,
    "ready": bool,
    "notes": dict,
}


class BrokenCopy(NamedTuple):
    """A directory under work/ whose record cannot be read: `reason` says why.  Its files are untouched."""

    path: Path
    reason: str


class Survey(NamedTuple):
    """Every working copy below a state, oldest first, and what looks like one but cannot be read."""

    copies: list[WorkingCopy]
    broken: list[BrokenCopy]


class WorkingCopy:
    """One working copy: its directory and its record.  Used by one thread at a time.

    `record` is what was last read or written here; another process's update is seen by `load`.
    """

    def __init__(self, path: Path, record: Record) -> None:
        self.path = path
        self.record = record
        self._lock: HeldLock | None = None

    def __repr__(self) -> str:
        return f"WorkingCopy({self.id!r}, volume={self.volume!r}, driver={self.driver!r})"

    @property
    def id(self) -> str:
        """The name of its directory."""
        return self.record.id

    @property
    def volume(self) -> str:
        """The volume's name."""
        return self.record.volume

    @property
    def store_url(self) -> str:
        """The store its base and its commits lie in."""
        return self.record.store_url

    @property
    def base(self) -> str | None:
        """Locator of the version over which the upper was written."""
        return self.record.base

    @property
    def parent(self) -> str | None:
        """Locator of this copy's last commit, or of its base."""
        return self.record.parent

    @property
    def driver(self) -> str:
        """The mount driver that wrote the upper."""
        return self.record.driver

    @property
    def dialect(self) -> str:
        """The name of the dialect in which the upper spells deletions."""
        return self.record.dialect

    @property
    def mount_path(self) -> str:
        """Where it was last mounted."""
        return self.record.mount_path

    @property
    def upper(self) -> Path:
        """The root of what a commit scans: `upper/`, or the copy driver's tree."""
        # Another mount may be at that path by now.
        if self.record.tree is not None and _is_directory(Path(self.record.tree), self.record.tree_inode):
            return Path(self.record.tree)
        return self.path / "upper"  # also where the tree was moved to, by whoever died before he could note it

    @property
    def work(self) -> Path:
        """Overlay's scratch directory, on the file system of `upper`."""
        return self.path / "work"

    @property
    def captured_path(self) -> Path:
        """What the last commit captured."""
        return self.path / "captured.sqlite"

    @property
    def landing_path(self) -> Path:
        """What a commit captured whose version a head is being asked to name."""
        return self.path / "landing.sqlite"

    @property
    def same_boot(self) -> bool:
        """Whether the machine has stayed up since the copy was in use: False means possibly torn."""
        return bool(self.record.boot_id) and self.record.boot_id == boot_id()

    def update(self, **changes: Any) -> None:
        """Replace fields of the record, durably and whole or not at all."""
        record = dataclasses.replace(self.record, **changes)
        _replace_file(self.path / RECORD, record.to_bytes())
        self.record = record

    def lock(self) -> HeldLock:
        """Take the copy for this process, and return what gives it back: a context manager with `close`.

        Raises BusyError at once if another holder lives.  The lock ends with the process (a forked
        child does not keep it); it is not shared with other WorkingCopy values of this process.
        """
        if self._lock is not None and self._lock.held:
            raise BusyError(f"working copy {self.id} of {self.volume} is already in use by this handle")
        self._lock = HeldLock(self.path / "lock", f"working copy {self.id} of {self.volume}")
        return self._lock

    @property
    def in_use(self) -> bool:
        """Whether some process, this one included, holds the lock now."""
        if self._lock is not None and self._lock.held:
            return True
        return _is_locked(self.path / "lock")

    def size_bytes(self) -> int:
        """Return the disk space that the upper takes, in bytes (blocks, each inode once)."""
        return disk_usage_bytes(self.upper)

    def discard(self) -> None:
        """Delete the copy and all changes in it, for good.

        Raises BusyError if another holder lives, OSError if files cannot be deleted; what is left then
        is not listed any more and a later `sweep` deletes it.
        """
        lock = self._lock if self._lock is not None and self._lock.held else self.lock()
        try:
            if self.record.tree is not None:
                _remove_outside(Path(self.record.tree), self.record.tree_inode)
            doomed = self.path.with_name(f"{DISCARDED}{self.id}")
            os.rename(self.path, doomed)
            remove_tree(doomed)
        finally:
            lock.close()


def create(
    state: State,
    *,
    volume: str,
    store_url: str,
    base: str | None = None,
    parent: str | None = None,
    driver: str = "",
    dialect: str = "",
    mount_path: str | os.PathLike[str] = "",
    notes: dict[str, str] | None = None,
    ready: bool = True,
) -> WorkingCopy:
    """Make a new, empty working copy of *volume* over the version *base* (a locator, or None).

    It appears in listings whole: the directory is filled under another name, then renamed.
    """
    state.prepare()
    name = uuid.uuid4().hex
    record = Record(
        name, volume, store_url, base, parent if parent is not None else base, driver, dialect,
        os.fspath(mount_path), boot_id(), _now(), ready=ready, notes=dict(notes or {}),
    )  # fmt: skip
    unnamed, path = state.work / f"{MAKING}{name}", state.work / name
    unnamed.mkdir(mode=0o700)
    with HeldLock(unnamed / "lock", name):  # so that no `sweep` takes it for a leftover
        for directory in ("upper", "work"):
            (unnamed / directory).mkdir(mode=0o755)
        _replace_file(unnamed / RECORD, record.to_bytes())
        os.rename(unnamed, path)
    return WorkingCopy(path, record)


def load(state: State, copy_id: str) -> WorkingCopy:
    """Return the working copy with that id.

    Raises NotFoundError if there is none, VolumeError if its record cannot be read.
    """
    path = state.work / copy_id
    if not copy_id or "/" in copy_id or copy_id.startswith(".") or not path.is_dir():
        raise NotFoundError(f"no working copy {copy_id!r} below {state.work}")
    found = _read(path)
    if isinstance(found, BrokenCopy):
        raise VolumeError(f"working copy {copy_id}: {found.reason}; its files are untouched, below {path}")
    return found


def survey(state: State) -> Survey:
    """Return all working copies, and apart from them the directories whose record cannot be read."""
    copies: list[WorkingCopy] = []
    broken: list[BrokenCopy] = []
    for path in _directories(state):
        found = _read(path)
        if isinstance(found, WorkingCopy):
            copies.append(found)
        elif path.is_dir():  # else another process has just discarded it
            broken.append(found)
    copies.sort(key=lambda copy: (copy.record.created_at, copy.id))
    return Survey(copies, broken)


def list_all(state: State) -> list[WorkingCopy]:
    """Return all working copies, oldest first; one that cannot be read is named in a warning."""
    found = survey(state)
    for broken in found.broken:
        log.warning("%s is left alone: %s", broken.path, broken.reason)
    return found.copies


def left_behind(state: State) -> list[WorkingCopy]:
    """Return the working copies that nobody uses: what crashes and exits without commit left."""
    return [copy for copy in list_all(state) if not copy.in_use]


def sweep(state: State) -> None:
    """Finish the discards that a crash or a full disk cut short; touches nothing else."""
    with contextlib.suppress(FileNotFoundError):
        for path in sorted(state.work.iterdir()):
            lock, making = path / "lock", path.name.startswith(MAKING)
            with contextlib.suppress(FileNotFoundError):
                if not making and not path.name.startswith(DISCARDED):
                    continue
                # Its lock may be there and not be held yet.
                if making and time.time() - path.stat().st_mtime < MAKING_AGE_MAX_S:
                    continue
                if not _is_locked(lock):
                    remove_tree(path)


def _directories(state: State) -> list[Path]:
    try:
        return sorted(path for path in state.work.iterdir() if path.is_dir() and not path.name.startswith("."))
    except FileNotFoundError:
        return []


def _read(path: Path) -> WorkingCopy | BrokenCopy:
    try:
        record = Record.from_bytes((path / RECORD).read_bytes())
    except (OSError, ValueError) as error:
        return BrokenCopy(path, f"its {RECORD} cannot be read: {error}")
    if record.id != path.name:
        return BrokenCopy(path, f"its {RECORD} belongs to {record.id!r}")
    return WorkingCopy(path, record)


def _replace_file(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")


def _is_directory(path: Path, inode: int) -> bool:
    """Whether the directory that has *inode* is still at *path*."""
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_ino == inode


def _remove_outside(tree: Path, inode: int) -> None:
    """Delete a tree that lies where its user asked for it, if it still does; a mount point stays, empty."""
    if not _is_directory(tree, inode):
        return
    remove_tree(tree, keep_root=True)
    with contextlib.suppress(OSError):  # it is a mount point, or its parent is not ours
        os.rmdir(tree)


def _is_locked(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(fd, fcntl.LOCK_UN)  # explicitly: a child that is forked right now has a copy of the descriptor
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


class HeldLock:
    """A held flock.  The file holds the holder's pid, for people; only the lock itself counts."""

    def __init__(self, path: Path, what: str) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        patient_until = time.monotonic() + LOCK_PATIENCE_S
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() < patient_until:
                    time.sleep(0.005)
                    continue
            holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip()
            self.close()
            raise BusyError(f"{what} is in use by process {holder or 'unknown'}")
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
        _held.add(self)

    @property
    def held(self) -> bool:
        return self._fd >= 0

    def close(self) -> None:
        """Give the lock back; once is enough."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            _held.discard(self)
            with contextlib.suppress(OSError):
                fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)

    def forget(self) -> None:
        """Drop this process's copy of a lock that its parent goes on holding."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


_held: weakref.WeakSet[HeldLock] = weakref.WeakSet()


def _forget_in_child() -> None:
    # A flock lives as long as any copy of its descriptor: a worker forked off a task must not keep
    # the task's working copy locked when the task is gone.
    for lock in list(_held):
        lock.forget()


os.register_at_fork(after_in_child=_forget_in_child)

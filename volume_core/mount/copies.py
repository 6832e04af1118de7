"""The trees of the copy driver on this machine: what is known of each, and how it is taken away.

    state/copies/lock             flock: held for the moment in which trees are made known or taken away
    state/copies/<id>/record.json    one tree; written before anything is made
    state/copies/<id>/lock           flock: held as long as the process lives that mounted it

Always true:
  1. Only a directory that a record names, with the inode it was given, is ever deleted or moved.
  2. A writer's tree is never deleted here: it lies at the mount path, or is its working copy's upper.
  3. A record that cannot be read is reported, and what it may name is left alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import logging
import os
import stat
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from volume_core.errors import BusyError, NotFoundError, VolumeError
from volume_core.mount import syscalls
from volume_core.mount.busy import open_paths
from volume_core.mount.plans import exclusively, is_held
from volume_core.parts.trees import remove_tree
from volume_core.parts.workcopies import HeldLock, boot_id, load

if TYPE_CHECKING:
    from volume_core.parts.state import State

log = logging.getLogger(__name__)

NAME = "copy"
DIALECT = "plain"
RECORD = "record.json"
LOCK = "lock"
# A directory cannot be renamed over these: a mount point, a parent that is not ours, another file system.
NOT_BY_RENAME = frozenset((errno.EBUSY, errno.EACCES, errno.EPERM, errno.EXDEV, errno.EROFS, errno.EINVAL))


@dataclass(frozen=True, slots=True)
class CopyRecord:
    """One tree of this driver.

    `inode` is that of the whole tree's root, 0 while it is made; `found`: there was an empty directory at the
    mount path, which comes back when the tree goes; `bound`: a read-only bind mount lies on the tree;
    `in_place`: the tree was made where it is, and its root is not ours to move.
    """

    id: str
    mount_path: str
    volume: str
    locator: str | None
    working_copy: str | None
    detached: bool
    boot_id: str
    found: bool = False
    inode: int = 0
    bound: bool = False
    in_place: bool = False

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read the record in *directory*; FileNotFoundError, or ValueError if it cannot be read."""
        try:
            return cls(**json.loads((directory / RECORD).read_bytes()))
        except TypeError as error:
            raise ValueError(f"{directory / RECORD} is not a record of this release: {error}") from error

    def save(self, directory: Path) -> None:
        """Replace the record in *directory*, whole."""
        temporary = directory / f"{RECORD}.tmp"
        temporary.write_text(json.dumps(dataclasses.asdict(self), indent=1), encoding="ascii")
        os.replace(temporary, directory / RECORD)

    @property
    def unfinished(self) -> str:
        """The name of what marks a tree that is not whole."""
        return f".volume-{self.id}.unfinished"

    @property
    def beside(self) -> Path:
        """Where a tree is made that will be renamed into place."""
        return Path(self.mount_path).parent / self.unfinished

    @property
    def aside(self) -> Path:
        """Where the empty directory waits that was found at the mount path."""
        return Path(self.mount_path).parent / f".volume-{self.id}.found"

    def is_there(self) -> bool:
        """Whether the finished tree is at the mount path."""
        try:
            return bool(self.inode) and os.lstat(self.mount_path).st_ino == self.inode
        except OSError:
            return False


class CopyMounted:
    """A live tree of the copy driver; see volume_core.mount.request.Mounted."""

    driver = NAME
    dialect = DIALECT

    def __init__(self, state: State, directory: Path, record: CopyRecord, lock: HeldLock | None = None) -> None:
        self._state = state
        self._directory = directory
        self._record = record
        self._lock = lock
        self._mutex = threading.Lock()
        self._gone = False

    @property
    def id(self) -> str:
        """The name of its directory below `state/copies`."""
        return self._record.id

    @property
    def path(self) -> Path:
        """Where the tree is."""
        return Path(self._record.mount_path)

    @property
    def record(self) -> CopyRecord:
        """What is known of the tree."""
        return self._record

    def is_alive(self) -> bool:
        """Whether the tree is at its path."""
        return not self._gone and self._record.is_there()

    def settle(self) -> None:
        """Nothing is cached above the tree: what a program wrote is what a scan reads."""

    def unmount(self, *, lazy: bool = False) -> None:
        """Take the tree away; see volume_core.mount.request.Mounted.unmount."""
        with self._mutex:
            if self._gone:
                return
            if not lazy:
                _refuse_busy(self._record)
            with exclusively(str(self._state.copies)):
                _take_away(self._state, self._directory, self._record, lazy=lazy)
            self._gone = True
            if self._lock is not None:
                self._lock.close()


def live_copies(state: State) -> list[CopyMounted]:
    """Return the trees of this driver that are mounted now, whoever mounted them."""
    found = []
    for directory in _directories(state):
        with contextlib.suppress(OSError, ValueError):
            copy = CopyMounted(state, directory, CopyRecord.load(directory))
            if copy.is_alive():
                found.append(copy)
    return found


def clean(state: State) -> None:
    """Take away what killed processes left: readers' trees are deleted, writers' become their copies' uppers."""
    if state.copies.is_dir():
        with exclusively(str(state.copies)):
            clean_locked(state)


# -- taking away


def _refuse_busy(record: CopyRecord) -> None:
    holders = open_paths(record.mount_path)
    if holders:
        raise BusyError(f"{record.mount_path} is in use: {', '.join(holders[:5])}", holders)


def _take_away(state: State, directory: Path, record: CopyRecord, *, lazy: bool) -> None:
    """Free the mount path and forget the record; the caller is the only one who does."""
    unbind(record, lazy=lazy)
    if record.is_there():
        if record.working_copy is None:
            delete(record)
        else:
            _keep_for_recovery(state, record)
    bring_back_found(record)
    remove_tree(directory)


def unbind(record: CopyRecord, *, lazy: bool) -> None:
    """Unmount the read-only bind mount from a tree, if it still is there."""
    mounted = sum(point.path == record.mount_path for point in syscalls.mount_points()) if record.bound else 0
    # A tree made in place lies on a mount that is not ours, and a bind mount does not survive the machine.
    if mounted <= record.in_place or record.boot_id != boot_id() or not record.is_there():
        return
    try:
        syscalls.unmount(record.mount_path, lazy=lazy)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        raise BusyError(f"{record.mount_path} is in use by a process that this user may not look at") from error


def delete(record: CopyRecord) -> None:
    """Delete the tree that is at the mount path."""
    path = Path(record.mount_path)
    if record.in_place:
        remove_tree(path, keep_root=True)
        return
    try:
        os.rename(path, record.beside)  # the name is free at once, however long the deletion takes
    except OSError:
        remove_tree(path)
    else:
        remove_tree(record.beside)


def _keep_for_recovery(state: State, record: CopyRecord) -> None:
    """Move a writer's tree out of the mount path, to where its working copy keeps it."""
    path = Path(record.mount_path)
    try:
        copy = load(state, record.working_copy or "")
    except NotFoundError:
        log.warning("the working copy of %s is gone: its tree is left where it is", path)
        return
    if record.in_place:
        log.info("the tree of working copy %s stays at %s, which is a mount point", copy.id, path)
        return
    kept = copy.path / "upper"
    try:
        move(path, kept)
    except OSError as error:
        if error.errno not in NOT_BY_RENAME:
            raise
        kept = path.parent / f".volume-{copy.id}.kept"  # on the file system it was made on
        copy.update(tree=str(kept))  # first: a crash in between leaves the record here, and this is done again
        os.rename(path, kept)
    else:
        try:
            copy.update(tree=None)
        except OSError as error:  # a full disk, say; WorkingCopy.upper finds it anyway
            log.info("where the tree of working copy %s is now could not be noted: %s", copy.id, error)


def move(source: Path, target: Path) -> None:
    """Rename a directory whose own mode may forbid to move it elsewhere."""
    mode = stat.S_IMODE(os.stat(source).st_mode)
    try:
        os.rename(source, target)
    except PermissionError:
        os.chmod(source, mode | 0o700)  # its entry ".." changes, which takes the right to write
        try:
            os.rename(source, target)
        except BaseException:
            os.chmod(source, mode)
            raise
        os.chmod(target, mode)


def bring_back_found(record: CopyRecord) -> None:
    """Put the empty directory back that was found at the mount path."""
    if record.found and record.aside.is_dir() and not os.path.lexists(record.mount_path):
        os.rename(record.aside, record.mount_path)


def dismantle_unfinished(record: CopyRecord) -> None:
    """Delete what there is of a tree that never became whole."""
    remove_tree(record.beside)
    if record.in_place and (Path(record.mount_path) / record.unfinished).exists():
        remove_tree(Path(record.mount_path), keep_root=True)


# -- what killed processes left


def clean_locked(state: State) -> None:
    """As `clean`; the caller holds the lock of `state/copies`."""
    for directory in _directories(state):
        try:
            record = CopyRecord.load(directory)
        except FileNotFoundError:
            remove_tree(directory)  # a crash came before the first record: nothing was made yet
            continue
        except (OSError, ValueError) as error:
            log.warning("%s is left alone: its record cannot be read: %s", directory, error)
            continue
        if not _is_left_behind(directory, record):
            continue
        try:
            dismantle_unfinished(record)
            _take_away(state, directory, record, lazy=True)
        except (OSError, VolumeError) as error:
            log.warning("what a crash left at %s cannot be taken away: %s", record.mount_path, error)


def _is_left_behind(directory: Path, record: CopyRecord) -> bool:
    if is_held(str(directory / LOCK)):
        return False
    # A read-only bind mount does not survive the machine, and a detached tree without it is not read-only.
    return not record.detached or not record.is_there() or record.boot_id != boot_id()


def records(state: State) -> list[CopyRecord]:
    """Return all records that can be read."""
    found = []
    for directory in _directories(state):
        with contextlib.suppress(OSError, ValueError):
            found.append(CopyRecord.load(directory))
    return found


def _directories(state: State) -> list[Path]:
    try:
        return sorted(path for path in state.copies.iterdir() if path.is_dir())
    except FileNotFoundError:
        return []

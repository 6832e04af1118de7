"""The copy driver: a version as a plain directory.  It needs no kernel feature and no privilege.

    claimed --> hydrated under another name --> renamed into place --> mounted
                                                                        |
      a reader's tree is deleted <-- unmounted, or owner gone ----------+
      a writer's tree becomes its working copy's upper  <---------------+

Where the mount path is itself a mount point, or lies where nothing may be renamed, the tree is made in
place, beside a file that says it is not finished.

Always true:
  1. A tree has its final name only when it is whole, or the name `.volume-<id>.unfinished` lies in it.
  2. What a mount that failed made is gone again, and what was at the mount path is back.
  3. Read-only is real where this process may mount (a read-only bind mount: EROFS); elsewhere
     every write bit is taken away, which all users but root obey (EACCES).
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from volume_core.domain.changes import Upper
from volume_core.errors import MountError
from volume_core.mount import syscalls
from volume_core.mount.claiming import PathTakenError, refuse_occupied
from volume_core.mount.copies import (
    DIALECT,
    LOCK,
    NAME,
    NOT_BY_RENAME,
    CopyMounted,
    CopyRecord,
    bring_back_found,
    clean,
    clean_locked,
    delete,
    dismantle_unfinished,
    live_copies,
    move,
    records,
    unbind,
)
from volume_core.mount.plans import exclusively
from volume_core.mount.server import open_any
from volume_core.parts import captured
from volume_core.parts.achieved import Achieved
from volume_core.parts.caching import PackCache
from volume_core.parts.hydrating import Tree, as_captured, hydrate_into, relook
from volume_core.parts.indexes import open_view
from volume_core.parts.reading import Reader
from volume_core.parts.trees import remove_tree
from volume_core.parts.workcopies import HeldLock, boot_id

if TYPE_CHECKING:
    from volume_core.mount.request import MountRequest
    from volume_core.parts.workcopies import WorkingCopy

__all__ = ["ACHIEVED", "CopyDriver", "CopyMounted", "clean", "is_hydrated", "live_copies", "version_terms"]

ACHIEVED = "achieved.sqlite"
_MS_NOEXEC, _MS_REMOUNT, _MS_BIND = 8, 32, 4096


class CopyDriver:
    """A plain directory, made in parallel."""

    name = NAME

    def mount(self, request: MountRequest) -> CopyMounted:
        """Hydrate *request*; see volume_core.mount.request.Driver."""
        state = request.state.prepare()
        with exclusively(str(state.copies)):
            clean_locked(state)
            directory, record = _claim(request)
            lock = HeldLock(directory / LOCK, f"the copy at {record.mount_path}")
        mounting = _Mounting(request, directory, record)
        try:
            record = mounting.run()
        except BaseException as error:
            mounting.undo()
            lock.close()
            if isinstance(error, OSError):
                raise _refused(request, error) from error
            raise
        if record.detached:
            lock.close()
        return CopyMounted(state, directory, record, lock)


def is_hydrated(copy: WorkingCopy) -> bool:
    """Whether *copy*'s upper is a whole tree that this driver made."""
    return (copy.path / ACHIEVED).exists()


def version_terms(copy: WorkingCopy) -> Callable[[Mapping[bytes, Upper]], Mapping[bytes, Upper]]:
    """Return what turns a scan of *copy*'s upper into its version's terms: CommitRequest.as_version.

    Raises CorruptObjectError if what hydrating achieved cannot be read.
    """
    try:
        return Achieved.load(copy.path / ACHIEVED).as_version
    except FileNotFoundError:
        return lambda upper: upper  # not a working copy of this driver, or one of a brand-new volume


class _Mounting:
    """One mount in the making; `_record` is what was written down last."""

    def __init__(self, request: MountRequest, directory: Path, record: CopyRecord) -> None:
        self._request = request
        self._directory = directory
        self._record = record
        self._path = Path(record.mount_path)
        self._copy = request.working_copy
        self._was_hydrated = self._copy is not None and is_hydrated(self._copy)

    def run(self) -> CopyRecord:
        if self._copy is not None and self._was_hydrated:
            self._put_back(self._copy)
        else:
            self._hydrate()
        if self._copy is not None:
            tree = str(self._path)
            self._copy.update(
                driver=NAME, dialect=DIALECT, mount_path=tree, tree=tree, tree_inode=self._record.inode, ready=True
            )
        elif _may_bind(self._path):
            self._note(bound=True)
            _bind_read_only(self._path)
        return self._record

    def undo(self) -> None:
        """Leave nothing of what run() made; a tree that was hydrated by an earlier mount stays where it is."""
        with contextlib.suppress(OSError):
            unbind(self._record, lazy=True)
            if not self._was_hydrated:
                dismantle_unfinished(self._record)
                if self._record.is_there():
                    delete(self._record)
            bring_back_found(self._record)
        if self._copy is not None and not self._was_hydrated:
            for name in (ACHIEVED, self._copy.captured_path.name):
                (self._copy.path / name).unlink(missing_ok=True)
        remove_tree(self._directory)

    def _note(self, **changes: object) -> None:
        self._record = dataclasses.replace(self._record, **changes)  # type: ignore[arg-type]  # its own fields
        self._record.save(self._directory)

    def _hydrate(self) -> None:
        if self._copy is not None:
            self._copy.update(ready=False)
        beside = self._record.beside
        if self._may_rename():
            os.mkdir(beside, 0o700)
            tree = self._keep(self._fill(beside))
            self._place(beside)
        else:
            self._note(in_place=True)
            unfinished = self._path / self._record.unfinished
            unfinished.touch(0o600)
            tree = self._keep(self._fill(self._path, unfinished.unlink))
            self._note(inode=os.lstat(self._path).st_ino)
        self._capture(tree)

    def _may_rename(self) -> bool:
        """Whether a tree that is made beside the mount path can be renamed to it; tried with what is there."""
        if not self._record.found:
            return True
        try:
            os.rename(self._path, self._record.aside)
            os.rename(self._record.aside, self._path)
        except OSError as error:
            if error.errno not in NOT_BY_RENAME:
                raise
            return False
        return True

    def _place(self, tree: Path) -> None:
        """Give *tree* the name that was asked for."""
        self._note(inode=os.lstat(tree).st_ino)  # before it has the name: whatever happens, it is found
        if self._record.found:
            os.rename(self._path, self._record.aside)
        move(tree, self._path)

    def _fill(self, target: Path, before_root: Callable[[], None] = lambda: None) -> Tree:
        request = self._request
        if not request.layers:  # brand-new: an empty directory of this user's, made now
            before_root()
            os.chmod(target, 0o755)
            return Tree({}, Achieved())
        protect = self._copy is None and not _may_bind(target)
        with (
            contextlib.closing(open_view(request.layers)) as view,
            contextlib.closing(open_any(request.store_url, request.region)) as store,
            Reader(store, PackCache(request.state.cache, request.cache_limit_bytes)) as reader,
        ):
            return hydrate_into(view, reader, target, protect=protect, before_root=before_root)

    def _keep(self, tree: Tree) -> Tree:
        """Store with the working copy what turns a scan of the tree into the version's terms."""
        if self._copy is not None:
            tree.achieved.save(self._copy.path / ACHIEVED)
        return tree

    def _capture(self, tree: Tree) -> None:
        """Store what a commit would capture now, so that the first one reads only what was changed."""
        if self._copy is None or self._request.locator is None:
            return
        root = relook(self._path, tree.items[b""])  # it was renamed since
        captured.save(self._copy.captured_path, as_captured({**tree.items, b"": root}), self._request.locator)

    def _put_back(self, copy: WorkingCopy) -> None:
        """Mount a tree that was hydrated before, and may have been changed since."""
        if copy.upper == self._path:
            self._note(inode=os.lstat(self._path).st_ino, found=False)
            return
        source = copy.upper
        try:
            self._place(source)
        except OSError as error:
            if error.errno not in NOT_BY_RENAME:
                raise
            raise MountError(
                f"the tree of working copy {copy.id} lies at {source} and cannot be moved to {self._path}: "
                f"mount it at a new directory of that file system ({error.strerror})"
            ) from error
        os.makedirs(copy.path / "upper", exist_ok=True)


def _claim(request: MountRequest) -> tuple[Path, CopyRecord]:
    """Write down what will be mounted; raises MountError where that is not possible."""
    path = os.path.realpath(request.mount_path)
    copy = request.working_copy
    for other in records(request.state):
        if other.mount_path == path:
            raise PathTakenError(f"{path}: a copy of volume {other.volume} is there already, or is being made")
    kept_here = copy is not None and copy.record.tree == path and is_hydrated(copy)
    found = kept_here or refuse_occupied(path)
    if not found:
        os.makedirs(os.path.dirname(path), exist_ok=True)
    record = CopyRecord(
        uuid.uuid4().hex, path, request.volume, request.locator, copy.id if copy else None, request.detach, boot_id(),
        found and not kept_here,
    )  # fmt: skip
    directory = request.state.copies / record.id
    directory.mkdir(mode=0o700)
    record.save(directory)
    return directory, record


def _refused(request: MountRequest, error: OSError) -> MountError:
    path = request.mount_path
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return MountError(
            f"{path}: no space for a copy of {request.used_bytes / 1e9:.2f} GB ({error.strerror}): mount it on a "
            "larger disk, or by a driver that fetches what is read (volume doctor says what they need)"
        )
    return MountError(f"{path}: a copy cannot be made there: {error}")


def _may_bind(path: Path) -> bool:
    """Whether this process may put a read-only bind mount on a directory: tried on *path* itself."""
    if not syscalls.may_mount():
        return False
    try:
        _bind_read_only(path)
    except OSError:
        return False  # a security module forbids it
    syscalls.unmount(str(path), lazy=True)
    return True


def _bind_read_only(path: Path) -> None:
    # In a user namespace a bind mount may not drop what its origin forbids.
    inherited = _MS_NOEXEC if os.statvfs(path).f_flag & os.ST_NOEXEC else 0
    syscalls.mount(str(path), str(path), "none", _MS_BIND, "")
    try:
        flags = _MS_REMOUNT | _MS_BIND | syscalls.MS_RDONLY | syscalls.MS_NOSUID | syscalls.MS_NODEV | inherited
        syscalls.mount("none", str(path), "none", flags, "")
    except OSError:
        syscalls.unmount(str(path), lazy=True)
        raise

"""Making a mount known before anything is mounted.

Under one lock: what crashes left is cleaned up, the path and the working copy are found free, and the record
is written.  So of two mounts that want the same, one is refused, and whatever happens next can be undone.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from volume_core.errors import MountError
from volume_core.mount import stale, syscalls
from volume_core.mount.plans import (
    FUSE_OVERLAY_KIND,
    SERVING_LOCK,
    SUPERVISOR_LOCK,
    Plan,
    Process,
    Record,
    exclusively,
    forget,
    hold,
)


class PathTakenError(MountError):
    """Something is at the path already: choose another one.  Whether this machine can mount is not the question."""


def claim(plan: Plan) -> tuple[Record, int, int]:
    """Make the mount known; return its record and the descriptors that lock its supervisor and serving files.

    Raises PathTakenError if something is at the path, MountError if it cannot be mounted on or the working copy is
    mounted already.
    """
    mounts = os.path.dirname(plan.directory)
    with exclusively(mounts):
        stale.clean(mounts, plan.boot_id, plan.asker)
        _refuse_second_mount(plan, mounts)
        exists = _refuse_unfit(plan.mount_path)
        # Who just unmounted there, and is about to remove what it made, leaves that to this mount.
        created = not exists or any(other.created for other in _others_at(plan))
        os.mkdir(plan.directory, 0o700)
        try:
            supervisor = hold(os.path.join(plan.directory, SUPERVISOR_LOCK))
            serving = hold(os.path.join(plan.directory, SERVING_LOCK))
            record = Record(plan, created=created, processes={"supervisor": Process.of(os.getpid())})
            record.save()
            if not exists:
                _make(plan.mount_path)
        except BaseException:
            forget(plan.directory)
            raise
    return record, supervisor, serving


def release(record: Record) -> None:
    """Forget a mount of which nothing is mounted any more, and remove what claim() made."""
    with exclusively(os.path.dirname(record.plan.directory)):
        if record.created and not _others_at(record.plan):
            stale.remove_mount_path(record.plan.mount_path)
        forget(record.plan.directory)


def _records(mounts: str) -> Iterator[Record]:
    for name in os.listdir(mounts):
        with contextlib.suppress(OSError, ValueError):
            yield Record.load(os.path.join(mounts, name))


def _others_at(plan: Plan) -> list[Record]:
    """Return what is known of other mounts at *plan*'s path."""
    records = _records(os.path.dirname(plan.directory))
    return [record for record in records if record.plan.mount_path == plan.mount_path and record.plan.id != plan.id]


def _refuse_second_mount(plan: Plan, mounts: str) -> None:
    for record in _records(mounts):
        other = record.plan
        if plan.working_copy is not None and other.working_copy == plan.working_copy:
            raise MountError(f"working copy {plan.working_copy} is mounted already, at {other.mount_path}")
        # The kernel knows of a mount only once it is there: until then, its record stands for it.
        if other.mount_path == plan.mount_path and not record.ready:
            raise PathTakenError(f"{plan.mount_path}: another mount is being made there: choose another path")


def _refuse_unfit(path: str) -> bool:
    """Raise PathTakenError unless *path* is an empty directory or nothing at all; return whether it exists."""
    mounted = syscalls.mounted_at(path)
    if mounted is not None:
        raise _mounted_already(path, mounted)
    return refuse_occupied(path)


def refuse_occupied(path: str) -> bool:
    """Raise PathTakenError where no driver may put a tree; return whether *path* (without symlinks) exists.

    That is at a tree of another mount of ours, even an empty one, whose files would be taken for its volume's; and
    at what is not an empty directory.  Another file system's empty root will do for a driver that needs no mount.
    """
    mounted = syscalls.mounted_at(path)
    if mounted is not None and (mounted.source.startswith("volume:") or mounted.kind == FUSE_OVERLAY_KIND):
        raise _mounted_already(path, mounted)
    try:
        with os.scandir(path) as entries:
            if any(entries):
                raise PathTakenError(
                    f"{path} is not empty: a mount would hide what is in it; choose an empty or a new directory"
                )
    except FileNotFoundError:
        return False
    except OSError as error:
        raise MountError(f"{path} cannot be mounted on: {error.strerror}") from error
    return True


def _mounted_already(path: str, mounted: syscalls.MountPoint) -> PathTakenError:
    return PathTakenError(
        f"{path}: {mounted.source} ({mounted.kind}) is mounted there already: unmount it or choose another path"
    )


def _make(path: str) -> None:
    try:
        os.makedirs(path)
    except OSError as error:
        raise MountError(f"{path} cannot be made to mount on: {error.strerror}") from error

"""What processes that were killed left behind, and how it is cleaned up at the next start.

    supervised      its supervisor lives                                   left alone
    unsupervised    it lost its supervisor, and works, or its owner lives  left alone
    dead            everything else                                        taken down

A supervisor that is killed leaves a server that goes on serving, so its owner notices nothing; the owner's
own unmount, or the first start after the owner's end, takes the mount down.  A tree that gives errors is not
taken from a living owner: what he writes would land, unnoticed, in the directory below.  Only that owner's own
next start does.  A detached mount has no owner: it stays as long as it works.

Always true:
  1. What is mounted at a path is unmounted only if it carries this mount's id.
  2. Nothing here touches a mounted tree, which might not answer; an upper is never touched.
  3. The caller is the only cleaner (plans.exclusively).
"""

from __future__ import annotations

import contextlib
import enum
import logging
import os

from volume_core.errors import BusyError, VolumeError
from volume_core.mount import syscalls
from volume_core.mount.attaching import detach
from volume_core.mount.plans import SERVING_LOCK, SUPERVISOR_LOCK, Process, Record, forget, is_held, pid_namespace

log = logging.getLogger(__name__)


class Condition(enum.Enum):
    """What has become of a mount; see the head of this file."""

    SUPERVISED = "supervised"
    UNSUPERVISED = "unsupervised"
    DEAD = "dead"


def works(record: Record) -> bool:
    """Whether the tree is mounted and somebody answers for it; never touches the mount."""
    plan = record.plan
    top = syscalls.mounted_at(plan.mount_path)
    if record.broken or top is None or not record.is_ours(top.source, top.kind):
        return False
    program = record.processes.get("fuse-overlayfs")
    if program is not None and not program.is_alive():
        return False
    return plan.view_path is None or is_held(os.path.join(plan.directory, SERVING_LOCK))


def judge(record: Record, boot_id: str, me: Process | None) -> Condition:
    """Return what has become of a mount.  *me* is the process that starts anew, if one does."""
    plan = record.plan
    if is_held(os.path.join(plan.directory, SUPERVISOR_LOCK)):
        return Condition.SUPERVISED
    if plan.boot_id != boot_id or not record.ready:
        return Condition.DEAD
    if plan.asker.namespace != pid_namespace():
        # Another container with the same state directory, detached or not: neither its processes nor its mounts
        # can be seen from here, only whether its server lives.
        lives = is_held(os.path.join(plan.directory, SERVING_LOCK))
    elif plan.owner is None or plan.owner == me:
        lives = works(record)
    else:
        lives = plan.owner.is_alive()
    return Condition.UNSUPERVISED if lives else Condition.DEAD


def clean(mounts: str, boot_id: str, me: Process | None) -> list[str]:
    """Take down what is dead below the directory *mounts*; return the paths that were freed."""
    freed = []
    with os.scandir(mounts) as entries:
        directories = sorted(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
    for directory in directories:
        try:
            record = Record.load(directory)
        except (OSError, ValueError):
            _clean_unrecorded(directory)
            continue
        if judge(record, boot_id, me) is not Condition.DEAD:
            continue
        try:
            dismantle(record, lazy=True)
            freed.append(record.plan.mount_path)
        except (OSError, VolumeError) as error:
            log.warning("what a crash left at %s cannot be taken down: %s", record.plan.mount_path, error)
    return freed


def _clean_unrecorded(directory: str) -> None:
    """Remove a directory that says nothing of a mount: a crash came before its first record, or tore it."""
    if is_held(os.path.join(directory, SUPERVISOR_LOCK)):
        return
    try:
        for each in reversed(syscalls.mount_points()):
            if each.path.startswith(f"{directory}/"):
                detach(each.path, lazy=True)
        forget(directory)
    except (OSError, VolumeError) as error:
        log.warning("what a crash left in %s cannot be removed: %s", directory, error)


def dismantle(record: Record, *, lazy: bool) -> None:
    """Unmount what *record* says, top first, and forget it.

    Strict: raises BusyError naming what is open, and changes nothing.
    """
    take_down(record, lazy=lazy)
    if record.created:
        remove_mount_path(record.plan.mount_path)
    forget(record.plan.directory)


def take_down(record: Record, *, lazy: bool) -> None:
    """Unmount what *record* says, top first; see dismantle()."""
    for position, path in enumerate(reversed(record.plan.paths)):
        # Once the top is gone nobody but a curious root holds what is below it, and nothing must stay half taken down.
        _take_away(record, path, lazy=lazy or position > 0)


def _take_away(record: Record, path: str, *, lazy: bool) -> None:
    """Unmount what *record* has at *path*, however often: a bind mount of the tree onto itself looks the same."""
    there = [each for each in syscalls.mount_points() if each.path == path]
    ours = [record.is_ours(each.source, each.kind) for each in there]
    if not any(ours):
        return
    if not ours[-1]:
        raise BusyError(f"{path}: {there[-1].source} was mounted over it; unmount that first")
    for _ in range(sum(ours)):
        detach(path, lazy=lazy)


def remove_mount_path(path: str) -> None:
    """Remove a directory that was made to be mounted on, unless somebody uses it by now."""
    with contextlib.suppress(OSError):
        os.rmdir(path)

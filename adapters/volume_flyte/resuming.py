"""`resume`: a task that is tried again goes on from what its last attempt has committed.

    attempt 0:  resume(volume) ──> volume      each commit is noted in the task's checkpoint
    attempt 1:  resume(volume) ──> a writer that goes on from the version that was noted last

Always true:

  1. A checkpoint is only touched by a task that has called `resume`: until then it is the task's own.
  2. What is noted is a version that exists.  A note that could not be written is in the log; the commit stands.
  3. A note counts for the same task of the same run, and the same volume at the same version: nothing else is resumed.
  4. Neither SDK is imported here; the one whose task runs is asked for its checkpoint.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import json
import logging
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from volume_core import NotFoundError, ROVolume, RWVolume, VolumeError
from volume_core.plugins.manager import plugins
from volume_flyte.sdks import has_flyte_2

log = logging.getLogger(__name__)

T = TypeVar("T")
_KIND = "volumes/v1"


class Checkpoint(Protocol):
    """What an SDK keeps for the next attempt of a task: some bytes."""

    destination: str

    def read(self) -> bytes | None:
        """Return what the last attempt left; None if there was none, or it left nothing."""

    def write(self, data: bytes) -> None:
        """Have *data* in the place of what this attempt has left."""


def resume(volume: RWVolume) -> RWVolume:
    """Return *volume*, or after a retry a writer that goes on from the last version the task committed of it.

    Call it at the top of a task, before *volume* is mounted, and use what it returns.  From then on each commit of it
    (by `commit`, `finalize`, `checkpoint_every`, `on_terminate`) is noted in the task's checkpoint, which the task may
    not use otherwise.  Outside of a task, and where the platform keeps no checkpoints, *volume* comes back as it is;
    so does one that was opened by name, since its head has every commit.

    Raises VolumeError if *volume* is mounted or has changes already, or if the last attempt used the checkpoint for
    something else; NotFoundError never: a noted version that is gone is in the log, and *volume* is begun anew.
    """
    _check(volume)
    checkpoint = _checkpoint()
    if checkpoint is None or volume._handle.policy is not None:
        return volume
    notes, key = _notes_at(checkpoint), _key(volume)
    found = notes.begin(checkpoint).get(key)
    version = _version(found, volume) if found is not None else None
    resumed = volume if version is None else _writer(version, volume)
    notes.follow(key, resumed)
    if version is not None:
        notes.note(version)  # for an attempt after this one, which may end before its first commit
    return resumed


async def resume_async(volume: RWVolume) -> RWVolume:
    """Do the same in a coroutine: what is read and written holds up nobody else."""
    return await asyncio.to_thread(resume, volume)


def note(version: ROVolume) -> None:
    """News: *version* was committed by this process."""
    with _lock:
        kept = list(_notes.values())
    for each in kept:
        each.note(version)


class Notes:
    """What one task's checkpoint says: for each volume that it resumed, the last version."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._checkpoint: Checkpoint | None = None
        self._context = contextvars.copy_context()
        self._versions: dict[str, str] = {}
        self._followed: list[tuple[str, weakref.ref[RWVolume]]] = []

    def begin(self, checkpoint: Checkpoint) -> dict[str, str]:
        """Note to *checkpoint*, this attempt's, from now on; return what the last attempt noted, by key."""
        with self._lock:
            self._checkpoint = checkpoint
            self._context = contextvars.copy_context()  # commits come from threads that know of no task
            before = _versions_in(self._apart(checkpoint.read))
            self._versions = {**before, **self._versions}
            return before

    def follow(self, key: str, volume: RWVolume) -> None:
        """Note what *volume* commits from now on."""
        with self._lock:
            self._followed = [(name, ref) for name, ref in self._followed if name != key and ref() is not None]
            self._followed.append((key, weakref.ref(volume)))

    @property
    def is_over(self) -> bool:
        """Whether nothing that could be noted is left."""
        return all(ref() is None for _, ref in self._followed)

    def note(self, version: ROVolume) -> None:
        """Note *version* if a volume that is followed stands at it."""
        with self._lock:
            checkpoint = self._checkpoint
            keys = [key for key, ref in self._followed if (held := ref()) is not None and held.index == version.index]
            if not keys or checkpoint is None:
                return
            self._versions.update(dict.fromkeys(keys, version.locator))
            data = json.dumps({"kind": _KIND, "versions": self._versions}, sort_keys=True).encode()
            self._apart(checkpoint.write, data)

    def _apart(self, function: Callable[..., T], *args: Any) -> T:
        """Call *function* in the task's context, and in a thread without an event loop, as both SDKs want it."""
        with concurrent.futures.ThreadPoolExecutor(1) as thread:
            return thread.submit(self._context.run, function, *args).result()


_notes: dict[str, Notes] = {}  # by the checkpoint's destination, which several tasks of a local run may share
_lock = threading.Lock()


def _notes_at(checkpoint: Checkpoint) -> Notes:
    with _lock:
        for destination in [name for name, each in _notes.items() if each.is_over]:
            del _notes[destination]
        return _notes.setdefault(checkpoint.destination, Notes())


def _checkpoint() -> Checkpoint | None:
    """Return the checkpoint of the task that runs here; None if there is none."""
    if "flytekit" in sys.modules:
        from volume_flyte.v1 import checkpoints

        if (found := checkpoints.current()) is not None:
            return found
    if has_flyte_2():
        from volume_flyte.v2 import checkpoints as checkpoints_two

        return checkpoints_two.current()
    return None


def _check(volume: RWVolume) -> None:
    if not isinstance(volume, RWVolume):
        raise VolumeError(f"a writer is resumed, an RWVolume, and not a {type(volume).__name__}")
    status = volume.status_sync()
    if status.mount_path is not None or status.changed:
        raise VolumeError(
            f"volume {volume.name!r} is mounted or has changes already: resume it before, and use what that returns"
        )


def _key(volume: RWVolume) -> str:
    """Return the task and the volume with the version that it starts from, as text."""
    task = plugins().current_task()
    who = [task.engine, task.project, task.domain, task.run, task.action] if task else []
    return json.dumps([*who, volume.store_url, volume.name, volume.index])


def _versions_in(data: bytes | None) -> dict[str, str]:
    if not data:
        return {}
    try:
        found = json.loads(data)
        if found["kind"] == _KIND:
            return {str(key): str(locator) for key, locator in found["versions"].items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        pass
    raise VolumeError(
        "the task's checkpoint holds something that resume() did not write: a task that resumes volumes cannot use the "
        "checkpoint for anything else"
    )


def _version(locator: str, volume: RWVolume) -> ROVolume | None:
    try:
        return ROVolume.from_locator_sync(locator)
    except NotFoundError:
        log.warning("volume %s begins anew: what the last attempt committed is gone: %s", volume.name, locator)
        return None


def _writer(version: ROVolume, volume: RWVolume) -> RWVolume:
    writer = version.fork_sync(volume.name)
    log.info("volume %s goes on from what the last attempt committed: %s", volume.name, version.locator)
    return writer

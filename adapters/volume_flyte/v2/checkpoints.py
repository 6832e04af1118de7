"""What flyte 2 keeps for the next attempt of a task.

Always true: a task that has no checkpoint, or none to read, is told so by None, never by an error.
"""

from __future__ import annotations

from flyte import Checkpoint

from volume_core import VolumeError
from volume_flyte.v2 import running


class FlyteCheckpoint:
    """The checkpoint of one attempt."""

    def __init__(self, kept: Checkpoint) -> None:
        self._kept = kept
        self.destination = kept.remote_destination

    def read(self) -> bytes | None:
        """Return what the last attempt left; None if there was none, or it left nothing that can be read."""
        found = self._kept.load_sync()
        if found is None:
            return None
        if not found.is_file():
            raise VolumeError("the task's checkpoint is a directory, which resume() did not write")
        return found.read_bytes()

    def write(self, data: bytes) -> None:
        """Have *data* in the place of what this attempt has left."""
        self._kept.save_sync(data)


def current() -> FlyteCheckpoint | None:
    """Return the checkpoint of the task that runs here; None if none runs, or the platform keeps none."""
    context = running.task_context()
    kept = context.checkpoint if context is not None else None
    return FlyteCheckpoint(kept) if kept is not None else None

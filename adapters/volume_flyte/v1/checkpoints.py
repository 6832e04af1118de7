"""What flytekit keeps for the next attempt of a task.

Always true: a task that has no checkpoint, or none to read, is told so by None, never by an error.
"""

from __future__ import annotations

import flytekit
from flytekit.core.checkpointer import SyncCheckpoint
from flytekit.exceptions.user import FlyteDataNotFoundException, FlyteRecoverableException

from volume_core import VolumeError
from volume_flyte.v1 import running


class FlytekitCheckpoint:
    """The checkpoint of one attempt."""

    def __init__(self, kept: SyncCheckpoint) -> None:
        self._kept = kept
        self.destination = str(kept._checkpoint_dest)

    def read(self) -> bytes | None:
        """Return what the last attempt left; None if there was none, or it left nothing.

        Raises FlyteRecoverableException, so that the task is tried once more, if it cannot be read for now.
        """
        if not self._kept.prev_exists():
            return None
        try:
            data: bytes | None = self._kept.read()
        except FlyteDataNotFoundException:
            return None  # where it would be is said even if the last attempt ended before it wrote anything
        except ValueError as error:
            raise VolumeError(f"the task's checkpoint is not what resume() writes: {error}") from error
        except Exception as error:
            raise FlyteRecoverableException(f"the task's checkpoint cannot be read: {error}") from error
        return data

    def write(self, data: bytes) -> None:
        """Have *data* in the place of what this attempt has left."""
        self._kept.write(data)


def current() -> FlytekitCheckpoint | None:
    """Return the checkpoint of the task that runs here; None if none runs, or the platform keeps none."""
    if running.current_task() is None:
        return None
    kept = flytekit.current_context()._checkpoint
    return FlytekitCheckpoint(kept) if isinstance(kept, SyncCheckpoint) else None

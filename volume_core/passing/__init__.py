"""Door: a volume goes from one task to the next.  Adapters of engines call this, and nobody else has to.

    task A returns RWVolume ──hand_over──> ROVolume ──its record──> the engine ──Class.model_validate──> task B

What task B is given depends on what it asks for: `ROVolume.model_validate(record)` is that version,
`RWVolume.model_validate(record)` a fork of it under the same name.  Both take everything else that can stand for a
volume, too (docs/tasks.md).

Around the body of a task an adapter puts an Attempt: it is told what the body mounts and commits, and undoes what can
be undone.

What a task takes and returns is looked through by Taking (the parameters that its function annotates as volumes) and by
`replaced` (values within values).  Whether a function has to do with volumes at all is asked of its annotations, before
it runs, by `takes_volumes` and `returns_volumes`.

Always true: handing over twice, at once or later, gives one version as long as nothing was written in between, and so
does handing over a fork that nobody wrote to.
"""

from __future__ import annotations

from volume_core.errors import CorruptObjectError, NotFoundError
from volume_core.facade.attempts import Attempt, Left
from volume_core.facade.handles import mounting_on_demand
from volume_core.passing.nesting import replaced
from volume_core.passing.taking import Taking, returns_volumes, takes_volumes
from volume_core.volumes import ROVolume, RWVolume, Volume

__all__ = [
    "Attempt",
    "Left",
    "Taking",
    "hand_over",
    "is_there",
    "mounting_on_demand",
    "replaced",
    "returns_volumes",
    "takes_volumes",
]


def hand_over(volume: Volume, message: str = "") -> ROVolume:
    """Return what the next task gets: the version itself; of a writer what it has committed, after a commit.

    A mount stays as it is.  Any thread may call this.  Raises what `RWVolume.commit` does; then nothing is published,
    and what was written is still in the working copy.  TypeError if *volume* is not one.
    """
    if isinstance(volume, RWVolume):
        return volume.commit_sync(message)
    if isinstance(volume, ROVolume):
        return volume
    raise TypeError(f"a volume is handed over, not a {type(volume).__name__}")


def is_there(version: ROVolume) -> bool:
    """Whether *version* can still be read: its manifest is asked for, whatever this process knows of it.

    Raises StorageError where the store does not answer.
    """
    try:
        type(version).from_locator_sync(version.locator)
    except (NotFoundError, CorruptObjectError):
        return False
    return True

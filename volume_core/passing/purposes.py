"""What a working copy is written for: so that a task that is tried again finds what its last try has left.

    is_for(volume, "...")  ──written, killed──>  left() finds it  ──go_on(work_id, "...")──> the volume again

Why in the working copy's record: it is there from the first byte on, whichever way the process ends, and goes when the
work goes.

Always true: whoever takes a working copy over (`Volume.recover`, `volume commit`) takes it for himself: it is for
nothing any more, so what a person had in his hands is never taken up behind his back; nothing is deleted here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import NamedTuple

from volume_core.errors import VolumeError
from volume_core.facade.writers import PURPOSE, Writer
from volume_core.parts import workcopies
from volume_core.parts.state import State
from volume_core.volumes import RWVolume, Volume


class Work(NamedTuple):
    """A working copy of the volume *name* in this machine's state directory, and what it is for.

    created_at: ISO 8601, UTC; base: the locator that it was begun over, None before the first commit; in_use: whether
    some process has it.
    """

    purpose: str
    work_id: str
    name: str
    base: str | None
    created_at: str
    in_use: bool


def is_for(volume: RWVolume, purpose: str) -> None:
    """Have what is written into *volume* be for *purpose*: any text.  It is mounted, or written to, after that."""
    volume._handle.purpose = purpose


def left(concerns: Callable[[str], bool]) -> list[Work]:
    """Return the working copies whose purpose *concerns* says yes to, oldest first."""
    found = []
    for copy in workcopies.survey(State.default()).copies:
        purpose = copy.record.notes.get(PURPOSE, "")
        if purpose and concerns(purpose):
            found.append(Work(purpose, copy.id, copy.volume, copy.base, copy.record.created_at, copy.in_use))
    return found


def go_on(work_id: str, purpose: str) -> RWVolume:
    """Return a writer that goes on with the working copy *work_id*, which is for *purpose* from now on.

    Raises what Volume.recover does.
    """
    volume = Volume.recover_sync(work_id)
    writer = volume._handle.held
    assert isinstance(writer, Writer)
    volume._handle.purpose, volume._handle.is_taken_over = purpose, False  # it is the task's own, and always was
    writer.is_for(purpose)
    return volume


def is_for_nothing(work_id: str) -> None:
    """Have the working copy *work_id* be for nothing any more; one that is gone, or in use, is left as it is."""
    with contextlib.suppress(VolumeError, OSError):
        copy = workcopies.load(State.default(), work_id)
        with copy.lock():
            notes = workcopies.load(State.default(), work_id).record.notes
            copy.update(notes={key: value for key, value in notes.items() if key != PURPOSE})

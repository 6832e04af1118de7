"""A retry goes on from what the try before has left."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from volume_airflow.calling import Call, Slot
    from volume_core import RWVolume


def begun(call: Call, slot: Slot, given: RWVolume) -> RWVolume | None:
    """Return what the try before has left of the fork *slot* of *given*; None where there is nothing of that."""
    return None


def failed(call: Call, error: BaseException) -> None:
    """Remember what this try has left of `call.forks`, as `call.attempt.left` has it."""

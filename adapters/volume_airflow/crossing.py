"""A writer goes through a deferral: what a task gives to `defer(kwargs=...)` it has again when it goes on.

    writer ──its changes are committed: a checkpoint──> plain JSON ──the database──> a writer that goes on from there

Why a commit: a task goes on on whichever worker is free, and what is not committed lies on the disk of this one, which
in a pod goes with the pod.

Always true:

  1. What crosses is the same line: its name, and how it lands on the head, are those of the writer; no fork.  What was
     one writer is one again, in however many places.
  2. What was written before is in the checkpoint, whatever becomes of the deferral, also where Airflow loses the
     arguments (`dag.test()` puts the event in their place).
  3. Where the task fails after it went on, the head goes back to where it stood before the checkpoint.
  4. A trigger, which runs elsewhere, gets versions.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from volume_airflow.calling import Call
    from volume_core import RWVolume

log = logging.getLogger(__name__)

_KEY = "volume_writer"


def cross(error: BaseException, call: Call) -> None:
    """Put what can cross in the place of each writer in the arguments of *error*, by which a task is deferred.

    Raises what committing does.
    """
    from volume_core import RWVolume
    from volume_core.passing import replaced

    if (trigger := getattr(error, "trigger", None)) is not None:
        _give_versions(trigger, call)
    if kwargs := getattr(error, "kwargs", None):
        lines: dict[int, int] = {}

        def carry(each: Any) -> Any:
            if not isinstance(each, RWVolume):
                return each
            return _carried(each, lines.setdefault(id(each), len(lines)), call)

        carried = replaced(kwargs, carry)
        error.kwargs = carried  # type: ignore[attr-defined]


def _give_versions(trigger: Any, call: Call) -> None:
    path, kwargs = trigger.serialize()
    handed = call.handed_over(kwargs)
    if handed is not kwargs:
        object.__setattr__(trigger, "serialize", lambda: (path, handed))


def _carried(volume: RWVolume, line: int, call: Call) -> dict[str, Any]:
    assert call.attempt is not None
    if volume.status_sync().changed:
        version = call.hand_over(volume)
        log.info("volume %s goes through the deferral as %s", volume.name, version.locator)
    record = volume.model_dump(mode="python", exclude={"produced_by", "parent_produced_by"})
    checkpoints = call.attempt.handed_over(volume.name)
    return {_KEY: {"record": record, "on_conflict": volume._handle.policy, "checkpoints": checkpoints, "line": line}}


def has_crossed(value: Any) -> bool:
    """Whether a writer is in *value*, which came out of a deferral."""
    if isinstance(value, dict):
        return _is_carried(value) or any(has_crossed(each) for each in value.values())
    return isinstance(value, list | tuple | set) and any(has_crossed(each) for each in value)


def _is_carried(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {_KEY}


def woken(value: Any, call: Call) -> Any:
    """Return *value* with a writer in the place of each that crossed.  Raises StorageError, NotFoundError."""
    from volume_core.passing import replaced

    writers: dict[int, RWVolume] = {}

    def wake(each: Any) -> Any:
        if not _is_carried(each):
            return each
        if (line := each[_KEY]["line"]) not in writers:
            writers[line] = _writer(each[_KEY], call)
        return writers[line]

    return replaced(value, wake)


def _writer(carried: dict[str, Any], call: Call) -> RWVolume:
    from volume_core import RWVolume
    from volume_core.facade.versions import read_version
    from volume_core.format.names import Locator

    volume = RWVolume.model_validate(carried["record"])
    volume._handle.policy = carried["on_conflict"]
    call.attend()
    assert call.attempt is not None
    for locator in carried["checkpoints"]:
        call.attempt.go_on_from(read_version(Locator.parse(locator), volume._place()))
    return volume

"""What flytekit is told when a volume cannot be handed over, so that it retries where that helps.

    what failed                                   flytekit hears                  and a container's task
    --------------------------------------------  ------------------------------  -----------------------
    the store, for the moment; the machine        FlyteUploadDataException        is retried
    anything else                                 the error itself                fails, with its text
    a writer where nothing runs that commits it   TypeTransformerFailedError      is not even registered

Why not leave it to flytekit: it takes every other exception from here for one that no retry can cure.

Always true: what is committed is committed by a run, local or in a container; never when a workflow is compiled,
registered, or called from a client.  No class of a volume is imported here: this is imported when they are loaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from flytekit.core.context_manager import ExecutionState, FlyteContext, FlyteContextManager
from flytekit.core.type_engine import TypeTransformerFailedError
from flytekit.exceptions.system import FlyteDownloadDataException, FlyteUploadDataException

from volume_core.errors import StorageError, VolumeError

if TYPE_CHECKING:
    from volume_core.volumes import ROVolume, Volume

# In a container a workflow may be compiled while a task runs: that task is a dynamic one, and the constants are its.
_RUNS_AND_COMPILES = (ExecutionState.Mode.TASK_EXECUTION, ExecutionState.Mode.DYNAMIC_TASK_EXECUTION)
_INSTEAD = "make it in a task that returns it, or commit it first and pass on the version that commit returns"

_watched: ContextVar[list[Exception] | None] = ContextVar("volume_flyte_failures", default=None)


def handed_over(volume: Volume) -> ROVolume:
    """Commit *volume* if it is a writer, and return the version; from any thread."""
    from volume_core.passing import hand_over  # which may be half loaded when the classes are

    try:
        _check(volume, FlyteContextManager.current_context())
        return hand_over(volume)
    except Exception as error:
        told = _seen(_told(error, f"volume {volume.name!r} was not committed", FlyteUploadDataException))
        raise told from cause_of(told, error)


def handed_over_in_a_field(volume: Volume) -> ROVolume | None:
    """The same for a volume in a dataclass, which may be another SDK's to convert: then None."""
    context = FlyteContextManager.current_context()
    is_ours = context.compilation_state is not None or _mode(context) is not None
    return handed_over(volume) if is_ours else None


def lookup_failed(error: Exception) -> Exception:
    """Return what to raise in place of *error*, with which a volume could not be looked up."""
    return _seen(_told(error, "the volume could not be looked up", FlyteDownloadDataException))


def commit_failed(error: Exception) -> Exception:
    """Return what to raise in place of *error*, from a commit that somebody else has asked for."""
    return _seen(_told(error, "a volume was not committed", FlyteUploadDataException))


def cause_of(told: Exception, error: Exception) -> BaseException | None:
    """Return what *told*, raised in place of *error*, was raised from: who follows causes must come to an end."""
    return error.__cause__ if told is error else error


def is_transient(error: Exception) -> bool:
    """Whether the same may succeed later, or on another machine."""
    if isinstance(error, VolumeError):
        return isinstance(error, StorageError) and error.transient
    return isinstance(error, OSError)


@contextmanager
def failures() -> Iterator[list[Exception]]:
    """Give a list of what fails within, in tasks of the event loop that are begun within, too.

    flytekit tries a union's types one after the other, and forgets why each of them failed.
    """
    seen: list[Exception] = []
    token = _watched.set(seen)
    try:
        yield seen
    finally:
        _watched.reset(token)


def _seen(error: Exception) -> Exception:
    if (seen := _watched.get()) is not None:
        seen.append(error)
    return error


def _told(
    error: Exception, what: str, retried: type[FlyteUploadDataException] | type[FlyteDownloadDataException]
) -> Exception:
    if is_transient(error):
        told: Exception = retried(f"{what}: {error}")
        return told
    # flytekit puts words before the first argument, and takes for granted that there is one.
    return error if error.args else VolumeError(f"{what}: {type(error).__name__}")


def _check(volume: Volume, context: FlyteContext) -> None:
    """Raise TypeTransformerFailedError for a writer where nothing runs."""
    from volume_core.volumes import RWVolume

    if not isinstance(volume, RWVolume):
        return
    mode = _mode(context)
    if context.compilation_state is not None and mode not in _RUNS_AND_COMPILES:
        raise TypeTransformerFailedError(
            f"volume {volume.name!r} is a writer, and cannot be a constant in a workflow: it would be committed when "
            f"the workflow is compiled; {_INSTEAD}"
        )
    if mode is None and (volume.index is None or volume.status_sync().changed):
        raise TypeTransformerFailedError(
            f"volume {volume.name!r} has something that is not committed, and nothing runs here that would commit it; "
            f"{_INSTEAD}"
        )


def _mode(context: FlyteContext) -> ExecutionState.Mode | None:
    return context.execution_state.mode if context.execution_state is not None else None

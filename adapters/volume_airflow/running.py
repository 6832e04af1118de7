"""The task that Airflow runs in this process.

Always true: it is the process's and not a context's, so threads of a task find it too, for Airflow gives each task a
process (and `dag.test()` runs one after the other).  A process that a task has started, an interpreter or a shell's
command, finds it in its environment.  Nothing here imports Airflow.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from volume_core import ActionRef


class Running(NamedTuple):
    """A task instance, and the context that its operator is executed with, as far as it is executed."""

    ti: Any
    context: Mapping[str, Any]


_running: Running | None = None
_is_worker = False  # this process runs tasks itself: Airflow leaves their variables in its environment
_VARIABLES = {
    "dag_id": "AIRFLOW_CTX_DAG_ID",
    "task_id": "AIRFLOW_CTX_TASK_ID",
    "run_id": "AIRFLOW_CTX_DAG_RUN_ID",
    "try_number": "AIRFLOW_CTX_TRY_NUMBER",
}


def current() -> Running | None:
    """Return what runs in this process; None where nothing does."""
    return _running


@contextlib.contextmanager
def runs(ti: Any, context: Mapping[str, Any] | None = None) -> Iterator[None]:
    """In this `with` statement this process runs *ti*."""
    global _running, _is_worker
    _is_worker = True
    before, _running = _running, Running(ti, context or {})
    try:
        yield
    finally:
        _running = before


def from_environment() -> dict[str, str]:
    """Return `dag_id`, `task_id`, `run_id` and `try_number` of the task that has started this process; {} for none."""
    found = {name: os.environ.get(variable, "") for name, variable in _VARIABLES.items()}
    return found if found["dag_id"] and found["task_id"] and found["run_id"] else {}


def current_task() -> ActionRef | None:
    """Return the running task; None where none runs.

    project: the DAG's id; run: the run's id; action: the task's id, with the index of a mapped one as `id[3]` (in a
    process that a task has started: without it); attempt: from 1 on; url: the page of the task's log.
    """
    if _running is None:
        found = {} if _is_worker else from_environment()
        return _reference(SimpleNamespace(**found)) if found else None
    return _reference(_running.ti)


def _reference(ti: Any) -> ActionRef:
    from volume_core.facade.records import ActionRef

    return ActionRef(
        engine="airflow",
        project=ti.dag_id,
        run=ti.run_id,
        action=action_of(ti),
        attempt=str(ti.try_number),
        url=str(getattr(ti, "log_url", "") or ""),
    )


def action_of(ti: Any) -> str:
    """Return the id of *ti*'s task, with the index of a mapped one."""
    index = getattr(ti, "map_index", -1)
    return str(ti.task_id) if index is None or index < 0 else f"{ti.task_id}[{index}]"


def described(ti: Any) -> str:
    """Return what a commit's message says where the user gives none."""
    return f"{ti.dag_id}.{action_of(ti)} {ti.run_id}, try {ti.try_number}"

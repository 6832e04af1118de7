"""The task that Airflow runs in this process.

Always true: it is the process's and not a context's, so threads of a task find it too, for Airflow gives each task a
process (and `dag.test()` runs one after the other); nothing here imports Airflow.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from volume_core import ActionRef


class Running(NamedTuple):
    """A task instance, and the context that its operator is executed with, as far as it is executed."""

    ti: Any
    context: Mapping[str, Any]


_running: Running | None = None


def current() -> Running | None:
    """Return what runs in this process; None where nothing does."""
    return _running


@contextlib.contextmanager
def runs(ti: Any, context: Mapping[str, Any] | None = None) -> Iterator[None]:
    """In this `with` statement this process runs *ti*."""
    global _running
    before, _running = _running, Running(ti, context or {})
    try:
        yield
    finally:
        _running = before


def current_task() -> ActionRef | None:
    """Return the running task; None where none runs.

    project: the DAG's id; run: the run's id; action: the task's id, with the index of a mapped one as `id[3]`;
    attempt: from 1 on; url: the page of the task's log.
    """
    if _running is None:
        return None
    from volume_core import ActionRef

    ti = _running.ti
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

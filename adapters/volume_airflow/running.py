"""The task that Airflow runs in this process."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from volume_core import ActionRef

instance: ContextVar[Any] = ContextVar("volume_airflow_instance", default=None)


def current_task() -> ActionRef | None:
    """Return the running task; None where none runs.

    project: the DAG's id; run: the run's id; action: the task's id, with the index of a mapped one as `id[3]`;
    attempt: from 1 on; url: the page of the task's log.
    """
    ti = instance.get()
    if ti is None:
        return None
    index = getattr(ti, "map_index", -1)
    return ActionRef(
        engine="airflow",
        project=ti.dag_id,
        run=ti.run_id,
        action=ti.task_id if index is None or index < 0 else f"{ti.task_id}[{index}]",
        attempt=str(ti.try_number),
        url=str(getattr(ti, "log_url", "") or ""),
    )

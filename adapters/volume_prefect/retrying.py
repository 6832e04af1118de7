"""Which failures are worth another attempt: a condition for `@task(retries=3, retry_condition_fn=...)`.

Why it has to be asked for: Prefect tries again after any error, as often as the task's `retries` say, and only a task's
own condition tells errors apart.

Always true: an error that is not a volume's is retried as without it.
"""

from __future__ import annotations

from typing import Any

from prefect.client.schemas.objects import State

from volume_core import StorageError


def unless_permanent(_task: Any, _task_run: Any, state: State[Any]) -> bool:
    """Whether the run that ended in *state* is to be tried again: not where a store's failure is none that passes.

    Such a one (credentials, region, bucket, disk space) is there at each attempt, until somebody changes something.
    """
    error = getattr(state.data, "result", state.data)
    return not isinstance(error, StorageError) or error.transient

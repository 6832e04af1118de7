"""What Prefect answers to the hooks of volume_core: which task runs here, and where its volumes lie.

Always true: nothing here imports Prefect: where it is not imported it runs no task in this process.
"""

from __future__ import annotations

import sys

from volume_core import ActionRef, hookimpl


@hookimpl
def volume_current_task() -> ActionRef | None:
    """The task or flow that Prefect is running in this process."""
    if "prefect" not in sys.modules:
        return None
    from volume_prefect import running

    return running.current_task()


@hookimpl
def volume_default_bucket() -> str | None:
    """The store that the running task's volumes lie in, where Prefect says one."""
    if "prefect" not in sys.modules:
        return None
    from volume_prefect import running

    return running.default_bucket()

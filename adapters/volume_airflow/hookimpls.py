"""What Airflow answers to the hooks of volume_core: which task runs here, and where its volumes lie.

Always true: nothing here imports Airflow: where it is not imported it runs no task in this process.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from volume_core.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from volume_core import ActionRef


def _runs_here() -> bool:
    # Whoever runs a task has this module, whichever of Airflow's versions it is.
    return "volume_airflow.calling" in sys.modules


@hookimpl
def volume_current_task() -> ActionRef | None:
    """The task that Airflow is running in this process."""
    if not _runs_here():
        return None
    from volume_airflow import running

    return running.current_task()

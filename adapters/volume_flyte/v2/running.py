"""The task that flyte 2 runs in this process, and where its data lies.

Always true: what is not known is "" or None, never a guess; nothing here waits for a server.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import flyte

from volume_core import ActionRef
from volume_flyte import containers
from volume_flyte.rawdata import store_beside

if TYPE_CHECKING:
    from flyte.models import TaskContext

BUCKET_VARIABLE = "VOLUME_BUCKET"
ATTEMPT_VARIABLE = "FLYTE_ATTEMPT_NUMBER"


def task_context() -> TaskContext | None:
    """Return the context of the running task; None outside one, where flyte gives a false one without fields."""
    context: TaskContext = flyte.ctx()
    return context if bool(context) else None


def current_task() -> ActionRef | None:
    """Return the running task; within `@flyte.trace` the traced call, which is an action of its own; None elsewhere."""
    context = task_context()
    if context is None:
        return None
    action = context.action
    return ActionRef(
        engine="flyte",
        org=action.org or "",
        project=action.project or "",
        domain=action.domain or "",
        run=action.run_name or "",
        action=action.name,
        # The context's own number is 0 where nobody said which attempt it is: in local runs.
        attempt=os.environ.get(ATTEMPT_VARIABLE, ""),
        url=_url(context),
    )


def default_bucket() -> str | None:
    """Return `<scheme>://<bucket>/volumes/<project>/<domain>`, in the bucket of the running task's raw data.

    Where that lies in a volume, the volume's store.

    None where that is a local directory, which goes with the run, and where `$VOLUME_BUCKET` says what to take.  Not
    the raw data's prefix itself: each attempt has another, and volumes are there for all.  In a container it is the
    same for all threads, and while modules are imported.
    """
    if os.environ.get(BUCKET_VARIABLE):
        return None
    context = task_context()
    if context is not None:
        path, project, domain = context.raw_data_path.path, context.action.project, context.action.domain
    else:
        path = containers.option("--raw-data-path", "-r") or ""
        project = containers.option("--project") or os.environ.get("FLYTE_INTERNAL_EXECUTION_PROJECT")
        domain = containers.option("--domain") or os.environ.get("FLYTE_INTERNAL_EXECUTION_DOMAIN")
    return store_beside(path, project, domain)


def _url(context: TaskContext) -> str:
    """The action's page in the console of the cluster that runs it."""
    action = context.action
    if context.mode != "remote" or not (action.project and action.domain and action.run_name):
        return ""
    try:
        from flyte._initialize import get_client  # flyte has no public name for it

        console = get_client().console
        return str(console.action_url(action.project, action.domain, action.run_name, action.name))
    except Exception:  # a link is worth no task: another release may lack any of these names, a process the client
        return ""

"""The task that flytekit runs in this process, and where its data lies.

How a running task is told from an import or a compilation: `current_context()` always answers, but only a run has a
mode.  In a container who runs is also in the environment, which is all that is left within a dynamic task.

Always true: an explicit $VOLUME_BUCKET goes before the bucket of the run.
"""

from __future__ import annotations

import os

from flytekit.core.context_manager import ExecutionParameters, ExecutionState, FlyteContext, FlyteContextManager

from volume_core import ActionRef
from volume_core.plugins.builtin import BUCKET_VARIABLE
from volume_flyte import containers
from volume_flyte.rawdata import store_beside

ENGINE = "flyte"
_IN_A_CONTAINER = (
    ExecutionState.Mode.TASK_EXECUTION,
    ExecutionState.Mode.DYNAMIC_TASK_EXECUTION,
    ExecutionState.Mode.EAGER_EXECUTION,
)


def current_task() -> ActionRef | None:
    """Return the running task; None where none runs.

    `action` is the node and the task's name, as far as they are known: in a local run neither is.
    """
    context = FlyteContextManager.current_context()
    state = context.execution_state
    if state is None or state.mode is None:
        return None
    parameters = state.user_space_params
    project, domain, run = _execution(parameters)
    if state.mode not in _IN_A_CONTAINER:
        return ActionRef(engine=ENGINE, project=project, domain=domain, run=run)
    node, attempt = _node_and_attempt(_metadata_prefix(parameters), f"{project}-{domain}-{run}")
    return ActionRef(
        engine=ENGINE,
        project=project,
        domain=domain,
        run=run,
        action=" ".join(filter(None, (node, _task_name(parameters)))),
        attempt=os.environ.get("FLYTE_ATTEMPT_NUMBER") or attempt,
        url=os.environ.get("FLYTE_EXECUTION_URL", ""),
    )


def default_bucket() -> str | None:
    """Return `<bucket of the run>/volumes/<project>/<domain>`, or the store of the volume that its data lies in.

    None where no task runs, where the run's data lies on this machine, and where $VOLUME_BUCKET is set.  In a
    container it is the same for all threads, and while modules are imported.
    """
    context = FlyteContextManager.current_context()
    state = context.execution_state
    if os.environ.get(BUCKET_VARIABLE):
        return None
    is_known = state is not None and state.mode is not None
    parameters = state.user_space_params if state is not None and is_known else None
    prefix = _raw_output_prefix(context, parameters) if is_known else containers.option("--raw-output-data-prefix")
    project, domain, _ = _execution(parameters)
    return store_beside(prefix or "", project, domain)


def _execution(parameters: ExecutionParameters | None) -> tuple[str, str, str]:
    """Return (project, domain, name) of the execution."""
    if parameters is not None and (execution := parameters._execution_id) is not None:
        return execution.project or "", execution.domain or "", execution.name or ""
    return (
        _variable("FLYTE_INTERNAL_EXECUTION_PROJECT", "_F_PRJ"),
        _variable("FLYTE_INTERNAL_EXECUTION_DOMAIN", "_F_DM"),
        _variable("FLYTE_INTERNAL_EXECUTION_ID", "_F_NM"),
    )


def _task_name(parameters: ExecutionParameters | None) -> str:
    if parameters is not None and parameters.task_id is not None and parameters.task_id.name:
        return str(parameters.task_id.name)
    return _variable("FLYTE_INTERNAL_TASK_NAME", "_F_TK_NM")


def _metadata_prefix(parameters: ExecutionParameters | None) -> str:
    return (parameters.output_metadata_prefix if parameters is not None else None) or ""


def _raw_output_prefix(context: FlyteContext, parameters: ExecutionParameters | None) -> str:
    if parameters is not None and parameters.raw_output_prefix:
        return str(parameters.raw_output_prefix)
    return str(context.file_access.raw_output_prefix) if context.file_access is not None else ""


def _node_and_attempt(prefix: str, execution: str) -> tuple[str, str]:
    """Take `.../<project>-<domain>-<execution>/<node>/data/<attempt>` apart; ("", "") if it is not so."""
    parts = prefix.rstrip("/").split("/")
    if execution not in parts:
        return "", ""
    below = parts[parts.index(execution) + 1 :]
    match below:
        case [*nodes, "data", attempt] if nodes:
            return "/".join(nodes), attempt
        case _:
            return "/".join(below), ""


def _variable(*names: str) -> str:
    return next(filter(None, map(os.environ.get, names)), "")

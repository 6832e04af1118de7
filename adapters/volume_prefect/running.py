"""The task or flow that Prefect runs in this process, and where its data lies.

Always true: outside a run nothing is asked of any API; within one an API that is away, slow or has nothing to say costs
at most a few seconds, once a run, and no run fails for it.  A default store that cannot be used is an error.
"""

from __future__ import annotations

import contextvars
import threading
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from typing import Any

from prefect.context import FlowRunContext, TaskRunContext
from prefect.settings.context import get_current_settings

from volume_core import ActionRef, StorageError, VolumeError

VARIABLE = "volume_store_url"
_PATIENCE_S = 5.0
_RUNS_KNOWN_MAX = 256
_known: OrderedDict[str, str | None] = OrderedDict()
_lock = threading.Lock()


def contexts() -> tuple[FlowRunContext | None, TaskRunContext | None]:
    """Return the flow that runs here, and the task of it, where one runs.

    A flow that a task calls is within that task: then the task is another flow's, and only the flow is returned.
    """
    flow, task = FlowRunContext.get(), TaskRunContext.get()
    if flow is not None and flow.flow_run is not None and task is not None:
        of_this_flow = task.task_run.flow_run_id in {None, flow.flow_run.id}
        return flow, task if of_this_flow else None
    return flow, task


def current_task() -> ActionRef | None:
    """Return the running task, or the flow; None where neither runs.

    project: the flow's name; run: the flow run's id; action: the task run's name, "" of a flow; attempt: from 1 on.
    """
    flow, task = contexts()
    if task is not None:
        run = task.task_run
        return ActionRef(
            engine="prefect",
            project=_flow_name(flow) or task.task.name,
            run=str(run.flow_run_id or run.id),
            action=run.name or task.task.name,
            attempt=str(max(run.run_count, 1)),
            url=_page("task-run", run.id),
        )
    if flow is None or flow.flow_run is None:
        return None
    return ActionRef(
        engine="prefect",
        project=_flow_name(flow),
        run=str(flow.flow_run.id),
        attempt=str(max(flow.flow_run.run_count, 1)),
        url=_page("flow-run", flow.flow_run.id),
    )


def described() -> str:
    """Return what runs here in a few words, for a commit's message; "" outside a run."""
    flow, task = contexts()
    if task is not None:
        run: Any = task.task_run
    elif flow is not None and flow.flow_run is not None:
        run = flow.flow_run
    else:
        return ""
    again = f", attempt {run.run_count}" if run.run_count > 1 else ""
    return f"{run.name}{again}"


def is_again() -> bool:
    """Whether what runs here was tried before: as a flow run that was scheduled anew, in another process perhaps."""
    flow, task = contexts()
    runs = (flow.flow_run if flow is not None else None, task.task_run if task is not None else None)
    return any(run is not None and run.run_count > 1 for run in runs)


def is_mine(made: ActionRef, created_at: str) -> bool:
    """Whether *made* is another attempt of what runs here: of the same flow run, and in it of the same task or none.

    *created_at* says when it committed.  A task's run has another id in each attempt of its flow, and another name
    unless the task says how its runs are called (`task_run_name`); else what stays is the name of the task.  What this
    very attempt of the flow has committed is another call's.
    """
    now, (flow, task) = current_task(), contexts()
    if now is None or (made.engine, made.run) != (now.engine, now.run):
        return False
    # The names of two runs of one task can be the same: the page tells them apart, where there is one.
    if made.action == now.action and (made.url == now.url or not (made.url and now.url)):
        return True
    if task is None or flow is None or flow.flow_run is None or flow.flow_run.run_count < 2:
        return False
    if datetime.fromisoformat(created_at) >= flow.start_time:
        return False
    if task.task.task_run_name:
        return made.action == now.action
    return made.action.rpartition("-")[0] == task.task.name


def _flow_name(flow: FlowRunContext | None) -> str:
    return flow.flow.name if flow is not None and flow.flow is not None else ""


def _page(kind: str, run_id: object) -> str:
    url = get_current_settings().ui_url
    return f"{url}/runs/{kind}/{run_id}" if url else ""


def default_bucket() -> str | None:
    """Return the URL of the store for the running task's volumes, or None to leave it to others.

    In this order: the block `volume-store/default`, the variable `volume_store_url`, a remote result storage of the
    run.  The first two are asked for once a flow run.  Raises VolumeError where the block is there and cannot be used:
    its credentials are gone, or another store's are in use; a transient StorageError where the API does not say.
    """
    flow, task = contexts()
    if flow is None and task is None:
        return None
    action = current_task()
    run = action.run if action is not None else ""
    with _lock:
        found, is_known = _known.get(run), run in _known
    if not is_known:
        found = _within(_PATIENCE_S, _asked)
        with _lock:
            _known[run] = found
            while len(_known) > _RUNS_KNOWN_MAX:
                _known.popitem(last=False)
    return found or _result_storage(flow, task)


def _asked() -> str | None:
    """What the API says: the block, or the variable."""
    from prefect.client.orchestration import get_client

    from volume_prefect import blocks

    if (store := blocks.load_store("default")) is not None:
        store.use()
        return str(store.url)
    with get_client(sync_client=True) as client:
        variable = client.read_variable_by_name(VARIABLE)
    url = variable.value if variable is not None else None
    return url if isinstance(url, str) and url else None


def _within(patience_s: float, ask: Callable[[], str | None]) -> str | None:
    """Return what *ask* returns.  Raises StorageError where it fails or takes longer than *patience_s*, and the
    VolumeError that *ask* raises: elsewhere, on a pod's own disk perhaps, nobody would look for the volume.
    """
    answer: list[str | None] = []
    failure: list[Exception] = []

    def run() -> None:
        try:
            answer.append(ask())
        except Exception as error:  # whatever the client's libraries raise: told below
            failure.append(error)

    thread = threading.Thread(target=contextvars.copy_context().run, args=(run,), daemon=True, name="volume-bucket")
    thread.start()
    thread.join(patience_s)
    if answer:
        return answer[0]
    if failure and isinstance(failure[0], VolumeError):
        raise failure[0]
    why = f"{type(failure[0]).__name__}: {failure[0]}" if failure else f"no answer in {patience_s:g} s"
    raise StorageError(
        f"where volumes lie by default could not be asked of the API ({why}): name a bucket, or set VOLUME_BUCKET",
        transient=True,
    ) from (failure[0] if failure else None)


def _result_storage(flow: FlowRunContext | None, task: TaskRunContext | None) -> str | None:
    """The run's result storage, if it is remote: a directory of this host is no place to share volumes in."""
    for context in (task, flow):
        store = getattr(context, "result_store", None)
        if store is not None:
            return _url_of(getattr(store, "result_storage", None))
    return None


# Blocks of the collections, by their type's slug: scheme, field of the bucket, field of the folder.
_STORAGES = {
    "s3-bucket": ("s3", "bucket_name", "bucket_folder"),
    "gcs-bucket": ("gs", "bucket", "bucket_folder"),
    "azure-blob-storage-container": ("az", "container_name", "base_folder"),
}


def _url_of(storage: Any) -> str | None:
    if storage is None:
        return None
    slug = storage.get_block_type_slug() if hasattr(storage, "get_block_type_slug") else ""
    if slug == "remote-file-system":
        base = str(storage.basepath)
        return base if base.partition("://")[0] in {"s3", "gs", "az", "abfs"} else None
    if slug not in _STORAGES:
        return None
    scheme, bucket, folder = _STORAGES[slug]
    below = str(getattr(storage, folder, None) or "").strip("/")
    name = getattr(storage, bucket, None)
    return f"{scheme}://{name}/{below}".rstrip("/") if name else None

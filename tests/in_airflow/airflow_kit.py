"""Small things that several tests of the adapter ask for; above all: tasks that run without a database.

`run_tasks(dag)` runs each task as a worker does, from the templates to the XComs, with the listeners, plugins and
serialization of Airflow; only what the supervisor would answer is answered from dictionaries here.  A task takes
milliseconds; with `dag.test()` it takes a tenth of a second, and the first ten seconds.  A task's process of Airflow
2.11 has the database itself: there it is run with one (airflow_two.py).

Nothing of Airflow is imported before it is used: conftest.py, which imports this, has first to set its environment.
"""

from __future__ import annotations

import datetime
import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import airflow_two

from volume_airflow import compat
from volume_core import ROVolume, RWVolume, Volume


class Ended(NamedTuple):
    """How one run of a task ended: its state, the message for the supervisor, the error if it failed."""

    state: str
    message: Any
    error: BaseException | None


class Supervisor:
    """What a task's process talks to: XComs, the task's state and connections, in dictionaries."""

    def __init__(self, connections: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self.xcoms: dict[tuple[str, int, str], Any] = {}
        self.runs: set[tuple[str, str]] = set()  # by DAG and run: those that a database has for it
        self.instances: dict[Any, tuple[str, str, int]] = {}  # the run, task and index of each id
        self.states: dict[tuple[str, str, int, str], Any] = {}  # with the key; of all tries of a task instance
        self.connections = dict(connections or {})
        self.sent: list[Any] = []

    def send(self, msg: Any) -> Any:
        """Answer *msg*, as the supervisor would."""
        from airflow.sdk.execution_time import comms

        self.sent.append(msg)
        match msg:
            case comms.SetXCom():
                self.xcoms[msg.task_id, _index(msg.map_index), msg.key] = msg.value
            case comms.GetXCom():
                key = (msg.task_id, _index(msg.map_index), msg.key)
                return comms.XComResult(key=msg.key, value=self.xcoms.get(key))
            case comms.GetXComSequenceSlice():
                found = sorted(
                    (index, value)
                    for (task, index, key), value in self.xcoms.items()
                    if (task, key) == (msg.task_id, msg.key)
                )
                return comms.XComSequenceSliceResult(root=[value for _, value in found])
            case comms.GetXComSequenceItem():
                found = sorted(
                    (index, value)
                    for (task, index, key), value in self.xcoms.items()
                    if (task, key) == (msg.task_id, msg.key)
                )
                if msg.offset < len(found):
                    return comms.XComSequenceIndexResult(root=found[msg.offset][1])
                return comms.ErrorResponse(error=comms.ErrorType.XCOM_NOT_FOUND)
            case comms.GetXComCount():
                found = [1 for task, _, key in self.xcoms if (task, key) == (msg.task_id, msg.key)]
                return comms.XComCountResponse(len=len(found))
            case comms.GetTaskStateStore():
                if (key := (*self.instances[msg.ti_id], msg.key)) in self.states:
                    return comms.TaskStateStoreResult(value=self.states[key])
                return comms.ErrorResponse(error=comms.ErrorType.TASK_STORE_NOT_FOUND)
            case comms.SetTaskStateStore():
                self.states[*self.instances[msg.ti_id], msg.key] = json.loads(json.dumps(msg.value))
            case comms.DeleteTaskStateStore():
                self.states.pop((*self.instances[msg.ti_id], msg.key), None)
            case comms.GetConnection():
                if msg.conn_id in self.connections:
                    fields = dict.fromkeys(("conn_type", "host", "schema", "login", "password", "port", "extra"))
                    return comms.ConnectionResult(conn_id=msg.conn_id, **fields | self.connections[msg.conn_id])
                return comms.ErrorResponse(error=comms.ErrorType.CONNECTION_NOT_FOUND)
            case comms.ValidateInletsAndOutlets():
                return comms.InactiveAssetsResult(inactive_assets=[])
            case comms.GetVariable():
                return comms.ErrorResponse(error=comms.ErrorType.VARIABLE_NOT_FOUND)
        return None

    async def asend(self, msg: Any) -> Any:
        """The same, for what is awaited."""
        return self.send(msg)


def _index(given: int | None) -> int:
    return -1 if given is None else given


def run_task(
    task: Any,
    supervisor: Supervisor,
    *,
    run_id: str = "a-run",
    try_number: int = 1,
    map_index: int = -1,
    max_tries: int = 0,
    next_method: str | None = None,
    next_kwargs: Mapping[str, Any] | None = None,
) -> Ended:
    """Run one try of *task*, as its process would.  What the task raises is in what is returned."""
    if not compat.IS_3:
        return Ended(*airflow_two.task_runs(
            task, supervisor, run_id=run_id, try_number=try_number, map_index=map_index, max_tries=max_tries,
            next_method=next_method, next_kwargs=next_kwargs,
        ))  # fmt: skip
    import structlog
    from airflow.sdk.api.datamodels._generated import DagRun, TIRunContext
    from airflow.sdk.execution_time.supervisor import set_supervisor_comms
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance, finalize, run

    now = datetime.datetime.now(datetime.UTC)
    dag_run = DagRun(
        dag_id=task.dag_id, run_id=run_id, logical_date=now, data_interval_start=now, data_interval_end=now,
        start_date=now, end_date=None, run_after=now, run_type="manual", state="running", consumed_asset_events=[],
        partition_key=None,
    )  # fmt: skip
    told = TIRunContext(
        dag_run=dag_run, task_reschedule_count=0, max_tries=max_tries, should_retry=try_number <= max_tries,
        next_method=next_method, next_kwargs=dict(next_kwargs) if next_kwargs is not None else None,
    )  # fmt: skip
    instance = RuntimeTaskInstance.model_construct(
        id=uuid.uuid4(), task_id=task.task_id, dag_id=task.dag_id, run_id=run_id, try_number=try_number,
        map_index=map_index, dag_version_id=uuid.uuid4(), task=task, start_date=now, state="running",
        max_tries=max_tries, _ti_context_from_server=told,
    )  # fmt: skip
    supervisor.instances[instance.id] = (run_id, task.task_id, map_index)
    with set_supervisor_comms(supervisor):
        context = instance.get_template_context()
        log = structlog.get_logger("task")
        state, message, error = run(instance, context, log)
        finalize(instance, state, context, log, error)
    return Ended(str(getattr(state, "value", state)), message, error)


def run_tasks(dag: Any, supervisor: Supervisor | None = None, **options: Any) -> Supervisor:
    """Run each task of *dag* once, none of them mapped, one after the other; raise what one of them does."""
    supervisor = supervisor or Supervisor()
    for task in dag.topological_sort() if hasattr(dag, "topological_sort") else dag.task_group.topological_sort():
        ended = run_task(task, supervisor, **options)
        if ended.error is not None:
            raise ended.error
    return supervisor


def returned(supervisor: Supervisor, task_id: str, map_index: int = -1, key: str = "return_value") -> Any:
    """What a downstream task would be given of what *task_id* returned."""
    return _deserialized(supervisor.xcoms[task_id, map_index, key])


def _deserialized(value: Any) -> Any:
    return compat.deserialize(value)


def dag_runs(dag: Any, **options: Any) -> tuple[Any, dict[tuple[str, int, str], Any]]:
    """See the fixture `run_dag`."""
    if not compat.IS_3:
        return airflow_two.dag_runs(dag, _deserialized, **options)
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.collection import update_dag_parsing_results_in_db
    from airflow.models.xcom import XComModel
    from airflow.serialization.serialized_objects import LazyDeserializedDAG
    from airflow.utils.session import create_session

    with create_session() as session:
        DagBundlesManager().sync_bundles_to_db(session=session)
    with create_session() as session:  # a run is of a DAG that the database knows
        lazy = LazyDeserializedDAG.from_dag(dag)
        update_dag_parsing_results_in_db("dags-folder", None, [lazy], {}, None, set(), session=session)
    run = dag.test(**options)
    columns = (XComModel.task_id, XComModel.map_index, XComModel.key, XComModel.value)
    with create_session() as session:
        query = XComModel.get_many(run_id=run.run_id, dag_ids=dag.dag_id).with_only_columns(*columns)
        rows = session.execute(query).all()
    return run, {(task, index, key): _deserialized(value) for task, index, key, value in rows}


# -- volumes


def written(volume: RWVolume, files: Mapping[str, str]) -> RWVolume:
    """Write *files* into *volume*, mounted by the copy driver, and leave it mounted and uncommitted."""
    root = volume.mount_sync(driver="copy")
    for name, text in files.items():
        (root / name).write_text(text)
    return volume


def made(name: str = "data", **files: str) -> ROVolume:
    """A version of the volume *name* that holds *files*."""
    return written(Volume.new(name), files).finalize_sync()


def texts(version: Volume) -> dict[str, str]:
    """The files at the root of *version*."""
    return {entry.name: b"".join(version.read_file_sync(entry.name)).decode() for entry in version.listdir_sync("/")}


def mounts_below(directory: Path) -> list[str]:
    """What is mounted below *directory*, in the order it was mounted."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in points if point.startswith(f"{directory}/")]

"""What the kit does where Airflow is 2.11: there a task's process has the database, so a task is run with one.

Always true: `run_task` and `dag_runs` give what they give in Airflow 3 (airflow_kit.py); XComs are the database's, and
what of them a run has made is copied to the supervisor's.
"""

from __future__ import annotations

import datetime
import itertools
import json
import warnings
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from volume_airflow import compat

_hours = itertools.count()  # two runs of a DAG are of different dates


def dag_runs(dag: Any, deserialized: Any, **options: Any) -> tuple[Any, dict[tuple[str, int, str], Any]]:
    """See airflow_kit.dag_runs."""
    _make_known(dag)
    run = dag.test(**options)
    return run, {key: deserialized(value) for key, value in _xcoms(dag.dag_id, run.run_id).items()}


def task_runs(
    task: Any,
    supervisor: Any,
    *,
    run_id: str,
    try_number: int,
    map_index: int,
    max_tries: int,
    next_method: str | None,
    next_kwargs: Mapping[str, Any] | None,
) -> tuple[str, Any, BaseException | None]:
    """See airflow_kit.run_task."""
    from airflow.utils.session import create_session
    from airflow.utils.state import TaskInstanceState

    task.retries = max(task.retries, max_tries)  # which 2 asks, too, whether there is another try
    _make_known(task.dag)
    message, failure = None, None
    with create_session() as session:
        run = _run(task.dag, run_id, supervisor, session)
        instance = run.get_task_instance(task.task_id, map_index=map_index, session=session)
        if instance is None:  # of a mapped task, which only a scheduler expands
            from airflow.models.taskinstance import TaskInstance

            instance = session.merge(TaskInstance(task, run_id=run_id, map_index=map_index))
        instance.task = task
        instance.state = TaskInstanceState.RUNNING
        instance.try_number, instance.max_tries = try_number, max_tries
        instance.next_method, instance.next_kwargs = next_method, dict(next_kwargs) if next_kwargs else None
        session.flush()
        from airflow.exceptions import TaskDeferred

        try:
            instance._run_raw_task(session=session, raise_on_defer=True)
        except TaskDeferred as deferred:
            path, kwargs = deferred.trigger.serialize()
            message, state = (
                SimpleNamespace(classpath=path, trigger_kwargs=compat.serialize(kwargs), **vars(deferred)),
                "deferred",
            )
        except Exception as error:
            failure, state = error, str(instance.state)
        else:
            state = str(instance.state)
    supervisor.xcoms.update(_xcoms(task.dag_id, run_id))
    return state, message, failure


def _make_known(dag: Any) -> None:
    """Have the database know of *dag*: a run is of a DAG that it knows."""
    with warnings.catch_warnings(action="ignore"):
        import airflow.providers.fab.auth_manager.models  # noqa: F401 - tables that others refer to
    from airflow.models.dag import DAG
    from airflow.utils.session import create_session

    with create_session() as session:
        DAG.bulk_write_to_db([dag], session=session)


def _run(dag: Any, run_id: str, supervisor: Any, session: Any) -> Any:
    """Return the run of *supervisor*; one of the same name that another test has made is deleted with its tasks."""
    from airflow.models.dagrun import DagRun
    from airflow.utils.state import DagRunState

    found = DagRun.find(dag_id=dag.dag_id, run_id=run_id, session=session)
    if found and (dag.dag_id, run_id) in supervisor.runs:
        return found[0]
    for each in found:
        session.delete(each)
    session.flush()
    supervisor.runs.add((dag.dag_id, run_id))
    date = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=next(_hours))
    return dag.create_dagrun(
        state=DagRunState.RUNNING, execution_date=date, start_date=date, run_id=run_id,
        data_interval=(date, date), session=session,
    )  # fmt: skip


def _xcoms(dag_id: str, run_id: str) -> dict[tuple[str, int, str], Any]:
    from airflow.models.xcom import XCom
    from airflow.utils.session import create_session

    with create_session() as session:
        query = XCom.get_many(run_id=run_id, dag_ids=dag_id, session=session)
        # By columns: a row that is loaded as a whole has its value deserialized.
        found = query.with_entities(XCom.task_id, XCom.map_index, XCom.key, XCom.value).all()
        return {(task, index, key): json.loads(value) for task, index, key, value in found}

"""The link of a task to the volume that it returned."""

from __future__ import annotations

import datetime
from types import SimpleNamespace
from urllib.parse import quote

import pytest
from airflow_kit import Supervisor, made, run_task, written

from volume_airflow.compat import DAG, IS_3, BaseOperator, task
from volume_airflow.links.volume import GlobalVolumeLink, VolumeLink
from volume_core import Volume

if not IS_3:
    pytest.skip("links lead to pages that are for Airflow 3", allow_module_level=True)


def key(dag_id, run_id, task_id, map_index=-1):
    return SimpleNamespace(dag_id=dag_id, run_id=run_id, task_id=task_id, map_index=map_index, try_number=1)


@pytest.fixture
def link(run_dag):
    """`link(name, function)`: where the link of a task that has run *function* leads, and what it returned."""

    def of(name, function, **options):
        with DAG(name, schedule=None, start_date=datetime.datetime(2026, 1, 1)) as dag:
            task(function, task_id="make", **options)()
        run, xcoms = run_dag(dag)
        assert run.state == "success"
        found = GlobalVolumeLink().get_link(None, ti_key=key(name, run.run_id, "make"))
        return found, xcoms.get(("make", -1, "return_value")), quote(run.run_id, safe="")

    return of


def test_any_task_that_returned_a_volume_has_a_link_to_its_version(link):
    found, version, run = link("linked", lambda: written(Volume.new("raw"), {"a": "1"}))

    assert f"/volumes/ti/linked/{run}/make/-1/{version.version}" == found


def test_a_volume_anywhere_in_a_value_is_found_the_first_one_first(link):
    def several():
        return {"rows": [1, {"x": [written(Volume.new("one"), {"a": "1"})]}], "two": written(Volume.new("two"), {})}

    found, value, _ = link("linked_deep", several)

    assert found.endswith(value["rows"][1]["x"][0].version)


@pytest.mark.parametrize(("name", "value"), [("number", 3), ("text", "{not json"), ("nothing", None), ("list", [[{}]])])
def test_a_task_without_a_volume_has_no_link(link, name, value):
    assert "" == link(f"unlinked_{name}", lambda: value)[0]


def test_an_envelope_of_another_class_is_none(link):
    assert "" == link("unlinked_time", lambda: datetime.datetime(2026, 1, 1))[0]


@pytest.mark.loud  # Airflow warns of its own auth manager
def test_the_api_server_asks_it_for_every_task_and_answers_null_where_there_is_none(run_dag, database):
    from airflow.api_fastapi.app import create_app
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
    from fastapi.testclient import TestClient

    with DAG("linked_by_the_server", schedule=None, start_date=datetime.datetime(2026, 1, 1)) as dag:
        task(lambda: written(Volume.new("raw"), {"a": "1"}), task_id="make")()
        task(lambda: 1, task_id="other")()
    run, xcoms = run_dag(dag)
    app = create_app(apps="core")
    token = app.state.auth_manager.generate_jwt(SimpleAuthManagerUser(username="a", role="admin"))
    client = TestClient(app, headers={"Authorization": f"Bearer {token}"})

    def links(task_id):
        path = f"/api/v2/dags/{dag.dag_id}/dagRuns/{quote(run.run_id)}/taskInstances/{task_id}/links"
        return client.get(path).json()["extra_links"]

    assert links("make")["Volume"].endswith(xcoms["make", -1, "return_value"].version)
    assert links("other")["Volume"] is None


def test_an_operator_keeps_its_link_as_an_xcom_that_the_worker_makes():
    version = made("raw", a="1")

    class Makes(BaseOperator):
        operator_extra_links = (VolumeLink(),)

        def execute(self, context):
            return {"made": [version]}

    with DAG("linked_operator", schedule=None):
        operator = Makes(task_id="make")
    supervisor = Supervisor()
    run_task(operator, supervisor)

    assert f"/volumes/ti/linked_operator/a-run/make/-1/{version.version}" in [
        value for (_, _, name), value in supervisor.xcoms.items() if name.startswith("_link_")
    ]

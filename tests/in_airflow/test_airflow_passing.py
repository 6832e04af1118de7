"""Volumes go from task to task as values, whichever release of Airflow there is."""

from __future__ import annotations

from airflow_kit import returned, run_tasks, texts, written

from volume_airflow.compat import DAG, task
from volume_core import ROVolume, RWVolume, Volume


def test_a_writer_that_a_task_returns_is_a_version_for_the_next_one():
    with DAG("values", schedule=None) as dag:

        @task
        def make():
            return written(Volume.new("data"), {"a": "1"})

        @task
        def read(data):
            assert type(data) is ROVolume
            return texts(data)

        read(make())

    supervisor = run_tasks(dag)

    assert {"a": "1"} == returned(supervisor, "read")
    assert type(returned(supervisor, "make")) is ROVolume


def test_the_same_with_a_database(run_dag):
    with DAG("values_again", schedule=None) as dag:

        @task
        def make():
            return written(Volume.new("data"), {"a": "1"})

        @task
        def read(data):
            return texts(data)

        read(make())

    run, xcoms = run_dag(dag)

    assert run.state == "success"
    assert {"a": "1"} == xcoms["read", -1, "return_value"]


def test_the_log_says_once_of_each_volume_which_version_was_committed(caplog):
    with DAG("told", schedule=None) as dag:

        @task(multiple_outputs=True)
        def make():
            volume = written(Volume.new("data"), {"a": "1"})
            return {"one": volume, "again": [volume]}

        @task
        def pass_on(data: RWVolume):
            return data

        pass_on(make()["one"])

    with caplog.at_level("INFO", "volume_airflow"):
        supervisor = run_tasks(dag)

    version = returned(supervisor, "make", key="one")
    told = [each.getMessage() for each in caplog.records if "is committed" in each.getMessage()]
    assert told == [f"volume data is committed: {version.locator}"]

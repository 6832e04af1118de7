"""Volumes go from task to task as values, whichever release of Airflow there is."""

from __future__ import annotations

from airflow_kit import returned, run_tasks, texts, written

from volume_airflow.compat import DAG, task
from volume_core import ROVolume, Volume


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

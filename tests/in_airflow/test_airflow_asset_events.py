"""Events in Airflow's database: what a producer has committed is what a consumer reads."""

from __future__ import annotations

import datetime

from airflow.sdk import DAG, task
from airflow_kit import written

from volume_airflow import volume_asset
from volume_core import RWVolume, Volume

START = datetime.datetime(2026, 1, 1)


def events_of(dag_id):
    """(URI, extra) of each event that tasks of that DAG have made, oldest first."""
    from airflow.models.asset import AssetEvent, AssetModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        query = select(AssetModel.uri, AssetEvent.extra).join(AssetEvent, AssetEvent.asset_id == AssetModel.id)
        rows = session.execute(query.where(AssetEvent.source_dag_id == dag_id).order_by(AssetEvent.id))
        return [tuple(row) for row in rows]


def test_what_is_declared_and_what_is_not_are_events_of_one_asset(run_dag):
    asset = volume_asset("produced")
    with DAG("produces", schedule=None, start_date=START) as dag:

        @task
        def produce():
            return written(Volume.new("produced"), {"a": "1"})

        @task(outlets=[asset])
        def again(data: RWVolume):
            root = data.mount_sync(driver="copy")
            (root / "b").write_text("2")
            data.commit_sync()
            (root / "b").write_text("3")
            return data

        again(produce())

    run, xcoms = run_dag(dag)

    assert run.state == "success"
    versions = [xcoms[name, -1, "return_value"] for name in ("produce", "again")]
    told = events_of("produces")
    assert [asset.uri, asset.uri] == [uri for uri, _ in told]
    assert [each.locator for each in versions] == [extra["locator"] for _, extra in told]
    assert 2 == len(told[1][1]["versions"])


def test_a_consumer_reads_the_version_from_the_events(run_dag):
    asset = volume_asset("consumed")
    with DAG("produces_again", schedule=None, start_date=START) as produces:
        task(lambda: written(Volume.new("consumed"), {"a": "1"}), task_id="produce")()
    with DAG("consumes", schedule=[asset], start_date=START) as consumes:

        @task(inlets=[asset])
        def consume(*, inlet_events):
            return [each.extra["locator"] for each in inlet_events[asset]]

        consume()

    _, made = run_dag(produces)
    run, seen = run_dag(consumes)

    assert run.state == "success"
    assert [made["produce", -1, "return_value"].locator] == seen["consume", -1, "return_value"]


def test_several_commits_through_the_alias_are_one_event(run_dag):
    def commit():
        volume = Volume.new("committed_twice")
        root = volume.mount_sync(driver="copy")
        for number in range(2):
            (root / "a").write_text(str(number))
            volume.commit_sync()
        return volume

    with DAG("commits_twice", schedule=None, start_date=START) as dag:
        task(commit, task_id="commit")()

    run, xcoms = run_dag(dag)

    assert run.state == "success"
    [(_, extra)] = events_of("commits_twice")
    assert xcoms["commit", -1, "return_value"].version == extra["version"] == extra["versions"][-1]

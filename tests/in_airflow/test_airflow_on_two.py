"""What a task does with volumes in each Airflow that is supported, run by `dag.test()`: 2.11 and 3 alike."""

from __future__ import annotations

import datetime
import json

import pytest
from airflow_kit import made, texts, written

from volume_airflow import compat
from volume_airflow.compat import DAG, Asset, BaseOperator, BashOperator, task
from volume_core import ROVolume, RWVolume, Volume

NOW = datetime.timedelta()


def test_volumes_go_on_alone_in_lists_in_dictionaries_and_as_several_outputs(run_dag):
    with DAG("two_values", schedule=None) as dag:

        @task
        def alone() -> RWVolume:
            return written(Volume.new("alone"), {"a": "1"})

        @task
        def nested():
            return [written(Volume.new("one"), {"a": "1"}), {"two": written(Volume.new("two"), {"b": "2"})}]

        @task(multiple_outputs=True)
        def several():
            return {"left": written(Volume.new("left"), {"l": "1"}), "right": 7}

        @task
        def read(single, both, left, right):
            assert [ROVolume, ROVolume, ROVolume] == [type(single), type(both[0]), type(left)]
            return [texts(single), texts(both[0]), texts(both[1]["two"]), texts(left), right]

        outputs = several()
        read(alone(), nested(), outputs["left"], outputs["right"])

    run, xcoms = run_dag(dag)

    assert run.state == "success"
    assert [{"a": "1"}, {"a": "1"}, {"b": "2"}, {"l": "1"}, 7] == xcoms["read", -1, "return_value"]
    assert type(xcoms["several", -1, "left"]) is ROVolume


def test_mapped_tasks_give_and_take_volumes(run_dag):
    with DAG("two_mapped", schedule=None) as dag:

        @task
        def make(number: int):
            return written(Volume.new(f"part{number}"), {str(number): "x"})

        @task
        def extend(part: RWVolume):
            return written(part, {"more": "y"})

        @task
        def collect(parts: list[ROVolume]):
            return [texts(each) for each in parts]

        collect(extend.expand(part=make.expand(number=[1, 2])))

    run, xcoms = run_dag(dag)

    assert run.state == "success"
    assert [{"1": "x", "more": "y"}, {"2": "x", "more": "y"}] == xcoms["collect", -1, "return_value"]


def test_a_writable_parameter_is_a_fork_and_a_pushed_writer_a_version(run_dag):
    with DAG("two_forks", schedule=None) as dag:

        @task
        def make():
            return made(a="1")

        @task
        def edit(data: RWVolume, ti=None):
            ti.xcom_push(key="side", value=written(Volume.new("side"), {"s": "1"}))
            return written(data, {"b": "2"})

        @task
        def pull(before, after, ti=None):
            return [texts(before), texts(after), texts(ti.xcom_pull(task_ids="edit", key="side"))]

        version = make()
        pull(version, edit(version))

    run, xcoms = run_dag(dag)

    assert run.state == "success"
    assert [{"a": "1"}, {"a": "1", "b": "2"}, {"s": "1"}] == xcoms["pull", -1, "return_value"]


@pytest.mark.loud
def test_a_task_that_fails_commits_nothing(run_dag):
    with DAG("two_failing", schedule=None) as dag:

        @task
        def make():
            data = written(Volume.from_name_sync("named", create_if_missing=True), {"a": "1"})
            assert data.mount_path
            raise RuntimeError("not today")

        make()

    run, xcoms = run_dag(dag)

    assert run.state == "failed"
    assert {} == xcoms
    assert Volume.from_name_sync("named", create_if_missing=True).committed is None


def test_a_command_runs_in_a_volume(run_dag):
    with DAG("two_bash", schedule=None) as dag:

        @task
        def make():
            return made(**{"a.txt": "in the volume"})

        BashOperator(task_id="show", bash_command="cat a.txt", cwd=make())

    run, xcoms = run_dag(dag)

    assert run.state == "success"
    assert "in the volume" == xcoms["show", -1, "return_value"]


@pytest.mark.loud  # Airflow has no key to encrypt with
def test_a_deferred_task_hands_over_what_it_returns_when_it_goes_on(run_dag):
    if compat.IS_3:
        from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
    else:
        from airflow.triggers.temporal import TimeDeltaTrigger

    class Waits(BaseOperator):
        def execute(self, context):
            self.defer(trigger=TimeDeltaTrigger(datetime.timedelta(0)), method_name="goes_on")

        def goes_on(self, context, event=None):
            return written(Volume.new("late"), {"a": "1"})

    with DAG("two_deferred", schedule=None, start_date=datetime.datetime(2026, 1, 1)) as dag:
        Waits(task_id="wait")

    run, xcoms = run_dag(dag)

    assert run.state == "success"
    assert {"a": "1"} == texts(xcoms["wait", -1, "return_value"])


def test_the_event_of_a_declared_outlet_says_the_version(run_dag):
    outlet = Asset("vol://declared")
    with DAG("two_assets", schedule=None) as dag:

        @task(outlets=[outlet])
        def make():
            return written(Volume.new("declared"), {"a": "1"})

        @task
        def make_undeclared():
            return written(Volume.new("undeclared"), {"a": "1"})

        make() >> make_undeclared()

    run, xcoms = run_dag(dag)

    assert run.state == "success"
    assert xcoms["make", -1, "return_value"].version in [each["version"] for each in events_of("vol://declared")]


def events_of(uri: str) -> list[dict]:
    """The extras of all events of the asset *uri*."""
    from airflow.utils.session import create_session

    if compat.IS_3:
        from airflow.models.asset import AssetEvent as Event
    else:
        from airflow.models.dataset import DatasetEvent as Event
    with create_session() as session:
        return [each.extra for each in session.query(Event).all() if each.uri.rstrip("/") == uri]


def test_a_store_is_a_connection(run_dag, monkeypatch, tmp_path):
    said = {"conn_type": "volume", "host": str(tmp_path / "store")}
    monkeypatch.setenv("AIRFLOW_CONN_VOLUME_DEFAULT", json.dumps(said))
    with DAG("two_connection", schedule=None) as dag:

        @task
        def make():
            return written(Volume.new("data"), {"a": "1"})

        make()

    run, xcoms = run_dag(dag)

    assert run.state == "success"
    assert str(tmp_path / "store") in xcoms["make", -1, "return_value"].locator


def test_what_airflow_reads_back_is_on_its_list_and_nothing_else():
    version = made()
    written_down = json.loads(json.dumps(compat.serialize(version)))

    assert version == compat.deserialize(written_down)
    writer = written(Volume.new("writer"), {"a": "1"})
    handed = compat.deserialize(json.loads(json.dumps(compat.serialize(writer))))
    assert (ROVolume, {"a": "1"}) == (type(handed), texts(handed))
    writer.close_sync()
    with pytest.raises(ImportError, match="allow"):
        compat.deserialize({**written_down, "__classname__": "volume_core.facade.records.Record"})


def test_airflow_loads_the_plugin():
    from airflow import plugins_manager

    if not compat.IS_3:
        plugins_manager.ensure_plugins_loaded()
        assert "volume" in [each.name for each in plugins_manager.plugins]
        assert not [each for each in plugins_manager.import_errors if "volume" in each]
    for name in compat._PLACES:
        assert getattr(compat, name) is not None


@pytest.mark.loud
def test_a_try_that_fails_after_it_has_handed_over_takes_that_back(run_dag):
    base = made("data", a="1")
    with DAG("two_fails_late", schedule=None, start_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)) as dag:

        @task
        def change():
            return {"data": written(Volume.from_name_sync("data"), {"a": "2"}), "no XCom": object()}

        change()

    run, _ = run_dag(dag)

    assert "failed" == run.state
    assert base == Volume.from_name_sync("data").committed

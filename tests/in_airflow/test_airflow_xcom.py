"""What lies in XComs, what is read from them, and what never gets there."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from airflow.sdk import DAG, BaseXCom, task
from airflow.sdk.serde import deserialize, serialize
from airflow_kit import Supervisor, made, returned, run_task, run_tasks, texts, written

from volume_airflow import calling, envelopes
from volume_core import ROVolume, RWVolume, Volume, VolumeError

RO, RW = "volume_core.volumes.ROVolume", "volume_core.volumes.RWVolume"


@pytest.fixture
def dag():
    """A DAG to define tasks in."""
    with DAG("xcoms", schedule=None) as made_here:
        yield made_here


def test_an_envelope_is_the_record_and_nothing_else_and_the_same_bytes_for_one_version(dag):
    base = made(a="1")

    @task
    def one():
        return base

    @task
    def same():
        return Volume.from_locator_sync(base.locator).fork_sync("data")

    one()
    same()
    supervisor = run_tasks(dag)

    envelope = supervisor.xcoms["one", -1, "return_value"]
    assert {"__classname__": RO, "__version__": 1, "__data__": base.model_dump(mode="json")} == envelope
    assert json.dumps(envelope) == json.dumps(supervisor.xcoms["same", -1, "return_value"])
    assert not [each for each in envelope["__data__"].values() if isinstance(each, dict)], (
        "flat, so that it can be read"
    )


def test_a_process_that_has_loaded_no_volumes_reads_a_version_by_its_envelope_without_any_setting():
    envelope = serialize(made(a="1"))
    program = (
        "import json, sys\n"
        "from airflow.plugins_manager import AirflowPlugin\n"
        "from volume_airflow.plugins.volume import VolumePlugin\n"
        "VolumePlugin.on_load()\n"
        "assert 'volume_core.volumes' not in sys.modules, 'each task would pay for it'\n"
        "assert 'fastapi' not in sys.modules and 'kubernetes' not in sys.modules\n"
        "from airflow.sdk.serde import deserialize\n"
        "print(type(deserialize(json.loads(sys.argv[1]))).__name__)\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", program, json.dumps(envelope)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (0, "ROVolume") == (done.returncode, done.stdout.split()[-1] if done.stdout else ""), done.stderr


def test_airflows_private_lists_are_still_there():
    from airflow.sdk import serde

    envelopes.allow()
    assert isinstance(serde._extra_allowed, set)
    assert isinstance(serde._serializers["pydantic.main.BaseModel"], envelopes._Serializer)
    assert RW in serde._deserializers
    assert {RO, RW} <= serde._extra_allowed


def test_to_allow_twice_is_to_allow_once():
    from airflow.sdk import serde

    envelopes.allow()
    before = serde._serializers["pydantic.main.BaseModel"]
    envelopes.allow()
    assert serde._serializers["pydantic.main.BaseModel"] is before


def test_other_models_are_written_as_ever():
    from pydantic import BaseModel

    class Model(BaseModel):
        x: int = 1

    assert {"x": 1} == serialize(Model())["__data__"]


def test_where_the_listener_failed_a_writer_is_committed_when_it_is_written_and_a_version_is_read(dag, monkeypatch):
    monkeypatch.setattr(calling, "wrap", lambda ti: None)

    @task
    def make():
        return [written(Volume.new("data"), {"a": "1"})]

    @task
    def read(data):
        return [type(each).__name__ for each in data]

    read(make())
    supervisor = run_tasks(dag)

    [envelope] = supervisor.xcoms["make", -1, "return_value"]
    assert (RW, "data") == (envelope["__classname__"], envelope["__data__"]["name"])
    assert {"a": "1"} == texts(Volume.from_locator_sync(envelope["__data__"]["index"]))
    assert ["ROVolume"] == returned(supervisor, "read")


@pytest.mark.loud
def test_where_the_listener_raises_airflow_goes_on_and_nothing_uncommitted_gets_into_an_xcom(dag, monkeypatch):
    def wrap(ti):
        raise RuntimeError("a listener's error is swallowed")

    monkeypatch.setattr(calling, "wrap", wrap)

    @task
    def make():
        return Volume.new("never-mounted")

    make()
    [envelope] = run_tasks(dag).xcoms.values()
    assert envelope["__data__"]["index"] is not None


@pytest.mark.loud
def test_a_writer_that_cannot_be_committed_when_it_is_written_fails_the_task(dag, monkeypatch):
    monkeypatch.setattr(calling, "wrap", lambda ti: None)
    found = []

    @task
    def make():
        found.append(written(Volume.new("data", bucket="file:///proc/no-such-place"), {"a": "1"}))
        return found[0]

    make()
    supervisor = Supervisor()
    ended = run_task(dag.get_task("make"), supervisor)

    assert ("failed", True) == (ended.state, isinstance(ended.error, VolumeError))
    assert {} == supervisor.xcoms
    found[0].abandon_sync()


def test_a_record_of_a_writer_that_somebody_wrote_by_hand_is_read_as_a_version():
    base = made(a="1")
    envelope = {"__classname__": RW, "__version__": 1, "__data__": base.model_dump(mode="json")}

    assert (ROVolume, base) == (type(found := deserialize(envelope)), found)


def test_without_its_class_the_api_server_shows_something_readable():
    shown = deserialize(serialize(made(a="1")), full=False)
    assert f"{RO}@version=1(" in shown
    assert "name=data" in shown or "name='data'" in shown


# -- backends


class Reversing(BaseXCom):
    """A backend that keeps what it gets backwards."""

    @staticmethod
    def serialize_value(value, **_):
        """Write it."""
        return json.dumps(BaseXCom.serialize_value(value))[::-1]

    @staticmethod
    def deserialize_value(result):
        """Read it."""
        return deserialize(json.loads(result.value[::-1]))


def test_a_custom_backend_gets_versions(dag, monkeypatch):
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time import xcom as xcoms

    for module in (task_runner, xcoms):
        monkeypatch.setattr(module, "XCom", Reversing)

    @task
    def make():
        return written(Volume.new("data"), {"a": "1"})

    @task
    def read(data: RWVolume):
        return written(data, {"b": "2"})

    read(make())
    supervisor = run_tasks(dag)

    kept = json.loads(supervisor.xcoms["read", -1, "return_value"][::-1])
    assert {"a": "1", "b": "2"} == texts(deserialize(kept))


def test_the_object_storage_backend_keeps_versions_in_its_objects(dag, monkeypatch, tmp_path):
    from airflow.providers.common.io.xcom import backend
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time import xcom as xcoms

    monkeypatch.setenv("AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_PATH", f"file://{tmp_path}/xcoms")
    monkeypatch.setenv("AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_THRESHOLD", "0")
    (tmp_path / "xcoms").mkdir()
    for cached in ("_get_base_path", "_get_threshold", "_get_compression"):
        if hasattr(found := getattr(backend, cached, None), "cache_clear"):
            found.cache_clear()
    for module in (task_runner, xcoms):
        monkeypatch.setattr(module, "XCom", backend.XComObjectStorageBackend)

    @task
    def make():
        return written(Volume.new("data"), {"a": "1"})

    @task
    def read(data: ROVolume):
        assert texts(data) == {"a": "1"}

    read(make())
    supervisor = run_tasks(dag)

    [path] = supervisor.xcoms.values()
    assert str(path).startswith(f"file://{tmp_path}/xcoms")
    [written_there] = [each for each in (tmp_path / "xcoms").rglob("*") if each.is_file()]
    assert RO in written_there.read_text()


# -- templates and the DAG itself


def test_a_volume_that_stands_in_a_dag_makes_no_new_version_of_it_with_each_parse():
    from airflow.serialization.serialized_objects import LazyDeserializedDAG

    base = made(a="1")

    def hashed():
        with DAG("stable", schedule=None, start_date=None) as dag:

            @task
            def read(*given):
                return given

            read(
                Volume.from_locator_sync(base.locator),
                Volume.new("data"),
                Volume.from_name_lazy("data"),
                base.fork_sync("b"),
            )
        return LazyDeserializedDAG.from_dag(dag).hash

    assert hashed() == hashed()


def test_what_the_ui_shows_of_a_rendered_argument_is_short(dag):
    base = made(a="1")

    @task
    def read(data):
        return None

    read(base)
    supervisor = run_tasks(dag)

    [shown] = [each.rendered_fields for each in supervisor.sent if type(each).__name__ == "SetRenderedFields"]
    assert [str(base)] == shown["op_args"]
    assert base == ROVolume.model_validate(str(base))

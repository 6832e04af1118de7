"""`@task.volume`: what the function gets, what is committed, and what becomes of it all after an error."""

from __future__ import annotations

from pathlib import Path

import pytest
from airflow_kit import Supervisor, made, mounts_below, returned, run_task, run_tasks, texts

from volume_airflow import calling
from volume_airflow.compat import DAG, IS_3, task
from volume_core import ROVolume, RWVolume, Volume, VolumeError


@pytest.fixture(autouse=True)
def copying(monkeypatch):
    """Mounts by the copy driver."""
    monkeypatch.setenv("VOLUME_DRIVER", "copy")


@pytest.fixture(params=["with the listener", "without it"])
def listener(request, monkeypatch):
    """The plugin's listener, and none."""
    if request.param == "without it":
        monkeypatch.setattr(calling, "wrap", lambda ti: None)


def head(name):
    return Volume.from_name_sync(name).committed


def test_a_function_writes_into_a_named_volume_and_its_task_returns_the_version(listener, tmp_path):
    with DAG("decorated", schedule=None) as dag:

        @task.volume(volume="data")
        def write(text, vol: RWVolume = None):
            (vol / "a").write_text(text)

        @task
        def read(version):
            return texts(version)

        read(write("1"))

    supervisor = run_tasks(dag)

    assert {"a": "1"} == returned(supervisor, "read")
    version = returned(supervisor, "write")
    assert type(version) is ROVolume
    assert version == head("data")
    assert "decorated.write a-run, try 1" == version.message
    assert [] == mounts_below(tmp_path)
    assert [] == list((tmp_path / "mounts").iterdir())


def test_what_the_function_returns_is_the_result_and_the_version_is_beside_it(listener):
    with DAG("results", schedule=None) as dag:

        @task.volume(volume="data")
        def train(vol=None):
            (vol / "model").write_text("weights")
            return 0.93

        @task
        def both(score, version):
            return [score, texts(version)]

        trained = train()
        both(trained, trained["volume"])

    assert [0.93, {"model": "weights"}] == returned(run_tasks(dag), "both")


def test_the_volume_is_itself_a_path():
    with DAG("paths", schedule=None) as dag:

        @task.volume(volume="data")
        def write(vol=None):
            Path(vol, "a").write_text("1")
            with open(vol / "b", "w") as file:
                file.write("2")

        write()

    assert {"a": "1", "b": "2"} == texts(returned(run_tasks(dag), "write"))


def test_each_run_goes_on_from_the_head():
    with DAG("again", schedule=None) as dag:

        @task.volume(volume="data")
        def append(vol=None):
            with open(vol / "log", "a") as file:
                file.write("x")

        append()

    run_tasks(dag)
    assert {"log": "xx"} == texts(returned(run_tasks(dag), "append"))


@pytest.mark.parametrize("given", ["version", "text", "lazy", "template"])
def test_a_volume_may_be_given_as_a_version_a_text_a_lazy_volume_or_a_template(given):
    base = made(name="data", a="1")
    base.tag_sync("v1")
    value = {
        "version": base,
        "text": "data:v1",
        "lazy": Volume.from_name_lazy("data"),
        "template": "{{ 'da' + 'ta' }}",
    }[given]
    with DAG("given", schedule=None) as dag:

        @task.volume(volume=value)
        def write(vol=None):
            (vol / "b").write_text("2")

        write()

    version = returned(run_tasks(dag), "write")
    assert {"a": "1", "b": "2"} == texts(version)
    assert version == head("data")


def test_what_another_task_has_returned_is_forked(listener):
    with DAG("upstream", schedule=None) as dag:

        @task
        def make():
            return made(name="data", a="1")

        @task.volume(volume=make())
        def write(vol=None):
            (vol / "b").write_text("2")

        write()

    supervisor = run_tasks(dag)
    assert {"a": "1"} == texts(returned(supervisor, "make"))
    assert {"a": "1", "b": "2"} == texts(returned(supervisor, "write"))


def test_without_a_name_it_is_a_volume_of_the_dag_and_the_task():
    with DAG("unnamed", schedule=None) as dag:

        @task.volume
        def write(vol=None):
            (vol / "a").write_text("1")

        write()

    assert "unnamed.write" == returned(run_tasks(dag), "write").name


def test_a_function_that_changes_nothing_makes_no_version():
    before = made(name="data", a="1")
    with DAG("nothing", schedule=None) as dag:

        @task.volume(volume="data")
        def look(vol=None):
            return (vol / "a").read_text()

        look()

    supervisor = run_tasks(dag)
    assert "1" == returned(supervisor, "look")
    assert before == returned(supervisor, "look", key="volume")
    assert before == head("data")


@pytest.mark.loud
def test_after_an_error_nothing_is_committed_and_what_was_written_is_kept(listener, tmp_path):
    before = made(name="data", a="1")
    with DAG("failing", schedule=None) as dag:

        @task.volume(volume="data")
        def write(vol=None):
            (vol / "b").write_text("2")
            raise RuntimeError("half-way")

        write()

    ended = run_task(dag.get_task("write"), Supervisor())

    assert "half-way" in str(ended.error)
    assert "volume commit" in "".join(ended.error.__notes__)
    assert before == head("data")
    assert [] == mounts_below(tmp_path)


def test_a_parameter_that_is_injected_needs_a_default_and_that_is_said_at_parse():
    with DAG("undefaulted", schedule=None):

        @task.volume(volume="data")
        def write(vol):
            return None

        with pytest.raises(VolumeError, match="needs a default, vol: RWVolume = None"):
            write()

        @task.volume(volume="data")
        def other(x):
            return None

        with pytest.raises(VolumeError, match="as the parameter 'vol', and it has none"):
            other(1)


@pytest.mark.skipif(not IS_3, reason="coroutine functions are tasks from 3.2 on")
def test_a_coroutine_function_has_its_volume_too(listener):
    with DAG("asynchronous", schedule=None) as dag:

        @task.volume(volume="data")
        async def write(vol=None):
            (vol / "a").write_text("1")

        write()

    assert {"a": "1"} == texts(returned(run_tasks(dag), "write"))


def test_mapped_tasks_write_into_one_volume():
    with DAG("mapping", schedule=None) as dag:

        @task.volume(volume="data")
        def write(each, vol=None):
            (vol / each).write_text(each)

        write.expand(each=["a", "b"])

    supervisor = Supervisor()
    for index, each in enumerate("ab"):
        mapped = dag.get_task("write").unmap({"op_kwargs": {"each": each}})
        ended = run_task(mapped, supervisor, map_index=index)
        assert ended.error is None, ended.error
    assert {"a": "a", "b": "b"} == texts(head("data"))


def test_the_whole_way_with_a_database(run_dag):
    with DAG("decorated_with_a_database", schedule=None) as dag:

        @task.volume(volume="data")
        def write(vol=None):
            (vol / "a").write_text("1")
            return 3

        @task
        def read(number, version):
            return [number, texts(version)]

        written = write()
        read(written, written["volume"])

    run, xcoms = run_dag(dag)

    assert run.state == "success"
    assert [3, {"a": "1"}] == xcoms["read", -1, "return_value"]

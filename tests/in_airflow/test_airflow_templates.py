"""Volumes in what is rendered: paths of classic operators, macros, and texts that stay the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from airflow_kit import made, mounts_below, returned, run_task, run_tasks, written

from volume_airflow.compat import DAG, BashOperator, task
from volume_core import Volume, VolumeError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def copying(monkeypatch):
    """Mounts by the copy driver."""
    monkeypatch.setenv("VOLUME_DRIVER", "copy")


@task
def make():
    return written(Volume.new("data"), {"a": "1"})


def test_a_classic_operator_has_a_volume_as_its_directory_and_in_its_environment(copying, tmp_path):
    with DAG("bash", schedule=None) as dag:
        data = make()
        BashOperator(
            task_id="shell", bash_command='cat a "$V/a" && echo && pwd', cwd=data, env={"V": data}, append_env=True
        )

    supervisor = run_tasks(dag)

    where = returned(supervisor, "shell")
    assert where.startswith(str(tmp_path / "mounts"))
    assert not Path(where).exists()  # it went with the task
    assert [] == mounts_below(tmp_path)


def test_a_macro_gives_the_path_for_as_long_as_the_task_takes(copying, tmp_path):
    with DAG("macro", schedule=None) as dag:
        command = "cat {{ macros.volume.path(ti.xcom_pull('make'), 'a') }}"
        make() >> BashOperator(task_id="shell", bash_command=command)

    supervisor = run_tasks(dag)

    assert "1" == returned(supervisor, "shell")
    from volume_airflow import templating

    assert {} == templating._held


def test_a_macro_takes_a_name(copying):
    made(name="data", a="1")
    with DAG("named_macro", schedule=None) as dag:
        BashOperator(task_id="shell", bash_command="cat {{ macros.volume.path('data') }}/a")
    assert "1" == returned(run_tasks(dag), "shell")


def test_a_macro_whose_task_fails_leaves_no_mount(copying, tmp_path):
    made(name="data", a="1")
    with DAG("failing_macro", schedule=None) as dag:
        BashOperator(task_id="shell", bash_command="cat {{ macros.volume.path('data') }}/nothing; exit 3")
    from airflow_kit import Supervisor

    ended = run_task(dag.get_task("shell"), Supervisor())
    assert ended.error is not None
    from volume_airflow import templating

    assert {} == templating._held
    assert [] == [each for each in (tmp_path / "mounts").rglob("a") if each.is_file()]


def test_outside_of_a_task_a_volume_is_still_mounted_by_a_call_alone():
    version = made(a="1")
    with pytest.raises(VolumeError, match="is not mounted"):
        Path(version)


def test_the_text_of_a_volume_is_its_url():
    version = made(a="1")
    assert str(version) == f"vol://file+{version.bucket}/-/data~{version.version}"
    assert str(version.fork_sync("other")) == f"vol://file+{version.bucket}/-/other"
    with DAG("text", schedule=None) as dag:
        make() >> BashOperator(task_id="shell", bash_command="echo {{ ti.xcom_pull('make') }}")
    assert returned(run_tasks(dag), "shell").startswith("vol://file+")


def _serialized(dag):
    try:
        from airflow.serialization.serialized_objects import DagSerialization as Serialized
    except ImportError:
        from airflow.serialization.serialized_objects import SerializedDAG as Serialized
    return json.dumps(Serialized.to_dict(dag), sort_keys=True, default=str)


def test_a_dag_with_volumes_in_it_is_the_same_at_each_parse_and_asks_nobody(monkeypatch):
    def parsed():
        with DAG("parsed", schedule=None) as dag:

            @task
            def use(data, scratch):
                return None

            use(Volume.from_name_lazy("data", version="v1"), Volume.new("scratch", "s3://team/volumes"))
        return dag

    monkeypatch.setattr("volume_core.storage.objects.ObjectStore.open", lambda *_: pytest.fail("a store was opened"))
    assert _serialized(parsed()) == _serialized(parsed())
    assert "Volume.from_name_lazy('data', version='v1')" in _serialized(parsed())

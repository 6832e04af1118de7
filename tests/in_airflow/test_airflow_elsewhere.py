"""Volumes as values of functions that another interpreter runs, and of what a task's commands commit."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from types import SimpleNamespace

import pytest
from airflow.sdk import DAG, task
from airflow_kit import made, returned, run_tasks, texts, written

from volume_airflow import volumes
from volume_airflow.calling import Call
from volume_airflow.elsewhere import handing_over, source_of
from volume_core import ROVolume, RWVolume, Volume, VolumeError
from volume_core.parts.state import State
from volume_core.parts.workcopies import survey


def new() -> RWVolume:
    """A writer with a file in it that is not committed."""
    return written(Volume.new("data"), {"a": "1"})


@pytest.fixture
def dag():
    """A DAG to define tasks in."""
    with DAG("values", schedule=None) as made_here:
        yield made_here


@pytest.fixture
def no_airflow_elsewhere(monkeypatch, tmp_path):
    """Another interpreter has everything that this one has, but for Airflow."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['airflow'] = None\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, sys.path)]))


def test_another_interpreter_hands_its_volumes_over_though_what_is_not_committed_cannot_be_pickled(
    dag, no_airflow_elsewhere
):
    @task.external_python(python=sys.executable, expect_airflow=False)
    @volumes(message="in another interpreter")
    def change(data: RWVolume, word: str):
        path = data.mount_sync(driver="copy")
        (path / "b").write_text(word)
        return {"changed": data, "word": word}

    change(made(a="1"), "there")
    found = returned(run_tasks(dag), "change")

    assert {"a": "1", "b": "there"} == texts(found["changed"])
    assert "in another interpreter" == found["changed"].message
    by = found["changed"].produced_by
    assert ("airflow", "values", "a-run", "change", "1") == (by.engine, by.project, by.run, by.action, by.attempt)


def test_in_an_interpreter_without_airflow_a_function_hands_over_and_a_failed_one_publishes_nothing():
    program = (
        "import pickle, sys\n"
        "from volume_airflow.elsewhere import handing_over\n"
        "from volume_core import Volume\n"
        "def make(fails):\n"
        "    volume = Volume.new('data')\n"
        "    (volume.mount_sync(driver='copy') / 'a').write_text('1')\n"
        "    if fails: raise ValueError('after it has written')\n"
        "    return [volume]\n"
        "make = handing_over(make, {'message': 'over there'})\n"
        "try: make(True)\n"
        "except ValueError as error: assert 'volume commit' in error.__notes__[0], error.__notes__\n"
        "assert not Volume.list_sync()\n"
        "assert 'airflow' not in sys.modules\n"
        "sys.stdout.buffer.write(pickle.dumps(make(False)))\n"
    )
    ours = {"AIRFLOW_CTX_DAG_ID": "a-dag", "AIRFLOW_CTX_TASK_ID": "a-task", "AIRFLOW_CTX_DAG_RUN_ID": "a-run"}
    done = subprocess.run([sys.executable, "-c", program], env=os.environ | ours, capture_output=True, check=False)
    assert 0 == done.returncode, done.stderr.decode()

    [version] = pickle.loads(done.stdout)
    assert (ROVolume, {"a": "1"}) == (type(version), texts(version))
    assert ("a-dag", "a-task") == (version.produced_by.project, version.produced_by.action)


def test_what_a_tasks_command_commits_is_committed_in_the_name_of_the_task():
    program = "from volume_core import Volume; print(Volume.new('data').commit_sync().produced_by.action)"
    ours = {"AIRFLOW_CTX_DAG_ID": "a-dag", "AIRFLOW_CTX_TASK_ID": "a-task", "AIRFLOW_CTX_DAG_RUN_ID": "a-run"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=os.environ | ours, capture_output=True, text=True, check=False)
    assert (0, "a-task") == (done.returncode, done.stdout.strip()), done.stderr


@pytest.mark.loud
def test_a_function_in_another_interpreter_whose_task_was_killed_meanwhile_commits_nothing(monkeypatch):
    made_there = []

    def make():
        made_there.append(new())
        return made_there[0]

    handing = handing_over(make, {"message": "an orphan"})
    monkeypatch.setattr(os, "getppid", lambda: 1)
    with pytest.raises(VolumeError, match="an orphan was told to end, or killed"):
        handing()
    assert [] == Volume.list_sync()
    [left] = survey(State.default()).copies
    Volume.recover_sync(left.id).abandon_sync()


def test_source_that_says_nothing_of_volumes_is_sent_as_it_is(dag):
    @task.external_python(python=sys.executable)
    def count():
        return 1

    operator = count().operator
    call = Call(SimpleNamespace(task=operator, dag_id="d", task_id="t", run_id="r", try_number=1, map_index=-1))
    plain = operator.get_python_source()

    assert source_of(call, plain) is plain
    marked = "@volume_airflow.volumes(\n    on_failure='drop'\n)\ndef f(volume):\n    return volume\n"
    sent = source_of(call, marked)
    assert sent.startswith("def f(volume):")
    assert "f = _handing_over(f, {'message': 'd.t r, try 1', 'on_failure': 'keep', 'told': " in sent

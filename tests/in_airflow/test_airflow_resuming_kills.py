"""A task whose process was killed with kill -9, and tries again as `dag.test()` has them."""

from __future__ import annotations

import datetime
import logging
import os
import subprocess
import sys
from pathlib import Path

import killed_task
import pytest
from airflow_kit import made, returned, texts

from volume_airflow.compat import DAG, task
from volume_core import RWVolume
from volume_core.parts import workcopies
from volume_core.parts.state import State

pytestmark = pytest.mark.loud
HERE = Path(__file__).parent
NOW = datetime.timedelta()


@pytest.fixture
def killed(tmp_path):
    """The version that a task was given whose first try was killed, and the file of its states."""
    version, states = made(a="1"), tmp_path / "states.json"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", str(HERE / "killed_task.py"), str(states), version.locator],
        env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert -9 == ran.returncode, ran.stderr
    killed_task.seen.clear()
    return version, states


@pytest.mark.fuse
@pytest.mark.slow
def test_the_try_after_a_kill_resumes_what_the_dead_one_had_written(killed, caplog):
    caplog.set_level(logging.INFO)
    version, states = killed
    listed = subprocess.run(
        [sys.executable, "-m", "volume_core.cli", "status"], capture_output=True, text=True, check=True
    ).stdout
    [copy] = workcopies.left_behind(State.default())

    supervisor, ended = killed_task.tried(2, version, states)

    assert "data" in listed
    assert ended.state == "success", ended.error
    assert [{"a": "1", "committed": "x", "uncommitted": "x"}] == killed_task.seen
    assert killed_task.seen == [texts(returned(supervisor, "work"))]
    assert f"goes on from what an earlier try has left: {copy.id}" in caplog.text
    assert [] == workcopies.list_all(State.default())


@pytest.mark.fuse
@pytest.mark.slow
def test_on_another_machine_it_goes_on_from_what_the_dead_one_had_committed(killed, caplog, monkeypatch, tmp_path):
    caplog.set_level(logging.INFO)
    version, states = killed
    monkeypatch.setenv("VOLUME_STATE_DIR", str(tmp_path / "another machine's"))

    _, ended = killed_task.tried(2, version, states)

    assert ended.state == "success", ended.error
    assert [{"a": "1", "committed": "x"}] == killed_task.seen
    assert "goes on from what an earlier try has committed last" in caplog.text


def test_a_retry_of_dag_test_resumes(run_dag):
    seen = []
    with DAG("resuming_dag_test", schedule=None) as dag:

        @task
        def make():
            return made(a="1")

        @task(retries=1, retry_delay=NOW)
        def work(data: RWVolume):
            root = data.mount_sync(driver="copy")
            seen.append(sorted(each.name for each in root.iterdir()))
            (root / f"try{len(seen)}").write_text("x")
            if len(seen) == 1:
                raise RuntimeError("not yet")
            return data

        work(make())

    run, xcoms = run_dag(dag)

    assert run.state == "success"
    assert [["a"], ["a", "try1"]] == seen
    assert {"a": "1", "try1": "x", "try2": "x"} == texts(xcoms["work", -1, "return_value"])


def test_mapped_tasks_of_dag_test_resume_each_their_own(run_dag):
    seen = {}
    with DAG("resuming_mapped", schedule=None) as dag:

        @task
        def make():
            return made()

        @task(retries=1, retry_delay=NOW)
        def work(data: RWVolume, number: int):
            root = data.mount_sync(driver="copy")
            seen.setdefault(number, []).append(sorted(each.name for each in root.iterdir()))
            (root / str(number)).write_text("x")
            if len(seen[number]) == 1:
                raise RuntimeError("not yet")
            return data

        work.partial(data=make()).expand(number=[7, 8])

    run, xcoms = run_dag(dag)

    assert run.state == "success"
    assert {7: [[], ["7"]], 8: [[], ["8"]]} == seen
    assert {"8": "x"} == texts(xcoms["work", 1, "return_value"])

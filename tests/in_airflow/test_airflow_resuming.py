"""A retry goes on from what the tries before have left; a task that is cleared, and another task, never do."""

from __future__ import annotations

import itertools
import logging

import pytest
from airflow_kit import Supervisor, made, returned, run_task, texts

from volume_airflow import compat, volumes
from volume_airflow.compat import DAG, task
from volume_core import RWVolume, Volume
from volume_core.passing import purposes

pytestmark = pytest.mark.loud  # what a failed try keeps is in the log


def works() -> list[str]:
    """The working copies that are for something."""
    return [work.work_id for work in purposes.left(lambda _: True)]


def write(volume: RWVolume, **files: str) -> RWVolume:
    root = volume.mount_sync(driver="copy")
    for name, text in files.items():
        (root / name).write_text(text)
    return volume


numbers = itertools.count()


class Flaky:
    """A task that writes one more file in each try, and fails unless told otherwise."""

    def __init__(self, given, **choices) -> None:
        self.fails, self.seen = True, []
        with DAG(f"resuming_{next(numbers)}", schedule=None) as self.dag:

            @task(retries=5)
            @volumes(**choices)
            def work(data: RWVolume):
                self.seen.append(sorted(each.name for each in data.mount_sync(driver="copy").iterdir()))
                write(data, **{f"try{len(self.seen)}": "x"})
                if self.fails:
                    raise RuntimeError("not yet")
                return data

            work(given)
        self.supervisor = Supervisor()

    def tried(self, number: int, **options):
        options = {"max_tries": 5, **options}
        return run_task(self.dag.get_task("work"), self.supervisor, try_number=number, **options)


def test_a_retry_goes_on_from_the_working_copy_of_the_try_before(caplog):
    caplog.set_level(logging.INFO)
    flaky = Flaky(made(a="1"))

    flaky.tried(1)
    flaky.tried(2)
    flaky.fails = False
    ended = flaky.tried(3)

    assert ended.state == "success"
    assert [["a"], ["a", "try1"], ["a", "try1", "try2"]] == flaky.seen
    assert {"a": "1", "try1": "x", "try2": "x", "try3": "x"} == texts(returned(flaky.supervisor, "work"))
    assert [] == works()
    assert "goes on from what an earlier try has left" in caplog.text


def test_a_task_that_says_fresh_never_resumes():
    flaky = Flaky(made(a="1"), retry="fresh")

    flaky.tried(1)
    flaky.tried(2)

    assert [["a"], ["a"]] == flaky.seen
    assert {} == flaky.supervisor.states


def test_a_task_that_drops_its_work_has_nothing_to_go_on_from():
    flaky = Flaky(made(a="1"), on_failure="drop")

    flaky.tried(1)
    flaky.tried(2)

    assert [["a"], ["a"]] == flaky.seen


def test_a_task_that_is_cleared_after_it_succeeded_begins_afresh():
    flaky = Flaky(made(a="1"))
    flaky.tried(1)
    flaky.fails = False
    flaky.tried(2)
    cleared(flaky)

    flaky.tried(3)

    assert [["a"], ["a", "try1"], ["a"]] == flaky.seen


def test_what_a_task_that_succeeded_has_not_returned_is_not_resumed_when_it_is_cleared():
    seen = []
    with DAG("resuming_unreturned", schedule=None) as dag:

        @task
        def work(data: RWVolume):
            seen.append(sorted(each.name for each in data.mount_sync(driver="copy").iterdir()))
            write(data, b="2")

        work(made(a="1"))

    supervisor = Supervisor()
    run_task(dag.get_task("work"), supervisor)
    run_task(dag.get_task("work"), supervisor, try_number=2)

    assert [["a"], ["a"]] == seen
    assert [] == works()


def test_a_task_that_is_given_another_version_begins_afresh():
    first, second = made(a="1"), made("data", b="2")
    flaky = Flaky(first)
    flaky.tried(1)

    flaky.dag.get_task("work").op_args = (second,)
    flaky.tried(2)

    assert [["a"], ["b"]] == flaky.seen


def test_mapped_task_instances_and_other_runs_never_resume_each_others_work():
    flaky = Flaky(made(a="1"))

    if compat.IS_3:
        flaky.tried(1, map_index=0)
        flaky.tried(2, map_index=1)
    flaky.tried(2, run_id="another-run")

    assert all(each == ["a"] for each in flaky.seen)


def test_two_forks_of_one_version_are_told_apart():
    seen = []
    with DAG("resuming_two", schedule=None) as dag:

        @task(retries=1)
        def work(left: RWVolume, right: RWVolume):
            seen.append([sorted(each.name for each in v.mount_sync(driver="copy").iterdir()) for v in (right, left)])
            write(right, right="r")
            write(left, left="l")
            raise RuntimeError("not yet")

        version = made()
        work(version, version)

    supervisor = Supervisor()
    for number in (1, 2):
        run_task(dag.get_task("work"), supervisor, try_number=number, max_tries=2)

    assert [[[], []], [["right"], ["left"]]] == seen


def test_after_a_commit_of_its_own_a_retry_elsewhere_goes_on_from_that(monkeypatch, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    seen = []
    with DAG("resuming_elsewhere", schedule=None) as dag:

        @task(retries=1)
        def work(data: RWVolume):
            seen.append(sorted(each.name for each in data.mount_sync(driver="copy").iterdir()))
            write(data, committed="x").commit_sync()
            write(data, uncommitted="x")
            raise RuntimeError("not yet")

        work(made(a="1"))

    supervisor = Supervisor()
    run_task(dag.get_task("work"), supervisor, max_tries=2)
    monkeypatch.setenv("VOLUME_STATE_DIR", str(tmp_path / "another machine's"))
    run_task(dag.get_task("work"), supervisor, try_number=2, max_tries=2)

    assert [["a"], ["a", "committed"]] == seen
    assert "goes on from what an earlier try has committed last" in caplog.text
    if compat.IS_3:
        assert "what was not committed is not here but in working copy" in caplog.text


def test_elsewhere_a_retry_of_what_committed_nothing_begins_afresh(monkeypatch, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    flaky = Flaky(made(a="1"))

    flaky.tried(1)
    monkeypatch.setenv("VOLUME_STATE_DIR", str(tmp_path / "another machine's"))
    flaky.tried(2)

    assert [["a"], ["a"]] == flaky.seen
    assert "begins afresh" in caplog.text


def test_work_that_somebody_holds_is_left_to_him():
    flaky = Flaky(made(a="1"))
    flaky.tried(1)
    held = Volume.recover_sync(works()[0])

    flaky.tried(2)

    assert [["a"], ["a"]] == flaky.seen
    assert held.status_sync().changed
    held.abandon_sync()


def test_work_that_somebody_had_by_hand_is_not_taken_up_behind_his_back():
    flaky = Flaky(made(a="1"))
    flaky.tried(1)
    volume = Volume.recover_sync(works()[0])
    volume.close_sync()

    flaky.tried(2)

    assert [["a"], ["a"]] == flaky.seen


def test_a_volume_of_the_tasks_own_is_resumed_where_it_says_so():
    from volume_airflow import resume

    seen = []
    with DAG("resuming_own", schedule=None) as dag:

        @task(retries=1)
        def work():
            data = resume(Volume.new("scratch"))
            seen.append(sorted(each.name for each in data.mount_sync(driver="copy").iterdir()))
            write(data, **{f"try{len(seen)}": "x"})
            if len(seen) == 1:
                raise RuntimeError("not yet")
            return data

        work()

    supervisor = Supervisor()
    run_task(dag.get_task("work"), supervisor, max_tries=2)
    run_task(dag.get_task("work"), supervisor, try_number=2, max_tries=2)

    assert [[], ["try1"]] == seen
    assert {"try1": "x", "try2": "x"} == texts(returned(supervisor, "work"))


def cleared(flaky: Flaky) -> None:
    """Note of the last try what Airflow 2 notes when somebody clears the task."""
    if compat.IS_3:
        return
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstancehistory import TaskInstanceHistory
    from airflow.utils.session import create_session

    with create_session() as session:
        run = DagRun.find(dag_id=flaky.dag.dag_id, run_id="a-run", session=session)[0]
        TaskInstanceHistory.record_ti(run.get_task_instance("work", session=session), session=session)

"""What a try has published when it is interrupted in the middle of that, or fails after it: nothing."""

from __future__ import annotations

import contextlib
import datetime
import os
import signal
import sys
import tempfile

import pytest
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import DAG, BaseOperator, task
from airflow.sdk.exceptions import AirflowTaskTimeout, TaskDeferred
from airflow_kit import Supervisor, made, mounts_below, returned, run_task, texts, written

from volume_airflow import calling
from volume_core import RWVolume, Volume, VolumeError
from volume_core.facade import heads
from volume_core.facade.attempts import Attempt
from volume_core.parts import landing
from volume_core.parts.heads import read_head
from volume_core.parts.state import State
from volume_core.parts.workcopies import survey


@pytest.fixture
def dag():
    """A DAG to define tasks in."""
    with DAG("interruptions", schedule=None) as made_here:
        yield made_here


@pytest.fixture
def kept():
    """Abandon what is kept of uncommitted work, at the end."""
    yield
    for each in survey(State.default()).copies:
        Volume.recover_sync(each.id).abandon_sync()


def the_only_task(dag):
    [only] = dag.tasks
    return only


@pytest.fixture
def when_the_head_moves(monkeypatch):
    """Have a function called when a head has just been moved to a new version, before anybody was told."""

    def calls(function):
        for module in (heads, landing):
            inner = module.move_head

            def moved(*args, inner=inner, **kwargs):
                done = inner(*args, **kwargs)
                if args[4] != "failure":
                    function()
                return done

            monkeypatch.setattr(module, "move_head", moved)

    return calls


def times_out():
    signal.raise_signal(signal.SIGALRM)


def begins_as_a_fork():
    return RWVolume.model_validate("data")


def begins_at_the_head():
    return Volume.from_name_sync("data")


@pytest.mark.loud
@pytest.mark.parametrize("begins", [begins_as_a_fork, begins_at_the_head])
def test_a_timeout_just_after_the_head_was_moved_by_handing_over_moves_it_back(dag, when_the_head_moves, kept, begins):
    base = made(a="1")

    @task(execution_timeout=datetime.timedelta(minutes=1))
    def change():
        return written(begins(), {"a": "2"})

    change()
    when_the_head_moves(times_out)
    ended = run_task(the_only_task(dag), Supervisor())

    assert ("failed", AirflowTaskTimeout) == (ended.state, type(ended.error))
    assert base == Volume.from_name_sync("data").committed


@pytest.mark.loud
@pytest.mark.parametrize("begins", [begins_as_a_fork, begins_at_the_head])
def test_a_sigterm_while_a_volume_is_handed_over_takes_that_back(dag, when_the_head_moves, kept, begins):
    base = made(a="1")

    @task
    def change():
        return written(begins(), {"a": "2"})

    change()
    when_the_head_moves(lambda: os.kill(os.getpid(), signal.SIGTERM))
    ended = run_task(the_only_task(dag), Supervisor(), max_tries=1)

    assert ("up_for_retry", VolumeError) == (ended.state, type(ended.error))
    assert "told to end" in str(ended.error)
    assert base == Volume.from_name_sync("data").committed


@pytest.mark.loud
@pytest.mark.parametrize("begins", [begins_as_a_fork, begins_at_the_head])
def test_a_try_that_fails_after_it_was_handed_over_takes_that_back(dag, kept, begins):
    base = made(a="1")

    @task
    def change():
        return {"data": written(begins(), {"a": "2"}), "no XCom": object()}

    change()
    ended = run_task(the_only_task(dag), Supervisor(), max_tries=1)

    assert ("up_for_retry", TypeError) == (ended.state, type(ended.error))
    assert base == Volume.from_name_sync("data").committed


@pytest.mark.loud
def test_a_timeout_in_the_middle_of_cleaning_up_after_an_error_leaves_no_mounts(dag, monkeypatch, tmp_path, kept):
    base = made(a="1")
    inner, times = Attempt.fail, []

    def fail(self, error, **options):
        times.append(error)
        if len(times) == 1:
            times_out()
        return inner(self, error, **options)

    monkeypatch.setattr(Attempt, "fail", fail)

    @task(execution_timeout=datetime.timedelta(minutes=1))
    def change():
        volume = Volume.from_name_sync("data")
        written(volume, {"a": "2"}).mount_sync()
        reader = volume.committed
        reader.mount_sync()
        raise ValueError("of the task's own")

    change()
    ended = run_task(the_only_task(dag), Supervisor())

    assert ("failed", AirflowTaskTimeout) == (ended.state, type(ended.error))
    assert [] == mounts_below(tmp_path)
    assert base == Volume.from_name_sync("data").committed


@pytest.mark.loud
def test_what_fails_in_hearing_a_sigterm_does_not_keep_the_operator_from_it(dag, monkeypatch, kept):
    seen = []

    def reentered(self):
        raise RuntimeError("reentrant call inside <_io.BufferedWriter>")  # of a log that the signal interrupted

    monkeypatch.setattr(calling.Call, "is_to_end", reentered)

    class Killed(BaseOperator):
        def execute(self, context):
            with contextlib.suppress(RuntimeError):
                os.kill(os.getpid(), signal.SIGTERM)

        def on_kill(self):
            seen.append("killed")

    Killed(task_id="killed")
    run_task(the_only_task(dag), Supervisor())
    assert ["killed"] == seen


def test_one_writer_in_two_places_of_a_deferral_is_one_writer_again(dag):
    class Defers(BaseOperator):
        def execute(self, context):
            volume = written(Volume.new("data"), {"before": "1"})
            raise TaskDeferred(
                trigger=TimeDeltaTrigger(datetime.timedelta()),
                method_name="go_on",
                kwargs={"one": volume, "other": [volume]},
            )

        def go_on(self, context, one, other, event=None):
            written(one, {"one": "1"})
            written(other[0], {"other": "1"})
            return one

    Defers(task_id="defers")
    supervisor = Supervisor()
    first = run_task(the_only_task(dag), supervisor)
    then = run_task(
        the_only_task(dag),
        supervisor,
        next_method=first.message.next_method,
        next_kwargs=first.message.next_kwargs,
    )
    assert "success" == then.state, then.error
    assert {"before": "1", "one": "1", "other": "1"} == texts(returned(supervisor, "defers"))


@pytest.mark.loud
def test_a_task_volume_that_was_told_to_end_commits_nothing(dag, kept):
    base = made(a="1")

    @task.volume(volume="data")
    def change(vol: RWVolume = None):
        (vol / "a").write_text("2")
        os.kill(os.getpid(), signal.SIGTERM)

    change()
    ended = run_task(the_only_task(dag), Supervisor(), max_tries=1)

    assert ("up_for_retry", VolumeError) == (ended.state, type(ended.error))
    assert base == Volume.from_name_sync("data").committed


@pytest.mark.loud
def test_a_task_volume_that_fails_after_its_commit_takes_that_back(dag, kept):
    base = made(a="1")

    @task.volume(volume="data")
    def change(vol: RWVolume = None):
        (vol / "a").write_text("2")
        return object()  # which is no XCom

    change()
    ended = run_task(the_only_task(dag), Supervisor(), max_tries=1)

    assert ("up_for_retry", TypeError) == (ended.state, type(ended.error))
    assert base == Volume.from_name_sync("data").committed


@pytest.mark.loud
def test_a_timeout_just_after_a_task_volume_has_moved_the_head_moves_it_back(dag, when_the_head_moves, kept):
    base = made(a="1")

    @task.volume(volume="data", execution_timeout=datetime.timedelta(minutes=1))
    def change(vol: RWVolume = None):
        (vol / "a").write_text("2")

    change()
    when_the_head_moves(times_out)
    ended = run_task(the_only_task(dag), Supervisor(), max_tries=1)

    assert ("up_for_retry", AirflowTaskTimeout) == (ended.state, type(ended.error))
    assert base == Volume.from_name_sync("data").committed


def test_a_process_that_a_task_has_forked_notes_nothing_in_the_tasks_state(dag, tmp_path):
    base, asked = made(a="1"), tmp_path / "asked"

    class Noting(Supervisor):
        def send(self, msg):
            if type(msg).__name__ == "SetTaskStateStore":
                with open(asked, "a") as file:
                    file.write(f"{os.getpid()}\n")
            return super().send(msg)

    @task
    def change(data: RWVolume):
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(BaseException):
                written(data, {"a": "2"})
                data.finalize_sync()
            os._exit(0)
        os.waitpid(pid, 0)

    change(base.locator)
    run_task(the_only_task(dag), Noting())

    assert {str(os.getpid())} == set(asked.read_text().split())
    assert base != Volume.from_name_sync("data").committed, "the child has committed its own"


@pytest.mark.loud
def test_what_another_interpreter_has_handed_over_is_taken_back_where_the_task_fails_after_it(
    dag, monkeypatch, tmp_path
):
    base = made(a="1")
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['airflow'] = None\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, sys.path)]))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    @task.external_python(python=sys.executable, expect_airflow=False)
    def change():
        from pathlib import Path

        from volume_core import Volume

        volume = Volume.from_name_sync("data")
        Path(volume.mount_sync(driver="copy"), "a").write_text("2")
        return {"data": volume, "no XCom": 1j}

    change()
    ended = run_task(the_only_task(dag), Supervisor())

    assert ("failed", TypeError) == (ended.state, type(ended.error))
    assert base == Volume.from_name_sync("data").committed
    store = base._place().store()
    assert ["failure", "commit"] == [each.why for each in read_head(store, "data").history[:2]]
    assert [] == list(tmp_path.glob("volumes-handed-over-*"))


@pytest.mark.loud
def test_what_another_interpreter_has_handed_over_before_it_was_killed_is_taken_back(dag, monkeypatch, tmp_path):
    base = made(a="1")
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['airflow'] = None\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, sys.path)]))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    @task.external_python(python=sys.executable, expect_airflow=False)
    def change():
        import os
        from pathlib import Path

        from volume_core import Volume
        from volume_core.facade.attempts import Attempt

        inner = Attempt.hand_over

        def hand_over(self, volume, message=""):
            if volume.name == "second":
                os.kill(os.getpid(), 9)
            return inner(self, volume, message)

        Attempt.hand_over = hand_over
        volume = Volume.from_name_sync("data")
        Path(volume.mount_sync(driver="copy"), "a").write_text("2")
        return [volume, Volume.new("second")]

    change()
    ended = run_task(the_only_task(dag), Supervisor())

    assert ended.state == "failed"
    store = base._place().store()
    assert ["failure", "commit"] == [each.why for each in read_head(store, "data").history[:2]]
    assert base == Volume.from_name_sync("data").committed
    assert [] == list(tmp_path.glob("volumes-handed-over-*"))

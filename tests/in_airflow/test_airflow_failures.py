"""What becomes of a task's volumes where it does not simply end well."""

from __future__ import annotations

import datetime
import logging
import os
import signal

import pytest
from airflow.sdk import DAG, BaseOperator, task
from airflow.sdk.exceptions import (
    AirflowFailException,
    AirflowRescheduleException,
    AirflowSkipException,
    AirflowTaskTimeout,
    DownstreamTasksSkipped,
    TaskDeferred,
)
from airflow.triggers.base import BaseTrigger, TriggerEvent
from airflow_kit import Supervisor, made, mounts_below, returned, run_task, run_tasks, texts, written

from volume_airflow import running, volumes
from volume_core import ROVolume, RWVolume, StorageError, Volume, VolumeError
from volume_core.parts.state import State
from volume_core.parts.workcopies import survey


@pytest.fixture
def dag():
    """A DAG to define tasks in."""
    with DAG("failures", schedule=None) as made_here:
        yield made_here


def kept() -> list[RWVolume]:
    """What is kept of uncommitted work, as writers."""
    return [Volume.recover_sync(each.id) for each in survey(State.default()).copies]


def abandon(found: list[RWVolume]) -> None:
    for each in found:
        each.abandon_sync()


def the_only_task(dag):
    [only] = dag.tasks
    return only


@pytest.fixture
def writes_and_raises(dag):
    """A task that has written and committed nothing, and raises: `writes_and_raises(error)`, or what a call returns."""

    def begin(error, **options):
        @task(**options)
        def fail():
            volume = written(Volume.new("data"), {"half": "1"})
            raise error() if callable(error) else error
            return volume  # which it has until it fails

        fail()
        return the_only_task(dag)

    return begin


@pytest.mark.loud
@pytest.mark.parametrize(
    ("error", "state"),
    [
        (ValueError("of the task's own"), "up_for_retry"),
        (AirflowFailException("never again"), "failed"),
        (AirflowTaskTimeout("too late"), "up_for_retry"),
        (SystemExit(0), "up_for_retry"),
        (KeyboardInterrupt(), "up_for_retry"),
    ],
    ids=lambda each: type(each).__name__,
)
def test_a_try_that_fails_publishes_nothing_and_the_log_says_where_its_work_is(writes_and_raises, caplog, error, state):
    ended = run_task(writes_and_raises(error), Supervisor(), max_tries=1)

    assert (state, error) == (ended.state, ended.error)
    assert [] == Volume.list_sync()
    [writer] = kept()
    assert any("volume commit" in each.message for each in caplog.records)
    assert any("volume commit" in note for note in error.__notes__)
    assert writer.status_sync().changed
    abandon([writer])


@pytest.mark.loud
def test_a_try_that_is_skipped_is_no_failure_and_keeps_what_it_has_written(writes_and_raises, caplog):
    ended = run_task(writes_and_raises(AirflowSkipException("nothing to do")), Supervisor())

    assert "skipped" == ended.state
    assert [] == Volume.list_sync()
    assert any("volume commit" in each.message for each in caplog.records)
    abandon(kept())


@pytest.mark.loud
def test_a_try_that_is_rescheduled_or_skips_others_keeps_what_it_has_written(dag, caplog):
    later = datetime.datetime.now(datetime.UTC)

    @task
    def again():
        written(Volume.new("data"), {"half": "1"})
        raise AirflowRescheduleException(later)

    @task
    def skip_others():
        volume = written(Volume.new("data"), {"half": "1"})
        assert volume.mount_path is not None
        raise DownstreamTasksSkipped(tasks=[])

    again()
    skip_others()
    assert "up_for_reschedule" == run_task(dag.get_task("again"), Supervisor()).state
    assert "success" == run_task(dag.get_task("skip_others"), Supervisor()).state
    assert 2 == len(survey(State.default()).copies)
    assert 2 == sum("volume commit" in each.message for each in caplog.records)
    abandon(kept())


@pytest.mark.loud
def test_an_execution_timeout_publishes_nothing_and_keeps_the_work(dag):
    @task(execution_timeout=datetime.timedelta(seconds=0.5))
    def hang():
        written(Volume.new("data"), {"half": "1"})
        signal.pause()

    hang()
    ended = run_task(the_only_task(dag), Supervisor())

    assert ("failed", AirflowTaskTimeout) == (ended.state, type(ended.error))
    assert [] == Volume.list_sync()
    [writer] = kept()
    abandon([writer])


@pytest.mark.loud
def test_where_one_of_several_volumes_cannot_be_committed_the_heads_of_the_others_go_back(dag):
    first = made("one", a="1")

    @task
    def change(one: RWVolume):
        other = written(Volume.new("other", bucket="file:///proc/no-such-place"), {"b": "1"})
        written(one, {"b": "2"})
        return [one, other]

    change("one")
    ended = run_task(the_only_task(dag), Supervisor(), max_tries=1)

    assert ("failed", AirflowFailException) == (ended.state, type(ended.error))
    assert "/proc/no-such-place" in str(ended.error)
    assert isinstance(ended.error.__cause__, StorageError)
    assert first == Volume.from_name_sync("one").committed
    abandon(kept())


@pytest.mark.loud
def test_a_permanent_error_of_a_store_is_not_retried_and_one_that_passes_is(writes_and_raises):
    class Wanted:
        transient = True

    def error():
        return StorageError("said by the store", transient=Wanted.transient)

    fails = writes_and_raises(error)
    assert "up_for_retry" == run_task(fails, Supervisor(), max_tries=1).state
    Wanted.transient = False
    ended = run_task(fails, Supervisor(), max_tries=1)

    assert ("failed", "said by the store") == (ended.state, str(ended.error.__cause__))
    abandon(kept())


@pytest.mark.loud
def test_with_on_failure_drop_nothing_is_left(dag):
    @task
    @volumes(on_failure="drop")
    def fail():
        written(Volume.new("data"), {"half": "1"})
        raise ValueError("of the task's own")

    fail()
    assert "failed" == run_task(the_only_task(dag), Supervisor()).state
    assert [] == survey(State.default()).copies


@pytest.mark.loud
def test_the_sites_settings_say_what_a_task_does_not(writes_and_raises, monkeypatch):
    fails = writes_and_raises(ValueError("of the task's own"))
    monkeypatch.setenv("AIRFLOW__VOLUME__ON_FAILURE", "drop")
    run_task(fails, Supervisor())
    assert [] == survey(State.default()).copies

    monkeypatch.setenv("AIRFLOW__VOLUME__ON_FAILURE", "lose")
    run_task(fails, Supervisor())
    abandon(kept())


@pytest.mark.loud
def test_settings_that_are_none_fail_the_tasks_that_have_volumes_and_no_others(dag, monkeypatch):
    monkeypatch.setenv("AIRFLOW__VOLUME__ON_FAILURE", "lose")

    @task
    def make():
        return written(Volume.new("data"), {"a": "1"})

    @task
    def count():
        return 1

    make()
    count()
    ended = run_task(dag.get_task("make"), Supervisor())

    assert "give 'keep' or 'drop'" in str(ended.error)
    assert "success" == run_task(dag.get_task("count"), Supervisor()).state
    abandon(kept())


def test_an_option_that_there_is_not_is_told_where_the_dag_is_parsed():
    with pytest.raises(TypeError, match="on_failure, retry, on_terminate, message"):
        volumes(on_fail="keep")
    with pytest.raises(ValueError, match="'keep' or 'drop'"):
        volumes(on_failure="lose")
    with pytest.raises(TypeError, match="above or below @task"):
        volumes()(3)


@pytest.mark.loud
def test_what_is_written_and_not_returned_is_kept_and_the_log_says_so(dag, caplog):
    @task
    def forget(data: RWVolume):
        written(data, {"b": "2"})

    made(a="1")
    forget("data")
    run_tasks(dag)

    assert any("written to and not returned" in each.message for each in caplog.records)
    [writer] = kept()
    assert {"a": "1", "b": "2"} == texts(writer.commit_sync())
    abandon([writer])


def test_what_a_task_has_mounted_is_unmounted_when_it_has_ended(dag, tmp_path):
    base = made(a="1")

    @task
    def look(data: ROVolume):
        data.mount_sync()
        writer = Volume.new("other")
        writer.mount_sync()
        assert 2 <= len(mounts_below(tmp_path))
        return writer

    look(base.locator)
    run_tasks(dag)
    assert [] == mounts_below(tmp_path)


def test_what_threads_of_a_task_mount_and_commit_is_the_tasks(dag, tmp_path):
    import threading

    @task
    def work():
        found = []

        def in_a_thread():
            volume = Volume.new("data")
            written(volume, {"a": "1"})
            found.append(volume)

        thread = threading.Thread(target=in_a_thread)
        thread.start()
        thread.join()
        with_action = threading.Thread(target=lambda: found.append(found[0].commit_sync()))
        with_action.start()
        with_action.join()
        return found

    work()
    [_, version] = returned(run_tasks(dag), "work")
    assert ("failures", "work") == (version.produced_by.project, version.produced_by.action)
    assert running.current_task() is None


# -- SIGTERM


@pytest.mark.loud
def test_a_task_that_was_told_to_end_commits_nothing_and_the_log_says_where_its_work_is(dag, caplog):
    @task
    def go_on():
        volume = written(Volume.new("data"), {"half": "1"})
        os.kill(os.getpid(), signal.SIGTERM)  # Airflow calls on_kill and lets the body go on
        return volume

    go_on()
    ended = run_task(the_only_task(dag), Supervisor(), max_tries=1)

    assert ("up_for_retry", VolumeError) == (ended.state, type(ended.error))
    assert "told to end" in str(ended.error)
    assert any("this task is to end" in each.message for each in caplog.records)
    assert [] == Volume.list_sync()
    abandon(kept())


def test_with_on_terminate_commit_sigterm_commits_before_the_operators_on_kill(dag):
    seen = []

    class Killed(BaseOperator):
        def execute(self, context):
            written(Volume.new("data"), {"half": "1"})
            os.kill(os.getpid(), signal.SIGTERM)
            raise AirflowSkipException

        def on_kill(self):
            seen.append([each.name for each in Volume.list_sync()])

    volumes(on_terminate="commit")(Killed(task_id="killed"))
    logging.getLogger("volume_airflow.calling").setLevel(logging.CRITICAL)
    try:
        run_task(the_only_task(dag), Supervisor())
    finally:
        logging.getLogger("volume_airflow.calling").setLevel(logging.NOTSET)

    assert [["data"]] == seen


# -- deferral


class Waits(BaseTrigger):
    """A trigger that is given things."""

    def __init__(self, **given):
        super().__init__()
        self.given = given

    def serialize(self):
        """As Airflow keeps it."""
        return f"{__name__}.Waits", self.given

    async def run(self):
        """Fire at once."""
        yield TriggerEvent(1)


class Defers(BaseOperator):
    """Writes before a deferral and after it."""

    def __init__(self, begin=lambda: Volume.new("data"), fails=False, **options):
        super().__init__(**options)
        self.begin, self.fails = begin, fails

    def execute(self, context):
        """Write, and wait."""
        volume = written(self.begin(), {"before": "1"})
        raise TaskDeferred(
            trigger=Waits(data=[volume]), method_name="go_on", kwargs={"deep": [{"data": volume}], "n": 1}
        )

    def go_on(self, context, deep, n, event=None):
        """Write again."""
        [each] = deep
        assert (RWVolume, 1) == (type(each["data"]), n)
        written(each["data"], {"after": "2"})
        if self.fails:
            raise ValueError("after it went on")
        return each["data"]


def deferred(task, supervisor, **options):
    """Run *task* until it is deferred, then to its end; return how both ended."""
    first = run_task(task, supervisor, **options)
    then = run_task(
        task, supervisor, next_method=first.message.next_method, next_kwargs=first.message.next_kwargs, **options
    )
    return first, then


def test_a_writer_that_crosses_a_deferral_goes_on_as_the_same_line(dag):
    made(a="1")
    task = Defers(task_id="defers", begin=lambda: Volume.from_name_sync("data"))
    supervisor = Supervisor()

    first, then = deferred(task, supervisor)

    assert ("deferred", "success") == (first.state, then.state)
    [in_trigger] = first.message.trigger_kwargs["data"]
    assert "volume_core.volumes.ROVolume" == in_trigger["__classname__"]
    version = returned(supervisor, "defers")
    assert {"a": "1", "before": "1", "after": "2"} == texts(version)
    assert version == Volume.from_name_sync("data").committed
    assert 3 == len(version.log_sync()), "what crossed is a checkpoint"


@pytest.mark.loud
def test_where_a_task_fails_after_a_deferral_the_head_goes_back_to_before_it(dag):
    base = made(a="1")
    task = Defers(task_id="defers", begin=lambda: Volume.from_name_sync("data"), fails=True)

    _, then = deferred(task, Supervisor())

    assert "failed" == then.state
    assert base == Volume.from_name_sync("data").committed
    abandon(kept())


def test_a_writer_without_changes_crosses_a_deferral_without_a_commit(dag):
    base = made(a="1")

    class Waiting(BaseOperator):
        def execute(self, context):
            raise TaskDeferred(
                trigger=Waits(), method_name="go_on", kwargs={"fork": base.fork_sync("data"), "new": Volume.new("x")}
            )

        def go_on(self, context, fork, new):
            return written(fork, {"b": "2"}), written(new, {"c": "3"})

    supervisor = Supervisor()
    _, then = deferred(Waiting(task_id="waiting"), supervisor)

    assert "success" == then.state
    one, other = returned(supervisor, "waiting")
    assert ({"a": "1", "b": "2"}, {"c": "3"}) == (texts(one), texts(other))
    assert 2 == len(one.log_sync())


def test_a_task_that_is_deferred_to_its_own_execute_takes_its_arguments_again(dag):
    base = made(a="1")
    seen = []

    @task
    def twice(data: RWVolume):
        seen.append(type(data))
        if len(seen) == 1:
            raise TaskDeferred(trigger=Waits(), method_name="execute", kwargs={})
        return written(data, {"b": "2"})

    twice(base.locator)
    supervisor = Supervisor()
    deferred(the_only_task(dag), supervisor)

    assert [RWVolume, RWVolume] == seen
    assert {"a": "1", "b": "2"} == texts(returned(supervisor, "twice"))


@pytest.mark.loud
def test_a_checkpoint_that_cannot_be_committed_fails_the_task_before_the_deferral(dag):
    nowhere = Defers(task_id="defers", begin=lambda: Volume.new("data", bucket="file:///proc/no-such-place"))
    ended = run_task(nowhere, Supervisor(), max_tries=1)

    assert ended.state in {"failed", "up_for_retry"}
    assert isinstance(ended.error, AirflowFailException | StorageError)
    abandon(kept())


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # the loop in which dag.test() runs a trigger
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_dag_test_loses_the_arguments_of_a_deferral_and_the_checkpoint_has_the_work(run_dag):
    with DAG("loses", schedule=None) as dag:

        class Losing(BaseOperator):
            def execute(self, context):
                volume = written(Volume.new("data"), {"before": "1"})
                raise TaskDeferred(trigger=Waits(), method_name="go_on", kwargs={"data": volume})

            def go_on(self, context, data=None, event=None):
                assert data is None, "dag.test() gives them now: say so in the documentation"
                return texts(Volume.from_name_sync("data").committed)

        Losing(task_id="losing")

    run, xcoms = run_dag(dag)

    assert "success" == run.state
    assert {"before": "1"} == xcoms["losing", -1, "return_value"]

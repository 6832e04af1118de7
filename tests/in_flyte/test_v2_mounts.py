"""flyte 2: `mounts` below @env.task, and one call that gives every task of an environment a named volume."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path

import flyte
import mounting_environments as tasks
import pytest
from mounting_environments import LOGS
from v2_kit import Container, Local, inputs_of, names

from volume_core import BusyError, NotFoundError, Volume, VolumeError, mounts
from volume_core.parts.state import State
from volume_flyte import workflow_mounts
from volume_flyte.mounting import Mounting
from volume_flyte.v2.pods import fuse_pod_template

HERE = Path(__file__).parent


@pytest.fixture(params=[pytest.param("kernel", marks=pytest.mark.fuse), "copy"])
def run(request, tmp_path, monkeypatch) -> Local:
    """Runs with real mounts, and with plain directories where there is no privilege."""
    local = Local(tmp_path, monkeypatch)
    monkeypatch.setenv("VOLUME_DRIVER", request.param)
    return local


@pytest.fixture(autouse=True)
def nothing_left():
    """No test leaves anything where the volume was."""
    yield
    assert not (LOGS.exists() and os.listdir(LOGS))


def files(name: str = "logs") -> list[str]:
    try:
        return sorted(each.strip("/") for each in names(Volume.from_name_sync(name)))
    except NotFoundError:
        return []


# -- below @env.task


def test_a_task_commits_each_time_it_ends_well(run):
    assert ["a-0", "a-1", "a-2"] == run(tasks.below_all)
    assert ["a-0", "a-1", "a-2"] == files()
    assert "by a task" == Volume.from_name_sync("logs").committed.message


@pytest.mark.loud
def test_after_an_error_nothing_is_committed(run):
    with pytest.raises(Exception, match="this task fails"):
        run(tasks.fail, name="a")

    assert [] == files()


def test_above_the_decorator_of_the_task_it_says_where_it_belongs():
    with pytest.raises(VolumeError, match="is a AsyncFunctionTaskTemplate and no function: put @mounts below"):
        mounts({LOGS: tasks.logs})(tasks.log)


# -- an environment


def test_parallel_tasks_of_an_environment_add_a_file_each_every_time(run):
    assert ["a-0", "b-0", "c-0"] == run(tasks.three_logs)
    assert ["a-0", "b-0", "c-0"] == files()
    assert ["a-1", "b-1", "c-1"] == run(tasks.three_logs)
    assert ["a-0", "a-1", "b-0", "b-1", "c-0", "c-1"] == files()


def test_a_task_that_is_called_by_one_of_its_environment_has_here_what_that_one_has(run):
    assert ["outer-0", "x-0", "y-0", "sync-0"] == run(tasks.nested, name="xy")
    assert ["outer-0", "sync-0", "x-0", "y-0"] == files()
    assert 1 == len(Volume.from_name_sync("logs").committed.log_sync())


def test_a_task_of_another_environment_is_what_it_was(run):
    LOGS.rmdir() if LOGS.exists() else None

    assert run(tasks.nobody_mounts) is False


@pytest.mark.slow
def test_in_a_container_too(tmp_path, monkeypatch):
    paths = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    own = {"HOME": str(tmp_path / "home"), "VOLUME_BUCKET": State.default().default_store_url}
    own |= {"VOLUME_STATE_DIR": str(tmp_path / "pod"), "VOLUME_TEST_LOGS": str(tmp_path / "logs")}
    container = Container(tmp_path, "mounting_environments", {**os.environ, **own, "PYTHONPATH": paths})
    for task, function in (
        ("log", tasks.log),
        ("defined_before", tasks.defined_before),
        ("below_sync", tasks.below_sync),
    ):
        container.run(task, asyncio.run(inputs_of(function, name=task)))

        assert f"{task}-0" == container.output().scalar.primitive.string_value
    assert ["below_sync-0", "defined_before-0", "log-0"] == files()


def test_tasks_without_a_pod_template_get_the_environments():
    template, own = fuse_pod_template(cache_size="5Gi"), flyte.PodTemplate(labels={"own": "yes"})
    environment = flyte.TaskEnvironment("pods")

    @environment.task(pod_template=own)
    async def with_its_own() -> int:
        return 1

    @environment.task
    async def before() -> int:
        return 1

    assert environment is workflow_mounts({"/x": tasks.logs}, pod_template=template)(environment)

    @environment.task
    async def after() -> int:
        return 1

    assert own is with_its_own.pod_template
    assert template is before.pod_template is after.pod_template


def test_flyte_sees_the_functions_as_they_were_written():
    assert "logging.log" == tasks.log.name
    assert ["name"] == list(tasks.log.native_interface.inputs)
    assert "sync" == tasks.log_sync.short_name
    assert asyncio.iscoroutinefunction(tasks.log.func) and not asyncio.iscoroutinefunction(tasks.log_sync.func)


def test_an_environment_mounts_once():
    with pytest.raises(VolumeError, match="environment logging mounts volumes already"):
        workflow_mounts({"/y": tasks.logs})(tasks.environment)


# -- turns


def test_who_waits_for_a_path_gets_it_when_the_other_one_is_done(tmp_path, monkeypatch):
    """Threads and coroutines take turns; a coroutine that is cancelled while it waits leaves the turn to the others."""
    monkeypatch.setenv("VOLUME_DRIVER", "copy")
    mounting = Mounting({tmp_path / "x": tasks.logs})
    seen, go_on = [], threading.Event()

    @mounting.around
    def first():
        seen.append("first")
        go_on.wait(20)
        seen.append("first ends")

    @mounting.around
    async def second(name):
        seen.append(name)

    async def main():
        cancelled = asyncio.create_task(second("cancelled"))
        waiting = asyncio.create_task(second("second"))
        await asyncio.sleep(0.2)
        cancelled.cancel()
        await asyncio.sleep(0.1)
        assert ["first"] == seen
        go_on.set()
        await waiting

    thread = threading.Thread(target=first)
    thread.start()
    while not seen:
        time.sleep(0.01)
    asyncio.run(main())
    thread.join()

    assert ["first", "first ends", "second"] == seen


def test_a_caller_that_waits_for_a_task_which_wants_its_path_is_told_and_not_left_waiting(tmp_path, monkeypatch):
    monkeypatch.setenv("VOLUME_DRIVER", "copy")
    outer, inner = (Mounting({tmp_path / "x": Volume.from_name_lazy(each, create_if_missing=True)}) for each in "ab")

    with pytest.raises(BusyError, match="who calls this task has another volume mounted there"):
        outer.around(inner.around(print))()


def test_a_generator_is_no_task():
    def steps():
        yield 1

    with pytest.raises(VolumeError, match="steps is a generator: a task returns what it makes"):
        Mounting({"/x": tasks.logs}).around(steps)

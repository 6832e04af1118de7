"""`mounts` below flytekit's @task: committed when the task has ended well, and not after an error."""

from __future__ import annotations

import asyncio
import os
import typing

import mounting_tasks as tasks
import pytest
from flytekit import map_task, task
from shared_tasks import LOGS, SIDE
from v1_kit import contents
from v1_pods import Registered

from volume_core import NotFoundError, Volume, VolumeError, mounts


@pytest.fixture(params=[pytest.param("kernel", marks=pytest.mark.fuse), "copy"])
def driver(request, monkeypatch):
    """Real mounts, and plain directories where there is no privilege."""
    monkeypatch.setenv("VOLUME_DRIVER", request.param)


@pytest.fixture(autouse=True)
def nothing_left():
    """No test leaves anything where the volumes were."""
    yield
    assert not any(path.exists() and os.listdir(path) for path in (LOGS, SIDE))


def files(name: str = "logs") -> list[str]:
    try:
        return sorted(contents(Volume.from_name_sync(name)))
    except NotFoundError:
        return []


def test_a_task_in_a_workflow_commits_each_time_it_ends_well(driver):
    assert ("a-0", "a-1") == tuple(tasks.twice())
    assert ["a-0", "a-1"] == files() == files("side")
    assert {"by a task"} == {entry.volume.message for entry in Volume.from_name_sync("logs").committed.log_sync()}


def test_after_an_error_nothing_is_committed_and_the_error_says_where_the_work_is(driver):
    with pytest.raises(ValueError, match="this task fails") as caught:
        tasks.fail(name="a")

    assert [] == files()
    assert "is kept as working copy" in "".join(caught.value.__notes__)


def test_an_asynchronous_task(driver):
    assert "a-0" == asyncio.run(tasks.log_async(name="a"))
    assert ["a-1", "a-2"] == asyncio.run(tasks.eagerly())
    assert ["a-0", "a-1", "a-2"] == files()


def test_a_mapped_task_mounts_for_each_element(driver):
    assert ["a-0", "b-0"] == tasks.mapped()
    assert ["a-0", "b-0"] == files()
    assert 2 == len(Volume.from_name_sync("logs").committed.log_sync())


def test_flytekit_sees_the_function_as_it_was_written():
    interface = tasks.log.python_interface

    assert "mounting_tasks.log" == tasks.log.name
    assert {"name": str} == interface.inputs
    assert [str] == [typing.get_args(each)[0] for each in interface.outputs.values()]
    assert "Write a log." == interface.docstring.short_description


@pytest.mark.slow
def test_in_a_pod_too(tmp_path):
    [first, last] = [Registered(each, tmp_path / each.name) for each in (tasks.log, tasks.fail)]
    pods = first.start("mounting_tasks.log", name="a"), last.start("mounting_tasks.fail", name="b")
    mapped = Registered(map_task(tasks.log), tmp_path / "mapped")
    [name] = mapped.templates

    assert "a-0" == pods[0].wait().output(str)
    assert "is kept as working copy" in pods[1].wait().error().message
    assert "c-0" == mapped.run(name, index=0, name=["c", "d"]).output(str)
    assert ["a-0", "c-0"] == files()


def test_above_the_decorator_of_the_task_it_says_where_it_belongs():
    with pytest.raises(VolumeError, match="job is a PythonFunctionTask and no function: put @mounts below"):

        @mounts({LOGS: tasks.logs})
        @task
        def job() -> int:
            return 1

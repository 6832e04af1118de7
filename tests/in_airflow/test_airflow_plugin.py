"""What every process of Airflow loads of this package, and a task's process as Airflow's supervisor makes it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import time

import pytest
from airflow.sdk import DAG, BaseOperator, task
from airflow.sdk.execution_time import supervisor as sdk
from airflow_kit import Supervisor, made, mounts_below, run_task, texts

from volume_airflow import calling
from volume_core import RWVolume, Volume
from volume_core.parts.state import State
from volume_core.parts.workcopies import survey


@pytest.fixture
def dag():
    """A DAG to define tasks in."""
    with DAG("forked", schedule=None) as made_here:
        yield made_here


def forked(target, log):
    """Fork a child that runs *target* as Airflow's supervisor has it run, with its log in *log*; return its id."""

    def logged():
        logging.getLogger().addHandler(logging.FileHandler(log))
        target()

    with contextlib.ExitStack() as ours:
        pairs = [socket.socketpair() for _ in range(3)]
        for each in [end for pair in pairs for end in pair]:
            ours.enter_context(each)
        if (pid := os.fork()) == 0:
            sdk._fork_main(*(end for _, end in pairs), 0, logged)
    return pid


def until(condition, within_s: float = 30):
    """Return what *condition* does once that is true."""
    end = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)
    return found


def ended(pid: int) -> int:
    """Wait for the child *pid* and return how it ended."""
    try:
        return until(lambda: (found := os.waitpid(pid, os.WNOHANG))[0] and [found[1]])[0]
    except AssertionError:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


@pytest.mark.fuse
def test_a_bare_fork_has_no_threads_and_no_atexit_of_its_parents_and_leaves_no_mount(dag, tmp_path):
    base = made(a="1")
    with base.mounted_sync() as path:  # the parent has a janitor's thread, a mount and its locks

        @task
        def change(data: RWVolume):
            (data.mount_sync() / "b").write_text((path / "a").read_text())
            base.mount_sync()
            forgotten = Volume.new("forgotten")
            (forgotten.mount_sync() / "half").write_text("1")
            del forgotten
            return data

        change("data")

        def target():
            if run_task(dag.get_task("change"), Supervisor()).error is not None:
                sys.exit(3)

        assert 0 == ended(forked(target, tmp_path / "log"))
        assert [str(path)] == mounts_below(tmp_path), "those of the child are gone, and the parent's is there"

    assert {"a": "1", "b": "1"} == texts(Volume.from_name_sync("data").committed)
    [left] = survey(State.default()).copies
    text = (tmp_path / "log").read_text()
    assert f"working copy {left.id}" in text, "the log says where, although the process ends abruptly"
    Volume.recover_sync(left.id).abandon_sync()


@pytest.mark.fuse
def test_a_task_that_is_killed_leaves_its_work_and_the_log_says_where_before(dag, tmp_path):
    @task
    def hang():
        volume = Volume.new("data")
        (volume.mount_sync() / "half").write_text("1")
        (tmp_path / "hangs").touch()
        while True:  # Airflow lets the body go on after SIGTERM
            signal.pause()

    hang()
    log = tmp_path / "log"
    pid = forked(lambda: run_task(dag.get_task("hang"), Supervisor()), log)
    try:
        until((tmp_path / "hangs").exists)
        os.kill(pid, signal.SIGTERM)
        text = until(lambda: (found := log.read_text()) and "this task is to end" in found and found)
    finally:
        os.kill(pid, signal.SIGKILL)
        ended(pid)

    assert [] == Volume.list_sync()
    until(lambda: not mounts_below(tmp_path))
    [left] = survey(State.default()).copies
    assert left.id in text
    writer = Volume.recover_sync(left.id)
    assert {"half": "1"} == texts(writer.commit_sync())
    writer.abandon_sync()


def test_an_operator_has_its_own_methods_again_in_the_next_run(dag):
    class Make(BaseOperator):
        def execute(self, context):
            return 1

    make = Make(task_id="make")
    run_task(make, Supervisor())

    assert "execute" not in vars(make)
    assert "on_kill" not in vars(make)
    assert calling.current_call() is None


def test_the_plugin_has_a_name_that_is_no_other_plugins():
    from airflow.sdk import plugins_manager

    plugins, errors = plugins_manager._get_plugins()
    names = [each.name for each in plugins]
    assert 1 == names.count("volume")
    assert not [each for each in errors if "volume" in each]

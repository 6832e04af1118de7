"""What becomes of a run's volumes when it fails, times out, is tried again, rolled back or terminated."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

import pytest
from prefect import flow, task
from prefect.states import State
from prefect.transactions import transaction
from prefect_kit import head_of, made, texts, working_copies, written

from volume_core import ROVolume, RWVolume, StorageError, Volume
from volume_core.passing import Attempt
from volume_prefect import volumes

# Prefect logs the errors of runs, and it is errors that these tests are about.
pytestmark = [pytest.mark.usefixtures("server"), pytest.mark.loud]


def run_once(body: Any, *args: Any, **options: Any) -> tuple[State[Any], ROVolume]:
    """Run the task that *body* is, in a flow, with a version of `data`; return its state, and the version."""
    made_task = task(**options)(body)
    states: list[State[Any]] = []

    @flow
    def around(version: ROVolume) -> None:
        states.append(made_task(version, *args, return_state=True))

    version = made(a="0")
    around(version)
    return states[0], version


# -- failure


@pytest.mark.parametrize("on_failure", ["keep", "drop"])
def test_a_task_that_fails_publishes_nothing_and_keeps_or_drops_its_work(on_failure):
    @volumes(on_failure=on_failure)
    def fails(data: RWVolume) -> RWVolume:
        written(data, {"b": "lost?"})
        fresh = written(Volume.new("fresh"), {"c": "lost?"})
        raise ValueError(f"on purpose, with {fresh.name} mounted")

    state, version = run_once(fails)

    error = state.result(raise_on_failure=False)
    assert state.is_failed()
    assert head_of(version) == version.version
    assert [] == [info.name for info in Volume.list_sync() if info.name == "fresh"]
    kept = working_copies()
    if on_failure == "keep":
        assert 2 == len(kept)
        assert all(any(copy in note for note in error.__notes__) for copy in kept)
        recovered = [Volume.recover_sync(copy) for copy in kept]
        assert {"lost?"} == {Path(each.mount_sync(driver="copy"), name).read_text() for each, name in _files(recovered)}
        for each in recovered:
            each.abandon_sync()
    else:
        assert [] == kept


def _files(volumes_: list[RWVolume]) -> list[tuple[RWVolume, str]]:
    return [(each, "b" if each.name == "data" else "c") for each in volumes_]


@pytest.mark.fuse
def test_a_failed_task_leaves_no_mount_although_its_error_is_kept(tmp_path):
    paths: list[Path] = []

    @volumes
    def fails(data: RWVolume) -> None:
        paths.append(data.mount_sync(driver="kernel"))
        raise ValueError("on purpose")

    state, _ = run_once(fails)

    assert state.is_failed()
    assert not paths[0].is_mount()


def test_of_two_volumes_of_which_one_cannot_be_committed_neither_is_published():
    first = made("first", a="0")

    @volumes
    def two(data: RWVolume) -> list[RWVolume]:
        one, other = written(first.fork_sync("first"), {"b": "1"}), written(data, {"b": "2"})

        def refuse(*_: Any, **__: Any) -> ROVolume:
            raise StorageError("the store is full", transient=False)

        object.__setattr__(other, "commit_sync", refuse)
        return [one, other]

    state, version = run_once(two)

    assert state.is_failed()
    assert "the store is full" in state.message
    assert [first.version, version.version] == [head_of(first), head_of(version)]
    for copy in working_copies():
        Volume.recover_sync(copy).abandon_sync()


# -- timeouts


@pytest.mark.timeout(method="thread")  # the alarm is Prefect's
def test_a_timeout_in_the_main_thread_publishes_nothing():
    @volumes(on_failure="drop")
    def slow(data: RWVolume) -> RWVolume:
        written(data, {"b": "late"})
        time.sleep(20)
        return data

    state, version = run_once(slow, timeout_seconds=0.5)

    assert "TimedOut" == state.name
    assert head_of(version) == version.version
    assert [] == working_copies()


def test_a_timeout_in_a_worker_thread_publishes_nothing_when_the_body_has_returned():
    @volumes(on_failure="drop")
    @task(timeout_seconds=0.3)
    def slow(data: RWVolume) -> RWVolume:
        written(data, {"b": "late"})
        with contextlib.suppress(TimeoutError):  # as a body does whose long call cannot be interrupted
            time.sleep(0.8)
        return data

    states: list[State[Any]] = []

    @flow
    def around(version: ROVolume) -> None:
        states.append(slow.submit(version, return_state=True))

    version = made(a="0")
    around(version)

    assert "TimedOut" == states[0].name
    assert head_of(version) == version.version


# -- retries


@pytest.mark.parametrize("retry", ["fresh", "resume"])
@pytest.mark.parametrize("on_failure", ["keep", "drop"])
def test_a_retry_begins_afresh_or_goes_on(retry, on_failure):
    seen: list[list[str]] = []

    @volumes(retry=retry, on_failure=on_failure)
    def flaky(data: RWVolume) -> RWVolume:
        root = data.mount_sync(driver="copy")
        seen.append(sorted(os.listdir(root)))
        (root / f"try-{len(seen)}").write_text("x")
        if len(seen) < 3:
            raise ValueError("not yet")
        return data

    state, version = run_once(flaky, retries=2)

    goes_on = retry == "resume" and on_failure == "keep"
    assert ["a", "try-1", "try-2"] if goes_on else ["a"] == seen[2]
    found = state.result()
    wanted = {"a", "try-1", "try-2", "try-3"} if goes_on else {"a", "try-3"}
    assert wanted == set(texts(found))
    assert version.locator == found.log_sync()[1].volume.locator
    assert "3" == found.produced_by.attempt
    kept = working_copies()
    assert (2 if retry == "fresh" and on_failure == "keep" else 0) == len(kept)
    for copy in kept:
        Volume.recover_sync(copy).abandon_sync()


def test_a_retry_resumes_from_the_last_commit_where_work_is_dropped():
    seen: list[list[str]] = []

    @volumes(retry="resume", on_failure="drop")
    def flaky(data: RWVolume) -> RWVolume:
        root = data.mount_sync(driver="copy")
        seen.append(sorted(os.listdir(root)))
        if len(seen) == 1:
            (root / "committed").write_text("x")
            data.commit_sync("checkpoint")
            (root / "dropped").write_text("x")
            raise ValueError("not yet")
        return data

    run_once(flaky, retries=1)

    assert [["a"], ["a", "committed"]] == seen


@pytest.mark.parametrize("retry", ["fresh", "resume"])
def test_a_flow_that_is_tried_again_begins_afresh_or_goes_on(retry):
    seen: list[list[str]] = []

    @volumes(retry=retry, on_failure="keep" if retry == "resume" else "drop")
    @flow(retries=1)
    def flaky(data: RWVolume) -> RWVolume:
        root = data.mount_sync(driver="copy")
        seen.append(sorted(os.listdir(root)))
        (root / f"try-{len(seen)}").write_text("x")
        if len(seen) == 1:
            raise ValueError("not yet")
        return data

    found = flaky(made(a="0"))

    assert [["a"], ["a", "try-1"] if retry == "resume" else ["a"]] == seen
    assert "try-2" in texts(found)
    assert [] == working_copies()


# -- transactions


@volumes
@task
def edit(data: RWVolume, text: str) -> RWVolume:
    return written(data, {"b": text})


@task
def boom() -> None:
    raise RuntimeError("later")


@pytest.mark.parametrize("submitted", [False, True])
def test_a_rollback_moves_the_head_back_and_the_version_stays(submitted):
    published: list[ROVolume] = []

    @flow
    def around(version: ROVolume) -> None:
        with transaction():
            published.append(edit.submit(version, "1").result() if submitted else edit(version, "1"))
            assert head_of(version) == published[0].version
            boom()

    version = made(a="0")
    state = around(version, return_state=True)

    assert state.is_failed()
    assert version.version == head_of(version)
    assert {"a": "0", "b": "1"} == texts(Volume.from_locator_sync(published[0].locator))


def test_a_rollback_leaves_what_others_have_built():
    others: list[ROVolume] = []

    @flow
    def around(version: ROVolume) -> None:
        with transaction():
            published = edit(version, "1")
            others.append(written(published.fork_sync("data"), {"c": "others"}).finalize_sync())
            boom()

    version = made(a="0")
    around(version, return_state=True)

    assert others[0].version == head_of(version)


def test_without_a_failure_a_transaction_leaves_the_head_where_the_task_moved_it():
    @flow
    def around(version: ROVolume) -> ROVolume:
        with transaction():
            return edit(version, "1")

    version = made(a="0")

    assert around(version).version == head_of(version)


# -- SIGTERM

TERMINATED = """
import sys, time
from pathlib import Path
from prefect import flow, task
from volume_core import RWVolume, Volume
from volume_prefect import volumes

ready, how, where = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
options = {{}} if how == "none" else {{"on_terminate": how}}

@volumes(**options)
@task
def slow(data: RWVolume) -> RWVolume:
    (data.mount_sync(driver="copy") / "b").write_text("there")
    ready.write_text("ready")
    for _ in range(300):
        time.sleep(0.1)
    return data

@volumes(**options)
@flow
def run(data: str):
    return slow(data) if where == "main" else slow.submit(data).result()

run("data")
"""


@pytest.mark.parametrize(
    ("how", "where"), [("none", "main"), ("keep", "main"), ("commit", "main"), ("commit", "worker")]
)
def test_sigterm_keeps_or_commits(how, where, tmp_path):
    version = made(a="0")
    script, ready = tmp_path / "terminated.py", tmp_path / "ready"
    script.write_text(textwrap.dedent(TERMINATED.format()))
    process = subprocess.Popen(
        [sys.executable, script, ready, how, where], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    end = time.monotonic() + 60
    while not ready.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.05)
    time.sleep(0.3)

    process.send_signal(signal.SIGTERM)
    try:
        said, _ = process.communicate(timeout=20 if where == "main" else 8)
    except subprocess.TimeoutExpired:
        process.kill()  # Prefect waits for its worker threads: what follows is SIGKILL
        said, _ = process.communicate()

    assert process.returncode != 0, said
    newest = Volume.from_name_sync("data").committed
    assert newest is not None
    if how == "commit":
        assert {"a": "0", "b": "there"} == texts(newest), said
        assert newest.produced_by.action.startswith("slow-")
    else:
        assert newest == version, said
        (copy,) = working_copies()
        recovered = Volume.recover_sync(copy)
        assert "there" == Path(recovered.mount_sync(driver="copy"), "b").read_text()
        recovered.abandon_sync()


# -- what the body commits itself


def test_what_the_body_has_committed_stays_where_handing_over_fails(monkeypatch):
    def refuses(self: Attempt, volume: RWVolume, message: str = "") -> ROVolume:
        if volume.name == "data":
            raise StorageError("refused")
        return hand_over(self, volume, message)

    hand_over = Attempt.hand_over
    monkeypatch.setattr(Attempt, "hand_over", refuses)
    checkpoints: list[ROVolume] = []

    @volumes
    def saves(data: RWVolume) -> list[RWVolume]:
        checkpoints.append(written(data, {"a": "1"}).commit_sync())
        return [written(Volume.new("other"), {"b": "1"}), data]

    state, version = run_once(saves)

    assert state.is_failed()
    assert checkpoints[0].version == head_of(version)


def test_what_the_body_has_committed_and_returned_goes_back_in_a_rollback_too():
    @volumes
    @task
    def finalizes(data: RWVolume) -> ROVolume:
        return written(data, {"b": "1"}).finalize_sync()

    @flow
    def around(version: ROVolume) -> None:
        with transaction():
            assert head_of(version) == finalizes(version).version
            boom()

    version = made(a="0")
    state = around(version, return_state=True)

    assert state.is_failed()
    assert version.version == head_of(version)


@pytest.mark.parametrize("is_async", [False, True])
def test_what_was_yielded_stays_where_the_consumer_has_had_enough(is_async):
    @volumes
    @task
    def steps(data: RWVolume) -> Generator[RWVolume, None, None]:
        for number in range(3):
            yield written(data, {f"{number}": ""})

    @volumes
    @task
    async def asteps(data: RWVolume) -> AsyncGenerator[RWVolume, None]:
        for number in range(3):
            yield written(data, {f"{number}": ""})

    @flow
    def takes_two(version: ROVolume) -> list[ROVolume]:
        with contextlib.closing(steps(version)) as found:
            return [next(found), next(found)]

    async def takes_two_async(version: ROVolume) -> list[ROVolume]:
        # Prefect itself fails a task that is an asynchronous generator and is closed.
        async with contextlib.aclosing(asteps.fn(version)) as found:
            return [await anext(found), await anext(found)]

    version = made(a="0")
    found = asyncio.run(takes_two_async(version)) if is_async else takes_two(version)

    assert ["0", "1", "a"] == sorted(texts(found[1]))
    assert found[1].version == head_of(version)


def test_a_retry_does_not_go_on_from_another_call_of_its_task():
    failed: list[int] = []

    @volumes(retry="resume")
    @task(retries=1)
    def adds(data: RWVolume, name: str) -> RWVolume:
        if name == "c" and not failed:
            failed.append(1)
            raise ValueError("before anything was written")
        return written(data, {name: ""})

    @flow
    def fans_out(version: ROVolume) -> list[ROVolume]:
        return [adds(version, "b"), adds(version, "c")]

    found = fans_out(made(a="0"))

    assert [["a", "b"], ["a", "c"]] == [sorted(texts(each)) for each in found]


@pytest.mark.parametrize("named", [None, "adds-{name}"])
def test_in_a_flow_that_is_tried_again_no_call_goes_on_from_another_one(named):
    tries: list[int] = []

    @volumes(retry="resume")
    @task(task_run_name=named)
    def adds(data: RWVolume, name: str) -> RWVolume:
        data.mount_sync(driver="copy")
        (data / name).write_text("")
        return data

    @flow(retries=1)
    def fans_out(version: ROVolume) -> list[ROVolume]:
        tries.append(1)
        found = [adds(version, "b"), adds(version, "c")]
        if len(tries) == 1:
            raise ValueError("after both")
        return found

    found = fans_out(made(a="0"))

    assert 2 == len(tries)
    assert [["a", "b"], ["a", "c"]] == [sorted(texts(each)) for each in found]


def test_in_a_flow_that_is_tried_again_a_named_call_goes_on_from_its_own_commit():
    seen: list[list[str]] = []

    @volumes(retry="resume")
    @task(task_run_name="adds-{name}")
    def adds(data: RWVolume, name: str) -> RWVolume:
        root = data.mount_sync(driver="copy")
        seen.append(sorted(os.listdir(root)))
        (root / f"{name}-{len(seen)}").write_text("")
        data.commit_sync("checkpoint")
        if len(seen) == 1:
            raise ValueError("not yet")
        return data

    @flow(retries=1)
    def once(version: ROVolume) -> ROVolume:
        return adds(version, "b")

    found = once(made(a="0"))

    assert [["a"], ["a", "b-1"]] == seen
    assert ["a", "b-1", "b-2"] == sorted(texts(found))

"""The running task as volume_core sees it, and where its volumes lie by default."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.filesystems import LocalFileSystem, RemoteFileSystem
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.variables import Variable
from prefect_aws import S3Bucket
from prefect_kit import made

from volume_core import ActionRef, NotFoundError, StorageError, Volume
from volume_core.plugins.manager import plugins
from volume_prefect import running
from volume_prefect.blocks import VolumeStore


def current() -> ActionRef:
    found = plugins().current_task()
    assert found is not None
    return found


def default_url() -> str:
    return Volume.new("anywhere").store_url


# -- outside a run


def test_outside_a_run_there_is_no_task_and_nothing_is_asked(monkeypatch):
    monkeypatch.setattr(running, "_asked", lambda: pytest.fail("the API was asked"))

    assert plugins().current_task() is None
    assert default_url().endswith("/volume-state/store")


def test_a_process_without_prefect_does_not_import_it_to_find_out():
    code = "import sys; from volume_core import Volume; Volume.new('x').commit_sync(); print('prefect' in sys.modules)"

    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert "False" == printed.strip()


# -- the task


@pytest.mark.usefixtures("server")
def test_a_task_a_flow_and_a_flow_within_a_task_are_told_apart():
    found: dict[str, ActionRef] = {}

    @flow(name="inner flow")
    def inner() -> None:
        found["inner"] = current()

    @task(task_run_name="called-so")
    def work(nested: bool = False) -> None:
        found["nesting" if nested else "task"] = current()
        if nested:
            inner()

    @flow(name="outer flow")
    def outer() -> None:
        found["flow"] = current()
        work()
        work(nested=True)

    outer()

    assert {"prefect"} == {each.engine for each in found.values()}
    assert ["", "called-so", "called-so", ""] == [found[each].action for each in ("flow", "task", "nesting", "inner")]
    projects = [found[each].project for each in ("flow", "task", "nesting", "inner")]
    assert ["outer flow", "outer flow", "outer flow", "inner flow"] == projects
    assert found["flow"].run == found["task"].run != found["inner"].run
    with get_client(sync_client=True) as client:
        assert str(client.read_flow_run(found["inner"].run).id) in found["inner"].url
    assert "/runs/task-run/" in found["task"].url
    assert {"1"} == {each.attempt for each in found.values()}


@pytest.mark.usefixtures("server")
def test_a_task_without_a_flow_is_one_too():
    @task(name="alone")
    def alone() -> ActionRef:
        return current()

    found = alone()

    assert found.action == "alone"
    assert "alone" == found.project
    assert found.run


# -- the default store


@pytest.fixture
def asked(server: str) -> Any:
    """Run a function in a flow, with its own answer of the API; return what it returned."""

    def run(function: Any = default_url, **options: Any) -> Any:
        return flow(**options)(function)()

    return run


@pytest.fixture
def block(server: str, tmp_path: Path):
    """The block `volume-store/default`, while the test runs; its store's URL."""
    VolumeStore(url=f"file://{tmp_path}/block").save("default", overwrite=True)
    yield f"file://{tmp_path}/block"
    VolumeStore.delete("default")


@pytest.fixture
def variable(server: str, tmp_path: Path):
    """The variable that names a store, while the test runs; its value."""
    Variable.set(running.VARIABLE, f"file://{tmp_path}/variable", overwrite=True)
    yield f"file://{tmp_path}/variable"
    Variable.unset(running.VARIABLE)


def test_where_nothing_is_said_volumes_lie_where_they_do_without_prefect(asked):
    assert asked().endswith("/volume-state/store")


def test_the_variable_goes_before_result_storage_and_the_block_before_it(asked, variable, request, tmp_path):
    remote = RemoteFileSystem(basepath="s3://results/there")
    remote.save("remote", overwrite=True)

    assert variable == asked(result_storage="remote-file-system/remote", persist_result=False)
    block = request.getfixturevalue("block")
    assert block == asked()


def test_the_environment_goes_before_all(asked, block, monkeypatch, tmp_path):
    monkeypatch.setenv("VOLUME_BUCKET", f"file://{tmp_path}/environment")

    assert f"file://{tmp_path}/environment" == asked()


def test_remote_result_storage_is_taken(asked):
    RemoteFileSystem(basepath="s3://results/there").save("remote", overwrite=True)

    assert "s3://results/there" == asked(result_storage="remote-file-system/remote", persist_result=False)


@pytest.mark.parametrize(
    ("storage", "url"),
    [
        (S3Bucket(bucket_name="results", bucket_folder="a/b/"), "s3://results/a/b"),
        (S3Bucket(bucket_name="results"), "s3://results"),
        (RemoteFileSystem(basepath="gs://results/x"), "gs://results/x"),
        (RemoteFileSystem(basepath="github://nobody/here"), None),
        (LocalFileSystem(basepath="/somewhere"), None),
        (None, None),
    ],
    ids=["folder", "bucket", "remote", "not-a-store", "local", "none"],
)
def test_the_url_of_result_storage(storage, url):
    assert url == running._url_of(storage)


def test_a_volume_of_a_run_lies_in_the_blocks_store(asked, block):
    version = asked(lambda: made("there", a="1"), name="writes")

    assert block == version.store_url
    assert version.locator.startswith(f"{block}/")


def test_the_api_is_asked_once_a_run(asked, block, monkeypatch):
    calls = []
    real = running._asked
    monkeypatch.setattr(running, "_asked", lambda: calls.append(1) or real())

    assert [block] * 3 == asked(lambda: [default_url() for _ in range(3)], name="thrice")
    assert [1] == calls


@pytest.mark.parametrize("silent", [False, True], ids=["refuses", "is silent"])
def test_an_api_that_is_away_costs_a_moment_and_is_an_error_that_may_pass(silent):
    with socket.socket() as away:
        away.bind(("127.0.0.1", 0))
        if silent:
            away.listen()
        with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{away.getsockname()[1]}/api"}):
            before = time.monotonic()
            with pytest.raises(StorageError, match="could not be asked of the API") as caught:
                running._within(1.0, running._asked)
            took_s = time.monotonic() - before

    assert caught.value.transient
    assert took_s < 3
    for thread in threading.enumerate():
        if thread.name == "volume-bucket":
            thread.join(10)  # it was hung up on by now


def test_a_run_writes_nowhere_else_where_the_api_has_no_answer_and_asks_again(asked, monkeypatch):
    def fails() -> str:
        raise ConnectionError("away")

    def tries() -> list[str]:
        monkeypatch.setattr(running, "_asked", fails)
        with pytest.raises(StorageError, match="ConnectionError: away"):
            default_url()
        monkeypatch.setattr(running, "_asked", lambda: "s3://team/volumes")
        return [default_url(), Volume.new("data", "memory://mine").store_url]

    assert ["s3://team/volumes", "memory://mine"] == asked(tries)


def test_a_default_store_that_cannot_be_used_is_an_error_and_no_reason_to_write_elsewhere(asked, monkeypatch):
    def unusable() -> str:
        raise NotFoundError("there is no block aws-credentials/team")

    monkeypatch.setattr(running, "_asked", unusable)

    def tries() -> str:
        with pytest.raises(NotFoundError, match="aws-credentials/team"):
            default_url()
        return "tried"

    assert "tried" == asked(tries)

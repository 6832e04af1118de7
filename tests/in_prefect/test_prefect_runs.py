"""Volumes through real runs on a real server: every form of call, every consumer, real mounts."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from prefect import flow, task, unmapped
from prefect.client.orchestration import get_client
from prefect.exceptions import MappingLengthMismatch
from prefect.task_runners import ProcessPoolTaskRunner
from prefect_kit import head_of, made, texts, written
from pydantic import BaseModel

from volume_core import ROVolume, RWVolume, Volume
from volume_prefect import volumes

pytestmark = pytest.mark.usefixtures("server")


@volumes
@task
def make(name: str) -> RWVolume:
    return written(Volume.new(name), {"a": name})


@task
@volumes
def edit(data: RWVolume, text: str = "edited") -> dict[str, RWVolume]:
    return {"out": written(data, {"b": text})}


@volumes
@task
def read(data: ROVolume) -> dict[str, str]:
    return texts(data)


@volumes
@task
async def amake(name: str) -> RWVolume:
    return written(Volume.new(name), {"a": name})


@volumes
@task
def steps(count: int) -> Generator[RWVolume, None, None]:
    for number in range(count):
        yield written(Volume.new(f"step-{number}"), {"a": str(number)})


@volumes
@task
async def asteps(count: int) -> AsyncGenerator[RWVolume, None]:
    for number in range(count):
        yield written(Volume.new(f"astep-{number}"), {"a": str(number)})


def kinds(found: list[Any]) -> set[type]:
    return {type(each) for each in found}


def test_call_submit_map_and_state_all_give_versions():
    @flow
    def forms() -> list[Any]:
        called = make("called")
        future = make.submit("submitted")
        mapped = make.map(["mapped-1", "mapped-2"])
        state = make("state", return_state=True)
        other = make.with_options(name="other", retries=1)("options")
        edited = edit.submit(future, text="of a future").result()
        assert {"a": "submitted", "b": "of a future"} == read(edited["out"])
        return [called, future.result(), *[each.result() for each in mapped], state.result(), other, edited["out"]]

    found = forms()

    assert {ROVolume} == kinds(found)
    names = ["called", "submitted", "mapped-1", "mapped-2", "state", "options", "submitted"]
    assert names == [each.name for each in found]


def test_asynchronous_flows_and_tasks_give_versions():
    @volumes
    @flow
    async def forms() -> list[Any]:
        one = await amake("one")
        two = amake.submit("two")
        return [one, make("sync"), *[each async for each in asteps(2)], Volume.new("of-the-flow"), two.result()]

    found = asyncio.run(forms())

    assert ["one", "sync", "astep-0", "astep-1", "of-the-flow", "two"] == [each.name for each in found]
    assert {ROVolume} == kinds(found)


def test_generators_give_versions_called_and_submitted():
    @flow
    def forms() -> list[Any]:
        return [*steps(2), *steps.submit(1).result()]

    found = forms()

    assert ["step-0", "step-1", "step-0"] == [each.name for each in found]
    assert {ROVolume} == kinds(found)


@pytest.mark.parametrize("order", ["above", "below"])
def test_a_flow_hands_over_and_takes_and_so_do_flows_within(order):
    def body(data: RWVolume) -> RWVolume:
        return written(data, {"b": order})

    inner = volumes(flow(body)) if order == "above" else flow(volumes(body))

    @flow
    def outer() -> tuple[ROVolume, ROVolume]:
        first = make("data")
        return first, inner(first)

    first, found = outer()

    assert {"a": "data", "b": order} == texts(found)
    assert {"a": "data"} == texts(first)


def test_a_version_keeps_its_edge_to_the_task_that_made_it():
    seen: list[Any] = []

    @volumes
    @task
    def look(data: ROVolume) -> None:
        from prefect.context import TaskRunContext

        context = TaskRunContext.get()
        assert context is not None
        seen.extend(context.task_run.task_inputs["data"])

    @flow
    def graph() -> None:
        look(make("data"))

    graph()

    assert 1 == len(seen)
    assert "task_run" == seen[0].input_type


def test_mapping_over_a_volume_needs_unmapped():
    @flow
    def fan_out() -> list[dict[str, str]]:
        version = made(a="1")
        mapped = edit.map(unmapped(version), ["x", "y"])
        return [texts(each.result()["out"]) for each in mapped]

    assert [{"a": "1", "b": "x"}, {"a": "1", "b": "y"}] == fan_out()


@pytest.mark.loud
def test_mapping_over_a_bare_volume_is_refused_by_prefect():
    # a pydantic model can be iterated, and Prefect cannot do without that: unmapped() is the way
    @flow
    def fan_out() -> None:
        edit.map(made(a="1"), ["x", "y"])

    with pytest.raises(MappingLengthMismatch):
        fan_out()


def test_volumes_can_be_iterated_as_models_and_not_as_collections():
    for cls in (ROVolume, RWVolume):
        assert cls.__iter__ is BaseModel.__iter__
        assert not hasattr(cls, "__len__")


def test_a_writer_with_changes_does_not_leave_for_another_process_and_says_what_to_do():
    volume = written(Volume.new("dirty"), {"a": "1"})

    with pytest.raises(TypeError, match="commit first"):
        cloudpickle.dumps(volume)

    assert cloudpickle.loads(cloudpickle.dumps(volume.commit_sync())) == volume.committed
    volume.finalize_sync()


def test_a_process_pool_hands_over_and_takes():
    @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
    def elsewhere() -> tuple[Any, Any, Any]:
        first = make.submit("pooled")
        second = edit.submit(first, text="in a child")
        return first.result(), second.result()["out"], read.submit(second.result()["out"]).result()

    first, second, files = elsewhere()

    assert (ROVolume, ROVolume) == (type(first), type(second))
    assert {"a": "pooled", "b": "in a child"} == files
    assert second.produced_by.action.startswith("edit-")
    assert first.produced_by.run == second.produced_by.run
    assert second.version == head_of(first)


@pytest.mark.fuse
@pytest.mark.parametrize("runner", ["threads", "processes"])
def test_real_mounts_from_task_to_task(runner):
    @volumes
    @task
    def extract() -> RWVolume:
        volume = Volume.new("mounted")
        with volume.mounted_sync(driver="kernel") as root:
            (root / "raw.txt").write_text("raw")
        return volume

    @volumes
    @task
    def load(raw: ROVolume, data: RWVolume) -> tuple[RWVolume, str]:
        (data.mount_sync(driver="kernel") / "clean.txt").write_text(
            (raw.mount_sync(driver="kernel") / "raw.txt").read_text()
        )
        return data, str(data.mount_path)

    @flow(**({"task_runner": ProcessPoolTaskRunner(max_workers=1)} if runner == "processes" else {}))
    def etl() -> Any:
        raw = extract.submit()
        return load.submit(raw, raw).result()

    version, path = etl()

    assert {"clean.txt": "raw", "raw.txt": "raw"} == texts(version)
    assert not Path(path).is_mount()


def test_the_commit_says_who_made_it_and_the_message_too():
    @flow(name="whoever")
    def run() -> ROVolume:
        return make("said")

    version = run()

    action = version.produced_by
    assert ("prefect", "whoever", "1") == (action.engine, action.project, action.attempt)
    assert action.action == version.message
    with get_client(sync_client=True) as client:
        assert "whoever" in client.read_flow(client.read_flow_run(action.run).flow_id).name
    assert action.url.startswith("http://127.0.0.1")


def test_a_library_whose_tasks_were_imported_before_is_enabled_too(tmp_path, monkeypatch):
    (tmp_path / "library.py").write_text(
        "from prefect import task\nfrom volume_core import Volume\n"
        "@task\ndef give():\n    return Volume.new('library')\n"
    )
    (tmp_path / "script.py").write_text(
        "import library\nfrom prefect import flow\nfrom volume_prefect import enable_volumes\nenable_volumes()\n"
        "from prefect.task_runners import ProcessPoolTaskRunner\n"
        "@flow(task_runner=ProcessPoolTaskRunner(max_workers=1))\ndef run():\n"
        "    return [library.give(), library.give.submit().result()]\n"
        "if __name__ == '__main__':\n    print(*[type(each).__name__ for each in run()])\n"
    )

    ran = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, check=False)

    assert "ROVolume ROVolume" == ran.stdout.strip(), ran.stderr

"""Where flyte 2 converts a volume besides handing over what a task returned: inputs, traced calls, retries, caches.

Each test is named after a trap that is known from other volumes, or was met here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import flyte
import pytest
from flyte._internal.runtime import convert
from flyte._observe import register_observer, unregister_observer
from flyte.errors import NonRecoverableError, RuntimeSystemError, RuntimeUserError
from flyte.types import TypeTransformerFailedError
from flyteidl2.core import execution_pb2
from pydantic import BaseModel, Field
from v2_kit import Container, Local, committed, inputs_of, literal_of, names, record_in, written
from v2_tasks import Failing, make, make_in, make_with_report, maybe_in

from volume_core import BusyError, ConflictError, InvalidNameError, ROVolume, RWVolume, StorageError, Volume, hookimpl
from volume_core.plugins.manager import register
from volume_flyte.v2.caching import VolumeHash
from volume_flyte.v2.failing import failure
from volume_flyte.v2.transformer import PASSED_ON

HERE = Path(__file__).parent
env = flyte.TaskEnvironment("v2-conversions")


@pytest.fixture
def run(tmp_path, monkeypatch) -> Local:
    return Local(tmp_path, monkeypatch)


@pytest.fixture
def container(tmp_path) -> Container:
    paths = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    environ = {name: value for name, value in os.environ.items() if name != "VOLUME_DRIVER"}
    own = {"HOME": str(tmp_path / "home"), "VOLUME_DRIVER": "copy", "VOLUME_MOUNT_ROOT": str(tmp_path / "mounts")}
    return Container(tmp_path, "v2_tasks", environ | own | {"PYTHONPATH": paths})


@pytest.fixture
def fails_once():
    forget = register(Failing(persistent=False), "failing")
    yield
    forget()


@env.task
async def read(volume: ROVolume) -> list[str]:
    return names(volume)


# -- volumes that are passed on while somebody works in them


@pytest.mark.loud
def test_a_live_writer_as_the_input_of_a_nested_call_is_committed_and_not_unmounted(run, caplog):
    @env.task
    async def main() -> tuple[list[str], list[str], str]:
        volume = written()
        seen = await read(volume)
        assert volume.mount_path is not None
        (volume / "later.txt").write_text("later")
        version = await volume.commit("by the task itself")
        return seen, names(version), version.locator

    seen, after, locator = run(main)

    assert (["a.txt"], ["a.txt", "later.txt"]) == (seen, after)
    last, first = Volume.from_locator_sync(locator).log_sync()
    assert ("by the task itself", PASSED_ON) == (last.volume.message, first.volume.message)
    [told] = [each.getMessage() for each in caplog.records if each.name.startswith("volume_flyte")]
    assert "volume 'data' was mounted and had changes when it was passed on" in told
    assert first.volume.locator in told


def test_a_live_writer_without_changes_is_passed_on_without_a_word(run):
    @env.task
    async def main() -> tuple[str, str]:
        volume = written()
        version = await volume.commit()
        await read(volume)
        assert volume.mount_path is not None
        return version.locator, volume.locator

    before, after = run(main)

    assert before == after


def test_a_writer_from_a_task_is_converted_at_every_hop_and_committed_once(run):
    @env.task
    async def started() -> RWVolume:
        return written()

    @env.task
    async def main() -> int:
        volume = await started()
        for _ in range(3):
            await read(volume)
        return len(Volume.from_locator_sync(volume.locator).log_sync())

    assert 1 == run(main)


def test_a_writer_that_was_never_written_to_may_be_passed_on(run):
    @env.task
    async def fill(volume: RWVolume) -> RWVolume:
        path = await volume.mount()
        (path / "filled.txt").write_text("filled")
        return volume

    @env.task
    async def main() -> list[str]:
        return await read(await fill(Volume.new("empty")))

    assert ["filled.txt"] == run(main)


@pytest.mark.loud
def test_a_live_writer_as_the_argument_of_a_traced_call_stays_mounted_and_its_own(run):
    @flyte.trace
    async def step(volume: RWVolume, number: int) -> int:
        (volume / f"{number}.txt").write_text(str(number))
        return number

    @env.task
    async def main() -> list[str]:
        volume = written()
        for number in range(2):
            await step(volume, number)
        return names(await volume.commit())

    assert ["0.txt", "1.txt", "a.txt"] == run(main)


def test_a_writer_returned_by_a_traced_call_is_the_same_object_still_mounted(run):
    @flyte.trace
    async def start() -> RWVolume:
        return written()

    @env.task
    async def main() -> bool:
        volume = await start()
        return volume.mount_path is not None and (volume / "a.txt").read_text() == "a"

    assert run(main)


# -- outside of tasks


def test_a_writer_with_changes_is_refused_where_no_task_runs():
    """At deployment flyte converts parameters' defaults: nothing may be committed there, on somebody's laptop."""

    async def with_default(volume: RWVolume = Volume.new("default")) -> None:  # noqa: B008
        ...

    interface = env.task(with_default).native_interface
    with pytest.raises(RuntimeError, match="default value for parameter 'volume'") as caught:
        asyncio.run(convert.convert_upload_default_inputs(interface))
    assert "volume 'default' has no version yet, and outside of a task nothing is committed" in str(
        caught.value.__cause__
    )

    volume = committed("dirty").fork_sync("dirty")
    (volume.mount_sync() / "b.txt").write_text("b")
    with pytest.raises(TypeTransformerFailedError, match="has changes that are not committed, and outside of a task"):
        asyncio.run(literal_of(volume, RWVolume))
    version = volume.finalize_sync()
    assert version.locator == record_in(asyncio.run(literal_of(volume, RWVolume)))["index"]


def test_a_version_may_be_a_default():
    version = committed()

    async def with_default(volume: ROVolume = version) -> None: ...

    [named] = asyncio.run(convert.convert_upload_default_inputs(env.task(with_default).native_interface))
    assert version.locator == record_in(named.parameter.default)["index"]


# -- keys of caches and memos


def test_a_traced_call_is_known_by_the_version_it_gets_whichever_way_that_came(run):
    """A lineage that is added on the way makes one version two: the memo of a call is not found again."""
    version = committed()
    step_names, ways = [], []

    class Observer:
        def step_span(self, info, _recorder):
            step_names.append(info.action.name)
            return contextlib.nullcontext()

    @flyte.trace
    async def measured(volume: ROVolume) -> int:
        return volume.used_bytes

    @env.task
    async def given(volume: ROVolume) -> ROVolume:
        return volume

    @env.task
    async def forked(volume: RWVolume) -> RWVolume:
        return volume

    @env.task
    async def main() -> int:
        return await measured(await ways[-1]())

    async def live() -> ROVolume:
        return version

    register_observer(observer := Observer())
    try:
        for way in (
            live,
            lambda: Volume.from_locator(version.locator),
            lambda: given(version),
            lambda: forked(version),
        ):
            ways.append(way)
            assert version.used_bytes == run(main, _name="the-same-run")
    finally:
        unregister_observer(observer)

    assert 4 == len(step_names)
    assert 1 == len(set(step_names))


def said_by(*runs: tuple[str, str]) -> str:
    """What a process of its own prints that runs tasks of v2_tasks, each with its volume."""
    code = "import flyte, sys, v2_tasks\nflyte.init()\nfor each in sys.argv[1:]:\n"
    code += "    task, volume = each.split('=', 1)\n    flyte.run(getattr(v2_tasks, task), volume=volume)\n"
    paths = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code, *(f"{task}={volume}" for task, volume in runs)],
        env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert 0 == done.returncode, done.stderr
    return done.stdout


def test_a_cached_call_is_found_again_by_another_process(run):
    version = committed()
    fork = version.fork_sync("data")
    (fork.mount_sync() / "b.txt").write_text("b")

    assert 1 == said_by(("measure", version.locator), ("measure", version.name)).count("measured")
    assert 1 == said_by(
        ("measure", f"data:{version.version}"), ("measure", fork.finalize_sync().locator)
    ).count("measured")  # fmt: skip


def test_a_call_that_asks_for_contents_is_found_again_by_what_is_in_a_volume(run):
    first, same, other = committed("first"), committed("same"), committed("other", {"a.txt": "another"})

    said = said_by(*(("weigh", each.locator) for each in (first, same, other)))

    assert ["weighed first 1", "weighed other 1"] == [line for line in said.splitlines() if "weighed" in line]


def test_the_key_by_contents_of_flytekit_is_taken_too(run):
    from volume_flyte.v1.caching import VolumeHash as Flytekits

    version = committed()
    keys = [
        asyncio.run(literal_of(version, Annotated[ROVolume, each])).hash for each in (VolumeHash, Flytekits, "a note")
    ]

    assert [version.content_digest_sync()] * 2 + [""] == keys


# -- commits that fail


@pytest.mark.loud
def test_what_fails_in_the_body_is_tried_again_by_flyte(run, fails_once, tmp_path):
    """A local run tries again what the body raised, so there a commit that may fail is the body's own."""
    attempts = []

    @env.task(retries=1)
    async def make() -> ROVolume:
        attempts.append(1)
        volume = Volume.new("data", f"transient:/{tmp_path}/bucket")
        (await volume.mount() / "a.txt").write_text("a")
        try:
            return await volume.finalize()
        finally:
            await volume.abandon()  # what is logged keeps the error, its frames, and what they hold

    @env.task
    async def main() -> list[str]:
        return await read(await make())

    assert ["a.txt"] == run(main)
    assert 2 == len(attempts)


@pytest.mark.parametrize(
    ("kind", "recoverable", "origin"),
    [
        ("transient", execution_pb2.ContainerError.RECOVERABLE, execution_pb2.ExecutionError.SYSTEM),
        ("permanent", execution_pb2.ContainerError.NON_RECOVERABLE, execution_pb2.ExecutionError.USER),
    ],
)
@pytest.mark.parametrize("task", ["make_in", "make_in_a_model"])
def test_a_container_tells_the_cluster_whether_to_try_again(container, tmp_path, kind, recoverable, origin, task):
    container.run(task, asyncio.run(inputs_of(make_in, bucket=f"{kind}:/{tmp_path}/bucket")))

    error = container.error()
    assert (recoverable, origin, "StorageError") == (error.kind, error.origin, error.code)
    assert "volume 'data' could not be committed, so it is not returned: injected: put" in error.message
    kept = list((tmp_path / "volume-state" / "work").glob("*/upper/a.txt"))
    assert ["a"] == [each.read_text() for each in kept]


@dataclass
class Inner:
    writers: dict[str, RWVolume | None]


class Outer(BaseModel):
    several: tuple[RWVolume, ...]
    inner: Inner
    again: Outer | None = None
    left_out: RWVolume | None = Field(None, exclude=True)


@pytest.mark.loud  # they are mounted, and passed on
def test_the_writers_of_a_model_are_committed_before_and_beside_the_loop(run):
    threads = {}

    class Committed:
        @hookimpl
        def volume_committed(self, version) -> None:
            threads[version.name] = threading.current_thread()

    @env.task
    async def make() -> list[str]:
        first, second, third = (written(name) for name in ("first", "second", "third"))
        inner, left = Inner({"a": second, "none": None}), written("left-out")
        model = Outer(several=(first,), inner=inner, again=Outer(several=(third,), inner=Inner({})), left_out=left)
        remove = register(Committed())
        try:
            await literal_of(model, Outer)
        finally:
            remove()
            left.abandon_sync()
        return [str(threading.current_thread() in threads.values()), *sorted(threads)]

    assert ["False", "first", "second", "third"] == run(make)


def test_a_union_hides_why_a_commit_failed_so_that_is_logged(container, tmp_path):
    said = container.run("maybe_in", asyncio.run(inputs_of(maybe_in, bucket=f"transient:/{tmp_path}/bucket")))

    assert execution_pb2.ContainerError.RECOVERABLE == container.error().kind
    assert "could not be committed" not in container.error().message
    assert "volume 'data' could not be committed, so it is not returned: injected: put" in " ".join(said.split())


@pytest.mark.parametrize(
    ("error", "becomes"),
    [
        (StorageError("slow down", transient=True), RuntimeSystemError),
        (OSError("disk"), RuntimeSystemError),
        (StorageError("no such bucket"), NonRecoverableError),
        (InvalidNameError("a/b"), NonRecoverableError),
        (BusyError("keeps changing", ["a.txt"]), RuntimeUserError),
        (ConflictError("both changed it", ["a.txt"]), RuntimeUserError),
    ],
    ids=repr,
)
def test_flyte_decides_by_the_class_of_an_error(error, becomes):
    error.add_note("how to recover it")
    made = failure("it failed", error)

    assert (becomes, type(error).__name__) == (type(made), made.code)
    assert f"it failed: {error}\nhow to recover it" == str(made)
    assert (becomes is not NonRecoverableError) == convert.convert_from_native_to_error(made).recoverable


# -- as the cluster runs it


def test_a_container_returns_a_version_that_says_who_made_it(container):
    container.run("make", asyncio.run(inputs_of(make, name="data")), name="action-1")

    record = record_in(container.output())
    version = Volume.from_locator_sync(record["index"])
    assert ["a.txt"] == names(version)
    made = version.produced_by
    assert ("flyte", "acme", "p", "d", "run-1", "action-1") == (
        made.engine, made.org, made.project, made.domain, made.run, made.action,
    )  # fmt: skip
    assert "http://localhost:1/v2/domain/d/project/p/runs/run-1?i=action-1" == made.url


def test_a_container_writes_the_report_after_what_was_returned_is_committed(container):
    container.run("make_with_report", asyncio.run(inputs_of(make_with_report, name="data")))

    report = (container.outputs / "report.html").read_text()
    assert '<li onclick="handleLinkClick(this)">Volumes</li>' in report
    assert record_in(container.output())["index"] in report


def test_a_container_without_a_report_writes_none(container):
    container.run("make", asyncio.run(inputs_of(make, name="data")))

    assert not (container.outputs / "report.html").exists()

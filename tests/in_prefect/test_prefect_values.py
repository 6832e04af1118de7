"""Volumes as values of tasks and flows, without a server: what `.fn` does is what every form of call does."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import inspect
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator
from typing import Any, NamedTuple

import cloudpickle
import pytest
from prefect import flow, task
from prefect_kit import made, texts, written
from pydantic import BaseModel

from volume_core import ROVolume, RWVolume, Volume
from volume_core.passing.nesting import replaced
from volume_prefect import volumes


class Pair(NamedTuple):
    left: Any
    right: Any


@dataclasses.dataclass(frozen=True)
class Frozen:
    data: Any
    size: int = dataclasses.field(default=0, init=False)


class Model(BaseModel):
    data: Any
    _private: str = "kept"


def wrote(name: str = "out") -> RWVolume:
    """A writer that is mounted, with a file that is not committed."""
    return written(Volume.new(name), {"a": name})


# -- what is returned


def test_a_writer_that_is_returned_becomes_its_version():
    @volumes
    @task
    def make() -> RWVolume:
        return wrote()

    found = make.fn()

    assert isinstance(found, ROVolume)
    assert {"a": "out"} == texts(found)


@pytest.mark.parametrize(
    "nest",
    [
        lambda volume: [volume, 1],
        lambda volume: (1, [volume]),
        lambda volume: {"x": {"y": volume}},
        lambda volume: {volume},
        lambda volume: frozenset([volume]),
        lambda volume: Pair(volume, 2),
        Frozen,
        lambda volume: Model(data=[volume]),
        lambda volume: collections.defaultdict(list, {"x": [volume]}),
        lambda volume: collections.deque([volume], maxlen=3),
        lambda volume: collections.OrderedDict(x=volume),
    ],
    ids=[
        "list",
        "tuple",
        "dict",
        "set",
        "frozenset",
        "namedtuple",
        "dataclass",
        "model",
        "default",
        "deque",
        "ordered",
    ],
)
def test_a_writer_within_a_result_is_replaced_and_all_else_stays(nest):
    @volumes
    @task
    def make() -> Any:
        return nest(wrote())

    found = make.fn()
    seen: list[Any] = []
    replaced(found, lambda each: seen.append(each) or each)

    assert type(found) is type(nest(1))
    assert 1 == sum(isinstance(each, ROVolume) for each in seen)
    assert not any(isinstance(each, RWVolume) for each in seen)


def test_a_result_without_writers_is_the_same_object():
    version = made()
    result = {"x": [version, Frozen(3)], "y": Model(data=version)}

    @volumes
    @task
    def give() -> Any:
        return result

    assert give.fn() is result


def test_the_same_writer_twice_in_a_result_is_one_commit_and_one_object():
    @volumes
    @task
    def make() -> Any:
        volume = wrote()
        return {"one": volume, "two": [volume]}

    found = make.fn()

    assert found["one"] is found["two"][0]
    assert 1 == len(found["one"].log_sync())


def test_a_result_that_holds_itself_is_passed_on():
    @volumes
    @task
    def make() -> Any:
        found: list[Any] = [1]
        found.append(found)
        return found

    found = make.fn()

    assert found[1] is found


def test_what_was_returned_is_unmounted():
    kept: list[RWVolume] = []

    @volumes
    @task
    def make() -> RWVolume:
        kept.append(wrote())
        return kept[0]

    make.fn()

    assert kept[0].mount_path is None


def test_a_writer_that_the_caller_has_mounted_stays_mounted():
    volume = wrote()

    @volumes
    @task
    def give(data: RWVolume) -> RWVolume:
        assert data is volume
        return data

    version = give.fn(volume)

    assert volume.mount_path is not None
    assert volume.index == version.locator
    volume.abandon_sync()


def test_a_version_that_two_tasks_share_stays_mounted_where_one_of_them_fails():
    shared, own = made("shared", a="1"), made("own", a="1")

    @volumes
    @task
    def fails(data: ROVolume, other: ROVolume) -> None:
        data.mount_sync(driver="copy")
        kept.append(other)
        other.mount_sync(driver="copy")
        raise ValueError("on purpose")

    kept: list[ROVolume] = []
    with pytest.raises(ValueError, match="on purpose"):
        fails.fn(shared, own.locator)

    assert shared.mount_path is not None
    assert kept[0].mount_path is None
    shared.close_sync()


# -- each kind of function


def test_a_generator_yields_versions_and_goes_on_writing():
    @volumes
    @task
    def steps() -> Generator[RWVolume, str, RWVolume]:
        volume = wrote()
        told = yield volume
        (volume / "b").write_text(told)
        yield volume
        return volume

    run = steps.fn()
    first = next(run)
    second = run.send("sent")
    with pytest.raises(StopIteration) as end:
        next(run)

    assert {"a": "out"} == texts(first)
    assert {"a": "out", "b": "sent"} == texts(second)
    assert second == end.value.value


def test_a_generator_hears_of_its_consumers_errors():
    heard = []

    @volumes
    @task
    def steps() -> Generator[int, None, None]:
        try:
            yield 1
        except ValueError as error:
            heard.append(error)
        yield 2

    run = steps.fn()
    next(run)

    assert 2 == run.throw(ValueError("told"))
    assert 1 == len(heard)
    run.close()


def test_coroutines_and_asynchronous_generators_hand_over_too():
    @volumes
    @task
    async def make() -> RWVolume:
        return wrote("one")

    @volumes
    @task
    async def steps() -> AsyncGenerator[RWVolume, None]:
        yield wrote("two")
        yield wrote("three")

    async def run() -> list[ROVolume]:
        return [await make.fn(), *[each async for each in steps.fn()]]

    found = asyncio.run(run())

    assert ["one", "two", "three"] == [each.name for each in found]
    assert all(isinstance(each, ROVolume) for each in found)


def test_the_wrapper_is_of_the_kind_of_its_function():
    async def coroutine(a: int) -> None: ...

    async def agenerator(a: int) -> AsyncGenerator[int, None]:
        yield 1

    def generator(a: int) -> Generator[int, None, None]:
        yield 1

    assert task(volumes(coroutine)).isasync
    assert task(volumes(agenerator)).isasync
    assert task(volumes(agenerator)).isgenerator
    assert task(volumes(generator)).isgenerator
    assert inspect.signature(coroutine) == inspect.signature(volumes(coroutine))


def test_methods_class_methods_and_static_methods_are_wrapped():
    class Maker:
        name = "method"

        @volumes
        @task
        def method(self) -> RWVolume:
            return wrote(self.name)

        @task
        @volumes
        @classmethod
        def of_class(cls) -> RWVolume:
            return wrote(cls.name)

        @task
        @volumes
        @staticmethod
        def alone() -> RWVolume:
            return wrote("alone")

    assert isinstance(Maker.method.fn(Maker()), ROVolume)
    assert isinstance(Maker.of_class.fn(Maker), ROVolume)
    assert isinstance(Maker.alone.fn(), ROVolume)


def test_with_options_keeps_volumes():
    @volumes
    @task
    def make() -> RWVolume:
        return wrote()

    assert isinstance(make.with_options(name="other", retries=2).fn(), ROVolume)


def test_volumes_twice_is_volumes_once():
    def make() -> RWVolume:
        return wrote()

    once = volumes(make)

    assert volumes(once) is once
    assert volumes(task(once)).fn is once


def test_a_wrapped_task_survives_being_pickled_for_another_process():
    @volumes
    @task
    def make(name: str) -> RWVolume:
        return wrote(name)

    found = cloudpickle.loads(cloudpickle.dumps(make)).fn("there")

    assert isinstance(found, ROVolume)


@pytest.mark.parametrize("given", [3, "make", Pair])
def test_volumes_on_what_is_no_function_says_so(given):
    with pytest.raises(TypeError, match="above or below @task"):
        volumes(given)


@pytest.mark.parametrize("choices", [{"on_failure": "maybe"}, {"retry": 3}, {"on_terminate": "die"}])
def test_an_option_that_is_none_says_what_there_is(choices):
    with pytest.raises(ValueError, match="give '"):
        volumes(**choices)


def test_an_unknown_option_says_which_there_are():
    with pytest.raises(TypeError, match="on_failure, retry"):
        volumes(on_error="keep")


# -- what Prefect looks at


def test_the_version_of_a_flow_is_the_hash_of_its_own_file():
    def body() -> None: ...

    plain = flow(body)

    assert plain.version == flow(volumes(body)).version
    assert plain.version == volumes(flow(body)).with_options(name="x").version


def test_the_entry_point_of_a_script_is_the_script(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from prefect import flow\nfrom volume_prefect import volumes\n"
        "@flow\n@volumes\ndef below(): ...\n"
        "@volumes\n@flow\ndef above(): ...\n"
        "print(below._entrypoint, above.with_options(name='x')._entrypoint, sep='\\n')\n"
    )

    printed = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True).stdout.split("\n")

    assert [f"{script}:below", f"{script}:above"] == printed[:2]


def test_a_traceback_through_the_wrapper_shows_the_function():
    @volumes
    def fails() -> None:
        raise ValueError("seen")

    with pytest.raises(ValueError, match="seen") as failed:
        fails()

    frames = [(entry.frame.code.name, entry.lineno + 1) for entry in failed.traceback]
    assert "fails" in {name for name, _ in frames}
    assert all(line > 0 for _, line in frames)


def test_the_byte_code_differs_as_the_functions_does():
    # task_input_hash keys on it: without this a task that was changed would be served from its cache
    def one(x: int) -> int:
        return x + 1

    def two(x: int) -> int:
        return x * 2 - 1

    codes = [volumes(each).__code__.co_code for each in (one, two)]

    assert codes[0] != codes[1]
    assert [3, 3] == [volumes(one)(2), volumes(two)(2)]


# -- enable_volumes


ENABLED = """
from prefect import flow, task
from volume_core import ROVolume, RWVolume, Volume
import volume_prefect

@task
def before(): return Volume.new("before")

@volume_prefect.volumes(on_failure="drop")
@task
def own(): return Volume.new("own")

volume_prefect.enable_volumes(message="said")
volume_prefect.enable_volumes(message="said again")

@task
def after(v: RWVolume): return [v]

@flow
def around(): return Volume.new("flow")

made = before.fn()
print(made.message, own.fn().message == "", type(after.fn(made)[0]).__name__, type(around.fn()).__name__)
print(type(before.with_options(retries=1).fn()).__name__, own.fn.__volumes__._options.on_failure)
"""


def test_enable_volumes_is_for_all_tasks_and_flows_also_those_defined_before():
    printed = subprocess.run([sys.executable, "-c", ENABLED], capture_output=True, text=True, check=True).stdout

    assert ["said again True ROVolume ROVolume", "ROVolume drop"] == printed.splitlines()


def test_the_package_and_its_hooks_do_not_import_prefect():
    code = "import sys, volume_prefect, volume_prefect.hooks; print('prefect' in sys.modules, *dir(volume_prefect))"

    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert "False" == printed[0]
    assert {"volumes", "enable_volumes"} <= set(printed)

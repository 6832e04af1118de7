"""flytekit: a volume goes through everything that can hold one, and arrives as what the next task declares."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple, Optional

import flytekit
import pytest
from flytekit import LaunchPlan, conditional, dynamic, map_task, task, workflow
from flytekit.core.type_engine import TypeEngine
from mashumaro.mixins.json import DataClassJSONMixin
from pydantic import BaseModel
from v1_kit import contents, counted, fill, made

from volume_core import ROVolume, RWVolume, Volume


class Pair(NamedTuple):
    first: RWVolume
    second: RWVolume


class Single(NamedTuple):
    only: RWVolume


@dataclass
class Inner:
    scratch: RWVolume


@dataclass
class Bundle:
    data: ROVolume
    maybe: Optional[RWVolume]  # noqa: UP045
    nothing: RWVolume | None
    several: list[ROVolume]
    named: dict[str, ROVolume]
    inner: Inner
    either: ROVolume | str
    other: ROVolume | str | int | None


@dataclass
class Mixed(DataClassJSONMixin):
    data: ROVolume


class Model(BaseModel):
    data: ROVolume
    scratch: RWVolume | None = None
    several: list[RWVolume] = []


@task
def make(name: str) -> RWVolume:
    return fill(Volume.new(name), a=name)


@task
def add(data: RWVolume, more: str) -> RWVolume:
    return fill(data, **{more: more})


@task
def read(data: ROVolume) -> str:
    assert type(data) is ROVolume
    return ",".join(contents(data))


@task
def same(data: RWVolume) -> RWVolume:
    return data


@task
def maybe(data: ROVolume | None = None) -> str:
    return "nothing" if data is None else read.task_function(data)


@task
def maybe_made(name: str) -> Optional[RWVolume]:  # noqa: UP045
    return fill(Volume.new(name), a=name) if name else None


@task
def several(number: int) -> list[RWVolume]:
    return [fill(Volume.new(f"v{each}"), a=str(each)) for each in range(number)]


@task
def read_several(data: list[ROVolume]) -> list[str]:
    return [contents(each)["a"] for each in data]


@task
def named() -> dict[str, RWVolume]:
    return {name: fill(Volume.new(name), a=name) for name in ("x", "y")}


@task
def read_named(data: dict[str, ROVolume]) -> dict[str, str]:
    return {name: contents(each)["a"] for name, each in data.items()}


@task
def pair() -> Pair:
    return Pair(fill(Volume.new("first"), a="1"), fill(Volume.new("second"), a="2"))


@task
def single() -> Single:
    return Single(fill(Volume.new("only"), a="1"))


@task
def bundle() -> Bundle:
    new = Volume.new
    return Bundle(
        data=fill(new("data"), a="data"),  # a writer where a version is declared: it is committed
        maybe=fill(new("maybe"), a="maybe"),
        nothing=None,
        several=[made("one", a="one")],
        named={"two": fill(new("two"), a="two")},
        inner=Inner(fill(new("inner"), a="inner")),
        either=fill(new("either"), a="either"),
        other="other",
    )


@task
def unbundle(bundle: Bundle) -> list[str]:
    assert bundle.nothing is None
    assert isinstance(bundle.maybe, RWVolume) and isinstance(bundle.inner.scratch, RWVolume)
    assert "other" == bundle.other
    found = [bundle.data, bundle.maybe, *bundle.several, *bundle.named.values(), bundle.inner.scratch, bundle.either]
    return [contents(each)["a"] for each in found]


@task
def mixed() -> Mixed:
    return Mixed(fill(Volume.new("mixed"), a="mixed"))


@task
def unmixed(data: Mixed) -> str:
    return contents(data.data)["a"]


@task
def model() -> Model:
    return Model(
        data=fill(Volume.new("data"), a="data"),
        scratch=fill(Volume.new("scratch"), a="scratch"),
        several=[fill(Volume.new("several"), a="several")],
    )


@task
def unmodel(model: Model) -> list[str]:
    assert isinstance(model.scratch, RWVolume)
    return [contents(each)["a"] for each in (model.data, model.scratch, *model.several)]


def test_a_writer_arrives_as_a_version_and_a_version_as_a_fork():
    @workflow
    def wf() -> str:
        return read(data=add(data=make(name="a"), more="b"))

    with counted() as commits:
        assert "a,b" == wf()
    assert 2 == len(commits.versions)
    assert {"a"} == {version.name for version in commits.versions}


def test_a_version_may_be_declared_where_a_writer_is_returned():
    @task
    def makes() -> ROVolume:
        return fill(Volume.new("a"), a="a")

    @workflow
    def wf() -> str:
        return read(data=makes())

    assert "a" == wf()


def test_a_fork_that_nobody_wrote_to_is_the_version_it_was_made_from():
    @workflow
    def wf() -> tuple[ROVolume, ROVolume]:
        one = make(name="a")
        return one, same(data=one)

    with counted() as commits:
        before, after = wf()
    assert before == after
    assert 1 == len(commits.versions)


def test_a_task_called_by_itself_returns_a_fresh_fork():
    made_by_task = make(name="a")

    assert isinstance(made_by_task, RWVolume)
    assert made_by_task.mount_path is None
    assert {"a": "a"} == contents(made_by_task)


def test_lists_and_each_of_them_in_a_map_task():
    @workflow
    def wf() -> tuple[list[str], list[str]]:
        found = several(number=3)
        return read_several(data=found), map_task(read)(data=found)

    assert (["0", "1", "2"], ["a", "a", "a"]) == wf()


def test_a_map_task_that_returns_writers():
    @workflow
    def wf() -> list[str]:
        return read_several(data=map_task(make)(name=["x", "y"]))

    assert ["x", "y"] == wf()


def test_dictionaries():
    @workflow
    def wf() -> dict[str, str]:
        return read_named(data=named())

    assert {"x": "x", "y": "y"} == wf()


def test_optional_with_a_volume_with_none_and_with_nothing_given():
    @workflow
    def wf() -> tuple[str, str, str, str]:
        return maybe(data=make(name="a")), maybe(), maybe(data=maybe_made(name="m")), maybe(data=maybe_made(name=""))

    assert ("a", "nothing", "a", "nothing") == wf()


def test_named_tuples_of_two_and_of_one():
    @workflow
    def wf() -> tuple[str, str, str]:
        both, one = pair(), single()
        return read(data=both.first), read(data=both.second), read(data=one.only)

    assert ("a", "a", "a") == wf()


def test_fields_of_a_dataclass_are_committed_at_every_depth():
    @workflow
    def wf() -> list[str]:
        return unbundle(bundle=bundle())

    with counted() as commits:
        assert ["data", "maybe", "one", "two", "inner", "either"] == wf()
    assert 6 == len(commits.versions)


def test_fields_of_a_dataclass_that_makes_its_own_json():
    @workflow
    def wf() -> str:
        return unmixed(data=mixed())

    assert "mixed" == wf()


def test_fields_of_a_pydantic_model_are_committed():
    @workflow
    def wf() -> list[str]:
        return unmodel(model=model())

    with counted() as commits:
        assert ["data", "scratch", "several"] == wf()
    assert 3 == len(commits.versions)


def test_a_field_is_passed_on_by_itself():
    @workflow
    def wf() -> tuple[str, str, str]:
        found = bundle()
        return read(data=found.data), read(data=found.maybe), read(data=model().scratch)

    assert ("a", "a", "a") == wf()


def test_dynamic_workflows():
    @dynamic
    def grow(number: int) -> list[str]:
        data = make(name="a")
        for each in range(number):
            data = add(data=data, more=f"b{each}")
        return [read(data=data)]

    @workflow
    def wf() -> list[str]:
        return grow(number=2)

    assert ["a,b0,b1"] == wf()


@task
async def make_async(name: str) -> RWVolume:
    return fill(Volume.new(name), a=name)


@task
async def read_async(data: ROVolume) -> str:
    return ",".join(contents(data))


@flytekit.eager
async def eagerly() -> str:
    return await read_async(data=await make_async(name="e"))


def test_eager_one_commit_for_one_task():
    """A value is converted once as the output of one task and once as the input of the next."""
    with counted() as commits:
        assert "a" == asyncio.run(eagerly())
    assert 1 == len(commits.versions)


def test_conditionals():
    @workflow
    def wf(number: int) -> str:
        data = make(name="a")
        return (
            conditional("which")
            .if_(number == 1)
            .then(read(data=data))
            .else_()
            .then(read(data=add(data=data, more="b")))
        )

    assert "a" == wf(number=1)
    assert "a,b" == wf(number=2)


def test_sub_workflows():
    @workflow
    def inner(data: ROVolume) -> RWVolume:
        return add(data=data, more="b")

    @workflow
    def wf() -> str:
        return read(data=inner(data=make(name="a")))

    assert "a,b" == wf()


def test_defaults_of_a_launch_plan():
    version = made("default", a="a")

    @workflow
    def wf(data: ROVolume) -> str:
        return read(data=data)

    plan = LaunchPlan.create("plan of volumes", wf, default_inputs={"data": version})
    fixed = LaunchPlan.create("plan of one volume", wf, fixed_inputs={"data": version})

    assert version == TypeEngine.to_python_value(
        flytekit.FlyteContextManager.current_context(), plan.parameters.parameters["data"].default, ROVolume
    )
    assert "a" == plan() == fixed()


def test_a_default_of_a_task_and_a_constant_in_a_workflow():
    version = made("constant", a="a")

    @task
    def reads(data: ROVolume = version) -> str:
        return ",".join(contents(data))

    @workflow
    def wf() -> tuple[str, str]:
        return reads(), read(data=version)

    assert ("a", "a") == wf()


@pytest.mark.parametrize("entity", [bundle, model, maybe, several, map_task(read)])
def test_every_interface_can_be_registered(entity):
    from flytekit.configuration import Image, ImageConfig, SerializationSettings
    from flytekit.tools.translator import get_serializable

    image = ImageConfig(default_image=Image("image", "registry/image", "1"))
    settings = SerializationSettings(project="p", domain="d", version="v", image_config=image)

    assert get_serializable(OrderedDict(), settings, entity).template.interface.to_flyte_idl()

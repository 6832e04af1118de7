"""Volumes between the tasks of flyte 2: in every place where a task can declare one."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import dataclass
from typing import Annotated, NamedTuple, Optional, Union, get_args

import flyte
import pytest
from flyte.types import TypeEngine, TypeTransformerFailedError
from flyteidl2.core import literals_pb2, types_pb2
from google.protobuf import struct_pb2
from pydantic import BaseModel
from v2_kit import Local, committed, literal_of, names, record_in, written

from volume_core import NotFoundError, ROVolume, RWVolume, Volume
from volume_flyte.v2.plugin import register

env = flyte.TaskEnvironment("v2-types")


@pytest.fixture
def run(tmp_path, monkeypatch) -> Local:
    return Local(tmp_path, monkeypatch)


@env.task
async def make(name: str) -> RWVolume:
    return written(name)


@env.task
async def touch(volume: RWVolume) -> RWVolume:
    path = await volume.mount()
    (path / "b.txt").write_text("b")
    return volume


@env.task
async def leave(volume: RWVolume) -> RWVolume:
    await volume.mount()
    return volume


@env.task
async def read(volume: ROVolume) -> list[str]:
    assert type(volume) is ROVolume
    return names(volume)


@env.task
async def locator(volume: ROVolume) -> str:
    return volume.locator


@env.task
def read_synchronously(volume: ROVolume) -> list[str]:
    return names(volume)


@env.task
def make_synchronously(name: str) -> RWVolume:
    return written(name)


def test_what_a_task_returns_is_committed_and_the_next_task_has_that_version(run):
    @env.task
    async def main() -> list[str]:
        return await read(await make("data"))

    assert ["a.txt"] == run(main)


def test_a_task_that_declares_a_writer_has_a_fork_of_the_same_name(run):
    @env.task
    async def main() -> tuple[str, str, list[str], list[str]]:
        first = await make("data")
        second = await touch(first)
        return await locator(first), await locator(second), await read(first), await read(second)

    first, second, before, after = run(main)

    assert (["a.txt"], ["a.txt", "b.txt"]) == (before, after)
    [entry, parent] = Volume.from_locator_sync(second).log_sync()
    assert (first, "data") == (parent.volume.locator, entry.volume.name)


def test_a_fork_that_nobody_wrote_to_is_the_version_it_was_made_from(run):
    @env.task
    async def main() -> tuple[str, str]:
        made = await make("data")
        return await locator(made), await locator(await leave(made))

    before, after = run(main)

    assert before == after


def test_two_outputs_of_one_handle_are_one_version(run):
    @env.task
    async def two() -> tuple[RWVolume, RWVolume]:
        volume = written()
        return volume, volume

    @env.task
    async def main() -> tuple[str, str]:
        first, second = await two()
        return await locator(first), await locator(second)

    first, second = run(main)

    assert first == second
    assert 1 == len(Volume.from_locator_sync(first).log_sync())


def test_lists_dicts_and_named_tuples(run):
    @env.task
    async def many() -> list[RWVolume]:
        return [written("one"), written("two")]

    @env.task
    async def named() -> dict[str, RWVolume]:
        return {"x": written("x")}

    @env.task
    async def pair() -> Pair:
        return Pair(committed("p"), written("q"))

    @env.task
    async def several(volumes: list[ROVolume], named: dict[str, ROVolume], pair: Pair) -> list[str]:
        return [each.name for each in (*volumes, *named.values(), *pair)] + [type(pair.second).__name__]

    @env.task
    async def main() -> list[str]:
        return await several(await many(), await named(), await pair())

    assert ["one", "two", "x", "p", "q", "RWVolume"] == run(main)


def test_optional_in_both_spellings_and_without_a_value(run):
    @env.task
    async def either(volume: Optional[ROVolume] = None, other: RWVolume | None = None) -> str:  # noqa: UP045
        return f"{volume and volume.name} {other and type(other).__name__}"

    @env.task
    async def maybe(give: bool) -> RWVolume | None:
        return written("maybe") if give else None

    @env.task
    async def main() -> list[str]:
        given, nothing = await maybe(True), await maybe(False)
        return [await either(), await either(given), await either(given, given), await either(nothing)]

    assert ["None None", "maybe None", "maybe RWVolume", "None None"] == run(main)


def test_a_writer_returned_where_an_optional_version_is_declared(run):
    @env.task
    async def maybe() -> ROVolume | None:
        return written("maybe")

    @env.task
    async def main() -> list[str]:
        found = await maybe()
        return await read(found)

    assert ["a.txt"] == run(main)


@pytest.mark.loud  # flyte warns that a local map is not parallel
def test_map_gives_each_call_its_version(run):
    @env.task
    def name_of(volume: ROVolume) -> str:
        return f"{type(volume).__name__} {volume.name}"

    @env.task
    async def main() -> list[str]:
        made = [await make("one"), await make("two")]
        return [each async for each in flyte.map.aio(name_of, made)]

    assert ["ROVolume one", "ROVolume two"] == run(main)


def test_synchronous_tasks(run):
    @env.task
    def main() -> list[str]:
        return read_synchronously(make_synchronously("data"))

    assert ["a.txt"] == run(main)


def test_a_field_of_a_dataclass(run):
    @env.task
    async def bundle() -> Bundle:
        return Bundle(written("one"), None, [written("two")], {"three": committed("three")})

    @env.task
    async def opened(bundle: Bundle) -> list[str]:
        assert bundle.maybe is None
        every = [bundle.first, *bundle.several, *bundle.named.values()]
        return [f"{type(each).__name__} {each.name} {names(each)}" for each in every]

    @env.task
    async def main() -> list[str]:
        return await opened(await bundle())

    assert [
        "ROVolume one ['a.txt']",
        "RWVolume two ['a.txt']",
        "ROVolume three ['a.txt']",
    ] == run(main)


def test_a_field_of_a_pydantic_model(run):
    @env.task
    async def modelled() -> Model:
        return Model(data=written("one"), work=committed("two"))

    @env.task
    async def opened(model: Model) -> list[str]:
        return [f"{type(each).__name__} {each.name} {names(each)}" for each in (model.data, model.work)]

    @env.task
    async def main() -> list[str]:
        return await opened(await modelled())

    assert ["ROVolume one ['a.txt']", "RWVolume two ['a.txt']"] == run(main)


# As a class its annotations would be text here, which flyte does not take from a named tuple.
Pair = NamedTuple("Pair", [("first", ROVolume), ("second", RWVolume)])  # noqa: UP014


@dataclass
class Bundle:
    """Volumes in the fields of a dataclass."""

    first: ROVolume
    maybe: RWVolume | None
    several: list[RWVolume]
    named: dict[str, ROVolume]


class Model(BaseModel):
    """Volumes in the fields of a pydantic model."""

    data: ROVolume
    work: RWVolume


def test_the_three_classes_are_one_type_for_flyte():
    [first, second, third] = [TypeEngine.to_literal_type(each) for each in (Volume, ROVolume, RWVolume)]

    assert first == second == third
    assert first == types_pb2.LiteralType.FromString(first.SerializeToString())
    assert ("Volume", types_pb2.SimpleType.STRUCT) == (first.structure.tag, first.simple)


def test_who_declares_nothing_is_given_a_version():
    """A run's outputs, and a task of another repository, are known by their literal types alone."""
    assert ROVolume is TypeEngine.guess_python_type(TypeEngine.to_literal_type(RWVolume))
    assert (ROVolume,) == get_args(TypeEngine.guess_python_type(TypeEngine.to_literal_type(list[RWVolume])))
    assert "Model" == TypeEngine.guess_python_type(TypeEngine.to_literal_type(Model)).__name__


def test_a_model_that_is_known_by_its_schema_alone_has_volumes_in_its_fields(run):
    guessed = TypeEngine.guess_python_type(TypeEngine.to_literal_type(Model))
    literal = asyncio.run(literal_of(Model(data=committed("one"), work=committed("two")), Model))

    found = asyncio.run(TypeEngine.to_python_value(literal, guessed))

    assert ("one", ["a.txt"]) == (found.data.name, names(found.data))


def test_a_process_that_has_no_volumes_does_not_load_them():
    code = """
import sys
from flyte.types import TypeEngine
from flyteidl2.core import types_pb2

assert int is TypeEngine.guess_python_type(TypeEngine.to_literal_type(int))
assert "volume_flyte.v2.plugin" in sys.modules
assert not {"volume_core.volumes", "volume_flyte.fields", "volume_flyte.v2.transformer"} & set(sys.modules)
literal_type = types_pb2.LiteralType.FromString(bytes.fromhex(sys.argv[1]))
assert "ROVolume" == TypeEngine.guess_python_type(literal_type).__name__
assert literal_type == TypeEngine.to_literal_type(sys.modules["volume_core.volumes"].RWVolume)
"""
    volumes = TypeEngine.to_literal_type(ROVolume).SerializeToString().hex()

    subprocess.run([sys.executable, "-c", code, volumes], check=True, timeout=60)


def test_to_register_again_changes_nothing():
    before = dict(TypeEngine._REGISTRY)
    register()
    register()

    assert before == TypeEngine._REGISTRY


def test_a_literal_is_the_identity_of_a_version_and_nothing_else(run):
    version = committed()
    literal = asyncio.run(literal_of(version))

    assert version.model_dump(mode="json") == record_in(literal)
    again = Volume.from_locator_sync(version.locator)
    again.mount_sync()
    fork = again.fork_sync(again.name)

    async def others() -> list[literals_pb2.Literal]:
        return [await literal_of(each, declared) for each in (again, fork) for declared in (ROVolume, RWVolume, Volume)]

    assert [literal] * 6 == asyncio.run(others())
    again.unmount_sync()


def spelled(version: ROVolume) -> dict[str, literals_pb2.Literal]:
    """Literals that others than tasks make: forms, command lines, other programs."""
    form, short = struct_pb2.Struct(), struct_pb2.Struct()
    form.update(version.model_dump(mode="json"))
    short.update({"locator": version.locator})
    text = literals_pb2.Primitive(string_value=version.locator)
    return {
        "a form": literals_pb2.Literal(scalar=literals_pb2.Scalar(generic=form)),
        "a form with a locator": literals_pb2.Literal(scalar=literals_pb2.Scalar(generic=short)),
        "text": literals_pb2.Literal(scalar=literals_pb2.Scalar(primitive=text)),
    }


@pytest.mark.parametrize("kind", ["a form", "a form with a locator", "text"])
def test_literals_that_no_task_made(run, kind):
    version = committed()
    literal = spelled(version)[kind]

    found = asyncio.run(TypeEngine.to_python_value(literal, ROVolume))
    fork = asyncio.run(TypeEngine.to_python_value(literal, RWVolume))

    assert (ROVolume, version) == (type(found), found)
    assert (RWVolume, version.locator) == (type(fork), fork.locator)


@pytest.mark.parametrize(
    "spell",
    [
        lambda version: version.model_dump(mode="json"),
        lambda version: version.model_dump_json(),
        lambda version: {"locator": version.locator},
        lambda version: version.locator,
        lambda version: version.name,
        lambda version: f"{version.name}:{version.version[:12]}",
    ],
    ids=["record", "JSON", "mapping", "locator", "name", "reference"],
)
def test_what_stands_for_a_volume_may_be_given_to_a_run(run, spell):
    version = committed()

    assert version.locator == run(locator, volume=spell(version))


def test_what_is_no_volume_says_what_can_be_given(run):
    for value, text in (
        (None, "a volume is wanted here, and this is NoneType"),
        (7, "a volume is wanted here, and this is int"),
        ({"locator": "no where"}, "names no volume"),
        ({"x": 1}, "this is no volume"),
    ):
        with pytest.raises(TypeTransformerFailedError, match=text):
            asyncio.run(literal_of(value))
    with pytest.raises(flyte.errors.RuntimeUserError, match="no volume 'nowhere'"):
        asyncio.run(literal_of("nowhere"))


def test_a_literal_that_is_no_volumes_is_refused(run):
    async def number() -> object:
        return await TypeEngine.to_python_value(await literal_of(7, int), ROVolume)

    with pytest.raises(TypeTransformerFailedError, match="no volume's"):
        asyncio.run(number())


@pytest.mark.parametrize(
    "declared",
    [
        Union[ROVolume, RWVolume],  # noqa: UP007
        ROVolume | RWVolume,
        ROVolume | RWVolume | None,
        Annotated[ROVolume | RWVolume, "x"],
        list[ROVolume | Annotated[RWVolume, "x"]],
    ],
    ids=str,
)
def test_a_union_of_both_says_what_to_write_instead(declared):
    with pytest.raises((TypeError, ValueError), match="Declare ROVolume to read it, or RWVolume"):
        TypeEngine.to_literal_type(declared)


def test_other_unions_are_left_to_flyte(run):
    async def through(value: object, declared: object) -> object:
        return await TypeEngine.to_python_value(await literal_of(value, declared), declared)

    version = committed()

    assert version == asyncio.run(through(version, ROVolume | str))
    assert ["x", 7] == [asyncio.run(through(each, int | str)) for each in ("x", 7)]


def test_a_version_that_is_gone_is_told_when_it_is_mounted_not_before(run):
    """A record is taken as it is: a task that only passes a version on asks the store nothing."""
    version = committed()
    literal = asyncio.run(literal_of(version))
    Volume.delete_sync(version.name)
    found = asyncio.run(TypeEngine.to_python_value(literal, ROVolume))

    with pytest.raises(NotFoundError):
        found.mount_sync()

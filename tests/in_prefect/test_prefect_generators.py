"""Results that look unlike what they are, and generators whose consumers do more than take the next value."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from prefect_kit import made, texts, written
from pydantic import RootModel

from volume_core import ROVolume, RWVolume, StorageError, Volume
from volume_core.passing import Attempt
from volume_prefect import volumes


def wrote() -> RWVolume:
    """A writer that is mounted, with a file that is not committed."""
    return written(Volume.new("out"), {"a": "out"})


class Names(RootModel[list[str]]):
    """Iterates over what it holds, as models of lists do."""

    def __iter__(self):
        return iter(self.root)


class Fresh(dict):
    """Gives another object at each look, as dictionaries do that wrap their values."""

    def __getitem__(self, key):
        return [super().__getitem__(key)]


@pytest.mark.parametrize("value", [Names(["dog"]), Fresh(a=1)], ids=["model", "mapping"])
def test_a_result_with_a_look_of_its_own_is_passed_on(value):
    assert volumes(lambda: value)() is value


def test_a_writer_in_a_model_that_iterates_its_own_way_is_replaced():
    class Some(RootModel[list[Any]]):
        def __iter__(self):
            return iter(self.root)

    found = volumes(lambda: Some([wrote()]))()

    assert isinstance(found.root[0], ROVolume)


def test_a_value_that_cannot_be_handed_over_is_no_error_for_the_body_to_handle(monkeypatch):
    def refuses(*_: Any) -> ROVolume:
        raise StorageError("refused")

    ended: list[str] = []

    @volumes
    def steps():
        try:
            yield wrote()
        except Exception:
            ended.append("heard")
        finally:
            ended.append("ended")
        yield "more"

    monkeypatch.setattr(Attempt, "hand_over", refuses)
    with pytest.raises(StorageError, match="refused"):
        list(steps())

    assert ["ended"] == ended


def test_an_asynchronous_generator_hears_its_consumer():
    ended: list[str] = []

    @volumes
    async def steps():
        said = None
        try:
            while True:
                try:
                    said = yield said
                except KeyError as error:
                    said = f"heard {error}"
        finally:
            ended.append("ended")

    async def consume() -> list[Any]:
        found = steps()
        answers = [await anext(found), await found.asend("hello"), await found.athrow(KeyError("no"))]
        await found.aclose()
        return answers

    assert [None, "hello", "heard 'no'"] == asyncio.run(consume())
    assert ["ended"] == ended


def test_an_asynchronous_generator_that_is_left_is_closed_when_the_event_loop_ends(caplog):
    ended: list[str] = []

    @volumes
    async def steps(data: RWVolume):
        try:
            yield written(data, {"b": "1"})
            yield data
        finally:
            ended.append("ended")

    async def consume() -> ROVolume:
        left.append(steps(made(a="0")))
        return await anext(left[0])

    left: list[Any] = []
    found = asyncio.run(consume())

    assert {"a": "0", "b": "1"} == texts(found)
    assert ["ended"] == ended
    assert "" == caplog.text

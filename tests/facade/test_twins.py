"""Both spellings do the same work, and an await never ends before its work has."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from contextlib import contextmanager

import pytest
from pydantic import BaseModel, ConfigDict

from volume_core.facade.twins import (
    awaitable,
    awaitable_context,
    awaitable_iterator,
    awaitable_of_class,
    in_thread,
)

CALLER = contextvars.ContextVar("caller", default="nobody")


class Machine(BaseModel):
    """A pydantic model with each sort of twin."""

    model_config = ConfigDict(ignored_types=(awaitable_of_class,))
    name: str = "m"

    def work_sync(self, number: int, *, times: int = 1) -> tuple[str, int, str]:
        """Works."""
        return threading.current_thread().name, number * times, CALLER.get()

    work = awaitable(work_sync)

    @classmethod
    def made_sync(cls, name: str) -> Machine:
        """Makes one."""
        return cls(name=name)

    made = awaitable_of_class(made_sync)

    @contextmanager
    def running_sync(self, events: list[str]):
        """Runs."""
        events.append("in")
        try:
            yield self.name
        except KeyError:
            events.append("swallowed")
        finally:
            events.append("out")

    running = awaitable_context(running_sync)

    def counting_sync(self, until: int, events: list[str]):
        """Counts, and fails at *until*."""
        try:
            for number in range(until):
                events.append(f"made {number}")
                yield number
            raise KeyError("counted")
        finally:
            events.append("closed")

    counting = awaitable_iterator(counting_sync, at_once=3)


class Louder(Machine):
    def work_sync(self, number: int, *, times: int = 1) -> tuple[str, int, str]:
        return "louder", number, ""


def test_the_awaited_spelling_works_in_a_thread_and_sees_the_callers_context():
    async def call():
        CALLER.set("caller")
        return await Machine().work(3, times=2)

    thread, number, caller = asyncio.run(call())

    assert threading.main_thread().name != thread
    assert (6, "caller") == (number, caller)


def test_overriding_one_spelling_overrides_both():
    assert ("louder", 3, "") == asyncio.run(Louder().work(3))


def test_classmethods_know_their_class():
    made = asyncio.run(Louder.made("x"))

    assert Louder(name="x") == made
    assert type(made) is Louder


def test_a_twin_carries_its_partners_signature_and_text():
    assert inspect.signature(Machine.work_sync) == inspect.signature(Machine.work)
    assert ("work", "Works.") == (Machine.work.__name__, Machine.work.__doc__)
    assert inspect.iscoroutinefunction(Machine.work)
    assert ("made", "Makes one.") == (Machine.made.__name__, Machine.made.__doc__)
    assert "Machine.running" == Machine.running.__qualname__


def test_twins_are_no_fields():
    assert ["name"] == list(Machine.model_fields)


def test_contexts_are_entered_left_and_told_of_errors():
    events = []

    async def use(error=None):
        async with Machine(name="engine").running(events) as name:
            events.append(name)
            if error is not None:
                raise error

    asyncio.run(use())
    assert ["in", "engine", "out"] == events
    events.clear()
    asyncio.run(use(KeyError("k")))
    assert ["in", "engine", "swallowed", "out"] == events
    with pytest.raises(ZeroDivisionError):
        asyncio.run(use(ZeroDivisionError()))


class Gate:
    """Work that has begun when `begun` is set and ends when `go` is."""

    def __init__(self) -> None:
        self.begun, self.go, self.ended = threading.Event(), threading.Event(), False

    def __call__(self) -> str:
        self.begun.set()
        assert self.go.wait(10)
        self.ended = True
        return "done"


async def cancelled_in_the_middle(gate: Gate, work: asyncio.Task) -> None:
    """Cancel *work* twice while it waits behind *gate*, and let it go on."""
    await asyncio.to_thread(gate.begun.wait, 10)
    for _ in range(2):
        work.cancel()
        await asyncio.sleep(0)
    assert not work.done()
    gate.go.set()
    with pytest.raises(asyncio.CancelledError):
        await work


def test_a_cancelled_await_ends_after_its_work():
    async def scene():
        gate = Gate()
        await cancelled_in_the_middle(gate, asyncio.ensure_future(in_thread(gate)))
        return gate.ended

    assert asyncio.run(scene())


def test_a_cancelled_await_remembers_how_its_work_failed():
    gate = Gate()

    def fail():
        gate()
        raise KeyError("lost")

    async def scene():
        work = asyncio.ensure_future(in_thread(fail))
        await asyncio.to_thread(gate.begun.wait, 10)
        work.cancel()
        gate.go.set()
        try:
            await work
        except asyncio.CancelledError as error:
            return error.__context__

    assert isinstance(asyncio.run(scene()), KeyError)


def test_a_context_cancelled_while_it_is_entered_is_left_again():
    gate, events = Gate(), []

    class Slow(Machine):
        @contextmanager
        def running_sync(self, events):
            gate()
            try:
                yield "in"
            finally:
                events.append("out")

    async def use():
        async with Slow().running(events):
            events.append("never")

    async def scene():
        await cancelled_in_the_middle(gate, asyncio.ensure_future(use()))

    asyncio.run(scene())
    assert ["out"] == events


def test_a_timeout_is_a_timeout():
    async def scene():
        gate = Gate()
        asyncio.get_running_loop().call_later(0.05, gate.go.set)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await in_thread(gate)
        return gate.ended

    assert asyncio.run(scene())


def test_an_iterator_gives_what_it_has_before_its_error():
    events: list[str] = []

    async def count() -> list[int]:
        found = []
        try:
            async for number in Machine().counting(5, events):
                found.append(number)
        except KeyError:
            found.append(-1)
        return found

    assert [0, 1, 2, 3, 4, -1] == asyncio.run(count())
    assert "closed" == events[-1]


def test_an_iterator_that_is_left_early_is_closed():
    events: list[str] = []

    async def leave() -> None:
        counting = Machine().counting(1000, events)
        async for _ in counting:
            break
        await counting.aclose()
        assert "closed" == events[-1]

    asyncio.run(leave())

    assert ["made 0", "made 1", "made 2", "closed"] == events


def test_an_iterator_whose_reader_is_cancelled_is_closed():
    events: list[str] = []
    begun, go_on = threading.Event(), threading.Event()

    class Slow(Machine):
        def counting_sync(self, until: int, events: list[str]):
            try:
                begun.set()
                go_on.wait()
                yield 1
            finally:
                events.append("closed")

    async def cancel() -> None:
        async def read() -> None:
            async for _ in Slow().counting(1, events):
                events.append("given")

        task = asyncio.create_task(read())
        await asyncio.to_thread(begun.wait)
        task.cancel()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())

    assert ["closed"] == events

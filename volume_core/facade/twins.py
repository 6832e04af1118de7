"""One definition, two spellings: `x_sync()` does the work, `await x()` does it in a thread.

    class Volume:
        def mount_sync(self, path: str) -> Path: ...
        mount = awaitable(mount_sync)                  # (path: str) -> Coroutine[Any, Any, Path]
        def lines_sync(self) -> Iterator[str]: ...
        lines = awaitable_iterator(lines_sync)         # () -> AsyncGenerator[str, None]

Why: all below the facade is synchronous and thread-safe, callers are either; writing each method
twice is how two spellings come to differ.  A type checker sees both with the same arguments.

Always true:

  1. The awaited spelling calls the synchronous one by name on the object, so a subclass overrides both
     by overriding that one.
  2. When an await ends, the work has ended too, also when the awaiting task was cancelled: nothing goes
     on behind the caller's back, and a context that was entered is left again.
  3. The work sees the caller's context variables.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import itertools
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, cast

P = ParamSpec("P")
R = TypeVar("R")
SUFFIX = "_sync"


async def in_thread(function: Callable[[], R], threads: Executor | None = None) -> R:
    """Return what *function* returns, called in a thread (the loop's, or one of *threads*) while the loop goes on.

    A cancelled caller waits for the function to end, then is cancelled: `function` cannot be
    stopped half-way, and whoever undoes its work must not run beside it.
    """
    call = functools.partial(contextvars.copy_context().run, function)
    work = asyncio.get_running_loop().run_in_executor(threads, call)
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return work.result()
    if not work.cancelled() and (failed := work.exception()) is not None:
        cancelled.__context__ = failed
    raise cancelled


def awaitable(method: Callable[P, R]) -> Callable[P, Coroutine[Any, Any, R]]:
    """Return the awaited spelling of a method whose name ends in `_sync`."""
    synchronous = method.__name__

    @_named_after(method)
    async def twin(self: Any, /, *args: Any, **kwargs: Any) -> R:
        return await in_thread(functools.partial(getattr(self, synchronous), *args, **kwargs))

    return cast("Callable[P, Coroutine[Any, Any, R]]", twin)


class awaitable_of_class(Generic[P, R]):
    """The awaited spelling of a classmethod whose name ends in `_sync`."""

    def __init__(self, method: Callable[Concatenate[Any, P], R]) -> None:
        self._function = cast("classmethod[Any, P, R]", method).__func__
        self.__doc__ = method.__doc__

    def __get__(self, instance: object, owner: type) -> Callable[P, Coroutine[Any, Any, R]]:
        synchronous = self._function.__name__

        @_named_after(self._function)
        async def twin(*args: P.args, **kwargs: P.kwargs) -> R:
            return await in_thread(functools.partial(getattr(owner, synchronous), *args, **kwargs))

        return cast("Callable[P, Coroutine[Any, Any, R]]", twin)


def awaitable_context(
    method: Callable[P, AbstractContextManager[R]],
) -> Callable[P, AbstractAsyncContextManager[R]]:
    """Return the `async with` spelling of a method that makes a context manager.

    One that has both spellings itself is entered as it is.
    """
    synchronous = method.__name__

    @_named_after(method)
    def twin(self: Any, /, *args: Any, **kwargs: Any) -> AbstractAsyncContextManager[R]:
        context = getattr(self, synchronous)(*args, **kwargs)
        return context if isinstance(context, AbstractAsyncContextManager) else AsyncContext(context)

    return cast("Callable[P, AbstractAsyncContextManager[R]]", twin)


class AsyncContext(AbstractAsyncContextManager[R]):
    """Enters and leaves a context manager in threads."""

    def __init__(self, context: AbstractContextManager[R]) -> None:
        self._context = context

    async def __aenter__(self) -> R:
        entered: list[R] = []

        def enter() -> R:
            entered.append(value := self._context.__enter__())
            return value

        try:
            return await in_thread(enter)
        except asyncio.CancelledError as error:
            if entered:  # nobody will leave what this task was cancelled while entering
                await in_thread(functools.partial(self._context.__exit__, type(error), error, error.__traceback__))
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await in_thread(functools.partial(self._context.__exit__, kind, error, trace))


def awaitable_iterator(method: Callable[P, Iterator[R]], *, at_once: int = 1) -> Callable[P, AsyncGenerator[R, None]]:
    """Return the `async for` spelling of a method that makes an iterator.

    *at_once* values are fetched by one visit to a thread.  Leaving the loop early closes the iterator when the
    generator is closed: by `aclose()`, or by the event loop when it is collected.
    """
    synchronous = method.__name__

    @_named_after(method)
    async def twin(self: Any, /, *args: Any, **kwargs: Any) -> AsyncGenerator[R, None]:
        values: Iterator[R] = await in_thread(functools.partial(getattr(self, synchronous), *args, **kwargs))
        try:
            ended = False
            while not ended:
                found, failed, ended = await in_thread(functools.partial(_take, values, at_once))
                for value in found:
                    yield value
                if failed is not None:
                    raise failed
        finally:
            close = getattr(values, "close", None)
            if close is not None:
                await in_thread(close)

    return cast("Callable[P, AsyncGenerator[R, None]]", twin)


def _take(values: Iterator[R], count: int) -> tuple[list[R], Exception | None, bool]:
    """Return up to *count* values, what went wrong behind them, and whether there are no more."""
    found: list[R] = []
    try:
        for value in itertools.islice(values, count):
            found.append(value)
    except Exception as error:  # a door: the caller gets the values first, then the error
        return found, error, True
    return found, None, len(found) < count


def _named_after(method: Callable[..., Any]) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Give a twin its partner's signature and text, and its name without the suffix."""

    def rename(twin: Callable[..., R]) -> Callable[..., R]:
        functools.update_wrapper(twin, method)
        twin.__name__ = method.__name__.removesuffix(SUFFIX)
        twin.__qualname__ = method.__qualname__.removesuffix(SUFFIX)
        return twin

    return rename

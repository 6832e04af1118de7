"""`volumes` and `enable_volumes`: the one line after which volumes are values of tasks and flows.

    @volumes                 @task                  enable_volumes()   # in the module that defines the flow
    @task(retries=2)         @volumes(retry="resume")
    def f(...): ...          def f(...): ...

Always true:

  1. What is wrapped is the function of the task or flow, so every form of call goes through it: call, submit, map,
     delay, with_options, in this process or another; a cached result is what it returned before.
  2. The wrapper is of the function's kind (function, coroutine function, generator, asynchronous generator), and shows
     its name, signature, annotations, globals and file: engines look at all of these.
  3. Wrapping twice is wrapping once.
"""

from __future__ import annotations

import contextlib
import dis
import functools
import hashlib
import inspect
import sys
import threading
import types
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from types import TracebackType
from typing import Any, TypeVar, Unpack, cast, overload

from prefect import Flow, Task
from prefect.context import FlowRunContext
from prefect.utilities import engine

from volume_core.facade.terminating import saves_first
from volume_core.facade.twins import in_thread
from volume_core.passing import Taking
from volume_core.passing.options import Choices, Options
from volume_prefect.caching import watch_caches
from volume_prefect.calling import Call

T = TypeVar("T")

_MARK = "__volumes__"
_HANDLER = "_prefect_sigterm_handler"


class Passing:
    """How a function is called with volumes.  The four methods below are its four kinds."""

    def __init__(self, function: Callable[..., Any], options: Options) -> None:
        self._function = function
        self._options = options
        self._taking = Taking(function)

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        flow = FlowRunContext.get()
        of_flow = flow is not None and getattr(getattr(flow.flow, "fn", None), _MARK, None) is self
        return Call(self._taking, self._options, args, kwargs, of_flow=of_flow)

    def function(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function."""
        with _called(self._call(args, kwargs)) as call:
            with call.running():
                result = self._function(*call.args, **call.kwargs)
            return call.handed_over(result)

    async def coroutine(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a coroutine function.  What may wait for a store is done in a thread."""
        async with _CalledAsync(self._call(args, kwargs)) as call:
            with call.running():
                result = await self._function(*call.args, **call.kwargs)
            return await in_thread(lambda: call.handed_over(result))

    def generator(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Generator[Any, Any, Any]:
        """Step through a generator.  Each value is handed over before it is yielded."""
        with _called(self._call(args, kwargs)) as call:
            inner = self._function(*call.args, **call.kwargs)
            step = functools.partial(next, inner)
            try:
                while True:
                    with call.running():
                        try:
                            value = step()
                        except StopIteration as end:
                            result = end.value
                            break
                    # That this fails is not for the body to handle: the consumer would miss a value, and nobody say so.
                    handed = call.handed_over(value)
                    try:
                        sent = yield handed
                    except GeneratorExit:
                        raise
                    except BaseException as error:
                        step = functools.partial(inner.throw, error)
                    else:
                        step = functools.partial(inner.send, sent)
            finally:
                with call.running():
                    inner.close()
            return call.handed_over(result)

    async def async_generator(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> AsyncGenerator[Any, Any]:
        """Step through an asynchronous generator."""
        async with _CalledAsync(self._call(args, kwargs)) as call:
            inner = self._function(*call.args, **call.kwargs)
            step: Callable[[], Awaitable[Any]] = functools.partial(self.first, inner)
            try:
                while True:
                    with call.running():
                        try:
                            value = await step()
                        except StopAsyncIteration:
                            return
                    handed = await in_thread(functools.partial(call.handed_over, value))
                    try:
                        sent = yield handed
                    except GeneratorExit:
                        raise
                    except BaseException as error:
                        step = functools.partial(inner.athrow, error)
                    else:
                        step = functools.partial(inner.asend, sent)
            finally:
                with call.running():
                    await inner.aclose()

    @staticmethod
    def first(steps: AsyncGenerator[Any, Any]) -> Awaitable[Any]:
        """Begin with *steps*, which whoever steps through it closes.

        An event loop that ends closes every asynchronous generator it knows of, all at once, and those that step
        through each other then find each other running.  So it gets to know the outermost alone.
        """
        known = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(None, None)
        try:
            return anext(steps)
        finally:
            sys.set_asyncgen_hooks(*known)


@contextlib.contextmanager
def _called(call: Call) -> Generator[Call, None, None]:
    call.hear()
    try:
        call.take()
        yield call
        call.finish()
    except BaseException as error:
        call.fail(error)
        raise
    finally:
        call.stop_hearing()


class _CalledAsync:
    """The same for what is awaited.  No asynchronous generator: see Passing.first."""

    def __init__(self, call: Call) -> None:
        self._call = call

    async def __aenter__(self) -> Call:
        self._call.hear()
        await self._does(self._call.take)
        return self._call

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            await self._fail(error)
            return
        await self._does(self._call.finish)
        self._call.stop_hearing()

    async def _does(self, step: Callable[[], None]) -> None:
        try:
            await in_thread(step)
        except BaseException as error:
            await self._fail(error)
            raise

    async def _fail(self, error: BaseException) -> None:
        try:
            await in_thread(functools.partial(self._call.fail, error))
        finally:
            self._call.stop_hearing()


# -- the wrapper


def _wrapped(function: Callable[..., Any], options: Options) -> Callable[..., Any]:
    """Return *function*, with volumes as values; itself if it is that already."""
    if hasattr(function, _MARK):
        return function
    passing = Passing(function, options)
    made = _placed(_wrapper(passing, function), inspect.unwrap(function))
    functools.update_wrapper(made, function)
    setattr(made, _MARK, passing)
    return made


def _wrapper(passing: Passing, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of the kind of *function*, that goes through *passing*."""

    # Only `passing` and what is built in may be named in these bodies: their globals become the function's.
    async def async_generator(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        steps = passing.async_generator(args, kwargs)
        step = passing.first(steps)
        try:
            while True:
                try:
                    value = await step
                except StopAsyncIteration:
                    return
                try:
                    sent = yield value
                except GeneratorExit:
                    raise
                except BaseException as error:
                    step = steps.athrow(error)
                else:
                    step = steps.asend(sent)
        finally:
            await steps.aclose()

    def generator(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        return (yield from passing.generator(args, kwargs))

    async def coroutine(*args: Any, **kwargs: Any) -> Any:
        return await passing.coroutine(args, kwargs)

    def call(*args: Any, **kwargs: Any) -> Any:
        return passing.function(args, kwargs)

    if inspect.isasyncgenfunction(function):
        return async_generator
    if inspect.isgeneratorfunction(function):
        return generator
    return coroutine if inspect.iscoroutinefunction(function) else call


def _placed(wrapper: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
    """Return *wrapper* as if it stood where *function* does.

    Prefect takes a flow's version and the entry point of its deployments from the file of its function, looks up
    annotations that are text in the function's globals, and lets `task_input_hash` tell a function that was changed by
    its byte code: dead code behind the wrapper's own differs as the function's does.
    """
    if not isinstance(function, types.FunctionType) or not isinstance(wrapper, types.FunctionType):
        return wrapper
    ours, theirs = wrapper.__code__, function.__code__
    digest = hashlib.blake2s(theirs.co_code, digest_size=16).digest()
    dead = b"".join(bytes([dis.opmap["NOP"], each]) for each in digest)
    code = ours.replace(
        co_code=ours.co_code + dead,
        co_filename=theirs.co_filename,
        co_firstlineno=theirs.co_firstlineno,
        co_name=theirs.co_name,
        co_qualname=theirs.co_qualname,
        co_linetable=_one_line(len(ours.co_code + dead) // 2),
    )
    return types.FunctionType(code, function.__globals__, function.__name__, None, wrapper.__closure__)


def _one_line(units: int) -> bytes:
    """Return a table of locations that says of all *units* of code: the first line.  Tracebacks then show that."""
    # An entry is a byte (bit 7, form 13 = "no columns", length - 1) and how many lines further it is; 8 units at most.
    sizes = [8] * (units // 8) + ([units % 8] if units % 8 else [])
    return b"".join(bytes([0x80 | 13 << 3 | size - 1, 0]) for size in sizes)


# -- the doors


@overload
def volumes(given: T, /) -> T: ...


@overload
def volumes(**choices: Unpack[Choices]) -> Callable[[T], T]: ...


def volumes(given: Any = None, /, **choices: Unpack[Choices]) -> Any:
    """Make volumes values of a task or flow, above or below its decorator; with options: see Options.

    What it returns, alone or within lists, tuples, sets, dictionaries, dataclasses and models, is committed where it is
    a writer, and everybody who gets the result gets the version.  A parameter annotated RWVolume gets a fork, one
    annotated ROVolume the version, of what stands for a volume: a version, a record, a locator, a vol:// URL, a name.
    """
    options = Options.of(choices)
    if given is None:
        return functools.partial(_with_volumes, options=options)
    return _with_volumes(given, options)


def _with_volumes(given: Any, options: Options) -> Any:
    _attend()
    if isinstance(given, Task | Flow):
        given.fn = _wrapped(given.fn, options)
        return given
    if isinstance(given, classmethod | staticmethod):
        return type(given)(_wrapped(given.__func__, options))
    if not callable(given) or isinstance(given, type):
        raise TypeError(f"volumes goes above or below @task and @flow, or on a function, and this is {given!r}")
    return _wrapped(given, options)


def _attend() -> None:
    """See to what can only be seen to in Prefect itself: its caches, and its handler of SIGTERM."""
    watch_caches()
    # A run that is cancelled or rescheduled is told so on a socket, and answers only while this very handler is there:
    # otherwise it is killed without a signal.  So what saves volumes first must be this handler.
    handler = getattr(engine, _HANDLER, None)
    if callable(handler) and not hasattr(handler, "__self__"):
        setattr(engine, _HANDLER, saves_first(handler))


class _Fn:
    """`fn` of every task and flow: the function it was given, with volumes."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._lock = threading.Lock()

    def __get__(self, owner: Any, kind: type | None = None) -> Any:
        if owner is None:
            return self
        try:
            function = owner.__dict__["fn"]
        except KeyError:
            raise AttributeError("fn") from None
        if not hasattr(function, _MARK):
            with self._lock:  # all threads get one wrapper: a flow's call is known by it
                function = owner.__dict__["fn"] = _wrapped(owner.__dict__["fn"], self.options)
        return function

    def __set__(self, owner: Any, function: Any) -> None:
        owner.__dict__["fn"] = function


def enable_volumes(**choices: Unpack[Choices]) -> None:
    """Make volumes values of every task and flow of this process, also of those that are defined already.

    Those with `volumes` of their own keep its options.  Called again it only sets the options, for those that have not
    run yet.
    """
    options = Options.of(choices)
    _attend()
    for kind in (Task, Flow):
        found = kind.__dict__.get("fn")
        if isinstance(found, _Fn):
            found.options = options
        else:
            cast("Any", kind).fn = _Fn(options)

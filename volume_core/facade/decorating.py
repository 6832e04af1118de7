"""`mounts`: volumes for the length of a function's call, or of a `with` statement.

    @engine.task
    @mounts({"/data": Volume.from_name_lazy("my-dataset"), "/in": version})
    def task() -> int: ...

Always true:

  1. What is decorated stays of its kind (function, coroutine function, generator, asynchronous generator), with its
     name, signature and annotations: engines look at these.
  2. Each call mounts for itself.  A generator's volumes are mounted from its first step to its end; one that is
     closed before has not ended well, so it commits nothing.
  3. Nothing is looked up, opened or mounted before the call.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, Unpack, cast

from volume_core.errors import BusyError, VolumeError
from volume_core.facade.blocks import BlockOptions, BothContexts, Terms
from volume_core.facade.groups import MountedVolumes, checked, mounted_together
from volume_core.facade.lazies import LazyVolume
from volume_core.facade.mounts import StrPath

if TYPE_CHECKING:
    from volume_core.volumes import Volume

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")


class mounts(contextlib.AbstractContextManager[MountedVolumes], contextlib.AbstractAsyncContextManager[MountedVolumes]):
    """Volumes at the paths they are given, for each call of the function below, or for a `with` statement.

    A volume that is named (`Volume.from_name_lazy`) is opened by each call; a version is mounted to read, once for all
    calls that are under way; an RWVolume goes on with its line, one call at a time.  What can be written to is
    committed when the function has returned; after an error nothing is, and the error says for each where
    its work is and how to recover it.  *options* are those of RWVolume.mounted, for all of them.

    `with mounts({...}) as mounted` (and `async with`) gives MountedVolumes: its `.paths`, and `.versions` once the
    block has ended.  Raises VolumeError where a path lies in another, BusyError for a path that another call
    has, MountError as `mount` does.
    """

    def __init__(self, volumes: Mapping[StrPath, Volume | LazyVolume], **options: Unpack[BlockOptions]) -> None:
        self._volumes = checked(volumes)
        self._terms = Terms.of(options)
        self._entered: BothContexts[MountedVolumes] | None = None

    def _opened(self) -> BothContexts[MountedVolumes]:
        context = mounted_together(self._volumes, self._terms)
        return BothContexts(context, hears=self._terms.on_terminate is not None)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Return *function*, with the volumes mounted while it runs.

        Raises VolumeError for an object that is no function: a task that an engine's decorator has made already.
        """
        if not (inspect.isroutine(function) or isinstance(function, functools.partial)):
            name = getattr(function, "__name__", None) or getattr(function, "name", "this")
            raise VolumeError(
                f"{name} is a {type(function).__name__} and no function: put @mounts below the decorator that made it"
            )
        if inspect.isasyncgenfunction(function):
            wrapper = self._around_async_generator(function)
        elif inspect.isgeneratorfunction(function):
            wrapper = self._around_generator(function)
        elif inspect.iscoroutinefunction(function):
            wrapper = self._around_coroutine(function)
        else:
            wrapper = self._around_function(function)
        wrapped = functools.wraps(function)(wrapper)
        # Adapters ask before it runs: where it runs, mounts are made.  Further decorators copy it on.
        wrapped.__dict__["mounts_volumes"] = True
        return cast("Callable[P, R]", wrapped)

    def _around_function(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            with self._opened():
                return function(*args, **kwargs)

        return call

    def _around_coroutine(self, function: Callable[..., Any]) -> Callable[..., Any]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            async with self._opened():
                return await function(*args, **kwargs)

        return call

    def _around_generator(self, function: Callable[..., Generator[Any, Any, Any]]) -> Callable[..., Any]:
        def steps(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            with _told_of_closing(), self._opened():
                return (yield from function(*args, **kwargs))

        return steps

    def _around_async_generator(self, function: Callable[..., AsyncGenerator[Any, Any]]) -> Callable[..., Any]:
        async def steps(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
            with _told_of_closing():
                async with self._opened(), contextlib.aclosing(function(*args, **kwargs)) as inner:
                    step = anext(inner)
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
                            step = inner.athrow(error)
                        else:
                            step = inner.asend(sent)

        return steps

    def __enter__(self) -> MountedVolumes:
        """Mount them."""
        context = self._once()
        try:
            return context.__enter__()
        except BaseException:
            self._entered = None
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """Commit, or after an error keep what was written; unmount."""
        return self._left().__exit__(kind, error, trace)

    async def __aenter__(self) -> MountedVolumes:
        """Mount them."""
        context = self._once()
        try:
            return await context.__aenter__()
        except BaseException:
            self._entered = None
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """Commit, or after an error keep what was written; unmount."""
        return await self._left().__aexit__(kind, error, trace)

    def _once(self) -> BothContexts[MountedVolumes]:
        if self._entered is not None:
            raise BusyError("these volumes are mounted by this very object: make another `mounts` for a block within")
        self._entered = self._opened()
        return self._entered

    def _left(self) -> BothContexts[MountedVolumes]:
        context, self._entered = self._entered, None
        assert context is not None
        return context


@contextlib.contextmanager
def _told_of_closing() -> Generator[None, None, None]:
    """A generator that is closed has nobody to read its error's notes: log them."""
    try:
        yield
    except GeneratorExit as error:
        for note in getattr(error, "__notes__", ()):
            log.warning("closed before its end: %s", note)
        raise

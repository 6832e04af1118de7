"""One set of volumes that many tasks have mounted without saying so: a workflow's or an environment's.

Always true:

  1. Each task mounts for itself, and commits what it wrote when it ends well: see volume_core.mounts.
  2. A task that is called while one with the same set is running in this process, by that one, has what that one
     has: on a cluster the two run in pods of their own.
  3. Otherwise tasks of this process that write at one path take turns: a machine has it once.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, Unpack

from volume_core import BlockOptions, BusyError, LazyVolume, ROVolume, RWVolume, Volume, VolumeError, mounts
from volume_core.facade.mounts import StrPath

_WAIT_S = 0.05  # between two looks at a path that another task has, by a coroutine

_entered: ContextVar[tuple[Mounting, ...]] = ContextVar("volume_flyte_entered", default=())
_turns: dict[str, threading.Lock] = {}
_lock = threading.Lock()


def _in_child() -> None:
    global _lock
    _lock = threading.Lock()
    _turns.clear()


os.register_at_fork(after_in_child=_in_child)


class Mounting:
    """What is mounted where, and how.  Several tasks may be in it at once."""

    def __init__(self, volumes: Mapping[StrPath, Volume | LazyVolume], **options: Unpack[BlockOptions]) -> None:
        """Take *volumes* by path, and options as volume_core.mounts does.

        Raises what that does; VolumeError for a writer, which is one process's and cannot be many tasks'.
        """
        mounts(volumes, **options)
        for path, volume in volumes.items():
            if isinstance(volume, RWVolume):
                raise VolumeError(
                    f"{os.fspath(path)}: the writer {volume.name!r} is this process's, and the tasks are other "
                    "processes: name the volume (Volume.from_name_lazy), or give a version"
                )
        self._volumes, self._options = dict(volumes), options
        paths = {_absolute(path): volume for path, volume in volumes.items()}
        self.paths = frozenset(paths)
        self._written = sorted(path for path, volume in paths.items() if not _is_read(volume))

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Have the volumes mounted within."""
        if self._is_entered():
            yield
            return
        with contextlib.ExitStack() as turns:
            for path in self._written:
                turns.enter_context(_turn(path))
            with _within(self), mounts(self._volumes, **self._options):
                yield

    @contextlib.asynccontextmanager
    async def entered_async(self) -> AsyncIterator[None]:
        """The same for a coroutine: waiting for its turn, mounting and committing hold up nobody else."""
        if self._is_entered():
            yield
            return
        async with contextlib.AsyncExitStack() as turns:
            for path in self._written:
                await turns.enter_async_context(_turn_async(path))
            with _within(self):
                async with mounts(self._volumes, **self._options):
                    yield

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return *function* (or coroutine function) with the volumes mounted while it runs.

        Raises VolumeError for a generator, which is no task.
        """
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise VolumeError(f"{function.__qualname__} is a generator: a task returns what it makes")
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def call_async(*args: Any, **kwargs: Any) -> Any:
                async with self.entered_async():
                    return await function(*args, **kwargs)

            return call_async

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with self.entered():
                return function(*args, **kwargs)

        return call

    def _is_entered(self) -> bool:
        """Whether who called is within it.  Raises BusyError if a path of it is another one's there."""
        for other in _entered.get():
            if other is self:
                return True
            if shared := self.paths & other.paths:
                raise BusyError(
                    f"{', '.join(sorted(shared))}: who calls this task has another volume mounted there, and waits for "
                    "it: give them paths of their own"
                )
        return False


@contextlib.contextmanager
def _within(mounting: Mounting) -> Iterator[None]:
    token = _entered.set((*_entered.get(), mounting))
    try:
        yield
    finally:
        _entered.reset(token)


def _absolute(path: StrPath) -> str:
    return os.path.abspath(os.path.expanduser(path))


def _is_read(volume: Volume | LazyVolume) -> bool:
    return isinstance(volume, ROVolume) or (isinstance(volume, LazyVolume) and volume.version is not None)


def _of(path: str) -> threading.Lock:
    with _lock:
        return _turns.setdefault(path, threading.Lock())


@contextlib.contextmanager
def _turn(path: str) -> Iterator[None]:
    turn, pid = _of(path), os.getpid()
    turn.acquire()
    try:
        yield
    finally:
        if pid == os.getpid():
            turn.release()


@contextlib.asynccontextmanager
async def _turn_async(path: str) -> AsyncIterator[None]:
    import asyncio

    turn, pid = _of(path), os.getpid()
    # A thread that waits could get the turn after its coroutine is cancelled, and nobody would give it back.
    while not turn.acquire(blocking=False):
        await asyncio.sleep(_WAIT_S)
    try:
        yield
    finally:
        if pid == os.getpid():
            turn.release()

"""How blocking work is called: from a coroutine in a thread, and with its errors said as fsspec's callers expect.

Why threads of our own: an event loop's own are few (two more than the machine has processors, and some), while
most of this work waits for a store.

Always true: what leaves a method of the file system because of a volume is an OSError with an errno from the one
table (mount/errnos.py), so FileNotFoundError where nothing is there; its cause is the error that says more.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar, cast

from volume_core.errors import VolumeError
from volume_core.facade.addresses import PROTOCOL
from volume_core.facade.twins import in_thread
from volume_core.mount.errnos import errno_of
from volume_core.parts.forking import renew_after_fork

P = ParamSpec("P")
R = TypeVar("R")

# Each waits 30 ms for a small object: enough for a thousand of them a second.
_THREADS_MAX = 32


class _Threads:
    """The threads of this process; started when they are first needed."""

    def __init__(self) -> None:
        renew_after_fork(self)
        self._renew_after_fork()

    def _renew_after_fork(self) -> None:
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def pool(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(_THREADS_MAX, PROTOCOL)
            return self._pool


_threads = _Threads()


async def called(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Return what *function* returns, called in a thread."""
    return await in_thread(functools.partial(function, *args, **kwargs), _threads.pool())


def awaited(method: Callable[P, R]) -> Callable[P, Coroutine[Any, Any, R]]:
    """Return the awaited spelling of a method: `_info = awaited(info)`."""

    @functools.wraps(method)
    async def twin(self: Any, /, *args: Any, **kwargs: Any) -> R:
        return cast("R", await called(getattr(self, method.__name__), *args, **kwargs))

    return cast("Callable[P, Coroutine[Any, Any, R]]", twin)


@contextlib.contextmanager
def as_os_errors(path: str) -> Iterator[None]:
    """Raise what went wrong with *path* as an OSError."""
    try:
        yield
    except VolumeError as error:
        raise OSError(errno_of(error), str(error), f"{PROTOCOL}://{path}") from error

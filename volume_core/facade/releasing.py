"""Taking down what a handle left behind: when it is collected, and when the process ends.

Why a thread: a handle may be collected in the middle of anything, in any thread, with any lock held; and
to unmount is to talk to another process and perhaps to look through a tree.

Always true:

  1. `release` of what was registered is called at most once, by the process that registered it: a
     forked child has its parent's objects, but not its parent's mounts.
  2. At the end of the process everything that is left is released, the newest first.
  3. A release that fails is logged and stops no other.
"""

from __future__ import annotations

import atexit
import logging
import os
import queue
import threading
import weakref
from collections.abc import Callable
from typing import Protocol

log = logging.getLogger(__name__)

# A process that ends waits this long for a release that is under way; its supervisors clean up anyway.
_PATIENCE_S = 30.0


class Releasable(Protocol):
    """What can be taken down without the handle that made it.  It must not refer to the handle."""

    def release(self) -> None:
        """Take it down; nobody will use it any more."""
        ...


class _Janitor:
    """The thread of one process, and what it still has to take down."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left: dict[int, Releasable] = {}
        # Put from the garbage collector, which may run while this very queue is in use: only a
        # SimpleQueue allows that.
        self._queue: queue.SimpleQueue[int | threading.Event | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._next = 0

    def add(self, releasable: Releasable) -> int:
        with self._lock:
            self._next += 1
            self._left[self._next] = releasable
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="volume-janitor", daemon=True)
                self._thread.start()
            return self._next

    def forget(self, number: int) -> None:
        with self._lock:
            self._left.pop(number, None)

    def collected(self, number: int) -> None:
        self._queue.put(number)

    def settle(self) -> None:
        """Wait until what was collected so far is released."""
        if self._thread is not None and self._thread is not threading.current_thread():
            done = threading.Event()
            self._queue.put(done)
            done.wait(_PATIENCE_S)

    def finish(self) -> None:
        """Release everything, newest first."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(_PATIENCE_S)
        for number in sorted(self._left, reverse=True):
            self._release(number)

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            if isinstance(item, threading.Event):
                item.set()
            else:
                self._release(item)

    def _release(self, number: int) -> None:
        with self._lock:
            releasable = self._left.pop(number, None)
        if releasable is None:
            return
        try:
            releasable.release()
        except Exception:  # a door: nobody is left to hear of it
            log.exception("could not take down %s", releasable)


_janitor = _Janitor()


def _in_child() -> None:
    global _janitor
    _janitor = _Janitor()


def _at_exit() -> None:
    _janitor.finish()


os.register_at_fork(after_in_child=_in_child)
atexit.register(_at_exit)


def settle() -> None:
    """Wait until what handles that were collected so far have left is taken down, for 30 seconds at most.

    For a process that ends without Python's end, in which nothing else would wait for that.
    """
    _janitor.settle()


def release_with(owner: object, releasable: Releasable) -> Callable[[], None]:
    """Release *releasable* when *owner* is collected or this process ends; return what calls that off."""
    janitor = _janitor
    number = janitor.add(releasable)
    finalizer = weakref.finalize(owner, _collected, janitor, number)
    finalizer.atexit = False

    def call_off() -> None:
        finalizer.detach()
        janitor.forget(number)

    return call_off


def _collected(janitor: _Janitor, number: int) -> None:
    if janitor is _janitor:  # else this is a forked child
        janitor.collected(number)

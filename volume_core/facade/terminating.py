"""SIGTERM while writers are mounted: what is there is committed before the process ends.

    SIGTERM ──> handler (main thread): wakes the saver, waits for it ──────────────┐
                  saver (a thread): commits each block's volume, lets the handler  │
                  go on at once if the main thread itself is needed for that       v
                                                    who had the signal before has it now

Why a thread: a handler runs between any two instructions of the main thread, which may be in the middle of a commit,
or hold any lock.  Why the main thread waits: a tree that is written to does not hold still to be committed.

Always true:

  1. The handler touches nothing but a queue that allows it, and waits for a limited time: whatever lock the main
     thread holds delays a commit, and stops none.
  2. The signal goes on to whoever had it before: a handler of Python's is called, in the main thread, after the
     commits; where there was none the process dies by the signal, and its volumes are unmounted just before.
  3. A SIGTERM that arrives meanwhile changes nothing: one round of commits, to its end.
  4. A forked child has its parent's handlers as if this file were not there.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from types import FrameType
from typing import Any, Protocol

log = logging.getLogger(__name__)

# The main thread waits this long for the commits: most of the 30 seconds that a pod has.  If it holds a lock that
# they need, they go on afterwards.
_PATIENCE_S = 20.0
_PROD_S = 0.2


class Terminable(Protocol):
    """What is to be saved when the process is about to end.  All are called by one thread."""

    def save(self, let_main_go_on: Callable[[], None]) -> None:
        """Commit, if that is wanted, and keep others from changing the volume until `free` or `end`."""
        ...

    def free(self) -> None:
        """The process goes on: let others have the volume again."""
        ...

    def end(self) -> None:
        """The process dies now: unmount, and say what is kept."""
        ...


class _Phase(Enum):
    IDLE = 0
    SAVING = 1
    SAVED = 2


@dataclass(eq=False)
class _Level:
    """One time that our handler was put in another's place, and how many blocks rely on it.

    lent: who it stands for has put it there himself, and takes it away himself.
    """

    replaced: Any
    users: int = 0
    lent: bool = False


class _Listener:
    """The handler of one process, and what it saves."""

    def __init__(self) -> None:
        self.blocks: dict[int, Terminable] = {}
        self._lock = threading.Lock()  # of the levels and whose the signal is; never taken by the handler
        self._levels: list[_Level] = []
        self._first: Any = signal.SIG_DFL
        self._lender: Any = None  # the handler of an engine, in whose place the engine puts ours
        self._phase = _Phase.IDLE
        # Only a SimpleQueue may be used by a handler that interrupts its own thread in the middle of using it.
        self._wanted: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._go_on: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._saver: threading.Thread | None = None
        self._waiting = False
        self._prodding = self._prodded = False  # a signal of ours may be about to come; is on its way
        self._depth = 0  # how often the signal was passed on and came back

    # -- whose signal it is

    def hear(self) -> _Level | None:
        """Make sure that SIGTERM is heard, as long as the level that is returned is not given back; None: it is not."""
        with self._lock:
            if signal.getsignal(signal.SIGTERM) is not _handler and not self._take_over():
                return None
            if not self._levels:  # who had replaced it has put it back, or an engine has put it there
                self._start_saver()
                self._levels.append(_Level(self._lender or self._first, lent=self._lender is not None))
            self._levels[-1].users += 1
            return self._levels[-1]

    def _take_over(self) -> bool:
        found = signal.getsignal(signal.SIGTERM)
        if threading.current_thread() is not threading.main_thread() or found is None:
            return False  # Python lets the main thread alone; and what C code put there cannot be put back
        self._start_saver()
        if not self._levels:
            self._first = found
        self._levels.append(_Level(found))
        signal.signal(signal.SIGTERM, _handler)
        return True

    def _start_saver(self) -> None:
        if self._saver is None:
            self._saver = threading.Thread(target=self._save_when_wanted, name="volume-saver", daemon=True)
            self._saver.start()

    def lend(self, handler: Callable[..., Any]) -> Callable[..., Any]:
        """Return our handler, for whoever would put *handler* there."""
        with self._lock:
            if handler is not _handler:
                self._lender = handler
        return _handler

    def lend_as(self, other: _Listener) -> None:
        """In a forked child: stand where *other* stood in its parent."""
        self._lender = other._lender

    def settle(self) -> None:
        """In the main thread: wait until a signal that came has been passed on."""
        while threading.current_thread() is threading.main_thread() and self._phase is not _Phase.IDLE:
            time.sleep(_PROD_S / 10)

    def give_back(self, level: _Level) -> None:
        """One block less relies on *level*; after the last, the signal is again whose it was."""
        in_main = threading.current_thread() is threading.main_thread()
        with self._lock:
            level.users -= 1
            while self._levels and not self._levels[-1].users:
                if signal.getsignal(signal.SIGTERM) is _handler and not self._levels[-1].lent:
                    if not in_main:
                        return  # ours stays, and passes the signal on
                    signal.signal(signal.SIGTERM, self._levels[-1].replaced)
                self._levels.pop()

    def forget(self) -> None:
        """In a forked child: leave the signal to whom it was before."""
        if signal.getsignal(signal.SIGTERM) is _handler:
            with contextlib.suppress(ValueError):
                signal.signal(signal.SIGTERM, self._before(0))

    def _before(self, depth: int) -> Any:
        replaced = [level.replaced for level in reversed(self._levels)]
        return replaced[depth] if depth < len(replaced) else self._lender or self._first

    # -- the main thread

    def on_signal(self, signum: int, frame: FrameType | None) -> None:
        if self._phase is _Phase.IDLE and self._prodded:
            self._prodded = False
            return
        if self._depth or (self._phase is _Phase.IDLE and (not self.blocks or self._saver is None)):
            self._pass_on(signum, frame)
            return
        if self._phase is _Phase.IDLE:
            self._phase = _Phase.SAVING
            self._wanted.put(None)
        elif self._phase is _Phase.SAVED and not self._prodding:
            self._prodded = False
        if self._phase is _Phase.SAVING and not self._waiting:
            self._waiting = True
            try:
                with contextlib.suppress(queue.Empty):
                    self._go_on.get(timeout=_PATIENCE_S)
            finally:
                self._waiting = False
        if self._phase is _Phase.SAVED and not self._prodding and not self._prodded:  # else at the next prod
            self._phase = _Phase.IDLE
            self._pass_on(signum, frame)

    def _pass_on(self, signum: int, frame: FrameType | None) -> None:
        before = self._before(self._depth)
        if before is signal.SIG_DFL:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
            os._exit(128 + signum)  # only the first process of a container lives to see this
        if not callable(before):
            return
        self._depth += 1
        try:
            before(signum, frame)
        finally:
            self._depth -= 1

    # -- the saver

    def _save_when_wanted(self) -> None:
        while True:
            self._wanted.get()
            blocks = list(self.blocks.values())
            ends = self._before(0) is signal.SIG_DFL
            for block in blocks:
                with _logged():
                    block.save(self._let_main_go_on)
            for block in reversed(blocks):
                with _logged():
                    block.end() if ends else block.free()
            self._phase = _Phase.SAVED
            self._go_on.put(None)
            self._prod_main()

    def _let_main_go_on(self) -> None:
        self._go_on.put(None)

    def _prod_main(self) -> None:
        """See that the main thread passes the signal on, which waits for that or works by now."""
        main = threading.main_thread()
        pause = threading.Event()
        while not pause.wait(_PROD_S):
            with self._lock:  # or else the handler might be given back between the look and the signal
                self._prodding = True  # from here on the main thread leaves the phase as it is
                try:
                    if self._phase is not _Phase.SAVED or not main.is_alive() or not main.ident:
                        break
                    if signal.getsignal(signal.SIGTERM) is _handler:
                        self._prodded = True
                    else:  # somebody put his own in its place meanwhile: it is his now
                        self._phase = _Phase.IDLE
                    signal.pthread_kill(main.ident, signal.SIGTERM)
                finally:
                    self._prodding = False
        with contextlib.suppress(queue.Empty):
            while True:
                self._go_on.get_nowait()


@contextlib.contextmanager
def _logged() -> Iterator[None]:
    try:
        yield
    except Exception:  # a door: the process is about to end, and the next volume shall be saved too
        log.exception("a volume could not be saved on SIGTERM")


_listener = _Listener()


def _handler(signum: int, frame: FrameType | None) -> None:
    """The handler itself: one object for good, whichever process this is."""
    _listener.on_signal(signum, frame)


def _in_child() -> None:
    global _listener
    parents, _listener = _listener, _Listener()
    parents.forget()
    _listener.lend_as(parents)


os.register_at_fork(after_in_child=_in_child)


class Hearing:
    """SIGTERM is heard from now on until `stop`; both in the thread that asks, which should be the main thread."""

    def __init__(self) -> None:
        self._listener = _listener
        self._level = _listener.hear()

    def __bool__(self) -> bool:
        """Whether it is heard."""
        return self._level is not None

    def stop(self) -> None:
        """It need not be heard any more; one that was heard is passed on first."""
        if self._level is not None and self._listener is _listener:
            self._listener.settle()
            self._listener.give_back(self._level)
        self._level = None


def listen_for_sigterm() -> bool:
    """Hear SIGTERM for blocks with `on_terminate` from now on, also for those that other threads enter.

    To be called in the main thread, where alone Python lets a handler be set; within a block that the main thread
    enters it is done already.  Returns whether it is heard: not, if this is another thread and nobody did before, or
    if a handler is there that Python does not know.
    """
    return bool(Hearing())


def saves_first(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Return a handler of SIGTERM that saves what is open, then calls *handler*.

    For an engine that puts its own handler there while it runs, and looks whether that very one is there: given this
    one for its own, it finds it, and a block in its runs need not replace it.
    """
    return _listener.lend(handler)


@contextlib.contextmanager
def saved_on_sigterm(block: Terminable) -> Iterator[None]:
    """*block* is saved when SIGTERM is heard meanwhile."""
    listener = _listener
    listener.blocks[id(block)] = block
    try:
        yield
    finally:
        listener.blocks.pop(id(block), None)

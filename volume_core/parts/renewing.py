"""What keeps a small object alive in the store: a thread that writes it again and again, and a clock.

Always true: a renewal that fails is tried again at the next turn, for what a lifetime is divided into leaves
several; where no thread can begin (the interpreter is ending) the object has its one lifetime.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from volume_core.errors import StorageError

log = logging.getLogger(__name__)

# Renewed six times in a lifetime: five answers in a row may be lost before the holder fails.
RENEWALS = 6


def awake_and_asleep_s() -> float:
    """Return a clock's seconds: one that no one sets, and that goes on while the machine is suspended."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Renewer:
    """Calls *renew* RENEWALS times in *lifetime_s* once it was started, until it is stopped; *what* is for the log."""

    def __init__(self, what: str, lifetime_s: float, renew: Callable[[], None]) -> None:
        self._what = what
        self._every_s = lifetime_s / RENEWALS
        self._renew = renew
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def is_stopped(self) -> bool:
        """Whether stop() was called: nothing is renewed from then on."""
        return self._stop.is_set()

    def start(self) -> None:
        """Begin."""
        thread = threading.Thread(target=self._run, name=self._what.partition("/")[0], daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter is ending
            return
        self._thread = thread

    def stop(self) -> None:
        """End, and wait for the renewal under way."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            try:
                self._renew()
            except StorageError as error:
                log.info("%s could not be renewed, it is tried again: %s", self._what, error)

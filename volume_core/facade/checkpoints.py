"""Commits in the background while a task writes.

Always true: no checkpoint runs after `stop` has returned, nor in a forked child; one that fails is logged and ends
neither the task nor the checkpoints after it.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable

from volume_core.errors import BusyError, VolumeError

log = logging.getLogger(__name__)


class Checkpoints:
    """Calls a method every so many seconds, until it is stopped or the method's object is gone."""

    def __init__(self, volume: str, every_s: float, commit: Callable[[], object]) -> None:
        self._volume = volume
        self._every_s = every_s
        self._commit = weakref.WeakMethod(commit)
        self._stopped = threading.Event()
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._work, name="volume-checkpoints", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Begin no more; return when one that is under way has ended."""
        if self._pid == os.getpid():
            self._stopped.set()
            self._thread.join()

    def _work(self) -> None:
        while not self._stopped.wait(self._every_s):
            commit = self._commit()
            if commit is None:
                return
            try:
                commit()
            except BusyError as error:
                log.warning("no checkpoint of volume %s this time, it does not hold still: %s", self._volume, error)
            except (VolumeError, OSError) as error:
                log.warning("no checkpoint of volume %s this time: %s", self._volume, error)
            except Exception:  # a door: nobody waits for this thread
                log.exception("no checkpoint of volume %s this time", self._volume)
            del commit

"""Waiting for the kernel's next request.

Why spin: a reader that waits for one answer at a time costs two wake-ups a request, its own and ours, and ours can
be saved by looking a few more times before sleeping.  Measured on two cores of a virtual machine: 2.3 times the
requests per second for a third more CPU a request.

Always true:

  1. Only a request that follows the one before within SPIN_S is waited for awake, and only while they keep coming so:
     one pause longer than that and the next wait is asleep.  An idle server uses no CPU at all.
  2. On a machine with one CPU nobody spins, nor anywhere while the pusher works: whoever we wait for needs the CPU.
"""

from __future__ import annotations

import errno
import os
import select
import time
from collections.abc import Callable

from volume_core.mount.protocol import REQUEST_BYTES_MAX

# A reader that was just answered comes back within this time: its wake-up, and its own work of a few microseconds.
SPIN_S = 50e-6
_YIELD_S = 0.002  # about what a window takes the pusher
# Unmounted; aborted; unmounted before the kernel had mounted it.
ENDED = frozenset({errno.ENODEV, errno.ECONNABORTED, errno.EPERM})
# The request was taken back before it was read: whoever asked is gone.
_RETRY = frozenset({errno.ENOENT, errno.EINTR})


class Inbox:
    """The requests that come from *fd*, one at a time, in `buffer`.

    *idle* is called when there is no request, before waiting for one: it may do a little that will be asked for
    soon, and returns whether it did.
    """

    def __init__(self, fd: int, idle: Callable[[], bool] = lambda: False, spin_s: float = SPIN_S) -> None:
        self.buffer = bytearray(REQUEST_BYTES_MAX)
        self._buffers = (self.buffer,)
        self.fd = fd
        self._idle = idle
        self._spin_s = spin_s if len(os.sched_getaffinity(0)) > 1 else 0.0
        self._is_busy = False
        self._yield_until_s = 0.0
        os.set_blocking(fd, False)
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)

    def receive(self) -> int:
        """Return the length of the next request, once it is in the buffer; 0 when there will be no more."""
        try:
            return os.readv(self.fd, self._buffers)
        except BlockingIOError:
            if self._idle():
                return self.receive()
            return self._spin() if self._is_busy else self._sleep()
        except OSError as error:
            return self._failed(error)

    def _spin(self) -> int:
        readv, fd, buffers, clock = os.readv, self.fd, self._buffers, time.monotonic
        end = clock() + self._spin_s
        while clock() < end:
            try:
                return readv(fd, buffers)
            except BlockingIOError:
                pass
            except OSError as error:
                return self._failed(error)
        return self._sleep()

    def _sleep(self) -> int:
        begin = time.monotonic()
        self._poll.poll()
        now = time.monotonic()
        self._is_busy = now - begin < self._spin_s and now > self._yield_until_s
        return self.receive()

    def yield_cpu(self) -> None:
        """Do not spin for a while: another process of ours has been given something to do."""
        self._is_busy = False
        self._yield_until_s = time.monotonic() + _YIELD_S

    def _failed(self, error: OSError) -> int:
        if error.errno in ENDED:
            return 0
        if error.errno in _RETRY:
            return self.receive()
        raise error

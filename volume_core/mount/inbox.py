"""Waiting for the kernel's next request.

Why spin: a reader that waits for one answer at a time costs two wake-ups a request, its own and ours, and ours can
be saved by looking a few more times before sleeping.  Measured on two cores of a virtual machine: 2.3 times the
requests per second for a third more CPU a request.  Where the CPUs have other work it is the other way round: the
reader runs where we would have slept, and spinning keeps it from running.  So it is tried.

    asleep, _TRIAL waits in a row below SPIN_S --mean above _NEAR_S--> awake for _AWAKE requests --> asleep, tried anew
                                               --mean below---------> asleep, and tried anew after _CONTENT more

Always true:

  1. Only a request that follows the one before within SPIN_S is waited for awake, and only while they keep coming so:
     one pause longer than that and the next wait is asleep.  An idle server uses no CPU at all.
  2. On a machine with one CPU nobody spins, nor anywhere while the pusher works: whoever we wait for needs the CPU.
"""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Callable
from time import monotonic as clock

from volume_core.mount.protocol import REQUEST_BYTES_MAX

# A reader that was just answered comes back within this time: its wake-up, and its own work of a few microseconds.
SPIN_S = 50e-6
# A reader on this CPU comes back sooner than that; one that must be woken on another does not.
_NEAR_S = 20e-6
_TRIAL, _AWAKE, _CONTENT = 16, 512, 256
_YIELD_S = 0.002  # about what a window takes the pusher
# Unmounted; aborted; unmounted before the kernel had mounted it.
ENDED = frozenset({errno.ENODEV, errno.ECONNABORTED, errno.EPERM})
# The request was taken back before it was read: whoever asked is gone.
_RETRY = frozenset({errno.ENOENT, errno.EINTR})


class Inbox:
    """The requests that come from *fd*, one at a time, in `buffer`.

    *idle* is called before each wait and may do a little that will be asked for soon, if what it is given to ask
    says that there is no request.
    """

    def __init__(
        self, fd: int, idle: Callable[[Callable[[], bool]], object] = lambda is_quiet: None, spin_s: float = SPIN_S
    ) -> None:
        self.buffer = bytearray(REQUEST_BYTES_MAX)
        self._buffers = (self.buffer,)
        self.fd = fd
        self._idle = idle
        self._spin_s = spin_s if len(os.sched_getaffinity(0)) > 1 else 0.0
        self._is_busy = False
        self._awake = 0  # requests that may still be waited for awake
        self._trial = _TRIAL
        self._waits = 0
        self._waited_s = 0.0
        self._yield_until_s = 0.0
        # A server before this one may have left the descriptor otherwise.
        os.set_blocking(fd, True)
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        self._poll = poll.poll

    def receive(self) -> int:
        """Return the length of the next request, once it is in the buffer; 0 when there will be no more."""
        self._idle(self._is_quiet)
        if self._is_busy:
            return self._spin()
        begin = clock()
        try:
            length = os.readv(self.fd, self._buffers)
        except OSError as error:
            return self._failed(error)
        now = clock()
        self._is_busy = self._is_worth_spinning(now - begin) and now > self._yield_until_s
        return length

    def _is_worth_spinning(self, waited_s: float) -> bool:
        """A request came after *waited_s* asleep: return whether to spin for the next."""
        if waited_s >= self._spin_s:
            self._waits, self._waited_s = 0, 0.0
            return False
        self._waits += 1
        self._waited_s += waited_s
        if self._waits < self._trial:
            return False
        is_far = self._waited_s > self._waits * _NEAR_S
        self._trial = _TRIAL if is_far else _CONTENT
        self._awake = _AWAKE
        self._waits, self._waited_s = 0, 0.0
        return is_far

    def _is_quiet(self) -> bool:
        return not self._poll(0)

    def _spin(self) -> int:
        """Look for a request until one is there or SPIN_S are over; then wait for it asleep."""
        self._awake -= 1
        self._is_busy = self._awake > 0
        end = clock() + self._spin_s
        while not self._poll(0):
            if clock() > end:
                self._is_busy = False
                break
        try:
            return os.readv(self.fd, self._buffers)
        except OSError as error:
            return self._failed(error)

    def yield_cpu(self) -> None:
        """Do not spin for a while: another process of ours has been given something to do."""
        self._is_busy = False
        self._yield_until_s = clock() + _YIELD_S

    def _failed(self, error: OSError) -> int:
        if error.errno in ENDED:
            return 0
        if error.errno in _RETRY:
            return self.receive()
        raise error

"""Threads that answer the READs which must wait for a store, so that the loop need not.

Always true:

  1. A request that was given to submit() is answered once: with its bytes, with an errno, or, when the kernel
     says that nobody wants it any more, with EINTR.
  2. Threads are started when there is work and none is idle, up to THREADS_MAX, and wait for nothing but work
     and the store.  They are daemons: a store that hangs never keeps the process alive.
"""

from __future__ import annotations

import errno
import logging
import os
import queue
import threading
import time
from collections.abc import Callable

from volume_core.errors import NotFoundError, VolumeError
from volume_core.format.entries import Extent
from volume_core.mount.errnos import errno_of
from volume_core.mount.protocol import OUT_HEADER, OUT_HEADER_BYTES
from volume_core.mount.requests import Fetch

log = logging.getLogger(__name__)

# An object store answers after 30 ms and each of its connections gives 100 MB/s: so many keep a fast network busy.
THREADS_MAX = 32
# A store that is gone fails every read: the same sentence once in a while says as much as a thousand times.
_SAME_ERROR_S = 10.0
_GONE = frozenset({errno.ENOENT, errno.ENODEV, errno.ECONNABORTED})

Read = Callable[[tuple[Extent, ...], int, int], bytes]


def answer(fd: int, unique: int, data: bytes) -> None:
    """Answer the request *unique* with *data*."""
    try:
        if len(data) < 4096:
            os.write(fd, OUT_HEADER.pack(OUT_HEADER_BYTES + len(data), 0, unique) + data)
        else:
            os.writev(fd, (OUT_HEADER.pack(OUT_HEADER_BYTES + len(data), 0, unique), data))
    except OSError as error:
        if error.errno not in _GONE:  # ENOENT: whoever asked is gone; the others: so is the mount
            raise


def refuse(fd: int, unique: int, number: int) -> None:
    """Answer the request *unique* with the errno *number*."""
    try:
        os.write(fd, OUT_HEADER.pack(OUT_HEADER_BYTES, -number, unique))
    except OSError as error:
        if error.errno not in _GONE:
            raise


class Complaints:
    """Says in the log why a read failed, the same reason at most once in _SAME_ERROR_S.  Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._said: dict[str, float] = {}

    def errno_of(self, error: Exception, path: bytes) -> int:
        """Log that reading *path* met *error* and return its errno.  A file whose pack is missing is there: EIO."""
        now = time.monotonic()
        text = str(error)
        with self._lock:
            is_new = now - self._said.get(text, -_SAME_ERROR_S) >= _SAME_ERROR_S
            if is_new:
                if len(self._said) > 1000:
                    self._said.clear()
                self._said[text] = now
        if is_new:
            expected = isinstance(error, (VolumeError, OSError))
            log.error("%s: cannot be read: %s", os.fsdecode(path), text, exc_info=None if expected else error)
        return errno.EIO if isinstance(error, NotFoundError) else errno_of(error)


class Fetchers:
    """Answers Fetches on *fd* with what *read* gives."""

    def __init__(self, fd: int, read: Read, complaints: Complaints, threads_max: int = THREADS_MAX) -> None:
        self._fd = fd
        self._read = read
        self._complaints = complaints
        self._threads_max = threads_max
        self._queue: queue.SimpleQueue[tuple[int, Fetch]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._wanted: set[int] = set()  # requests that are still to be answered
        self._threads = 0
        self._busy = 0  # requests in the queue or in the hands of a thread

    def submit(self, unique: int, fetch: Fetch) -> None:
        """Answer request *unique* with *fetch*, later."""
        with self._lock:
            self._wanted.add(unique)
            self._busy += 1
            start = self._busy > self._threads and self._threads < self._threads_max
            self._threads += start
        self._queue.put((unique, fetch))
        if start:
            threading.Thread(target=self._work, name="fetch", daemon=True).start()

    def interrupt(self, unique: int) -> None:
        """Answer request *unique* with EINTR if it has no answer yet: whoever waits for it was interrupted."""
        if self._take(unique):
            refuse(self._fd, unique, errno.EINTR)

    def _take(self, unique: int) -> bool:
        """Whether the caller is the one who answers *unique*."""
        with self._lock:
            if unique in self._wanted:
                self._wanted.remove(unique)
                return True
        return False

    def _work(self) -> None:
        while True:
            unique, fetch = self._queue.get()
            try:
                if unique in self._wanted:
                    self._serve(unique, fetch)
            finally:
                with self._lock:
                    self._busy -= 1

    def _serve(self, unique: int, fetch: Fetch) -> None:
        try:
            data = self._read(fetch.extents, fetch.offset, fetch.size)
        except Exception as error:
            # Whatever it is, a reader waits for an answer: there is no other door to hand it to.
            number = self._complaints.errno_of(error, fetch.path)
            if self._take(unique):
                refuse(self._fd, unique, number)
        else:
            if self._take(unique):
                answer(self._fd, unique, data)

"""Fetching windows before they are asked for: what to bring next, and the threads that bring it.

Two signs that somebody reads on: a file of several chunks is read where the last read of it ended;
and a window of a pack is missing right after its predecessor was used, which is what reading the
files of a directory one by one looks like, since packs are in path order.

Always true: nothing here can fail a read or make it wait.  What could not be fetched ahead is
fetched, and its error seen, by the read that needs it.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from volume_core.errors import VolumeError
from volume_core.format.pack import PACK_BYTES
from volume_core.parts.caching import WINDOW_BYTES, Key, Windows
from volume_core.parts.forking import renew_after_fork

log = logging.getLogger(__name__)

# At 30 ms a request and 130 MB/s a connection, eight windows at once fill 1 GB/s.
_THREADS = 8
_AHEAD_MIN_BYTES = WINDOW_BYTES
_AHEAD_MAX_BYTES = _THREADS * WINDOW_BYTES
_QUEUED_MAX = 32  # beyond this the threads are busy for long, and a guess that late is worth nothing
_STREAMS_MAX = 256
# The kernel sends the reads of one readahead window at once, and they arrive in any order.
_DISORDER_BYTES = 2 << 20


@dataclass(slots=True)
class _Stream:
    """How one file is being read: where the last read ended, how far ahead to be, and up to where that was done."""

    end: int
    ahead_bytes: int = 0
    until: int = 0


class Ahead:
    """Brings windows by *fetch*, several at once, to where *windows* finds them."""

    def __init__(self, windows: Windows, fetch: Callable[[bytes, int], object]) -> None:
        self._windows = windows
        self._fetch = fetch
        self._lock = threading.Lock()
        self._queued: set[Key] = set()
        self._streams: OrderedDict[Hashable, _Stream] = OrderedDict()
        self._pool: ThreadPoolExecutor | None = None
        self._closed = False
        renew_after_fork(self)

    def _renew_after_fork(self) -> None:
        self._lock = threading.Lock()
        self._queued = set()
        self._pool = None

    def want(self, keys: Iterable[Key]) -> None:
        """Fetch those of *keys* (pack, window number) that are neither here nor on their way."""
        for key in keys:
            if self._windows.find(*key) is None:
                self._submit(key)

    def missed(self, missing: list[Key], latest: Key | None) -> None:
        """A read waits for the *missing* windows of a pack, right after *latest* was used."""
        for key in missing[1:]:  # the read itself fetches the first
            self._submit(key)
        pack, number = missing[0]
        if latest == (pack, number - 1):
            self.want((pack, later) for later in range(missing[-1][1] + 1, PACK_BYTES // WINDOW_BYTES))

    def after(self, file: Hashable, offset: int, size: int) -> range:
        """*size* bytes at *offset* of *file* are being read: return the range of its bytes to want now."""
        end = offset + size
        with self._lock:
            stream = self._streams.pop(file, None)
            if stream is None or abs(offset - stream.end) > _DISORDER_BYTES:
                stream = _Stream(end, 0 if offset else _AHEAD_MIN_BYTES, 0)
            elif not stream.ahead_bytes:
                stream.ahead_bytes = _AHEAD_MIN_BYTES
            stream.end = end
            self._streams[file] = stream
            if len(self._streams) > _STREAMS_MAX:
                self._streams.popitem(last=False)
            # Half of what was fetched ahead is used up: fetch twice as much.
            if not stream.ahead_bytes or stream.until - end > stream.ahead_bytes // 2:
                return range(0)
            if stream.until:
                stream.ahead_bytes = min(2 * stream.ahead_bytes, _AHEAD_MAX_BYTES)
            begin = max(stream.until, end)
            stream.until = end + stream.ahead_bytes
            return range(begin, stream.until)

    def close(self) -> None:
        """Forget what is queued, and wait for what is being fetched."""
        with self._lock:
            self._closed = True
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(cancel_futures=True)

    def _submit(self, key: Key) -> None:
        with self._lock:
            if self._closed or key in self._queued or len(self._queued) >= _QUEUED_MAX:
                return
            self._queued.add(key)
            if self._pool is None:
                self._pool = ThreadPoolExecutor(_THREADS, "readahead")
            self._pool.submit(self._run, key)

    def _run(self, key: Key) -> None:
        try:
            self._fetch(*key)
        except VolumeError as error:
            log.debug("window %d of pack %s could not be fetched ahead: %s", key[1], key[0].hex(), error)
        finally:
            with self._lock:
                self._queued.discard(key)

"""A store as far away as a bucket: every call takes a round trip, and bytes take time.

For looking at what is fetched in parallel and what waits for what; the times are slept, so a test
that uses them should keep them in milliseconds.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from volume_core.storage.protocol import ObjectInfo, Store


class SlowStore:
    """*inner*, with *latency_s* before each call (up to *jitter_s* more, seeded), *bytes_per_s* for all together.

    `calls_at_once` is the greatest number of calls that were under way together.
    """

    def __init__(
        self,
        inner: Store,
        latency_s: float = 0.02,
        jitter_s: float = 0.0,
        bytes_per_s: float | None = None,
        seed: int = 0,
    ) -> None:
        self.inner = inner
        self.calls_at_once = 0
        self._latency_s = latency_s
        self._jitter_s = jitter_s
        self._bytes_per_s = bytes_per_s
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._under_way = 0
        self._line_free_s = 0.0

    def __repr__(self) -> str:
        return f"SlowStore({self.inner!r})"

    @property
    def url(self) -> str:
        """The inner store's URL."""
        return self.inner.url

    @property
    def honours_conditions(self) -> bool:
        """What the inner store knows of itself."""
        return self.inner.honours_conditions

    @property
    def local_root(self) -> Path | None:
        """None: what is far away is read through the store."""
        return None

    def get(self, name: str) -> bytes:
        """Get, late."""
        with self._trip():
            data = self.inner.get(name)
            self._carry(len(data))
            return data

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        """Get a range, late."""
        with self._trip():
            data = self.inner.get_range(name, offset, length)
            self._carry(len(data))
            return data

    def put_new(self, name: str, data: bytes | memoryview) -> None:
        """Put, late."""
        with self._trip():
            self._carry(len(data))
            self.inner.put_new(name, data)

    def put(self, name: str, data: bytes | memoryview) -> None:
        """Put, late."""
        with self._trip():
            self._carry(len(data))
            self.inner.put(name, data)

    def swap(self, name: str, old: bytes | None, new: bytes) -> None:
        """Swap, late."""
        with self._trip():
            self.inner.swap(name, old, new)

    def info(self, name: str) -> ObjectInfo:
        """Look, late."""
        with self._trip():
            return self.inner.info(name)

    def names(self, prefix: str) -> Iterator[ObjectInfo]:
        """List, late: one round trip for the whole of it."""
        with self._trip():
            return iter(list(self.inner.names(prefix)))

    def delete(self, name: str) -> None:
        """Delete, late."""
        with self._trip():
            self.inner.delete(name)

    def close(self) -> None:
        """Close the inner store."""
        self.inner.close()

    @contextmanager
    def _trip(self) -> Iterator[None]:
        with self._lock:
            self._under_way += 1
            self.calls_at_once = max(self.calls_at_once, self._under_way)
            wait_s = self._latency_s + self._jitter_s * self._random.random()
        try:
            time.sleep(wait_s)
            yield
        finally:
            with self._lock:
                self._under_way -= 1

    def _carry(self, size_bytes: int) -> None:
        """Wait until *size_bytes* have gone over the one line that all calls share."""
        if self._bytes_per_s is None:
            return
        with self._lock:
            now_s = time.monotonic()
            self._line_free_s = max(now_s, self._line_free_s) + size_bytes / self._bytes_per_s
            wait_s = self._line_free_s - now_s
        time.sleep(wait_s)

"""Where a server's bytes come from: a Reader, made when the first byte is asked for.

Why late: a mount answers its first request within 100 ms, and the libraries of a remote store alone may take as
long to load.  A store of local files costs next to nothing and is opened by whoever asks first; any other is
opened by the first thread that may wait.

Always true: there is one Reader in a process, and every method may be called from any thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from volume_core.format.entries import Extent

if TYPE_CHECKING:
    from volume_core.parts.reading import Reader
    from volume_core.storage.protocol import Store


class Supply:
    """Reads from the store that *open_store* opens, keeping what it fetches in *cache_dir*.

    *is_local*: opening it and reading from it wait for no network.
    """

    def __init__(
        self, open_store: Callable[[], Store], is_local: bool, cache_dir: Path | None, cache_limit_bytes: int
    ) -> None:
        self._open_store = open_store
        self._is_local = is_local
        self._cache_dir = cache_dir
        self._cache_limit_bytes = cache_limit_bytes
        self._lock = threading.Lock()
        self._reader: Reader | None = None

    def read(self, extents: tuple[Extent, ...], offset: int, size: int) -> bytes:
        """Return what Reader.read does; opens the store if nobody has."""
        return (self._reader or self._open()).read(extents, offset, size)

    def read_local(self, extents: tuple[Extent, ...], offset: int, size: int) -> bytes | None:
        """Return what Reader.read_local does; None while a store that is far away is not open."""
        reader = self._reader
        if reader is None:
            if not self._is_local:
                return None
            reader = self._open()
        return reader.read_local(extents, offset, size)

    def read_neighbours(self, files: Sequence[tuple[Extent, ...]]) -> Sequence[bytes | memoryview | None]:
        """Return what Reader.read_neighbours does; opens the store."""
        return (self._reader or self._open()).read_neighbours(files)

    def _open(self) -> Reader:
        with self._lock:
            if self._reader is None:
                from volume_core.parts.caching import PackCache
                from volume_core.parts.reading import Reader

                cache = self._cache_dir and PackCache(self._cache_dir, self._cache_limit_bytes)
                self._reader = Reader(self._open_store(), cache or None)
            return self._reader

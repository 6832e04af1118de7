"""Windows of packs: the pieces in which a pack's bytes are brought here and kept.

Why windows: a range read of an object store costs about 30 ms before its first byte, so one small
file is fetched with its neighbours, which by the order of a pack lie in the same directory.  And
why of fixed size: every reader of every layer then agrees on what a piece is, without asking.

Three places give windows and answer the same questions (`Windows`): the files of a local store,
where one window is the whole pack and nothing is copied; a cache directory; and memory.

Always true:

  1. A window is the pack's bytes from a multiple of `window_bytes` on, as many unless the pack
     ends before.  Whether they are the right ones is for the reader of a chunk to verify.
  2. A file of the cache appears whole (temporary name, then rename), is never written again, and
     goes by unlink.  Who has it open reads on.
  3. No two window objects of a process have one serial, so what was verified of one is never
     believed of another, not even of a second copy of the same bytes.
  4. A descriptor is closed when the last user of its window is gone, never before.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple, Protocol

from volume_core.errors import NotFoundError, StorageError
from volume_core.format.names import pack_name
from volume_core.parts.forking import renew_after_fork

log = logging.getLogger(__name__)

# 30 ms of waiting and as long again for the bytes, at 130 MB/s a connection; a quarter of a pack.
WINDOW_BYTES = 4 << 20
# A descriptor each, of the 1024 that a process may have by default.
OPEN_WINDOWS_MAX = 256
MEMORY_WINDOWS_MAX = 16
# The cache is measured after each such part of its limit was added, so it is never over the limit
# by more than that for each other process that fills it at the same time.
_TRIM_PARTS = 16
# A temporary file this old has lost its writer: no fetch of one window takes so long.
_ABANDONED_S = 3600

Key = tuple[bytes, int]  # digest of the pack, number of the window
_serials = itertools.count(1)


class Window(Protocol):
    """Some bytes of one pack.  Used by several threads at once."""

    @property
    def serial(self) -> int:
        """A number that no other window of this process has or had."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Return *length* bytes from *offset* of the pack; fewer only where the window ends."""
        ...


class FileWindow:
    """A window that lies in a file; owns the descriptor it is given."""

    __slots__ = ("_begin", "_descriptor", "serial")

    def __init__(self, descriptor: int, begin: int) -> None:
        self.serial = next(_serials)
        self._descriptor = descriptor
        self._begin = begin

    def read(self, offset: int, length: int) -> bytes:
        """See Window.  Raises OSError if the disk does."""
        return os.pread(self._descriptor, length, offset - self._begin)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        close(self._descriptor)


class MemoryWindow:
    """A window that lies in memory."""

    __slots__ = ("_begin", "_data", "serial")

    def __init__(self, data: bytes, begin: int) -> None:
        self.serial = next(_serials)
        self._data = data
        self._begin = begin

    def read(self, offset: int, length: int) -> bytes:
        """See Window."""
        start = offset - self._begin
        return self._data[start : start + length]


class Windows(ABC):
    """A place that gives windows.  Every method may be called from several threads at once."""

    window_bytes = WINDOW_BYTES

    def __init__(self, open_max: int) -> None:
        self._open_max = open_max
        self._open: OrderedDict[Key, Window] = OrderedDict()
        self._flights: dict[Key, Future[Window | None]] = {}
        self._lock = threading.Lock()
        renew_after_fork(self)

    def _renew_after_fork(self) -> None:
        self._lock = threading.Lock()
        self._flights = {}

    def find(self, pack: bytes, number: int) -> Window | None:
        """Return window *number* of *pack* if it is here; nothing is fetched."""
        key = (pack, number)
        with self._lock:
            window = self._open.get(key)
            if window is not None:
                self._open.move_to_end(key)
                return window
        window = self._load(key)
        return None if window is None else self._remember(key, window)

    def fetch(self, pack: bytes, number: int, get: Callable[[], bytes]) -> Window:
        """Return window *number* of *pack*, which *get* brings if it is not here.

        Calls for one window at one time share one *get*, and its error.
        """
        key = (pack, number)
        while True:
            with self._lock:
                flight = self._flights.get(key)
                if flight is None:
                    mine = self._flights[key] = Future()
                    break
            window = flight.result()
            if window is not None:
                return window
        return self._fly(key, get, mine)

    def _fly(self, key: Key, get: Callable[[], bytes], flight: Future[Window | None]) -> Window:
        try:
            window = self.find(*key) or self._remember(key, self._keep(key, get))
            flight.set_result(window)
            return window
        except Exception as error:
            flight.set_exception(error)
            raise
        finally:
            with self._lock:
                del self._flights[key]
            if not flight.done():  # this thread was interrupted, which is no answer for the others
                flight.set_result(None)

    def drop(self, pack: bytes, number: int, window: Window) -> None:
        """Forget *window*, which was found damaged: the next fetch brings its bytes anew."""
        key = (pack, number)
        with self._lock:
            if self._open.get(key) is not window:
                return  # somebody else has replaced it already
            del self._open[key]
        self._remove(key)

    def close(self) -> None:
        """Forget every open window.  Reads that go on keep theirs until they are done."""
        with self._lock:
            self._open.clear()

    def _remember(self, key: Key, window: Window) -> Window:
        with self._lock:
            self._open[key] = window
            self._open.move_to_end(key)
            gone = self._open.popitem(last=False) if len(self._open) > self._open_max else None
        del gone  # closes a descriptor, which must not be done with the lock held
        return window

    @abstractmethod
    def _load(self, key: Key) -> Window | None:
        """Return a window that is here but not open."""

    @abstractmethod
    def _keep(self, key: Key, get: Callable[[], bytes]) -> Window:
        """Return a window whose bytes *get* brings, after putting them where _load finds them."""

    @abstractmethod
    def _remove(self, key: Key) -> None:
        """Take a damaged window away from where _load finds it."""


class LocalPacks(Windows):
    """The packs of a store whose objects are files below *root*: read where they lie."""

    window_bytes = 1 << 62  # a pack is one window

    def __init__(self, root: Path, open_max: int = OPEN_WINDOWS_MAX) -> None:
        super().__init__(open_max)
        self._root = os.fspath(root)

    def _load(self, key: Key) -> Window | None:
        try:
            descriptor = os.open(f"{self._root}/{pack_name(key[0].hex())}", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(f"pack {key[0].hex()} cannot be opened: {error}") from error
        return FileWindow(descriptor, 0)

    def _keep(self, key: Key, get: Callable[[], bytes]) -> Window:
        raise NotFoundError(f"pack {key[0].hex()} is not in {self._root}")

    def _remove(self, key: Key) -> None:
        """The store's own object is never touched; the next read opens it again."""


class MemoryWindows(Windows):
    """A few windows in memory, for a reader that was given no cache directory."""

    def __init__(self, open_max: int = MEMORY_WINDOWS_MAX) -> None:
        super().__init__(open_max)

    def _load(self, key: Key) -> Window | None:
        return None

    def _keep(self, key: Key, get: Callable[[], bytes]) -> Window:
        return MemoryWindow(get(), key[1] * WINDOW_BYTES)

    def _remove(self, key: Key) -> None:
        """Forgetting the object was all."""


class _CachedFile(NamedTuple):
    used_ns: int
    size_bytes: int
    path: str


class PackCache(Windows):
    """The windows under *cache_dir*/packs/<pack>/<number>, of *limit_bytes* at most.

    Shared by the processes that name the same directory.  A window's time of modification is when
    it was last opened; the longest unused go first.
    """

    def __init__(self, cache_dir: Path, limit_bytes: int, open_max: int = OPEN_WINDOWS_MAX) -> None:
        super().__init__(open_max)
        self._root = os.path.join(cache_dir, "packs")
        self._limit_bytes = limit_bytes
        self._trim_bytes = max(limit_bytes // _TRIM_PARTS, 1)
        self._added_bytes = self._trim_bytes  # nobody has measured yet: the first window added makes us
        self._trimming = threading.Lock()

    def _renew_after_fork(self) -> None:
        super()._renew_after_fork()
        self._trimming = threading.Lock()

    def size_bytes(self) -> int:
        """Return how many bytes all windows of the cache have, by walking it."""
        return sum(file.size_bytes for file in self._files())

    def trim(self, limit_bytes: int | None = None) -> None:
        """Remove the longest unused windows until *limit_bytes* (default: the cache's limit) hold the rest."""
        wanted = self._limit_bytes if limit_bytes is None else limit_bytes
        files = sorted(self._files())
        total = sum(file.size_bytes for file in files)
        for file in files:
            if total <= wanted:
                break
            with contextlib.suppress(FileNotFoundError):
                os.unlink(file.path)
            total -= file.size_bytes
            with contextlib.suppress(OSError):  # other windows of the pack are there
                os.rmdir(os.path.dirname(file.path))

    def _load(self, key: Key) -> Window | None:
        try:
            descriptor = os.open(self._path(key), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # what the cache cannot give is fetched
            return None
        with contextlib.suppress(OSError):  # a cache on a read-only disk: its order of use is not ours to keep
            os.utime(descriptor)
        return FileWindow(descriptor, key[1] * WINDOW_BYTES)

    def _keep(self, key: Key, get: Callable[[], bytes]) -> Window:
        data = get()
        begin = key[1] * WINDOW_BYTES
        try:
            descriptor = self._write(self._path(key), data)
        except OSError as error:
            # The cache makes reading fast; a full disk must not make it fail.
            log.warning("cannot keep a window of pack %s in the cache: %s", key[0].hex(), error)
            return MemoryWindow(data, begin)
        window = FileWindow(descriptor, begin)
        self._added(len(data))
        return window

    def _remove(self, key: Key) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self._path(key))

    def _path(self, key: Key) -> str:
        return f"{self._root}/{key[0].hex()}/{key[1]}"

    def _write(self, path: str, data: bytes) -> int:
        """Put a file in place whole; return a descriptor of it."""
        descriptor, temporary = self._temporary(os.path.dirname(path))
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.replace(temporary, path)
        except BaseException:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        return descriptor

    def _temporary(self, directory: str) -> tuple[int, str]:
        while True:
            os.makedirs(directory, exist_ok=True)
            # Another process may find the directory empty and remove it just now.
            with contextlib.suppress(FileNotFoundError):
                return tempfile.mkstemp(".tmp", "", directory)

    def _added(self, size_bytes: int) -> None:
        with self._lock:
            self._added_bytes += size_bytes
            if self._added_bytes < self._trim_bytes:
                return
            self._added_bytes = 0
        if self._trimming.acquire(blocking=False):
            try:
                self.trim(self._limit_bytes - self._trim_bytes)
            except OSError as error:
                log.warning("cannot remove old windows from the cache: %s", error)
            finally:
                self._trimming.release()

    def _files(self) -> Iterator[_CachedFile]:
        abandoned_ns = time.time_ns() - _ABANDONED_S * 10**9
        for directory in _scan(self._root):
            for file in _scan(directory.path):
                try:
                    status = file.stat(follow_symlinks=False)
                    if file.name.endswith(".tmp"):
                        if status.st_mtime_ns < abandoned_ns:
                            os.unlink(file.path)
                        continue
                except FileNotFoundError:
                    continue
                yield _CachedFile(status.st_mtime_ns, status.st_size, file.path)


def _scan(directory: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []

"""Layer indexes on this machine: packed for the store, fetched, verified, opened.

Why a cache of whole files: an index is small beside the data it names, every question of a mount
goes to it, and SQLite reads it in place without unpacking it again.

Always true:

  1. A path that fetch() hands out holds exactly the bytes that the manifest names: the digest is
     taken anew each time, for a cache is a place where anything may have happened since.
  2. A file appears in the cache whole (temporary name, then rename) and is never written again.
  3. An index that some process has open is not removed from the cache: who opens it holds a shared
     flock on it, so that a server that is replaced finds it again.
  4. Nothing unpacks to more than the manifest said, whatever the store answers, and what was fetched
     keeps every rule of soundness.py before it gets its name.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from blake3 import blake3

from volume_core.errors import CorruptObjectError, NotFoundError, StorageError
from volume_core.format import zstd
from volume_core.format.digests import hex_digest, verify
from volume_core.format.entries import Entry
from volume_core.format.layer import LayerReader, write_layer
from volume_core.format.manifest import LayerRef
from volume_core.format.names import layer_name
from volume_core.format.soundness import check_layer
from volume_core.storage.protocol import Store

if TYPE_CHECKING:
    from volume_core.domain.view import View

log = logging.getLogger(__name__)

# The index of 100,000 small files, half of it digests: 16.2 MB become 8.5 in 50 ms; level 9 makes it 8.0 in 130 ms.
INDEX_LEVEL = 3
_FETCHES_MAX = 8  # a stack has at most 8 layers and the delta of a commit
_READ_BYTES = 4 << 20
LIMIT_BYTES = 4 << 30  # the indexes of some 25 million files
# What was handed out so lately may be about to be opened, and what is half written this old has lost its writer.
_RECENT_S = 3600


def build_index(rows: Iterable[tuple[bytes, bytes, Entry]]) -> bytes:
    """Return the index file that holds *rows* (see write_layer for their shape and order)."""
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        write_layer(connection, rows)
        return connection.serialize()


def pack_index(index: bytes | Path) -> tuple[bytes, LayerRef]:
    """Return (the object to store, its name and sizes) of an index file or its bytes."""
    data = index.read_bytes() if isinstance(index, Path) else index
    stored = zstd.compress(data, INDEX_LEVEL)
    with contextlib.closing(open_index(data)) as reader:
        rows = reader.counts()[0]
    return stored, LayerRef(hex_digest(stored), len(stored), hex_digest(data), len(data), rows)


def unpack_index(ref: LayerRef, stored: bytes) -> Iterator[bytes]:
    """Yield in blocks the index file that the object *stored*, named by *ref*, holds.

    Raises CorruptObjectError if the object or, after the last block, the index is not what *ref*
    names: nothing may be done with the blocks before this iterator has ended.
    """
    what = f"layer {ref.digest}"
    verify(what, stored, ref.digest)
    found = blake3()
    length = 0
    for block in zstd.decompress_blocks(stored, ref.index_bytes, what):
        found.update(block)
        length += len(block)
        yield block
    if (length, found.hexdigest()) != (ref.index_bytes, ref.index_digest):
        raise CorruptObjectError(f"{what}: unpacks to {length} bytes that are not the index its manifest names")


def open_layer(path: Path, name: str | None = None) -> LayerReader:
    """Open an index that fetch() handed out, to read only.

    Raises CorruptObjectError if it is no layer index.
    """
    what = name or f"layer index {path.stem}"
    return _reader(_connect(path, what), what)


def open_view(paths: Sequence[Path], *, links: bool = True) -> View:
    """Return the view of the indexes at *paths*, oldest first, *links* as View has it; closing it closes them."""
    from volume_core.domain.view import View

    with contextlib.ExitStack() as opened:
        layers = []
        for path in paths:
            layers.append(layer := open_layer(path))
            opened.callback(layer.close)
        view = View(layers, links=links)
        opened.pop_all()
    return view


def open_index(data: bytes) -> LayerReader:
    """Open an index that is in memory, to read only; CorruptObjectError if it is no layer index."""
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    try:
        connection.deserialize(data or b"\0")  # of nothing at all it would raise MemoryError
    except sqlite3.Error as error:
        connection.close()
        raise CorruptObjectError(f"not a layer index ({error})") from error
    return _reader(connection, "layer index")


class _Holding(sqlite3.Connection):
    """A connection that keeps a lock on its file as long as it is open."""

    lock: int | None = None

    def close(self) -> None:
        super().close()
        self._release()

    def _release(self) -> None:
        lock, self.lock = self.lock, None
        if lock is not None:
            os.close(lock)

    def __del__(self) -> None:
        self._release()


def _connect(path: str | Path, what: str) -> sqlite3.Connection:
    # immutable: SQLite takes no lock of its own and looks for no journal, so a read-only cache will do.
    uri = f"file:{quote(os.fsencode(path))}?mode=ro&immutable=1"
    try:
        lock = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            connection = sqlite3.connect(uri, uri=True, check_same_thread=False, isolation_level=None, factory=_Holding)
        except BaseException:
            os.close(lock)
            raise
    except (sqlite3.Error, OSError) as error:
        raise CorruptObjectError(f"{what}: {path} cannot be opened ({error})") from error
    connection.lock = lock
    with contextlib.suppress(OSError):  # some file systems have no flock
        fcntl.flock(lock, fcntl.LOCK_SH)
    return connection


def _check(path: str, what: str) -> None:
    with contextlib.closing(_connect(path, what)) as connection:
        check_layer(connection, what)


def _reader(connection: sqlite3.Connection, name: str) -> LayerReader:
    try:
        return LayerReader(connection, name)
    except CorruptObjectError:
        connection.close()
        raise


class IndexCache:
    """The unpacked indexes under *cache_dir*/layers.  Shared by threads and processes.

    Beyond *limit_bytes* those that were handed out longest ago go, as far as nobody has them open.
    """

    def __init__(self, cache_dir: Path, limit_bytes: int = LIMIT_BYTES) -> None:
        self._dir = cache_dir / "layers"
        self._limit_bytes = limit_bytes

    def path(self, ref: LayerRef) -> Path:
        """Return where the index of *ref* lies, or would lie."""
        return self._dir / f"{ref.index_digest}.sqlite"

    def fetch(self, store: Store, refs: Sequence[LayerRef]) -> tuple[Path, ...]:
        """Return the verified index files of *refs*, fetching what is not here, several at once.

        Raises StorageError as the store does, and CorruptObjectError naming the layer if it is missing
        or damaged in the store.  A damaged file of the cache is fetched anew.
        """
        distinct = list(dict.fromkeys(refs))
        if not self._fetch_at_once(store, distinct):
            for ref in distinct:
                self._fetch(store, ref)
        return tuple(map(self.path, refs))

    def add(self, ref: LayerRef, index: bytes) -> Path:
        """Keep the *index* that *ref* names, which this process has just made; return where."""
        verify(f"index of layer {ref.digest}", index, ref.index_digest)
        return self._write(ref, [index], lambda _path: None)

    def _fetch_at_once(self, store: Store, refs: Sequence[LayerRef]) -> bool:
        """Fetch *refs* by threads; False, and perhaps some of it done, where no thread can begin."""
        if len(refs) < 2:
            return False
        with ThreadPoolExecutor(min(len(refs), _FETCHES_MAX), "index") as pool:
            try:
                fetches = [pool.submit(self._fetch, store, ref) for ref in refs]
            except RuntimeError:  # the interpreter is ending, or the machine has no thread left
                return False
            for fetch in fetches:
                fetch.result()
        return True

    def _fetch(self, store: Store, ref: LayerRef) -> None:
        if self._is_whole(ref):
            return
        name = layer_name(ref.digest)
        # One byte more than it has: an object that is too long is as wrong as one cut short.
        try:
            stored = store.get_range(name, 0, ref.size_bytes + 1)
        except NotFoundError as error:
            raise CorruptObjectError(f"layer {ref.digest} is missing from {store.url}; run verify") from error
        try:
            self._write(ref, unpack_index(ref, stored), lambda path: _check(path, f"layer {ref.digest}"))
        except OSError as error:
            raise StorageError(
                f"the index of layer {ref.digest} cannot be kept in {self._dir}: {error.strerror}; make that possible, "
                "or set VOLUME_STATE_DIR to another place"
            ) from error

    def _is_whole(self, ref: LayerRef) -> bool:
        path = self.path(ref)
        try:
            with path.open("rb", buffering=0) as file:
                if os.fstat(file.fileno()).st_size == ref.index_bytes and _digest_of(file.fileno()) == ref.index_digest:
                    with contextlib.suppress(OSError):  # a cache that is not ours: its order is not either
                        os.utime(file.fileno())
                    return True
        except FileNotFoundError:
            return False
        log.info("layer index %s was damaged in the cache and is fetched again", path)
        return False

    def _write(self, ref: LayerRef, blocks: Iterable[bytes], check: Callable[[str], None]) -> Path:
        path = self.path(ref)
        self._dir.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(".tmp", f"{ref.index_digest[:16]}.", self._dir)
        try:
            with open(handle, "wb") as file:
                for block in blocks:
                    file.write(block)
            check(temporary)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
        self._trim()
        return path

    def _trim(self) -> None:
        recent_ns = time.time_ns() - _RECENT_S * 10**9
        found = []
        for path in self._dir.iterdir():
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                found.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in found)
        for used_ns, size, path in sorted(found):
            if used_ns > recent_ns:
                break
            if (path.suffix == ".tmp" or total > self._limit_bytes) and _remove_unused(path):
                total -= size


def _remove_unused(path: Path) -> bool:
    """Remove a file of the cache unless somebody holds it; return whether it is gone."""
    try:
        with path.open("rb", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _digest_of(descriptor: int) -> str:
    found = blake3()
    buffer = bytearray(_READ_BYTES)
    offset = 0
    while count := os.preadv(descriptor, [buffer], offset):
        found.update(memoryview(buffer)[:count])
        offset += count
    return found.hexdigest()

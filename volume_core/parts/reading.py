"""Reading a file's bytes: extents in, verified bytes out.

Always true:

  1. No byte of a chunk leaves before the chunk's digest was verified over its raw bytes.  A small
     chunk is verified whenever it is read, which is cheaper than remembering it; a large one once
     for each window object, and from then on only the range that is asked for is read.
  2. A mismatch is forgotten and fetched once more; the second is CorruptObjectError, naming pack and
     offset.  So a damaged cache heals, and a damaged store is found out.
  3. What was verified is remembered in this process only, in bounded memory.
  4. read_local() never waits for a store: it is for a loop that must not stop.

The walk of a read: extents -> pieces of chunks (`_cut`) -> windows of packs (caching.py) -> stored
bytes -> raw bytes -> digest -> the piece.
"""

from __future__ import annotations

import logging
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import accumulate
from types import TracebackType
from typing import Self, TypeVar

from volume_core.errors import CorruptObjectError, NotFoundError, StorageError
from volume_core.format import zstd
from volume_core.format.digests import digest
from volume_core.format.entries import CHUNK_BYTES, ChunkRef, Codec, Extent
from volume_core.format.names import pack_name
from volume_core.format.soundness import STORED_BYTES_MAX
from volume_core.parts.caching import WINDOW_BYTES, Key, LocalPacks, MemoryWindows, PackCache, Window, Windows
from volume_core.parts.forking import renew_after_fork
from volume_core.parts.readahead import Ahead
from volume_core.storage.protocol import Store

log = logging.getLogger(__name__)

# Hashing this much takes 10 us at 6 GB/s (AVX-512), 60 us where BLAKE3 has no SIMD to use.
SMALL_BYTES = 64 << 10
_RUN_BYTES_MAX = 1 << 20
_VERIFIED_MAX = 65_536  # large chunks, so 4 GiB of data at the least; about 10 MB of memory
_RAW_BYTES_MAX = 16 << 20
# Up to this many extents are walked faster than searched: one for each 4 MiB of a file without holes.
_WALKED_EXTENTS_MAX = 16
_ENDS_MAX = 64

Piece = tuple[ChunkRef | None, int, int]  # None: a hole; offset in the raw chunk; length

Stored = TypeVar("Stored", bytes, memoryview)


class Reader:
    """Reads the chunks of one store.  Every method may be called from several threads at once.

    *cache* keeps what was fetched; without one, a few windows stay in memory.  A store whose objects
    are local files is read where they lie, and *cache* is not used.
    """

    def __init__(self, store: Store, cache: PackCache | None = None) -> None:
        self._store = store
        root = store.local_root
        self._windows: Windows = LocalPacks(root) if root is not None else cache or MemoryWindows()
        self._window_bytes = self._windows.window_bytes
        self._ahead = Ahead(self._windows, self._window) if root is None else None
        self._latest: Key | None = None
        self._verified = _Verified()
        self._raw = _RawChunks()
        self._ends = _Ends()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop fetching ahead, and forget what is open."""
        if self._ahead is not None:
            self._ahead.close()
        self._windows.close()

    def read(self, extents: tuple[Extent, ...], offset: int, size: int) -> bytes:
        """Return *size* bytes from *offset* of the file that *extents* describe; fewer where it ends.

        Raises CorruptObjectError naming pack and offset where the store's bytes are not those that
        were committed, and StorageError where they cannot be had.
        """
        pieces = self._cut(extents, offset, size)
        if self._ahead is not None and len(extents) > 1:
            self._read_ahead(self._ahead, extents, offset, size)
        parts = [self._read(chunk, start, length) if chunk else bytes(length) for chunk, start, length in pieces]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_local(self, extents: tuple[Extent, ...], offset: int, size: int) -> bytes | None:
        """Return what read() would, or None where that would fetch something or raise an error."""
        if len(extents) == 1 and (data := self._small_here(extents[0])) is not None:
            return data if size >= len(data) and not offset else data[offset : offset + size]
        pieces = self._cut(extents, offset, size)
        if self._ahead is not None and len(extents) > 1:
            self._read_ahead(self._ahead, extents, offset, size)
        parts = []
        for chunk, start, length in pieces:
            part = self._read_here(chunk, start, length) if chunk else bytes(length)
            if part is None:
                return None
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _small_here(self, extent: Extent) -> bytes | None:
        """Return all of an extent that is one small chunk as it lies, most files' only one; None: look properly."""
        length, chunk, start = extent
        if chunk is None or start or not 0 < chunk.length == chunk.raw_length == length <= SMALL_BYTES or chunk.codec:
            return None
        number = chunk.offset // self._window_bytes
        window = self._windows.find(chunk.pack, number)
        try:
            data = None if window is None else window.read(chunk.offset, length)
        except OSError:
            return None
        if data is None or len(data) != length or digest(data) != chunk.digest:
            return None
        self._latest = chunk.pack, number
        return data

    def read_neighbours(self, files: Sequence[tuple[Extent, ...]]) -> list[bytes | memoryview | None]:
        """Return the whole content of each of *files* as read_local() would.

        Small files that lie side by side in a pack are brought with one reading of it: about half the
        time of one by one.
        """
        found: list[bytes | memoryview | None] = []
        run: list[ChunkRef] = []
        for extents in files:
            chunk = extents[0].chunk if len(extents) == 1 else None
            if chunk is None or not extents[0].length == chunk.raw_length <= SMALL_BYTES:
                found += self._run(run)
                run = []
                found.append(self.read_local(extents, 0, sum(extent.length for extent in extents)))
                continue
            if run and not _follows(run, chunk):
                found += self._run(run)
                run = []
            run.append(chunk)
        return found + self._run(run)

    def _run(self, run: list[ChunkRef]) -> list[bytes | memoryview | None]:
        """Return the bytes of chunks that lie side by side in one pack."""
        stored = self._side_by_side(run) if len(run) > 1 else None
        if stored is None:
            return [self._read_here(chunk, 0, chunk.raw_length) for chunk in run]
        found: list[bytes | memoryview | None] = []
        for chunk in run:
            start = chunk.offset - run[0].offset
            try:
                found.append(_checked(chunk, stored[start : start + chunk.length]))
            except CorruptObjectError:
                found.append(None)
        return found

    def _side_by_side(self, run: list[ChunkRef]) -> memoryview | None:
        """Return what is stored of all chunks of *run*, if it is here."""
        first, last = run[0], run[-1]
        length = last.offset + last.length - first.offset
        whole = first._replace(length=length, raw_length=length)
        try:
            windows = self._find(whole)
            return memoryview(self._stored(whole, windows, first.offset, length)) if windows else None
        except (CorruptObjectError, StorageError, OSError):
            return None

    def stream(self, extents: tuple[Extent, ...], block_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
        """Yield the whole file in order, *block_bytes* at a time (the last block may be shorter)."""
        size = sum(extent.length for extent in extents)
        for offset in range(0, size, block_bytes):
            yield self.read(extents, offset, block_bytes)

    # Pieces of one chunk.

    def _read_here(self, chunk: ChunkRef, start: int, length: int) -> bytes | None:
        try:
            windows = self._find(chunk)
            return self._piece(chunk, windows, start, length) if windows else None
        except (CorruptObjectError, StorageError, OSError):
            return None  # read() will meet it again: it heals what can be healed and says what cannot

    def _read(self, chunk: ChunkRef, start: int, length: int) -> bytes:
        windows = self._find(chunk) or self._fetch(chunk)
        try:
            return self._piece(chunk, windows, start, length)
        except (CorruptObjectError, OSError) as error:
            log.warning("%s; it is fetched once more", error)
        for number, window in enumerate(windows, chunk.offset // self._window_bytes):
            self._windows.drop(chunk.pack, number, window)
        try:
            return self._piece(chunk, self._fetch(chunk), start, length)
        except OSError as error:
            raise StorageError(f"{_describe(chunk)} cannot be read: {error}") from error

    def _piece(self, chunk: ChunkRef, windows: tuple[Window, ...], start: int, length: int) -> bytes:
        """Return *length* verified bytes from *start* of *chunk*; CorruptObjectError, OSError if damaged."""
        if start + length > chunk.raw_length:
            raise CorruptObjectError(f"{_describe(chunk)}: an extent goes beyond its end; its layer is damaged")
        if chunk.raw_length <= SMALL_BYTES:
            raw = self._verify(chunk, windows)
        elif chunk.codec != Codec.NONE:
            raw = self._raw.get(chunk.digest) or self._raw.put(chunk.digest, self._verify(chunk, windows))
        else:
            key = (chunk.offset, windows[0].serial, windows[-1].serial)
            if key in self._verified:
                return self._stored(chunk, windows, chunk.offset + start, length)
            raw = self._verify(chunk, windows)
            self._verified.add(key)
        return raw if length == len(raw) else raw[start : start + length]

    def _verify(self, chunk: ChunkRef, windows: tuple[Window, ...]) -> bytes:
        """Return the raw bytes of *chunk*."""
        return _checked(chunk, self._stored(chunk, windows, chunk.offset, chunk.length))

    def _stored(self, chunk: ChunkRef, windows: tuple[Window, ...], offset: int, length: int) -> bytes:
        """Return *length* bytes from *offset* of the pack."""
        if len(windows) == 1:
            data = windows[0].read(offset, length)
        else:
            parts = []
            first = chunk.offset // self._window_bytes
            for number, window in enumerate(windows, first):
                begin = max(offset, number * self._window_bytes)
                end = min(offset + length, (number + 1) * self._window_bytes)
                parts.append(window.read(begin, end - begin) if begin < end else b"")
            data = b"".join(parts)
        if len(data) != length:
            raise CorruptObjectError(f"{_describe(chunk)}: the pack was cut short; run verify")
        return data

    # Windows.

    def _numbers(self, chunk: ChunkRef) -> range:
        """Return the numbers of the windows that *chunk* lies in."""
        if not (0 < chunk.length <= STORED_BYTES_MAX and 0 < chunk.raw_length <= CHUNK_BYTES and chunk.offset >= 0):
            raise CorruptObjectError(f"{_describe(chunk)}: no chunk has {chunk.length} bytes; its layer is damaged")
        begin = chunk.offset // self._window_bytes
        return range(begin, (chunk.offset + chunk.length - 1) // self._window_bytes + 1)

    def _find(self, chunk: ChunkRef) -> tuple[Window, ...] | None:
        windows = []
        for number in self._numbers(chunk):
            window = self._windows.find(chunk.pack, number)
            if window is None:
                return None
            self._latest = chunk.pack, number
            windows.append(window)
        return tuple(windows)

    def _fetch(self, chunk: ChunkRef) -> tuple[Window, ...]:
        numbers = self._numbers(chunk)
        if self._ahead is not None:
            missing = [(chunk.pack, number) for number in numbers if self._windows.find(chunk.pack, number) is None]
            if missing:
                self._ahead.missed(missing, self._latest)
        return tuple(self._window(chunk.pack, number) for number in numbers)

    def _window(self, pack: bytes, number: int) -> Window:
        def get() -> bytes:
            return self._store.get_range(pack_name(pack.hex()), number * WINDOW_BYTES, WINDOW_BYTES)

        try:
            return self._windows.fetch(pack, number, get)
        except NotFoundError as error:
            raise CorruptObjectError(f"pack {pack.hex()} is missing from {self._store.url}; run verify") from error

    def _read_ahead(self, ahead: Ahead, extents: tuple[Extent, ...], offset: int, size: int) -> None:
        wanted = ahead.after((len(extents), extents[-1]), offset, size)
        for chunk, _, _ in self._cut(extents, wanted.start, len(wanted)) if wanted else ():
            if chunk is not None:
                ahead.want((chunk.pack, number) for number in self._numbers(chunk))

    def _cut(self, extents: tuple[Extent, ...], offset: int, size: int) -> list[Piece]:
        """Return the pieces that make up *size* bytes from *offset*, as far as the file goes."""
        index = position = 0
        if len(extents) > _WALKED_EXTENTS_MAX:
            ends = self._ends.of(extents)
            index = bisect_right(ends, offset)
            position = ends[index - 1] if index else 0
        pieces: list[Piece] = []
        end = offset + size
        while index < len(extents) and position < end:
            length, chunk, chunk_offset = extents[index]
            begin = max(offset - position, 0)
            stop = min(end - position, length)
            if begin < stop:
                pieces.append((chunk, chunk_offset + begin, stop - begin))
            position += length
            index += 1
        return pieces


def _follows(run: list[ChunkRef], chunk: ChunkRef) -> bool:
    """Whether *chunk* lies right behind the last of *run*, and there is room for it in one reading."""
    last = run[-1]
    is_next = last.pack == chunk.pack and last.offset + last.length == chunk.offset
    return is_next and chunk.offset + chunk.length - run[0].offset <= _RUN_BYTES_MAX


def _checked(chunk: ChunkRef, stored: Stored) -> Stored | bytes:
    """Return the raw bytes of *chunk*, of which *stored* is all that is stored; CorruptObjectError if damaged."""
    raw: Stored | bytes = stored
    if chunk.codec == Codec.ZSTD:
        raw = zstd.decompress(stored, chunk.raw_length, _describe(chunk))
    if len(raw) != chunk.raw_length or digest(raw) != chunk.digest:
        raise CorruptObjectError(f"{_describe(chunk)}: its bytes do not match its digest; run verify")
    return raw


def _describe(chunk: ChunkRef) -> str:
    return f"pack {chunk.pack.hex()}, chunk {chunk.digest.hex()[:12]} at offset {chunk.offset}"


class _Verified:
    """Which large chunks were verified, in which windows: the last _VERIFIED_MAX, or somewhat fewer."""

    def __init__(self) -> None:
        self._young: set[tuple[int, int, int]] = set()
        self._old: set[tuple[int, int, int]] = set()

    def __contains__(self, key: tuple[int, int, int]) -> bool:
        return key in self._young or key in self._old

    def add(self, key: tuple[int, int, int]) -> None:
        # Two threads at once may forget more than they need: it is then verified once more.
        if len(self._young) >= _VERIFIED_MAX // 2:
            self._old, self._young = self._young, set()
        self._young.add(key)


class _RawChunks:
    """The last unpacked large chunks, up to _RAW_BYTES_MAX: the kernel asks for them piece by piece."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._chunks: OrderedDict[bytes, bytes] = OrderedDict()
        self._size_bytes = 0
        renew_after_fork(self)

    def _renew_after_fork(self) -> None:
        self._lock = threading.Lock()

    def get(self, chunk_digest: bytes) -> bytes | None:
        with self._lock:
            raw = self._chunks.get(chunk_digest)
            if raw is not None:
                self._chunks.move_to_end(chunk_digest)
            return raw

    def put(self, chunk_digest: bytes, raw: bytes) -> bytes:
        with self._lock:
            if chunk_digest not in self._chunks:
                self._chunks[chunk_digest] = raw
                self._size_bytes += len(raw)
            while self._size_bytes > _RAW_BYTES_MAX:
                self._size_bytes -= len(self._chunks.popitem(last=False)[1])
        return raw


class _Ends:
    """Where each extent of a much divided file ends, for the files read last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: OrderedDict[int, tuple[tuple[Extent, ...], list[int]]] = OrderedDict()
        renew_after_fork(self)

    def _renew_after_fork(self) -> None:
        self._lock = threading.Lock()

    def of(self, extents: tuple[Extent, ...]) -> list[int]:
        # The tuple is kept beside its id, so no other one can have that id meanwhile.
        with self._lock:
            found = self._files.get(id(extents))
            if found is not None:
                self._files.move_to_end(id(extents))
                return found[1]
        ends = list(accumulate(extent.length for extent in extents))
        with self._lock:
            self._files[id(extents)] = extents, ends
            if len(self._files) > _ENDS_MAX:
                self._files.popitem(last=False)
        return ends

"""From open files to packs in the store: content is cut, hashed, deduplicated, laid end to end, sent.

Why one buffer per pack: a file's bytes are read by the kernel straight into the place where they lie
in the pack, are hashed there, and leave from there.  No byte is copied in between, and the memory a
commit takes is the number of buffers, whatever the size of the tree.

Always true:

  1. A file is cut at multiples of CHUNK_BYTES.  What is data within one such cell is one chunk, its
     segments end to end; what is hole stays hole, and a cell that is all hole has no chunk.
  2. Chunks lie in their packs in the order of the calls of read(): who reads a directory's files one
     after the other finds them in one pack.
  3. A chunk is named by the bytes that were read, whatever becomes of the file meanwhile.
  4. A pack goes out under the hash of all its bytes, after `before_upload` has returned.
  5. The first failure of an upload is raised by the next read() or finish(), and no upload begins
     after it.

      read --> buffer being filled --full--> uploading --> sealed (its digest is known)
      ^                                          |
      +------------------- buffer ---------------+
"""

from __future__ import annotations

import errno
import functools
import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Literal, NamedTuple, Self

from volume_core.format import zstd
from volume_core.format.digests import digest
from volume_core.format.entries import CHUNK_BYTES, ChunkRef, Codec, Entry, Extent
from volume_core.format.names import pack_name
from volume_core.format.pack import HEADER_BYTES, NONCE_BYTES, PACK_BYTES, header
from volume_core.storage.protocol import Store

Compression = Literal["none", "zstd", "auto"]

# Files up to this size are read with one call after one question about holes.
SMALL_BYTES = 64 << 10
# A pack is sealed by the chunk that takes it to PACK_BYTES, so it may be larger by all but one byte of one.
BUFFER_BYTES = PACK_BYTES + CHUNK_BYTES
MAX_UPLOADS = 50
# 12 packs under way fill 10 Gbit/s at 150 ms per upload; more would only take memory.
IN_FLIGHT_BYTES = 256 << 20
# A local disk is busy with few writers, and each buffer is memory that its page cache could use.
LOCAL_UPLOADS = 3
# Level 1 packs text at 160 MB/s on one core; `auto` looks at this much of a chunk before it pays that.
LEVEL = 1
SAMPLE_BYTES = 64 << 10

# What file systems that know of no holes answer to SEEK_DATA: such a file is all data.
_NO_HOLES_HERE = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)

# As Entry(...) and so on make them, at a third of the price: there is one of each for each small file.
_new_entry = functools.partial(tuple.__new__, Entry)
_new_extent = functools.partial(tuple.__new__, Extent)
_new_chunk = functools.partial(tuple.__new__, ChunkRef)

_Segment = tuple[int, int]  # offset in the file, length


def data_segments(fd: int, size: int) -> Iterator[_Segment]:
    """Yield (offset, length) of what is not a hole in the first *size* bytes of *fd*, in order.

    Moves the file's offset.  A file that shrinks meanwhile ends early.
    """
    position = 0
    while position < size:
        try:
            begin = os.lseek(fd, position, os.SEEK_DATA)
            end = min(os.lseek(fd, begin, os.SEEK_HOLE), size) if begin < size else size
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole up to the end
                return
            if error.errno not in _NO_HOLES_HERE:
                raise
            begin, end = position, size
        if begin >= size:
            return
        yield begin, end - begin
        position = end


def cells(fd: int, size: int) -> Iterator[list[_Segment]]:
    """Yield the data segments of each cell of the grid that has any, in order."""
    cell, segments = 0, list[_Segment]()
    for begin, length in data_segments(fd, size):
        position, end = begin, begin + length
        while position < end:
            if position // CHUNK_BYTES != cell and segments:
                yield segments
                segments = []
            cell = position // CHUNK_BYTES
            stop = min(end, (cell + 1) * CHUNK_BYTES)
            segments.append((position, stop - position))
            position = stop
    if segments:
        yield segments


def _has_no_hole(fd: int, size: int) -> bool:
    try:
        return os.lseek(fd, 0, os.SEEK_HOLE) >= size
    except OSError:  # shrunk to nothing, or no answer here: the long way finds out
        return False


def _read_into(fd: int, target: memoryview, offset: int) -> int:
    """Fill *target* from *offset*; return how many bytes there were."""
    count = 0
    while count < len(target):
        got = os.preadv(fd, (target[count:] if count else target,), offset + count)
        if not got:
            break
        count += got
    return count


class _Pack:
    """A pack while it is filled and sent.  `position` is where the next chunk begins."""

    __slots__ = ("chunks", "position", "view")

    def __init__(self, view: memoryview) -> None:
        self.view = view
        self.view[:HEADER_BYTES] = header(os.urandom(NONCE_BYTES))
        self.position = HEADER_BYTES
        self.chunks: list[ChunkRef] = []


class _Buffers:
    """At most *limit* buffers of BUFFER_BYTES, made when first needed and used again."""

    def __init__(self, limit: int) -> None:
        self._left = limit
        self._free: queue.SimpleQueue[memoryview] = queue.SimpleQueue()

    def take(self) -> memoryview:
        """Return a buffer; waits for give() where all are in use."""
        try:
            return self._free.get_nowait()
        except queue.Empty:
            if not self._left:
                return self._free.get()
        self._left -= 1
        return memoryview(bytearray(BUFFER_BYTES))

    def give(self, buffer: memoryview) -> None:
        self._free.put(buffer)


class _Sent(NamedTuple):
    upload: Future[bytes]
    chunks: list[ChunkRef]


class Packer:
    """Turns content into chunks in packs of *store*.  A context manager: leaving it ends all uploads.

    *known* finds chunks that are in the store already and stay there (those of the base and the
    parent); it is called from within read(), by one thread at a time.  *before_upload* is called, by
    an upload's thread, before each pack, and *uploaded* after it with the pack's digest and its chunks (whose
    own `pack` is empty).  read() may be called from several threads: one goes on.
    """

    def __init__(
        self,
        store: Store,
        known: Callable[[bytes], ChunkRef | None] = lambda _digest: None,
        compression: Compression = "auto",
        max_uploads: int = MAX_UPLOADS,
        before_upload: Callable[[], None] = lambda: None,
        uploaded: Callable[[bytes, Sequence[ChunkRef]], None] = lambda _pack, _chunks: None,
    ) -> None:
        local = store.local_root is not None
        self._store = store
        self._known = known
        self._before_upload = before_upload
        self._uploaded = uploaded
        self._compression: Compression = "none" if compression == "auto" and local else compression
        bound = LOCAL_UPLOADS if local else IN_FLIGHT_BYTES // BUFFER_BYTES - 1
        uploads = max(1, min(max_uploads, bound))
        self._threads = ThreadPoolExecutor(uploads, "upload")
        self._buffers = _Buffers(uploads + 1)  # and the one being filled
        self._lock = threading.Lock()
        self._counting = threading.Lock()
        self._chunks: dict[bytes, ChunkRef] = {}
        self._pack: _Pack | None = None
        self._sent: list[_Sent] = []
        self._sealed: dict[bytes, ChunkRef] = {}
        self._failure: BaseException | None = None
        self._stopped = False
        self.packs_written = 0
        self.bytes_written = 0
        # Of files' contents, before compression: read; of these new to the store; of these uploaded.
        self._read_bytes = self._new_bytes = self._uploaded_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def settled_bytes(self) -> int:
        """How many bytes of what was read are in the store: were there before, or are uploaded.  From any thread."""
        waiting = self._new_bytes - self._uploaded_bytes
        return max(0, self._read_bytes - waiting)

    # -- reading files

    def read(self, fd: int, size: int) -> tuple[Extent, ...]:
        """Return where the first *size* bytes of *fd* will lie; the extents cover them exactly.

        Where the file turns out shorter, the rest is a hole: whoever compares the file's signature
        before and after sees that it moved.  Moves the file's offset.  Raises OSError as reading does,
        and what an upload failed with.
        """
        if not size:
            return ()
        with self._lock:
            self._check()
            if size <= SMALL_BYTES and _has_no_hole(fd, size):
                return self._small(fd, size)
            return self._large(fd, size)

    def _small(self, fd: int, size: int) -> tuple[Extent, ...]:
        pack = self._open_pack()
        target = pack.view[pack.position : pack.position + size]
        count = os.preadv(fd, (target,), 0)
        if count == size:
            self._read_bytes += size
            return (Extent(size, self._keep(pack, target)),)
        return self._large(fd, size)

    def _large(self, fd: int, size: int) -> tuple[Extent, ...]:
        extents: list[Extent] = []
        position = 0
        for segments in cells(fd, size):
            before, pack = position, self._open_pack()
            found = self._fill(pack, fd, segments)
            length = sum(found)
            if length:
                chunk = self._keep(pack, pack.view[pack.position : pack.position + length])
                inside = 0
                for (offset, _), count in zip(segments, found, strict=False):
                    if offset > position:
                        extents.append(Extent(offset - position, None))
                    extents.append(Extent(count, chunk, inside))
                    inside += count
                    position = offset + count
            self._read_bytes += position - before
            if length < sum(wanted for _, wanted in segments):
                break
        if position < size:
            self._read_bytes += size - position
            extents.append(Extent(size - position, None))
        return tuple(extents)

    @staticmethod
    def _fill(pack: _Pack, fd: int, segments: list[_Segment]) -> list[int]:
        """Read *segments* end to end to the pack's position; return how much each one gave."""
        found: list[int] = []
        position = pack.position
        for offset, length in segments:
            count = _read_into(fd, pack.view[position : position + length], offset)
            if count:
                found.append(count)
            if count < length:
                break
            position += count
        return found

    def read_stream(self, readinto: Callable[[memoryview], int]) -> tuple[Extent, ...]:
        """Return where what *readinto* gives, up to its end, will lie.

        *readinto* fills a buffer, or a part of it, and returns how many bytes it gave; 0 is the end.  What it
        raises is passed on, and nothing of the chunk that it broke off in is kept.
        """
        extents: list[Extent] = []
        with self._lock:
            self._check()
            while True:
                pack = self._open_pack()
                target = pack.view[pack.position : pack.position + CHUNK_BYTES]
                count = 0
                while count < CHUNK_BYTES and (got := readinto(target[count:])):
                    count += got
                if count:
                    self._read_bytes += count
                    extents.append(Extent(count, self._keep(pack, target[:count])))
                if count < CHUNK_BYTES:
                    return tuple(extents)

    # -- chunks and packs

    def _keep(self, pack: _Pack, raw: memoryview) -> ChunkRef:
        """Return the chunk of *raw*, which lies at the pack's position, keeping it if it is new."""
        name = digest(raw)
        found = self._chunks.get(name)
        if found is None:
            found = self._known(name)
            if found is None:
                length, codec = self._compress(pack, raw)
                found = ChunkRef(name, b"", pack.position, length, len(raw), codec)
                pack.chunks.append(found)
                pack.position += length
                self._new_bytes += len(raw)
                if pack.position >= PACK_BYTES:
                    self._send()
            self._chunks[name] = found
        return found

    def _compress(self, pack: _Pack, raw: memoryview) -> tuple[int, int]:
        """Compress *raw* in place where that is wanted and pays; return (stored length, codec)."""
        if self._compression == "none":
            return len(raw), Codec.NONE
        if self._compression == "auto":
            sample = raw[:SAMPLE_BYTES]
            packed = zstd.compress(sample, LEVEL)
            if len(packed) * 5 > len(sample) * 4:
                return len(raw), Codec.NONE
            if len(raw) > SAMPLE_BYTES:
                packed = zstd.compress(raw, LEVEL)
        else:
            packed = zstd.compress(raw, LEVEL)
        if len(packed) >= len(raw):
            return len(raw), Codec.NONE
        pack.view[pack.position : pack.position + len(packed)] = packed
        return len(packed), Codec.ZSTD

    def _open_pack(self) -> _Pack:
        if self._pack is None:
            buffer = self._buffers.take()
            self._check()  # while it waited an upload may have failed
            self._pack = _Pack(buffer)
        return self._pack

    def _send(self) -> None:
        pack, self._pack = self._pack, None
        if pack is not None:
            self._sent.append(_Sent(self._begin_upload(pack), pack.chunks))

    def _begin_upload(self, pack: _Pack) -> Future[bytes]:
        try:
            return self._threads.submit(self._upload, pack)
        except RuntimeError:  # the interpreter is ending, or the machine has no thread left
            upload: Future[bytes] = Future()
            upload.set_result(self._upload(pack))
            return upload

    def _upload(self, pack: _Pack) -> bytes:
        """Runs in an upload's thread: send *pack*, give its buffer back, return its digest."""
        try:
            if self._failure is not None or self._stopped:
                return b""
            data = pack.view[: pack.position]
            name = digest(data)
            self._before_upload()
            self._store.put_new(pack_name(name.hex()), data)
            self._uploaded(name, pack.chunks)
            with self._counting:
                self._uploaded_bytes += sum(chunk.raw_length for chunk in pack.chunks)
        except BaseException as error:
            self._failure = self._failure or error
            raise
        else:
            return name
        finally:
            self._buffers.give(pack.view)

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._stopped:
            raise RuntimeError("this Packer was closed")

    # -- the end

    def finish(self) -> dict[bytes, ChunkRef]:
        """Send what is left, wait for every upload, and return all new chunks by digest.

        May be called again after more read().  Raises what an upload failed with.
        """
        with self._lock:
            self._check()
            if self._pack is not None and self._pack.chunks:
                self._send()
            for upload, chunks in self._sent:
                upload.exception()  # waits
                self._check()
                pack = upload.result()
                for name, _, offset, length, raw_length, codec in chunks:
                    self._sealed[name] = _new_chunk((name, pack, offset, length, raw_length, codec))
                self.packs_written += 1
                self.bytes_written += HEADER_BYTES + sum(chunk.length for chunk in chunks)
            self._sent.clear()
            self._chunks.update(self._sealed)
            return self._sealed

    def seal(self, entry: Entry) -> Entry:
        """Return *entry* with every chunk's pack named, after finish()."""
        for _, chunk, _ in entry.content:
            if chunk is not None and not chunk.pack:
                return _new_entry((*entry[:-1], tuple(map(self._seal_extent, entry.content))))
        return entry

    def _seal_extent(self, extent: Extent) -> Extent:
        length, chunk, offset = extent
        if chunk is None or chunk.pack:
            return extent
        return _new_extent((length, self._sealed[chunk.digest], offset))

    def close(self) -> None:
        """Begin no further upload and wait for those under way.  What was sent stays in the store."""
        self._stopped = True
        self._threads.shutdown(wait=True, cancel_futures=True)

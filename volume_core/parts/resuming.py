"""The journal of an upload: which packs a batch has in the store already, so that the next try need not send them.

A batch that fails, or whose process is killed, leaves its journal and its intent.  The next batch of the same
volume in the same store on this machine takes both over, if the intent is still alive; it reads its files
anew, and a chunk of which the journal knows a pack is not uploaded a second time.

Why this is no dedupe against "such an object exists already": the packs were written under the intent that
protects them, which has been alive ever since and becomes this batch's own (HeldIntent.take_over).  To prune,
both batches are one long commit with a change of process in its middle.  Where that is not certain, the journal is
dropped and everything is uploaded.

Always true:

  1. A record is written after the whole pack is in the store; one that was cut short, or is damaged, ends the
     journal where it stands.
  2. Whoever has a journal holds the lock of its file: no two batches go on from one.
  3. A chunk is found by the digest of bytes that were just read; its pack is seen to be there before it is named.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import struct
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from volume_core.errors import NotFoundError
from volume_core.format.digests import DIGEST_BYTES, digest
from volume_core.format.entries import ChunkRef
from volume_core.format.names import pack_name
from volume_core.storage.protocol import Store

log = logging.getLogger(__name__)

# How long after the last renewal an upload can be taken up again; so long, too, what it left is kept from prune.
LIFETIME_S = 4 * 3600
# An upload writes to its journal at every pack; one that is not being written for so long has no intent any more.
_OLD_S = 10 * LIFETIME_S
_FORMAT = "upload-journal/1"
_RECORD = struct.Struct("<I8s")  # length of the payload, beginning of its digest
_CHUNK = struct.Struct(f"<{DIGEST_BYTES}sIIIB")  # digest, offset, length, raw_length, codec


class Journal:
    """The packs of one upload, known by their chunks.  Every method may be called from any thread."""

    def __init__(self, path: Path, fd: int, intent: str) -> None:
        self.path = path
        self.intent = intent
        self._fd = fd
        self._lock = threading.Lock()
        self._chunks: dict[bytes, ChunkRef] = {}
        self._seen: dict[bytes, bool] = {}  # pack -> whether it is in the store

    @classmethod
    def create(cls, directory: Path, store_url: str, volume: str, intent: str) -> Self:
        """Begin the journal of an upload to *volume* under *intent*."""
        header = json.dumps({"format": _FORMAT, "store": store_url, "volume": volume, "intent": intent}).encode()
        name = f"{volume}-{uuid.uuid4().hex}"
        making = directory / f".{name}"  # not seen by others before it is locked and has its header
        fd = os.open(making, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            os.write(fd, _framed(header))
            os.rename(making, directory / name)
        except BaseException:
            os.close(fd)
            raise
        return cls(directory / name, fd, intent)

    @classmethod
    def take(cls, directory: Path, store_url: str, volume: str) -> Self | None:
        """Return the journal that an upload to *volume* in that store left behind, locked; None if there is none.

        Journals, of whatever volume, that are too old for anyone to go on from are removed.
        """
        _sweep(directory)
        for path in sorted(directory.glob(f"{volume}-*")):
            try:
                fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            found = None
            try:
                found = cls._opened(path, fd, store_url, volume)
            finally:
                if found is None:
                    os.close(fd)
            if found is not None:
                return found
        return None

    @classmethod
    def _opened(cls, path: Path, fd: int, store_url: str, volume: str) -> Self | None:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None  # it is being written
        if not os.fstat(fd).st_nlink:
            return None  # it was committed a moment ago
        data = memoryview(path.read_bytes())
        payloads = _payloads(data)
        header = next(payloads, None)
        fields = json.loads(bytes(header)) if header is not None else {}
        if fields.get("format") != _FORMAT:
            os.unlink(path)
            return None
        if (fields["store"], fields["volume"]) != (store_url, volume):
            return None
        journal = cls(path, fd, fields["intent"])
        end = _RECORD.size + len(header or b"")
        for payload in payloads:
            journal._learn(bytes(payload[:DIGEST_BYTES]), payload[DIGEST_BYTES:])
            end += _RECORD.size + len(payload)
        os.ftruncate(fd, end)
        return journal

    def _learn(self, pack: bytes, chunks: memoryview) -> None:
        for name, offset, length, raw_length, codec in _CHUNK.iter_unpack(chunks):
            self._chunks[name] = ChunkRef(name, pack, offset, length, raw_length, codec)

    def add(self, pack: bytes, chunks: Sequence[ChunkRef]) -> None:
        """Note that *pack*, in which *chunks* lie, is in the store."""
        packed = [_CHUNK.pack(name, *where) for name, _, *where in chunks]
        with self._lock:
            os.write(self._fd, _framed(b"".join((pack, *packed))))

    def find(self, store: Store, chunk_digest: bytes) -> ChunkRef | None:
        """Return where that chunk lies, if an earlier try uploaded it and it is still there."""
        found = self._chunks.get(chunk_digest)
        if found is None:
            return None
        there = self._seen.get(found.pack)
        if there is None:
            there = self._seen[found.pack] = _is_there(store, found.pack)
        return found if there else None

    def close(self) -> None:
        """Leave the journal to the next try."""
        os.close(self._fd)

    def discard(self) -> None:
        """Remove the journal."""
        self.path.unlink(missing_ok=True)
        self.close()


def _sweep(directory: Path) -> None:
    """Remove what was not written for longer than its intent can have lived, whoever made it."""
    for path in directory.iterdir():
        with contextlib.suppress(FileNotFoundError, BlockingIOError):
            if path.stat().st_mtime > time.time() - _OLD_S:
                continue
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


def _is_there(store: Store, pack: bytes) -> bool:
    try:
        store.info(pack_name(pack.hex()))
    except NotFoundError:
        log.warning("pack %s, which an upload that broke off had written, is gone: it is uploaded again", pack.hex())
        return False
    return True


def _framed(payload: bytes) -> bytes:
    return _RECORD.pack(len(payload), digest(payload)[:8]) + payload


def _payloads(data: memoryview) -> Iterator[memoryview]:
    position = 0
    while position + _RECORD.size <= len(data):
        length, check = _RECORD.unpack_from(data, position)
        position += _RECORD.size
        payload = data[position : position + length]
        if len(payload) < length or digest(payload)[:8] != check:
            return
        yield payload
        position += length

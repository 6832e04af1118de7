"""What was written and is not committed yet: a draft for each volume, and all drafts of one transaction.

Why a draft is a list of steps: nobody else waits while a transaction is open, and so a head may move meanwhile.
Each step is done at once to the edits of the draft, where reads find it and its errors show; and once more at the end,
to the head as it is then.

Always true:

  1. What was written lies in files of the state directory, which go with the drafts; what a process that died has
     left there is removed by the next that writes.
  2. The steps of one volume become one commit; after an error, or without `commit`, there is none.
  3. Each draft is worked on by one thread at a time.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from volume_core.domain.changes import Upper
from volume_core.domain.edits import Edits
from volume_core.domain.view import View
from volume_core.facade.browsing import Browsers
from volume_core.facade.staging import Staged
from volume_core.format.digests import DIGEST_BYTES
from volume_core.format.entries import ChunkRef, Entry, Extent, Kind
from volume_core.parts.editing import FILE_MODE, EditSession
from volume_core.parts.placing import Content
from volume_core.parts.reading import Reader
from volume_core.parts.state import State

if TYPE_CHECKING:
    from volume_core.fs.localtrees import LocalTree


class Source(NamedTuple):
    """What is to be written: `data`, or what the local file at `path` holds, which is `ours` if nobody else has it."""

    data: bytes | None = None
    path: str = ""
    ours: bool = False

    def put(self, session: EditSession, path: bytes, mode: int | None) -> None:
        """Put it at *path*."""
        if self.data is not None:
            session.put_stream(io.BytesIO(self.data), path, mode=mode, force=True)
        elif self.ours:
            with open(self.path, "rb") as file:
                session.put_stream(file, path, mode=mode, force=True)
        else:
            session.put_file(self.path, path, mode=mode, force=True)

    def entry(self, mode: int | None, token: bytes) -> Entry:
        """Return what put() will put, but that *token* stands for its content."""
        now_ns, owner = time.time_ns(), (os.geteuid(), os.getegid())
        bits = FILE_MODE if mode is None else mode
        if self.data is not None:
            return Entry(Kind.FILE, bits, *owner, now_ns, len(self.data), content=standing_for(token, len(self.data)))
        status = os.stat(self.path)
        content = standing_for(token, status.st_size)
        if self.ours:
            return Entry(Kind.FILE, bits, *owner, now_ns, status.st_size, content=content)
        bits = status.st_mode & 0o7777 if mode is None else mode
        owner = status.st_uid, status.st_gid
        return Entry(Kind.FILE, bits, *owner, status.st_mtime_ns, status.st_size, content=content)

    def copied_to(self, path: str) -> Source:
        """Return a copy of it in the local file *path*: ours, but with the attributes of a file of the caller's."""
        if self.data is None and not self.ours:
            shutil.copy2(self.path, path)
            status = os.stat(self.path)
            with contextlib.suppress(PermissionError):
                os.chown(path, status.st_uid, status.st_gid)
            return Source(path=path)
        with open(path, "xb") as file:
            if self.data is not None:
                file.write(self.data)
            else:
                with open(self.path, "rb") as original:
                    shutil.copyfileobj(original, file, 1 << 20)
        return Source(path=path, ours=True)

    def read(self, start: int, end: int) -> bytes:
        """Return the bytes from *start* up to *end*, or its end."""
        if self.data is not None:
            return self.data[start:end]
        with open(self.path, "rb") as file:
            file.seek(start)
            return file.read(max(end - start, 0))


def standing_for(token: bytes, size: int) -> tuple[Extent, ...]:
    """Return the content of a file of which *token* stands for all bytes."""
    return (Extent(size, ChunkRef(token, b"", 0, size, size)),) if size else ()


class Draft:
    """One volume with steps on top of *opened*, its head, or of nothing."""

    def __init__(self, opened: Browsers | None) -> None:
        self._opened = opened
        self._lent = contextlib.ExitStack()
        self.lock = threading.RLock()
        view = self._lent.enter_context(opened.lend()).view if opened is not None else View()
        self.edits = Edits(view, owner=(os.geteuid(), os.getegid()), now_ns=time.time_ns())
        self.steps: list[Step] = []
        self.creates = False  # whether a step makes the volume, where it is not there
        self._sources: dict[bytes, Source] = {}

    def add(self, step: Step, *, creates: bool) -> None:
        """Do *step* here, and once more when all is committed."""
        with self.lock:
            step(self)
            self.steps.append(step)
            self.creates |= creates

    def put(self, source: Source, path: bytes, mode: int | None) -> None:
        """Note that *source* is what is to lie at *path*."""
        token = uuid.uuid4().bytes.ljust(DIGEST_BYTES, b"\0")
        self.edits.put(path, source.entry(mode, token), force=True)
        self._sources[token] = source

    def put_tree(self, local: LocalTree, path: bytes, *, force: bool) -> None:
        """Note that *local* is to be merged into the directory *path*."""
        tree = {below: Upper(entry) for below, entry in local.entries.items()}
        self.edits.put_tree(path, tree, force=force)
        self._sources.update(local.sources)

    def source(self, content: tuple[Extent, ...]) -> Source | None:
        """Return what a file's *content* is to be read from; None if that lies in packs."""
        chunk = content[0].chunk if content else None
        return None if chunk is None or chunk.pack else self._sources.get(chunk.digest)

    @contextlib.contextmanager
    def content(self) -> Iterator[Content]:
        """Lend, for the length of a `with` statement, what has the bytes of its files."""
        if self._opened is None:
            yield _Written(self, None)
            return
        with self._opened.reopened() as reader:
            yield _Written(self, reader)

    def close(self) -> None:
        """Give back what was lent."""
        self._lent.close()


class _Written:
    """The bytes of a draft's files, for any number of threads; *reader* has those that are committed."""

    def __init__(self, draft: Draft, reader: Reader | None) -> None:
        self._draft = draft
        self._reader = reader

    def read(self, extents: tuple[Extent, ...], offset: int, size: int) -> bytes:
        source = self._draft.source(extents)
        if source is not None:
            return source.read(offset, offset + size)
        assert self._reader is not None
        return self._reader.read(extents, offset, size)

    def stream(self, extents: tuple[Extent, ...], block_bytes: int) -> Iterator[bytes]:
        length = sum(extent.length for extent in extents)
        return (self.read(extents, offset, block_bytes) for offset in range(0, length, block_bytes))


# What a step is done to: a draft now, and in the end the edits that become a version.
Session = Draft | EditSession
Step = Callable[[Session], None]


class Drafts:
    """The drafts of one transaction, or of one call that changes several paths; and their files."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._drafts: dict[str, Draft] = {}
        self._staged: Staged | None = None

    def find(self, root: str) -> Draft | None:
        """Return the draft of the volume at *root*, if anything was written there."""
        return self._drafts.get(root)

    def of(self, root: str, begin: Callable[[], Draft]) -> Draft:
        """Return the draft of the volume at *root*; *begin* makes it."""
        with self._lock:
            draft = self._drafts.get(root)
            if draft is None:
                draft = self._drafts[root] = begin()
            return draft

    def __iter__(self) -> Iterator[tuple[str, Draft]]:
        return iter(list(self._drafts.items()))

    def new_file(self) -> str:
        """Return the path of a local file to write to, which is gone after close()."""
        with self._lock:
            if self._staged is None:
                self._staged = Staged(State.default().prepare())
            return os.fspath(Path(self._staged.path, uuid.uuid4().hex))

    def close(self) -> None:
        """Drop all drafts, and their files."""
        with self._lock:
            while self._drafts:
                self._drafts.popitem()[1].close()
            if self._staged is not None:
                self._staged.close()
                self._staged = None

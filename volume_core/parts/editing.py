"""Committing edits without a mount: contents go straight into packs while the edits are made, then rows are published.

      put, remove, copy, move, ... ──> Edits (domain/edits.py) ──rows──> commit ──> a version
        └─ contents ──> Packer ──> packs in the store

Always true:

  1. Nothing is published before `commit`, and nothing after an error: what was uploaded is named by nothing.
  2. A file is read whole under one signature, or BusyError names it; a directory is captured at one instant,
     as a mounted tree is.  What is put from a file object is what it gave.
  3. What an earlier try has uploaded is not uploaded again (parts/resuming.py), where that is safe.
  4. The rows are against the parent's view, and every chunk they name lies in a pack that this session's
     intent protects, or in one that the parent needs, which the intent names.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, cast

from volume_core.domain.changes import EMPTY_TOTALS, Changes, Upper
from volume_core.domain.edits import Edits, exists
from volume_core.domain.view import View
from volume_core.errors import BusyError, InvalidNameError, VolumeError
from volume_core.format.entries import ChunkRef, Entry, Extent, Kind, join
from volume_core.format.names import PACKS
from volume_core.parts import resuming
from volume_core.parts.capturing import AHEAD_NS, ROUNDS, capture, has_signature, wait_for_writes
from volume_core.parts.dialects import PLAIN
from volume_core.parts.intents import LIFETIME_S, HeldIntent
from volume_core.parts.landing import Built, Goal, Landed, land
from volume_core.parts.packing import MAX_UPLOADS, Packer
from volume_core.parts.publishing import About, Parent, publish_changes
from volume_core.parts.resuming import Journal
from volume_core.parts.scanning import Signature, is_settled, now_ns, own_xattrs, refuse, scan, time_within
from volume_core.storage.protocol import Store

log = logging.getLogger(__name__)

_READ_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
FILE_MODE = 0o644


class _Counting:
    """A store that tells how much of packs it was given."""

    def __init__(self, store: Store, advance: Callable[[int], None]) -> None:
        self._store = store
        self._advance = advance

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def put_new(self, name: str, data: bytes | memoryview) -> None:
        self._store.put_new(name, data)
        if name.startswith(PACKS):
            self._advance(len(data))


class EditSession:
    """Edits of one version of *volume*, until they are committed or left.  A context manager; used by one thread.

    *parent* is the version they follow, None before the first; `edits` is what may be asked and changed beside
    what is put here.  *journals* is the directory in which it is noted what is uploaded, for the next try to go on
    from.  *advance* is told, by any thread, how many bytes were uploaded since, or need not be.
    """

    def __init__(
        self,
        store: Store,
        volume: str,
        parent: Parent | None,
        *,
        journals: Path | None = None,
        max_uploads: int = MAX_UPLOADS,
        advance: Callable[[int], None] | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._store = store if advance is None else cast("Store", _Counting(store, advance))
        self._volume = volume
        self._parent = parent
        self._view = parent.view if parent else View()
        self._clock = clock
        self.edits = Edits(self._view, owner=(os.geteuid(), os.getegid()), now_ns=clock())
        self._advance = advance
        self._journals = journals
        self._journal: Journal | None = None
        self._journal_lock = threading.Lock()
        self._is_begun = self._is_done = False
        self._intent = HeldIntent(
            store,
            volume,
            [parent.locator] if parent else [],
            clock=clock,
            lifetime_s=LIFETIME_S if journals is None else resuming.LIFETIME_S,
        )
        self._packer = Packer(
            self._store,
            self._known,
            max_uploads=max_uploads,
            before_upload=self._intent.begin,
            uploaded=self._uploaded,
        )

    def _known(self, digest: bytes) -> ChunkRef | None:
        found = self._view.chunk(digest) if self._view.layers else None
        if found is None and self._journal is not None:
            found = self._journal.find(self._store, digest)
            if found is not None and self._advance is not None:
                self._advance(found.length)
        return found

    def _begin(self) -> None:
        """Before the first content: go on from what an earlier try has uploaded."""
        if self._is_begun:
            return
        self._is_begun = True
        journal = Journal.take(self._journals, self._store.url, self._volume) if self._journals else None
        if journal is None:
            return
        try:
            taken = self._intent.take_over(journal.intent)
        except BaseException:
            journal.close()
            raise
        if taken:
            self._journal = journal
        else:
            log.info("the upload noted in %s broke off too long ago to go on from it", journal.path)
            journal.discard()

    def _uploaded(self, pack: bytes, chunks: Sequence[ChunkRef]) -> None:
        """Note it; that this cannot be done is no reason to fail."""
        if self._journals is None:
            return
        with self._journal_lock:
            try:
                if self._journal is None:
                    self._journal = Journal.create(self._journals, self._store.url, self._volume, self._intent.id)
                self._journal.add(pack, chunks)
            except OSError as error:
                log.info("what was uploaded could not be noted in %s: %s", self._journals, error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._packer.close()
        finally:
            self._end()

    def _end(self) -> None:
        """Leave journal and intent to the next try, if there is anything in them for it; else remove both."""
        journal, self._journal = self._journal, None
        if journal is not None and not self._is_done:
            journal.close()
            self._intent.leave()
            return
        try:
            if journal is not None:
                journal.discard()
        finally:
            self._intent.remove()

    # -- contents

    def put_file(self, source: str | os.PathLike[str], path: bytes, *, mode: int | None, force: bool) -> None:
        """Put the local file *source*, symlinks followed, at *path*; into that, if it ends in a slash.

        Raises ExistsError as Edits.put does, before anything is read; VolumeError where *source* cannot be read or
        is no file, BusyError where it kept changing.
        """
        local = os.fsencode(source)
        target = join(path.rstrip(b"/"), os.path.basename(local)) if path.endswith(b"/") else path
        self.edits.check_free(target, force=force)
        self._begin()
        try:
            fd = os.open(local, _READ_FLAGS)
        except OSError as error:
            raise refuse(local, error) from error
        try:
            entry = self._read_file(fd, local)
        finally:
            os.close(fd)
        self.edits.put(target, entry if mode is None else entry._replace(mode=mode & 0o7777), force=force)

    def put_stream(self, source: BinaryIO, path: bytes, *, mode: int | None, force: bool) -> None:
        """Put what the binary file object *source* gives, from where it stands, at *path*."""
        if path.endswith(b"/"):
            raise InvalidNameError(f"{os.fsdecode(path)}: what comes from a file object needs a name")
        self.edits.check_free(path, force=force)
        self._begin()
        content = self._packer.read_stream(_reader_of(source))
        entry = Entry(
            Kind.FILE,
            FILE_MODE if mode is None else mode & 0o7777,
            os.geteuid(),
            os.getegid(),
            self._clock(),
            sum(extent.length for extent in content),
            content=content,
        )
        self.edits.put(path, entry, force=force)

    def put_directory(self, source: str | os.PathLike[str], path: bytes, *, recursive: bool, force: bool) -> None:
        """Merge the local directory *source* into *path*, with links, FIFOs and all that a mounted tree would keep.

        Without *recursive* the directories in it are left out, with all that is in them.  Raises as put_file() and
        Edits.put_tree do; what is in the way is named before anything is read.
        """
        root = Path(source)
        if not root.is_dir():
            raise VolumeError(f"{root}: it is no directory")
        if not recursive:
            self._put_flat(root, path, force=force)
            return
        if self.edits.resolve(path) is not None:
            seen = {below: Upper(item.entry) for below, item in scan(root, PLAIN).items.items()}
            self._check_tree(path, seen, force=force)
        self._begin()
        tree = capture(root, PLAIN, self._packer.read, _no_base).upper
        self.edits.put_tree(path, tree, force=force)

    def _check_tree(self, path: bytes, tree: dict[bytes, Upper], *, force: bool) -> None:
        in_the_way = list(self.edits.in_the_way(path, tree, force=force))
        if in_the_way:
            raise exists(in_the_way)

    def _put_flat(self, root: Path, path: bytes, *, force: bool) -> None:
        seen = scan(root, PLAIN).items
        tree = {
            below: Upper(item.entry)
            for below, item in seen.items()
            if b"/" not in below and not item.entry.is_directory
        }
        tree = {b"": Upper(seen[b""].entry), **tree}
        self._check_tree(path, tree, force=force)
        self._begin()
        for below, (entry, _) in tree.items():
            if entry.kind is not Kind.FILE:
                continue
            local = os.path.join(os.fsencode(root), below)
            try:
                fd = os.open(local, _READ_FLAGS | os.O_NOFOLLOW)
            except OSError as error:
                raise refuse(local, error) from error
            try:
                tree[below] = Upper(self._read_file(fd, local))
            finally:
                os.close(fd)
        self.edits.put_tree(path, tree, force=force)

    def _read_file(self, fd: int, local: bytes) -> Entry:
        """Return the open file as an entry, read under one signature."""
        for _ in range(ROUNDS):
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise VolumeError(f"{os.fsdecode(local)}: it is not a file")
            signature = Signature.of(status)
            _wait_for_the_clock(signature.ctime_ns)
            try:
                wait_for_writes(fd)
                xattrs = own_xattrs(fd)
                content = self._packer.read(fd, status.st_size)
            except OSError as error:
                raise refuse(local, error) from error
            if has_signature(fd, signature):
                return Entry(
                    Kind.FILE,
                    status.st_mode & 0o7777,
                    status.st_uid,
                    status.st_gid,
                    time_within(status.st_mtime_ns),
                    status.st_size,
                    xattrs=xattrs,
                    content=content,
                )
        path = os.fsdecode(local)
        raise BusyError(f"{path!r} kept changing while it was read ({ROUNDS} times): stop what writes to it", [path])

    # -- the end

    def commit(
        self, about: About, goal: Goal | None = None, keep: Callable[[str, bool], None] = lambda _locator, _merged: None
    ) -> Landed | None:
        """Publish the edits as a version; None where they change nothing of one that exists.

        With a *goal* the version lands on that head, wherever others have moved it: see landing.land, also for *keep*.
        """
        parent, totals = self._parent, EMPTY_TOTALS
        if parent is not None:
            totals = parent.manifest.used_bytes, parent.manifest.inode_count
        delta = self.edits.changes(totals)
        landed = None
        if delta.rows or parent is None:
            self._packer.finish()
            rows = [(directory, name, self._packer.seal(entry)) for directory, name, entry in delta.rows]
            landed = self._publish(delta._replace(rows=rows), about, goal, keep)
        self._is_done = True
        return landed

    def _publish(self, delta: Changes, about: About, goal: Goal | None, keep: Callable[[str, bool], None]) -> Landed:
        parent = self._parent
        if goal is None:
            published = publish_changes(self._store, self._intent, self._volume, delta, parent, about)
            return Landed(published.manifest, published.locator, published, merged=False)
        protected = (parent.locator,) if parent else ()
        built = Built(parent, self._view, stack=parent.manifest.stack if parent else ())
        return land(self._store, self._intent, self._volume, delta, built, about, goal, protected=protected, keep=keep)


def _no_base(path: bytes) -> tuple[Extent, ...]:
    raise VolumeError(f"{os.fsdecode(path)!r} says that its content lies elsewhere: it is part of an overlay")


def _wait_for_the_clock(ctime_ns: int) -> None:
    """Return when whatever changes from now on gets a later time stamp, unless that is far ahead."""
    clock_ns = now_ns()
    while not is_settled(ctime_ns, clock_ns) and ctime_ns <= clock_ns + AHEAD_NS:
        time.sleep(0.001)
        clock_ns = now_ns()


def _reader_of(source: BinaryIO) -> Callable[[memoryview], int]:
    """Return what fills a buffer from *source*, whichever way that can be read."""
    readinto = getattr(source, "readinto", None)
    if readinto is not None:
        return lambda buffer: readinto(buffer) or 0

    def read(buffer: memoryview) -> int:
        data = source.read(len(buffer))
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"{source!r} gives {type(data).__name__}: open it in binary mode")
        buffer[: len(data)] = data
        return len(data)

    return read

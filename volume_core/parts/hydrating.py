"""Making a plain directory of a view: what the copy driver mounts, and what `cp` out of a volume does.

    walk the view ──> directories, symlinks, fifos, devices      (one thread: a View belongs to one)
          └─ files ──> batches, in the order of their packs ──> threads: content, attributes
    then hard links, then the directories' attributes, children first
    then wait until the clock has moved on, and hand over

Always true:
  1. Only a tree that is whole gets the name that was asked for: it is made under another name.
  2. Of each path is known what was achieved: an unprivileged user can give nothing away, and a
     file system may keep no fractions of seconds.  `Achieved` turns a scan of the tree back into the
     version's terms, so that what could not be restored is no change when the tree is committed.
  3. No name of a version leads out of the tree, whatever its layers say.
  4. Every signature handed out is older than any change that comes after: none is "racy".
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Generic, NamedTuple, Protocol, TypeVar

from volume_core.domain.changes import Upper
from volume_core.errors import CorruptObjectError
from volume_core.format.entries import Entry, Kind, split
from volume_core.parts.achieved import Achieved
from volume_core.parts.captured import Captured
from volume_core.parts.placing import DEVICES, Content, at, get_xattrs, set_xattrs, write_content
from volume_core.parts.scanning import Item, Signature, now_ns
from volume_core.parts.trees import DIRECTORY_FLAGS, open_below, remove_tree

log = logging.getLogger(__name__)

BATCH_FILES = 4096  # sorted together by pack: a few MiB of entries
TASK_FILES = 128
TASK_BYTES = 8 << 20
CLOCK_PATIENCE_S = 0.1  # the coarse clock moves at least every 10 ms
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_WRITE_BITS = 0o222


class Place(Protocol):
    """One path of what is to be made."""

    @property
    def path(self) -> bytes:
        """Where it is to lie; b"" is the root."""
        ...

    @property
    def name(self) -> bytes:
        """The last part of the path."""
        ...


P = TypeVar("P", bound=Place)


class Shape(Protocol[P]):
    """What is to be made: a View, or anything else that can say this of a tree.  Used by one thread."""

    def walk(self) -> Iterator[P]:
        """Yield every path, the root first and each directory before what it holds."""
        ...

    def entry(self, node: P) -> Entry:
        """Return what lies there, with its content; `hardlink` is equal for the names of one inode."""
        ...


class Tree(NamedTuple):
    """What hydrate made.

    `items`: every path (b"" is the root) but those that could not be made, as a scan finds it, with its content.
    `achieved` turns them, and every later scan of the tree, into the version's terms.
    """

    items: dict[bytes, Item]
    achieved: Achieved


def hydrate(
    view: Shape[P],
    content: Content,
    destination: Path,
    *,
    threads: int | None = None,
    protect: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Tree:
    """Make *destination*, which must not exist, the tree that *view* shows; return what was made.

    With *protect* every write bit is taken from the modes.  *progress* is called with (files, bytes)
    done since its last call, from any thread.  Raises OSError where the file system refuses (full,
    a name it cannot hold), and what *content* raises; nothing is left behind then.
    """
    unfinished = destination.with_name(f".{destination.name}.{os.getpid()}.hydrating")
    remove_tree(unfinished)
    os.mkdir(unfinished, 0o700)
    try:
        tree = hydrate_into(view, content, unfinished, threads=threads, protect=protect, progress=progress)
        os.rename(unfinished, destination)
    except BaseException:
        remove_tree(unfinished)
        raise
    return tree


def hydrate_into(
    view: Shape[P],
    content: Content,
    directory: Path,
    *,
    threads: int | None = None,
    protect: bool = False,
    progress: Callable[[int, int], None] | None = None,
    before_root: Callable[[], object] = lambda: None,
) -> Tree:
    """Fill *directory*, empty and the caller's own, and give it the root's attributes.

    As `hydrate`, but a failure leaves what was made so far: the caller must know that it is not whole.
    *before_root* is called when all is made but for the root's own attributes.
    """
    root_fd = os.open(directory, DIRECTORY_FLAGS)
    try:
        hydration = _Hydration(view, content, root_fd, protect, progress)
        return hydration.run(threads or default_threads(), before_root)
    finally:
        os.close(root_fd)


def default_threads() -> int:
    """Return how many threads write: enough to keep a remote store busy, few enough for the interpreter lock."""
    return min(16, 2 + 2 * (os.cpu_count() or 1))


def as_captured(items: Mapping[bytes, Item]) -> Captured:
    """Return what a commit of the untouched tree would capture."""
    numbers: dict[int, int] = {}
    upper = {}
    for path, item in items.items():
        link = numbers.setdefault(item.key, len(numbers) + 1) if item.key else 0
        upper[path] = Upper(item.entry._replace(hardlink=link))
    return Captured({path: item.signature for path, item in items.items()}, upper)


def relook(directory: Path, item: Item) -> Item:
    """Return *item*, the root's, after the tree was renamed to *directory*: the rename has moved its ctime."""
    renamed = item._replace(signature=Signature.of(os.lstat(directory)))
    _wait_for_the_clock(renamed.signature.ctime_ns)
    return renamed


class _File(NamedTuple):
    path: bytes
    entry: Entry

    @property
    def position(self) -> tuple[bytes, int]:
        """Where the file's first chunk lies."""
        chunk = next((extent.chunk for extent in self.entry.content if extent.chunk), None)
        return (chunk.pack, chunk.offset) if chunk else (b"", 0)


class _Hydration(Generic[P]):
    def __init__(
        self,
        view: Shape[P],
        content: Content,
        root_fd: int,
        protect: bool,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self._view = view
        self._content = content
        self._root_fd = root_fd
        self._protect = protect
        self._progress = progress or (lambda files, size: None)
        self._is_root = os.geteuid() == 0
        # A new directory with xattrs has inherited them (an ACL, a label): so will all below it.
        self._inherits = bool(get_xattrs(root_fd))
        self._items: dict[bytes, Item] = {}
        self._achieved = Achieved()
        self._lock = threading.Lock()
        self._links: list[tuple[bytes, bytes]] = []  # (first name, further name)
        self._first_names: dict[int, bytes] = {}
        self._directories: list[tuple[bytes, Entry]] = []

    def run(self, threads: int, before_root: Callable[[], object]) -> Tree:
        with ThreadPoolExecutor(threads, "hydrate") as pool:
            pending: set[Future[None]] = set()
            try:
                for task in self._tasks():
                    pending.add(pool.submit(self._files, task))
                    if len(pending) > 2 * threads:  # bounds memory, and surfaces an error early
                        pending = _collect(pending, FIRST_COMPLETED)
                _collect(pending, "ALL_COMPLETED")
            except BaseException:
                for future in pending:
                    future.cancel()
                raise
        self._make_links()
        for path, entry in reversed(self._directories):  # children first: a parent may be closed to us afterwards
            if not path:
                before_root()
            self._finish_directory(path, entry)
        _wait_for_the_clock(max(item.signature.ctime_ns for item in self._items.values()))
        return Tree(self._items, self._achieved)

    # -- walking the view: one thread

    def _tasks(self) -> Iterator[list[_File]]:
        """Make all that is no file, and yield the files in tasks for the threads."""
        batch: list[_File] = []
        for node in self._view.walk():
            file = self._visit(node)
            if file is not None:
                batch.append(file)
                if len(batch) == BATCH_FILES:
                    yield from _cut(batch)
                    batch = []
        yield from _cut(batch)

    def _visit(self, node: P) -> _File | None:
        if not node.path:
            self._directories.append((b"", self._view.entry(node)))
            return None
        _check_name(node)
        entry = self._view.entry(node)
        if entry.hardlink:
            first = self._first_names.setdefault(entry.hardlink, node.path)
            if first != node.path:
                self._links.append((first, node.path))
                return None
        if entry.kind is Kind.FILE:
            return _File(node.path, entry)
        self._make(node.path, entry)
        return None

    def _make(self, path: bytes, entry: Entry) -> None:
        with at(self._root_fd, path) as (fd, name):
            if entry.kind is Kind.DIRECTORY:
                os.mkdir(name, 0o700, dir_fd=fd)
                self._directories.append((path, entry))
                return
            if entry.kind is Kind.SYMLINK:
                os.symlink(entry.target, name, dir_fd=fd)
            elif entry.kind is Kind.FIFO:
                os.mkfifo(name, 0o600, dir_fd=fd)
            elif not self._make_device(fd, name, path, entry):
                return
            self._own(lambda uid, gid: os.chown(name, uid, gid, dir_fd=fd, follow_symlinks=False), entry)
            itself = b"/proc/self/fd/%d/%b" % (fd, name)
            xattrs = set_xattrs(itself, entry.xattrs)
            if entry.kind is not Kind.SYMLINK:
                os.chmod(name, self._mode(entry), dir_fd=fd)
            os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=fd, follow_symlinks=False)
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if self._inherits:
                xattrs = get_xattrs(itself)
        self._note(path, entry, status, xattrs)

    def _make_device(self, fd: int, name: bytes, path: bytes, entry: Entry) -> bool:
        try:
            os.mknod(name, DEVICES[entry.kind] | 0o600, entry.rdev, dir_fd=fd)
        except PermissionError:
            log.info("%r is a device, which this user cannot make: left out here, kept in the version", path)
            self._achieved.missing[path] = entry
            return False
        return True

    # -- files: any thread

    def _files(self, files: list[_File]) -> None:
        done: list[tuple[_File, os.stat_result, tuple[tuple[bytes, bytes], ...]]] = []
        for file in files:
            fd = open_below(self._root_fd, file.path, _CREATE)
            try:
                write_content(fd, file.entry, self._content)
                xattrs = self._attributes(fd, file.entry)
                done.append((file, os.fstat(fd), xattrs))
            finally:
                os.close(fd)
        with self._lock:
            for file, status, xattrs in done:
                self._note(file.path, file.entry, status, xattrs)
        self._progress(len(files), sum(file.entry.size for file in files))

    def _attributes(self, fd: int, entry: Entry) -> tuple[tuple[bytes, bytes], ...]:
        """Set all an open file or directory can have but its content; return the xattrs it got."""
        # Owner first: giving a file away clears its set-id bits.  xattrs before the mode: writing
        # them asks for permission to write.  Times last: everything else may move them.
        self._own(lambda uid, gid: os.fchown(fd, uid, gid), entry)
        xattrs = set_xattrs(fd, entry.xattrs)
        os.fchmod(fd, self._mode(entry))
        os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        return get_xattrs(fd) if self._inherits else xattrs

    def _own(self, change: Callable[[int, int], None], entry: Entry) -> None:
        with contextlib.suppress(PermissionError):
            if self._is_root:
                change(entry.uid, entry.gid)
            elif entry.gid != os.getegid():
                change(-1, entry.gid)  # a group of ours may be given, an owner never

    def _mode(self, entry: Entry) -> int:
        mode = entry.mode & ~_WRITE_BITS if self._protect else entry.mode
        if self._is_root:
            return mode
        # Who owns everything here must be able to read it, or the tree could never be committed.
        return mode | (0o500 if entry.is_directory else 0o400)

    # -- the end: one thread again

    def _make_links(self) -> None:
        for first, further in self._links:
            if first in self._achieved.missing:
                self._achieved.missing[further] = self._achieved.missing[first]
                continue
            with at(self._root_fd, first) as (from_fd, name), at(self._root_fd, further) as (to_fd, new):
                os.link(name, new, src_dir_fd=from_fd, dst_dir_fd=to_fd, follow_symlinks=False)
        for first in {first for first, _ in self._links if first in self._items}:
            with at(self._root_fd, first) as (fd, name):  # each further name has moved its ctime
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            self._items[first] = _item(self._items[first].entry, status)
        for first, further in self._links:
            if first in self._items:
                self._items[further] = self._items[first]
                self._achieved.copy(first, further)

    def _finish_directory(self, path: bytes, entry: Entry) -> None:
        fd = open_below(self._root_fd, path)
        try:
            xattrs = self._attributes(fd, entry)
            self._note(path, entry, os.fstat(fd), xattrs)
        finally:
            os.close(fd)

    def _note(self, path: bytes, entry: Entry, status: os.stat_result, xattrs: tuple[tuple[bytes, bytes], ...]) -> None:
        if entry.kind is Kind.SYMLINK:
            got = entry._replace(mode=0o777)
        else:
            got = entry._replace(mode=stat.S_IMODE(status.st_mode))
        got = got._replace(uid=status.st_uid, gid=status.st_gid, mtime_ns=status.st_mtime_ns, xattrs=xattrs, hardlink=0)
        self._items[path] = _item(got, status)
        if not self._protect:  # such a tree is never committed
            self._achieved.note(path, entry, got)


def _wait_for_the_clock(newest_ns: int) -> None:
    """Return when a change made from now on gets a later time stamp than *newest_ns*."""
    patient_until = time.monotonic() + CLOCK_PATIENCE_S
    while now_ns() <= newest_ns and time.monotonic() < patient_until:
        time.sleep(0.001)


def _item(entry: Entry, status: os.stat_result) -> Item:
    """What a scan would say of a path that has that status."""
    if entry.is_directory:
        return Item(Signature.of(status), entry, 0, status.st_nlink)
    key = status.st_dev << 64 | status.st_ino if status.st_nlink > 1 else 0
    if entry.kind in (Kind.FILE, Kind.SYMLINK):
        return Item(Signature.of(status), entry, key, status.st_nlink)
    return Item(Signature(entry.kind, status.st_ino, 0, 0, 0), entry, key, status.st_nlink)


def _collect(pending: set[Future[None]], until: str) -> set[Future[None]]:
    done, left = wait(pending, return_when=until)
    for future in done:
        future.result()
    return left


def _cut(batch: list[_File]) -> Iterator[list[_File]]:
    """Yield *batch* in tasks of bounded files and bytes, in the order in which the bytes lie in packs."""
    batch.sort(key=lambda file: file.position)
    task: list[_File] = []
    size = 0
    for file in batch:
        if task and (len(task) == TASK_FILES or size + file.entry.size > TASK_BYTES):
            yield task
            task, size = [], 0
        task.append(file)
        size += file.entry.size
    if task:
        yield task


def _check_name(node: Place) -> None:
    name = node.name
    if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
        raise CorruptObjectError(f"a layer holds the impossible name {name!r} in {split(node.path)[0]!r}")

"""A working tree while programs write to it, as it was at one instant.

    scan ─> clean the pages of mappings ─> wait one tick ─> read ─> scan again ─> equal? done
     ^                                                                   |
     └──────────────── read again only what moved, a few times <─────────┘

Why two equal scans are one instant: each content was read after its signature was taken, and at the
second scan each signature still was what it had been.  So at the moment between the reading and the
second scan everything was as captured.  What would break that argument, and what stops it:

  * Time stamps come from a clock that stands still for milliseconds, so a change can leave no trace in
    the signature.  Nothing is read before the clock has moved past the newest signature; what was scanned
    too early for that is looked at in full by the second scan.
  * write(2) moves the time stamps first and copies the data after that, so a file can be read half
    written under its final signature.  Before it is read, a call that takes the inode's lock waits for
    the write under way: removexattr of a name that is not there, which changes nothing.
  * A store to a shared mapping moves the time stamps only if its page is clean (parts/mappings.py).
    After the signatures are taken, and before anything is read, such files are written back.
  * In memory file systems no page ever becomes clean.  What is mapped there is read twice and must be
    equal; and since a mapping may have been stored to and be gone again, each capture reads every file.

Always true:

  1. Captured is a tree that was there, whole, at one instant; except for what is named in `torn`.
  2. Nothing in the tree is changed, access times included where this user may leave them alone.
  3. A signature that the next commit finds again stands for the same content.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import logging
import os
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NoReturn

from volume_core.domain.changes import Upper
from volume_core.errors import BusyError, CorruptObjectError
from volume_core.format.entries import Entry, Extent, Kind, split
from volume_core.parts.captured import Captured
from volume_core.parts.dialects import Dialect
from volume_core.parts.mappings import (
    MEMORY_FILE_SYSTEMS,
    REMOTE_FILE_SYSTEMS,
    file_system,
    mapped_files,
    write_back_all,
)
from volume_core.parts.scanning import (
    MOVED_ERRNOS,
    SECOND_NS,
    Denials,
    Directories,
    Item,
    Scan,
    Signature,
    differences,
    is_settled,
    now_ns,
    refuse,
    scan,
    unread,
)

__all__ = ["AHEAD_NS", "ROUNDS", "Captured", "capture", "has_signature", "wait_for_writes"]

log = logging.getLogger(__name__)

Content = tuple[Extent, ...]

ROUNDS = 8
# Between the rounds: long enough for a burst of writes to end, 0.6 s in all.
PAUSE_S = 0.01
PAUSE_MAX_S = 0.16
# Up to so many files are written back one by one; beyond, the whole file system at once is cheaper.
FSYNC_FILES_MAX = 16
# A time stamp this far ahead of the clock is not waited for: somebody has set the clock back.
AHEAD_NS = 2 * SECOND_NS
# Clocks of servers are taken to agree with ours up to this.
REMOTE_SKEW_NS = 60 * SECOND_NS
SHOWN_MAX = 10

_NO_SUCH_XATTR = "user.volume.barrier"
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NO_ATIME = getattr(os, "O_NOATIME", 0)

_new_entry = functools.partial(tuple.__new__, Entry)
_new_item = functools.partial(tuple.__new__, Item)
_new_upper = functools.partial(tuple.__new__, Upper)


def capture(
    root: Path,
    dialect: Dialect,
    read: Callable[[int, int], Content],
    base_content: Callable[[bytes], Content],
    previous: Captured | None = None,
    *,
    rounds: int = ROUNDS,
    allow_torn: bool = False,
    mount_path: Path | None = None,
    settle: Callable[[], None] = lambda: None,
    expect: Callable[[int], None] = lambda _bytes: None,
) -> Captured:
    """Return the tree at *root*, whose markers are of *dialect*, as it was at one instant.

    *read* stores the first n bytes of an open file and says where they lie; it is called in the order of
    the paths, by one thread.  *base_content* says where the content of a file of the base lies.
    *previous* is what the last capture of this tree, over this base, returned: what has not changed
    since is not opened (but in memory file systems, where no signature proves that).  *settle* brings
    into the tree what a driver still holds back.  *expect* is told, before files are read, how many bytes they have.

    Raises BusyError naming the paths that still moved in the last of *rounds*; with *allow_torn* they
    are captured as they were found, and named in `torn`.  Raises VolumeError naming what this user may
    not read, CorruptObjectError where the tree cannot have been made over this base.
    """
    task = _Capture(root, dialect, read, base_content, mount_path, settle, expect)
    return task.run(previous, rounds, allow_torn)


class _Capture:
    def __init__(
        self,
        root: Path,
        dialect: Dialect,
        read: Callable[[int, int], Content],
        base_content: Callable[[bytes], Content],
        mount_path: Path | None,
        settle: Callable[[], None],
        expect: Callable[[int], None],
    ) -> None:
        self._root = root
        self._dialect = dialect
        self._read = read
        self._base_content = base_content
        self._mount_path = mount_path
        self._settle = settle
        self._expect = expect
        self._kind = file_system(root)
        self._in_memory = self._kind in MEMORY_FILE_SYSTEMS
        # Content by signature: the names of one inode, and what was moved along with its directory.
        self._contents: dict[Signature, Content] = {}
        self._untrusted: set[bytes] = set()

    def run(self, previous: Captured | None, rounds: int, allow_torn: bool) -> Captured:
        self._settle()
        seen = self._scan(Scan(self._remember(None if self._in_memory else previous)))
        moved: set[bytes] = set()
        for number in range(rounds):
            if number:
                time.sleep(min(PAUSE_S * 2 ** (number - 1), PAUSE_MAX_S))
            mapped = set[bytes]()
            if self._in_memory:
                mapped = self._forget_mapped(seen)
            elif not self._dialect.own_pages:
                self._clean_mapped_pages(seen)
            self._wait_for_the_clock(seen)
            moved = self._read_files(seen)
            self._settle()
            again = self._scan(seen)
            moved |= differences(seen, again)
            if self._in_memory:
                moved |= self._read_again(again, mapped.union(self._mapped(again)[0]), moved)
            seen = again
            if not moved:
                return self._finish(seen)
            log.debug("%s: %d paths moved in round %d", self._root, len(moved), number + 1)
        if not allow_torn:
            _raise_busy(moved, rounds)
        self._read_torn(seen)
        return self._finish(seen, moved)

    # -- what is known

    def _remember(self, previous: Captured | None) -> dict[bytes, Item]:
        """Turn the last capture into Items that a scan can hand out again."""
        if previous is None:
            return {}
        known: dict[bytes, Item] = {}
        signatures = previous.signatures
        for path, (entry, _) in previous.upper.items():
            kind = entry[0]
            if kind is Kind.FILE or kind is Kind.SYMLINK:
                signature = signatures[path]
                known[path] = _new_item((signature, entry, 0, 1, None, False))
                if entry[10]:
                    self._contents[signature] = entry[10]
        return known

    def _scan(self, before: Scan) -> Scan:
        return scan(self._root, self._dialect, before.items, before.fresh)

    # -- making signatures tell the truth

    def _mapped(self, seen: Scan) -> tuple[list[bytes], bool]:
        """Return the files of *seen* that are known to be mapped, and whether there can be no others."""
        items = seen.items

        @functools.cache
        def inodes() -> dict[int, bytes]:
            return {item[0][1]: path for path, item in items.items()}

        paths, complete = mapped_files(self._root, self._mount_path, inodes)
        return [path for path in paths if path in items and items[path].signature.kind is Kind.FILE], complete

    def _clean_mapped_pages(self, seen: Scan) -> None:
        """Make the next store to any mapping move a time stamp."""
        mapped, complete = self._mapped(seen)
        # What stands as the last capture left it was clean then, and no store has moved it since.
        files = set(mapped) if complete else {*mapped, *(path for path, _ in unread(seen))}
        self._write_back(files)

    def _forget_mapped(self, seen: Scan) -> set[bytes]:
        """Return the files whose time stamps say nothing, their content forgotten."""
        mapped, complete = self._mapped(seen)
        files = set(mapped) if complete else {p for p, item in seen.items.items() if item[0][0] is Kind.FILE}
        for path in files:
            item = seen.items[path]
            if item.entry.content and not item.metacopy:
                seen.items[path] = _with_content(item, ())
        return files

    def _write_back(self, files: Collection[bytes]) -> None:
        if not files:
            return
        with Directories(self._root) as directories:
            if len(files) > FSYNC_FILES_MAX:
                write_back_all(directories.open(b""))
                return
            for path in sorted(files):
                try:
                    fd = _open(directories, path)
                except OSError:
                    continue  # moved, or denied: who reads it will tell
                try:
                    os.fdatasync(fd)
                except OSError as error:
                    raise refuse(path, error, "written back") from error
                finally:
                    os.close(fd)

    def _wait_for_the_clock(self, seen: Scan) -> None:
        """Return when whatever changes from now on gets a later time stamp than all in *seen*."""
        if not seen.fresh:
            return
        stamps = {path: seen.items[path].signature.ctime_ns for path in seen.fresh if path in seen.items}
        clock_ns = now_ns()
        newest_ns = max((stamp for stamp in stamps.values() if stamp <= clock_ns + AHEAD_NS), default=0)
        while not is_settled(newest_ns, clock_ns) and newest_ns <= clock_ns + AHEAD_NS:
            time.sleep(0.001)
            clock_ns = now_ns()
        self._untrusted.update(path for path, stamp in stamps.items() if not is_settled(stamp, clock_ns))

    # -- content

    def _read_files(self, seen: Scan) -> set[bytes]:
        """Read what is not known yet into *seen*; return the paths that were not what *seen* says."""
        moved: set[bytes] = set()
        denials = Denials()
        items = seen.items
        known = {} if self._in_memory else self._contents
        self._expect(sum(item[0].size for _, item in unread(seen) if item[0] not in known))
        with Directories(self._root) as directories:
            for path, item in unread(seen):
                signature = item.signature
                content = known.get(signature)
                if content is None:
                    content = self._read_file(directories, path, signature, denials)
                    if content is None:
                        moved.add(path)
                        continue
                    if item.key:
                        self._contents[signature] = content
                items[path] = _with_content(item, content)
        denials.check()
        return moved

    def _read_file(
        self, directories: Directories, path: bytes, signature: Signature, denials: Denials
    ) -> Content | None:
        """Return where the content of *path* lies, or None if that is no longer what has *signature*."""
        try:
            fd = _open(directories, path)
        except PermissionError:
            denials.add(path)
            return None
        except OSError as error:
            if error.errno in MOVED_ERRNOS:
                return None
            raise refuse(path, error) from error
        try:
            wait_for_writes(fd)
            if not has_signature(fd, signature):
                return None
            content = self._read(fd, signature.size)
            return content if has_signature(fd, signature) else None
        except OSError as error:
            if not has_signature(fd, signature):
                return None
            raise refuse(path, error) from error
        finally:
            os.close(fd)

    def _read_again(self, again: Scan, mapped: set[bytes], moved: set[bytes]) -> set[bytes]:
        """Return those of *mapped* whose content is not what it was, though their signature is."""
        changed: set[bytes] = set()
        self._untrusted |= mapped
        denials = Denials()
        with Directories(self._root) as directories:
            for path in sorted(mapped - moved):
                item = again.items.get(path)
                if item is None or not item.entry.content:
                    continue
                content = self._read_file(directories, path, item.signature, denials)
                if content is None or not _same_bytes(content, item.entry.content):
                    changed.add(path)
        denials.check()
        return changed

    def _read_torn(self, seen: Scan) -> None:
        """Read what would not stand still once more, as it is found; drop what is gone."""
        gone: list[bytes] = []
        with Directories(self._root) as directories:
            for path, item in unread(seen):
                try:
                    fd = _open(directories, path)
                except OSError:
                    gone.append(path)
                    continue
                try:
                    if Signature.of(os.fstat(fd)).kind is Kind.FILE:
                        seen.items[path] = _with_content(item, self._read(fd, item.entry.size))
                    else:
                        gone.append(path)
                except KeyError:  # a socket took its place
                    gone.append(path)
                finally:
                    os.close(fd)
        for path in gone:
            del seen.items[path]

    # -- the end

    def _finish(self, seen: Scan, torn: set[bytes] | frozenset[bytes] = frozenset()) -> Captured:
        if seen.left_out:
            shown = ", ".join(repr(os.fsdecode(path)) for path in seen.left_out[:SHOWN_MAX])
            log.warning("%s: %d sockets and null devices are not kept: %s", self._root, len(seen.left_out), shown)
        links = _link_numbers(seen)
        upper: dict[bytes, Upper] = {}
        for path, (_, entry, key, _, base, metacopy) in seen.items.items():
            if metacopy:
                entry = self._with_base_content(path, entry, base)  # noqa: PLW2901 -- the same path's, completed
                base = None  # noqa: PLW2901
            number = links.get(key, 0) if key else 0
            if entry[8] != number:
                entry = entry._replace(hardlink=number)  # noqa: PLW2901
            upper[path] = _new_upper((entry, base))
        signatures = {path: item[0] for path, item in seen.items.items()}
        for path in itertools.chain(self._untrusted, torn, self._too_young(signatures)):
            if path in signatures:
                signatures[path] = signatures[path]._replace(ctime_ns=-1)
        return Captured(signatures, upper, tuple(sorted(torn)))

    def _with_base_content(self, path: bytes, entry: Entry, base: bytes | None) -> Entry:
        if entry.content or not entry.size:
            return entry
        if base is None:
            raise CorruptObjectError(
                f"{os.fsdecode(path)!r} in {self._root} keeps content of the base, but nothing says of which file"
            )
        content = self._base_content(base)
        if sum(extent.length for extent in content) != entry.size:
            raise CorruptObjectError(
                f"{os.fsdecode(path)!r} in {self._root} keeps the content of {os.fsdecode(base)!r}, which has another "
                "size in the base: the tree was not made over this base"
            )
        return entry._replace(content=content)

    def _too_young(self, signatures: dict[bytes, Signature]) -> list[bytes]:
        """Return the paths whose time stamps may be later, by their own clock, than they look by ours."""
        if self._kind not in REMOTE_FILE_SYSTEMS:
            return []
        trusted_ns = now_ns() - REMOTE_SKEW_NS
        return [path for path, signature in signatures.items() if signature.ctime_ns >= trusted_ns]


def _open(directories: Directories, path: bytes) -> int:
    """Open a file for reading, without a trace in its access time where that is allowed."""
    directory, name = split(path)
    at = directories.open(directory)
    try:
        return os.open(name, _READ_FLAGS | _NO_ATIME, dir_fd=at)
    except PermissionError as error:
        if error.errno != errno.EPERM:
            raise
        return os.open(name, _READ_FLAGS, dir_fd=at)  # somebody else's file


def wait_for_writes(fd: int) -> None:
    """Return when no write(2) that has moved the time stamps already is still copying its data."""
    if sys.platform != "linux":
        return
    try:
        os.removexattr(fd, _NO_SUCH_XATTR)
    except OSError as error:
        if error.errno == errno.ENODATA:
            return
    # Not allowed here, or no xattrs: on most file systems asking for holes takes the same lock.
    with contextlib.suppress(OSError):
        os.lseek(fd, 0, os.SEEK_HOLE)


def has_signature(fd: int, signature: Signature) -> bool:
    """Whether the open file still has *signature*."""
    status = os.fstat(fd)
    return (
        signature[1:] == (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        and status.st_mode & 0o170000 == 0o100000
    )


def _with_content(item: Item, content: Content) -> Item:
    return _new_item((item[0], _new_entry((*item[1][:10], content)), *item[2:]))


def _same_bytes(one: Content, other: Content) -> bool:
    return one == other or [*map(_identity, one)] == [*map(_identity, other)]


def _identity(extent: Extent) -> tuple[int, bytes | None, int]:
    return extent.length, extent.chunk and extent.chunk.digest, extent.chunk_offset


def _link_numbers(seen: Scan) -> dict[int, int]:
    """Number the inodes of which more than one name was seen."""
    names: dict[int, int] = {}
    for item in seen.items.values():
        if item[2]:
            names[item[2]] = names.get(item[2], 0) + 1
    return {key: number for number, key in enumerate((key for key, count in names.items() if count > 1), 1)}


def _raise_busy(moved: set[bytes], rounds: int) -> NoReturn:
    paths = [os.fsdecode(path) or "." for path in sorted(moved)]
    shown = ", ".join(map(repr, paths[:SHOWN_MAX])) + (
        f" and {len(paths) - SHOWN_MAX} more" if len(paths) > SHOWN_MAX else ""
    )
    raise BusyError(
        f"these paths kept changing while they were read ({rounds} times): {shown}; stop what writes to them, or "
        "commit with allow_torn=True",
        paths,
    )

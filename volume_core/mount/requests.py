"""What the kernel is answered: each opcode as a function of a View and of a file's bytes.

No descriptor is touched here, so all of it can be asked without a kernel.  One thread asks: the one that owns
the View.

Always true:

  1. An answer follows from the layers alone.  Node numbers, listing offsets and attributes are those that any
     other server of the same stack gives: one that was killed can be replaced between any two requests.
  2. Everything may be remembered for ever by the kernel, and is said to be: a version cannot change.
  3. Nothing waits for a store.  A READ whose bytes are not here comes back as a Fetch, for another thread.
  4. Memory is bounded whatever the tree holds: nodes, extents and half-read listings are kept in small caches,
     and a cache miss costs only time.

Directories have a link count of 1, which means "not counted" to find, rsync and fts (btrfs and overlayfs say the
same): counting subdirectories would cost a listing for each stat.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from volume_core.domain.view import Node, View
from volume_core.errors import VolumeError
from volume_core.format.entries import Extent, Kind
from volume_core.format.layer import data_bytes, unpack_xattrs
from volume_core.mount import protocol as fuse
from volume_core.mount.recent import Recent

# About 0.6 KB a node and two generations: 10 MB at most.  A node that was forgotten is found again in 15 us.
_NODES_REMEMBERED = 8192
# 130 bytes an extent (a chunk of 4 MiB): 4 MB at most, 128 GiB of open files.
_EXTENTS_REMEMBERED = 16_384
_LINKS_REMEMBERED = 4096
# Files read in order of the layer: twice as many are looked up with each question, up to so many.
_NEIGHBOURS = 16
# Listings that a reader stopped in the middle of; each holds one statement of SQLite.
_LISTINGS_OPEN = 16

# Pages of listings that are ready before they are asked for: 32 KiB each, as the C library asks.
_PAGES_PREPARED = 4

# Offsets of a listing: 0 begins it, these two follow the dots, all others are View.position of the entry before.
_AFTER_DOT: Final = 1
_AFTER_DOTS: Final = 2

_DIRECTORIES = frozenset((int(Kind.DIRECTORY), int(Kind.OPAQUE)))
_FILE: Final = int(Kind.FILE)
_SYMLINK: Final = int(Kind.SYMLINK)
_FORMAT: Final[dict[int, int]] = {  # S_IFMT bits of a mode
    int(Kind.FILE): 0o100000,
    int(Kind.DIRECTORY): 0o040000,
    int(Kind.OPAQUE): 0o040000,
    int(Kind.SYMLINK): 0o120000,
    int(Kind.FIFO): 0o010000,
    int(Kind.CHAR): 0o020000,
    int(Kind.BLOCK): 0o060000,
}
_DIRECTORY_BYTES = 4096  # what the local disk says of a small one, so that du of a copy agrees
_SECOND_NS = 1_000_000_000
_ACCESS_MODE = os.O_WRONLY | os.O_RDWR

Attributes = tuple[int, int, int, int, int, int, int, int, int, int, int, int, int, int, int, int]
Page = tuple[int, int, int]  # of a listing: number of the directory, offset, size in bytes
ReadLocal = Callable[[tuple[Extent, ...], int, int], "bytes | None"]


class Refused(Exception):
    """The answer to a request is an error: *number* is its errno."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Fetch(NamedTuple):
    """A READ that must fetch: *size* bytes from *offset* of what *extents* describe; *path* is for the log."""

    extents: tuple[Extent, ...]
    offset: int
    size: int
    path: bytes


class Interrupt(NamedTuple):
    """Nobody waits for the answer to request *unique* any more."""

    unique: int


class Totals(NamedTuple):
    """What statfs tells of the version."""

    used_bytes: int
    inode_count: int


Answer = bytes | Fetch | Interrupt | None  # None: the kernel expects no answer
# number of the node, the request with its header, its length in bytes
Handler = Callable[[int, bytearray, int], Answer]


class Requests:
    """Answers requests about one view; see the head of this file.

    `handlers[opcode]` answers that opcode, or raises Refused, or an error that errnos.py knows.
    *read_local* is Reader.read_local.  *touched* is told of each READ of a file's beginning.  *acls*: the kernel
    is asked to check access lists, where there are any.
    """

    def __init__(
        self,
        view: View,
        totals: Totals,
        read_local: ReadLocal,
        touched: Callable[[Node], object] | None = None,
        acls: bool = False,
    ) -> None:
        self._view = view
        self._totals = totals
        self._read_local = read_local
        self._touched = touched
        self._acls = acls
        self._nodes: Recent[int, Node] = Recent(_NODES_REMEMBERED)
        self._extents: Recent[int, tuple[Extent, ...]] = Recent(_EXTENTS_REMEMBERED, len)
        self._read_last = 0
        self._ahead = 1
        self._links: Recent[int, int] = Recent(_LINKS_REMEMBERED)
        self._listings: dict[tuple[int, int], tuple[Node | None, Iterator[Node]]] = {}
        self._prepared: dict[Page, tuple[bytes, Page | None]] = {}
        self._next_page: Page | None = None
        self._has_xattrs: bool | None = None
        self.handlers = self._table()

    def _table(self) -> list[Handler]:
        table: list[Handler] = [self._unknown] * fuse.OPCODES_MAX
        for opcode in fuse.CHANGING:
            table[opcode] = self._read_only
        table[fuse.LOOKUP] = self.lookup
        table[fuse.GETATTR] = self.getattr
        table[fuse.READLINK] = self.readlink
        table[fuse.OPEN] = self.open
        table[fuse.READ] = self.read
        table[fuse.STATFS] = self.statfs
        table[fuse.GETXATTR] = self.getxattr
        table[fuse.LISTXATTR] = self.listxattr
        table[fuse.INIT] = self.init
        table[fuse.READDIR] = self.readdir
        table[fuse.READDIRPLUS] = self.readdirplus
        table[fuse.INTERRUPT] = self.interrupt
        table[fuse.LSEEK] = self.lseek
        table[fuse.IOCTL] = self._no_ioctl
        table[fuse.DESTROY] = lambda number, request, length: b""
        for opcode in (fuse.FORGET, fuse.BATCH_FORGET):  # nothing here lives as long as the kernel's reference
            table[opcode] = lambda number, request, length: None
        return table

    # -- nodes ---------------------------------------------------------------------------------

    def node(self, number: int) -> Node:
        """Return the node with that number, or raise Refused(ESTALE): no server of this stack gave it."""
        node = self._nodes.get(number)
        if node is None:
            try:
                node = self._view.node(number)
            except KeyError:
                raise Refused(errno.ESTALE) from None
            self._nodes.put(number, node)
        return node

    def _directory(self, number: int) -> Node:
        node = self.node(number)
        if node.row.kind not in _DIRECTORIES:
            raise Refused(errno.ENOTDIR)
        return node

    def _attributes(self, node: Node) -> Attributes:
        """The fields of struct fuse_attr."""
        row = node.row
        kind = row.kind
        seconds, nanoseconds = divmod(row.mtime_ns, _SECOND_NS)
        size, data, links = row.size, 0, 1
        if kind == _FILE:
            data = data_bytes(row)
        elif kind in _DIRECTORIES:
            size = data = _DIRECTORY_BYTES
        elif kind == _SYMLINK:
            size = len(row.target or b"")
        if row.hardlink:
            links = self._link_count(node)
        return (
            node.number, size, (data + 511) >> 9, seconds, seconds, seconds, nanoseconds, nanoseconds, nanoseconds,
            _FORMAT[kind] | row.mode, links, row.uid, row.gid, row.rdev & 0xFFFFFFFF, fuse.PAGE_BYTES, 0,
        )  # fmt: skip

    def _link_count(self, node: Node) -> int:
        count = self._links.get(node.number)
        if count is None:
            count = self._view.link_count(node)
            self._links.put(node.number, count)
        return count

    def lookup(self, number: int, request: bytearray, length: int) -> Answer:
        """LOOKUP: a name in a directory; "." and ".." of any node, for file handles."""
        name = bytes(request[fuse.HEADER_BYTES : length - 1])
        if name == b".":
            node: Node | None = self.node(number)
        elif name == b"..":
            node = self._view.parent(self.node(number))
        else:
            node = self._view.lookup(self._directory(number), name)
        if node is None:
            return fuse.NEGATIVE_ENTRY
        self._nodes.put(node.number, node)
        return fuse.ENTRY_OUT.pack(node.number, 0, fuse.FOREVER_S, fuse.FOREVER_S, 0, 0, *self._attributes(node))

    def getattr(self, number: int, request: bytearray, length: int) -> Answer:
        """GETATTR."""
        return fuse.ATTR_OUT.pack(fuse.FOREVER_S, 0, *self._attributes(self.node(number)))

    def readlink(self, number: int, request: bytearray, length: int) -> Answer:
        """READLINK: the target, without a NUL."""
        node = self.node(number)
        if node.row.kind != _SYMLINK:
            raise Refused(errno.EINVAL)
        return node.row.target or b""

    # -- directories ---------------------------------------------------------------------------

    def readdirplus(self, number: int, request: bytearray, length: int) -> Answer:
        """READDIRPLUS: as many entries, with their attributes, as fit."""
        offset, size = fuse.READ_IN.unpack_from(request, fuse.HEADER_BYTES)
        found = self._prepared.pop((number, offset, size), None)
        answer, self._next_page = self._page(number, offset, size) if found is None else found
        return answer

    def prepare(self, is_quiet: Callable[[], bool]) -> None:
        """Have the next page of the listing that was asked for last ready, unless there is something else to do.

        The kernel takes longer to make entries known to its caches than we take to find them: it need not wait.
        """
        page = self._next_page
        if page is None or not is_quiet():
            return
        self._next_page = None
        if len(self._prepared) >= _PAGES_PREPARED:
            del self._prepared[next(iter(self._prepared))]
        with contextlib.suppress(Refused, VolumeError):  # whoever asks for it is told
            self._prepared[page] = self._page(*page)

    def _page(self, number: int, offset: int, size: int) -> tuple[bytes, Page | None]:
        """An answer to READDIRPLUS, and the page that follows it if there is one."""
        directory = self._directory(number)
        records = self._dots(directory, offset, fuse.directory_entry_unknown)
        used = sum(map(len, records))
        following = _AFTER_DOTS if records else offset
        pack, forever, padding, attributes = fuse.DIRENTPLUS.pack, fuse.FOREVER_S, fuse.PADDING, self._attributes
        position, remember = self._view.position, self._nodes.put
        held, entries = self._resume(number, offset)
        while (node := held or next(entries, None)) is not None:
            held = None
            name = node.row.name
            used += fuse.DIRENTPLUS.size + (len(name) + 7 & ~7)
            if used > size:
                self._pause(number, following, node, entries)
                return b"".join(records), (number, following, size)
            following = position(node)
            fields = attributes(node)
            records.append(
                pack(
                    node.number, 0, forever, forever, 0, 0, *fields,
                    node.number, following, len(name), fields[9] >> 12,
                )
            )  # fmt: skip
            records.append(name + padding[len(name) & 7])
            remember(node.number, node)
        return b"".join(records), None

    def readdir(self, number: int, request: bytearray, length: int) -> Answer:
        """READDIR: names, numbers and kinds; for a kernel that does not ask for attributes as well."""
        directory = self._directory(number)
        offset, size = fuse.READ_IN.unpack_from(request, fuse.HEADER_BYTES)
        records = self._dots(directory, offset, fuse.directory_entry)
        used = sum(map(len, records))
        following = _AFTER_DOTS if records else offset
        held, entries = self._resume(number, offset)
        while (node := held or next(entries, None)) is not None:
            held = None
            record = fuse.directory_entry(node.number, self._view.position(node), _FORMAT[node.row.kind], node.row.name)
            used += len(record)
            if used > size:
                self._pause(number, following, node, entries)
                break
            following = self._view.position(node)
            records.append(record)
        return b"".join(records)

    def _dots(self, directory: Node, offset: int, record: Callable[[int, int, int, bytes], bytes]) -> list[bytes]:
        """The records of "." and ".." that a listing from *offset* begins with."""
        records = []
        if offset < _AFTER_DOT:
            records.append(record(directory.number, _AFTER_DOT, 0o040000, b"."))
        if offset < _AFTER_DOTS:
            records.append(record(self._view.parent(directory).number, _AFTER_DOTS, 0o040000, b".."))
        return records

    def _resume(self, number: int, offset: int) -> tuple[Node | None, Iterator[Node]]:
        """What a listing goes on with at *offset*: where it was left, or found again from the layers."""
        paused = self._listings.pop((number, offset), None)
        if paused is not None:
            return paused
        try:
            return None, self._view.children(self.node(number), offset if offset > _AFTER_DOTS else 0)
        except KeyError:
            raise Refused(errno.EINVAL) from None

    def _pause(self, number: int, offset: int, node: Node, rest: Iterator[Node]) -> None:
        if len(self._listings) >= _LISTINGS_OPEN:
            del self._listings[next(iter(self._listings))]
        self._listings[number, offset] = (node, rest)

    # -- bytes ---------------------------------------------------------------------------------

    def read(self, number: int, request: bytearray, length: int) -> Answer:
        """READ: the bytes if they are here, else a Fetch of them."""
        node = self.node(number)
        row = node.row
        if row.kind != _FILE:
            raise Refused(errno.EISDIR if row.kind in _DIRECTORIES else errno.EINVAL)
        offset, size = fuse.READ_IN.unpack_from(request, fuse.HEADER_BYTES)
        size = min(size, row.size - offset)
        if size <= 0:
            return b""
        if not offset and self._touched is not None:
            self._touched(node)
        extents = self.extents(node)
        data = self._read_local(extents, offset, size)
        return Fetch(extents, offset, size, node.path) if data is None else data

    def extents(self, node: Node) -> tuple[Extent, ...]:
        """Return where a file's bytes lie; remembered for files of several extents, and for the next ones in order."""
        extents = self._extents.get(node.number)
        if extents is None:
            if isinstance(node.row.content, bytes):
                extents = self._view.extents(node)
                self._extents.put(node.number, extents)
            else:
                extents = self._extents_in_order(node)
        return extents

    def _extents_in_order(self, node: Node) -> tuple[Extent, ...]:
        """The extents of a small file; where the one before it was read last, those that follow are found with it."""
        number = node.number
        is_next = self._read_last < number <= self._read_last + self._ahead
        self._read_last = number
        self._ahead = min(2 * self._ahead, _NEIGHBOURS) if is_next else 1
        if self._ahead == 1:
            return self._view.extents(node)
        numbers = range(number + 1, number + self._ahead)
        nodes = [
            node,
            *(each for each in map(self._nodes.get, numbers) if each is not None and type(each.row.content) is int),
        ]
        found = self._view.extents_of(nodes)
        for each, extents in zip(nodes, found, strict=True):
            self._extents.put(each.number, extents)
        return found[0]

    def lseek(self, number: int, request: bytearray, length: int) -> Answer:
        """LSEEK: SEEK_DATA and SEEK_HOLE; the kernel does the others by itself."""
        node = self.node(number)
        offset, whence = fuse.LSEEK_IN.unpack_from(request, fuse.HEADER_BYTES)
        if whence not in (os.SEEK_DATA, os.SEEK_HOLE) or node.row.kind != _FILE:
            raise Refused(errno.EINVAL)
        if offset >= node.row.size:
            raise Refused(errno.ENXIO)
        position = 0
        for extent in self.extents(node):
            end = position + extent.length
            if end > offset and (extent.chunk is None) == (whence == os.SEEK_HOLE):
                return fuse.LSEEK_OUT.pack(max(position, offset))
            position = end
        if whence == os.SEEK_DATA:
            raise Refused(errno.ENXIO)
        return fuse.LSEEK_OUT.pack(node.row.size)

    # -- extended attributes -------------------------------------------------------------------

    def getxattr(self, number: int, request: bytearray, length: int) -> Answer:
        """GETXATTR.  Where nothing in the view has any, ENOSYS: the kernel never asks again."""
        if not self._any_xattrs():
            raise Refused(errno.ENOSYS)
        (size,) = fuse.XATTR_IN.unpack_from(request, fuse.HEADER_BYTES)
        wanted = bytes(request[fuse.HEADER_BYTES + fuse.XATTR_IN.size : length - 1])
        for name, value in unpack_xattrs(self.node(number).row.xattrs):
            if name == wanted:
                return self._sized(value, size)
        raise Refused(errno.ENODATA)

    def _any_xattrs(self) -> bool:
        """Whether anything in the view has any: found by reading all rows, 40 ns each, once."""
        if self._has_xattrs is None:
            self._has_xattrs = self._view.has_xattrs
        return self._has_xattrs

    def listxattr(self, number: int, request: bytearray, length: int) -> Answer:
        """LISTXATTR."""
        (size,) = fuse.XATTR_IN.unpack_from(request, fuse.HEADER_BYTES)
        return self._sized(fuse.xattr_list(name for name, _ in unpack_xattrs(self.node(number).row.xattrs)), size)

    @staticmethod
    def _sized(value: bytes, size: int) -> bytes:
        """*value*, or how long it is where the caller gave no room (*size* 0) to ask just that."""
        if not size:
            return fuse.XATTR_OUT.pack(len(value))
        if len(value) > size:
            raise Refused(errno.ERANGE)
        return value

    # -- the rest ------------------------------------------------------------------------------

    def init(self, number: int, request: bytearray, length: int) -> Answer:
        """INIT: the first request of a mount, never repeated to a server that replaces another."""
        major, minor, flags = fuse.init_flags(request)
        if major != fuse.KERNEL_MAJOR or minor < fuse.KERNEL_MINOR_MIN or fuse.REQUIRED & ~flags:
            raise Refused(errno.EPROTO)
        # Where nothing has xattrs the kernel would ask for the list of each file, for nothing.
        return fuse.init_answer(flags, fuse.POSIX_ACL if self._acls and self._any_xattrs() else 0)

    def statfs(self, number: int, request: bytearray, length: int) -> Answer:
        """STATFS: full to the last block, as df shows any file system that cannot be written."""
        blocks = max(-(-self._totals.used_bytes // fuse.PAGE_BYTES), 1)  # df leaves out what has no block
        return fuse.STATFS_OUT.pack(
            blocks, 0, 0, max(self._totals.inode_count, 1), 0, fuse.PAGE_BYTES, 255, fuse.PAGE_BYTES
        )

    def open(self, number: int, request: bytearray, length: int) -> Answer:
        """OPEN: ENOSYS tells the kernel to open without asking, with the page cache kept."""
        (flags,) = fuse.OPEN_IN.unpack_from(request, fuse.HEADER_BYTES)
        raise Refused(errno.EROFS if flags & _ACCESS_MODE else errno.ENOSYS)

    @staticmethod
    def interrupt(number: int, request: bytearray, length: int) -> Answer:
        """INTERRUPT: concerns only a Fetch, for everything else was answered before this was read."""
        return Interrupt(*fuse.INTERRUPT_IN.unpack_from(request, fuse.HEADER_BYTES))

    @staticmethod
    def _unknown(number: int, request: bytearray, length: int) -> Answer:
        # OPENDIR, FLUSH, FSYNC, ACCESS, STATX, ...: the kernel does without and does not ask again.
        raise Refused(errno.ENOSYS)

    @staticmethod
    def _read_only(number: int, request: bytearray, length: int) -> Answer:
        raise Refused(errno.EROFS)

    @staticmethod
    def _no_ioctl(number: int, request: bytearray, length: int) -> Answer:
        raise Refused(errno.ENOTTY)

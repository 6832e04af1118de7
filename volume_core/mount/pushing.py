"""Putting the neighbours of what is read into the page cache before they are asked for.

Why: a first read costs a round trip to this process, and two wake-ups cost more than the 4 KiB they bring.  When
the small files of a directory are read one after the other, the next ones are pushed to the kernel
(FUSE_NOTIFY_STORE) while the reader is busy with those before; it then reads at the speed of the page cache.

It works like readahead.  The loop tells of each READ of a small file's beginning (`touched`); after a few that
come in the order of the listing, the next START_FILES are pushed.  One in the middle is left out: the READ of
that marker says that the reader has come so far, and twice as many are pushed, up to FILES_MAX.

    idle --STREAK reads in a row--> window of 16 --marker read--> window of 32 --> ... --> window of 256
      ^                                  |                                                    |
      +------ a jump, the end of the directory, bytes that are not here, a node unknown ------+

Always true:

  1. Only this module's thread pushes, never the loop: a push waits for a page that a reader may hold locked until
     the loop has answered its READ.
  2. Only what is in the local cache is pushed; the store is never asked for a guess.
  3. Pushing is an extra.  What goes wrong here ends this thread, with a line in the log, and nothing else.
"""

from __future__ import annotations

import errno
import logging
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from volume_core.domain.view import Node, View
from volume_core.format.entries import Kind, split
from volume_core.mount.protocol import store_header
from volume_core.mount.requests import ReadLocal

log = logging.getLogger(__name__)

# Above this the kernel's own readahead brings as many bytes a round trip as we would.
FILE_BYTES_MAX = 128 << 10
START_FILES = 16
FILES_MAX = 256
WINDOW_BYTES_MAX = 4 << 20  # 256 files of 16 KiB; a window lies in memory the kernel was not asked for
# Reads in a row that count as reading the directory through.
STREAK = 3
# How far apart, in rows of a layer, two reads of one reader may be: a window, its marker, and rows of other kinds.
_NEAR_ROWS = 2 * FILES_MAX
_READERS_MAX = 8
_STREAMS_MAX = 16
# A node the kernel has not heard of means that nobody lists before reading: this many reads are then let go by.
_REST_READS = 64
_FILE = int(Kind.FILE)


@dataclass(slots=True)
class _Reader:
    """Where somebody reads: the row of a layer that was read last, and how many were read in a row."""

    layer: int
    row: int
    streak: int = 1


@dataclass(slots=True)
class _Stream:
    """One directory that is read through: what comes next, how many at once, and what was pushed last."""

    entries: Iterator[Node]
    files: int = START_FILES
    last: bytes = b""
    marker: bytes = b""
    rest: int = 0


class Pusher:
    """Pushes to the mount of *fd* what *read_local* gives of a view of its own.

    touched() is called by the loop; everything else happens in a thread that the first streak starts.
    """

    def __init__(self, fd: int, open_view: Callable[[], View], read_local: ReadLocal) -> None:
        self._fd = fd
        self._open_view = open_view
        self._read_local = read_local
        self._readers: deque[_Reader] = deque(maxlen=_READERS_MAX)
        self._queue: queue.SimpleQueue[Node] = queue.SimpleQueue()
        self._started = False
        self._later: deque[Node] = deque()
        self._streams: dict[bytes, _Stream] = {}

    # -- in the loop ---------------------------------------------------------------------------

    def touched(self, node: Node) -> None:
        """A READ of the beginning of *node* was asked for.  Costs a microsecond; never waits."""
        row = node.row
        if row.size > FILE_BYTES_MAX:
            return
        for reader in self._readers:
            if 0 < row.id - reader.row <= _NEAR_ROWS and reader.layer == node.layer:
                reader.row = row.id
                reader.streak += 1
                if reader.streak >= STREAK:
                    self._wake(node)
                return
        self._readers.append(_Reader(node.layer, row.id))

    def _wake(self, node: Node) -> None:
        if not self._started:
            self._started = True
            threading.Thread(target=self._run, name="push", daemon=True).start()
        self._queue.put(node)

    # -- in the thread -------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            view = self._open_view()
            while True:
                self._follow(view, self._later.popleft() if self._later else self._queue.get())
        except OSError as error:
            if error.errno != errno.ENODEV:  # unmounted
                log.exception("pushing ends")
        except Exception:
            log.exception("pushing ends")

    def _follow(self, view: View, node: Node) -> None:
        """*node* was read: push what comes after it, if it is time to."""
        path = split(node.path)[0]
        stream = self._streams.get(path)
        name = node.row.name
        if stream is None:
            directory = view.resolve(path)
            if directory is None:
                return
            if len(self._streams) >= _STREAMS_MAX:
                del self._streams[next(iter(self._streams))]
            stream = self._streams[path] = _Stream(view.children(directory, view.position(node)))
        elif stream.rest:
            stream.rest -= 1
            return
        elif name <= stream.last and (not stream.marker or name < stream.marker):
            return  # it was asked for while it was pushed
        self._push(view, stream, path, name)

    def _push(self, view: View, stream: _Stream, path: bytes, reached: bytes) -> None:
        """Push one window of *stream*, the directory at *path*; the reader has *reached* that name."""
        files = size = 0
        wanted = stream.files
        stream.marker = b""
        for node in stream.entries:
            row = node.row
            stream.last = row.name
            if row.kind != _FILE or not 0 < row.size <= FILE_BYTES_MAX:
                continue
            if not self._queue.empty():
                reached = self._drain(path, reached)
            if row.name <= reached:
                continue
            files += 1
            size += row.size
            if files == wanted // 2:
                stream.marker = row.name
            elif not self._store(view, node):
                stream.rest = _REST_READS
                return
            if files >= wanted or size >= WINDOW_BYTES_MAX:
                break
        stream.files = min(2 * wanted, FILES_MAX)

    def _drain(self, path: bytes, reached: bytes) -> bytes:
        """Take what was read meanwhile: return how far the reader of *path* has come, keep the others for later."""
        while not self._queue.empty():
            node = self._queue.get()
            if split(node.path)[0] == path:
                reached = max(reached, node.row.name)
            else:
                self._later.append(node)
        return reached

    def _store(self, view: View, node: Node) -> bool:
        """Push a whole file; False if it is not here or the kernel has not heard of it."""
        data = self._read_local(view.extents(node), 0, node.row.size)
        if data is None:
            return False
        try:
            os.writev(self._fd, (store_header(node.number, 0, len(data)), data))
        except OSError as error:
            if error.errno == errno.ENODEV:
                raise
            return False  # ENOENT: not looked up yet; ENOMEM: no room for guesses
        return True

"""Putting the neighbours of what is read into the page cache before they are asked for.

Why: a first read costs a round trip to the server, and two wake-ups cost more than the 4 KiB they bring.  When
the small files of a directory are read one after the other, the next ones are pushed to the kernel
(FUSE_NOTIFY_STORE) while the reader is busy with those before; it then reads at the speed of the page cache.

It works like readahead.  The loop tells of each READ of a small file's beginning (Touches); after a few that come
in the order of the layer, the next START_FILES are pushed.  One early in the window is left out: the READ of that
marker says that the reader has come so far, and twice as many are pushed, up to FILES_MAX.

    idle --STREAK reads in a row--> window of 16 --marker read--> window of 32 --> ... --> window of 256
      ^                                  |                                                    |
      +------ a jump, the end of the directory, bytes that are not here, a node unknown ------+

Why a process of its own: a push waits, so that no signal can end it, for a page that a reader may hold locked until
its READ is answered.  In the loop that would be a deadlock.  In a thread it would be one as soon as the server is
killed: the process could not end, nobody would see that it must be replaced, and the READ would never be answered.
So the pusher is a child that the server forks first of all.  It answers nothing, and has a queue of its own to the
connection, so that nothing which the kernel gave to the server is held back by it.

Always true:

  1. Only what is here already is pushed; the store is never asked for a guess.
  2. The pusher ends when the server does, by whatever: it is then told so by its socket.
  3. Pushing is an extra.  What goes wrong here ends the pusher, with a line in the log, and nothing else.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from volume_core.domain.view import Node, View
from volume_core.format.entries import Extent, split
from volume_core.mount import syscalls
from volume_core.mount.protocol import store_header

log = logging.getLogger(__name__)

# Above this the kernel's own readahead brings as many bytes a round trip as we would.
FILE_BYTES_MAX = 128 << 10
START_FILES = 16
# The marker is so far into a window: what follows it is what the reader is busy with while more is pushed.
MARKER_PART = 4
FILES_MAX = 256
WINDOW_BYTES_MAX = 4 << 20  # 256 files of 16 KiB; a window lies in memory the kernel was not asked for
# Reads in a row that count as reading the directory through.
STREAK = 3
# How far apart, in rows of a layer, two reads of one reader may be: a window, its marker, and rows of other kinds.
_NEAR_ROWS = 2 * FILES_MAX
_READERS_MAX = 8
_STREAMS_MAX = 16
# A node the kernel has not heard of means that nobody lists before reading: so many reads are then let go by.
_REST_READS = 64
# A reader that was met is asking for the next file already: pushing that one would only wait for its answer.
_LEAD_FILES = 3
# Read together, then pushed one after the other: shorter and the pack is read in more pieces, longer and the reader
# arrives before the first is pushed.
_BATCH_FILES = 64
_BATCH_BYTES = 1 << 20
_LOOK_FILES = 4  # so many are pushed between two looks at what was read meanwhile
_PATH_BYTES_MAX = 64 << 10

File = tuple[int, bytes, tuple[Extent, ...]]  # what View.whole_files says of one
ReadNeighbours = Callable[[Sequence[tuple[Extent, ...]]], "Sequence[bytes | memoryview | None]"]


@dataclass(slots=True)
class _Reader:
    """Where somebody reads: the row of a layer that was read last, and how many were read in a row."""

    layer: int
    row: int
    streak: int = 1


class Touches:
    """The loop's end: tells the pusher behind *channel* of the reads that look like one reader's."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel: socket.socket | None = channel
        self._readers: deque[_Reader] = deque(maxlen=_READERS_MAX)

    def touched(self, node: Node) -> bool:
        """A READ of the beginning of *node* was asked for: return whether the pusher was told.

        Costs a microsecond or two; never waits.
        """
        row = node.row
        if row.size > FILE_BYTES_MAX:
            return False
        for reader in self._readers:
            if 0 < row.id - reader.row <= _NEAR_ROWS and reader.layer == node.layer:
                reader.row = row.id
                reader.streak += 1
                return reader.streak >= STREAK and self._tell(node.path)
        self._readers.append(_Reader(node.layer, row.id))
        return False

    def close(self) -> None:
        """Let the pusher go."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _tell(self, path: bytes) -> bool:
        if self._channel is None:
            return False
        try:
            self._channel.send(path, socket.MSG_DONTWAIT)
        except BlockingIOError:
            pass  # the pusher is behind: what it is not told it does not push
        except OSError as error:
            log.warning("nothing is pushed any more: the pusher is gone (%s)", error.strerror)
            self.close()
            return False
        return True


class _Ready(NamedTuple):
    """A file that is in memory; without data where it is not here."""

    number: int
    name: bytes
    data: bytes | memoryview | None


@dataclass(slots=True)
class _Stream:
    """One directory that is read through.

    `entries` is what comes next, `ready` what of it is in memory, `files` how many to push at once, `last` and
    `marker` names of the window that was pushed last, `rest` how many reads to let go by, `lead` how many files to
    leave to a reader that was met.
    """

    entries: Iterator[File]
    files: int
    ready: deque[_Ready] = field(default_factory=deque)
    last: bytes = b""
    marker: bytes = b""
    rest: int = 0
    lead: int = 0


class Pusher:
    """The pusher's end: pushes to *fd*, a queue of the mount, what *read_neighbours* gives."""

    def __init__(self, fd: int, channel: socket.socket, view: View, read_neighbours: ReadNeighbours) -> None:
        self._fd = fd
        self._channel = channel
        self._view = view
        self._read_neighbours = read_neighbours
        self._later: deque[bytes] = deque()
        self._streams: dict[bytes, _Stream] = {}
        self._files = START_FILES

    def run(self, path: bytes) -> None:
        """Push, beginning after the file at *path*.  Raises ServerGone, or OSError (ENODEV) when the mount is."""
        while path:
            self._follow(path)
            path = self._later.popleft() if self._later else self._channel.recv(_PATH_BYTES_MAX)

    def _follow(self, path: bytes) -> None:
        """The file at *path* was read: push what comes after it, if it is time to."""
        directory, name = split(path)
        stream = self._streams.get(directory)
        if stream is None:
            stream = self._begin(directory, name)
            if stream is None:
                return
        elif stream.rest:
            stream.rest -= 1
            return
        elif name <= stream.last and (not stream.marker or name < stream.marker):
            return  # it was asked for while it was pushed
        # Where the marker was read meanwhile, nobody will say so again.
        while (name := self._push(stream, directory, name)) >= stream.marker > b"" and not self._later:
            pass
        if not self._later:
            self._prepare(stream, b"")

    def _begin(self, directory: bytes, name: bytes) -> _Stream | None:
        above = self._view.resolve(directory)
        if above is None:
            return None
        if len(self._streams) >= _STREAMS_MAX:
            del self._streams[next(iter(self._streams))]
        stream = self._streams[directory] = _Stream(self._view.whole_files(above, name), self._files)
        return stream

    def _prepare(self, stream: _Stream, reached: bytes) -> bool:
        """Have files of *stream* in memory that come after *reached*; False at the end of the directory."""
        ready = stream.ready
        while ready and (stream.lead or ready[0].name <= reached):
            stream.lead = stream.lead - 1 if ready.popleft().name > reached else _LEAD_FILES
        if ready:
            return True
        batch: list[File] = []
        room = _BATCH_BYTES
        for file in stream.entries:
            _, name, ((size, _, _),) = file
            if not 0 < size <= FILE_BYTES_MAX:
                continue
            if name <= reached:
                stream.lead = _LEAD_FILES
            elif stream.lead:
                stream.lead -= 1
            else:
                batch.append(file)
                room -= size
                if room <= 0 or len(batch) == _BATCH_FILES:
                    break
        contents = self._read_neighbours([extents for _, _, extents in batch])
        ready.extend(_Ready(number, name, data) for (number, name, _), data in zip(batch, contents, strict=True))
        return bool(ready)

    def _push(self, stream: _Stream, directory: bytes, reached: bytes) -> bytes:
        """Push one window of *stream*; the reader of *directory* has *reached* that name: return what it has then."""
        files = size = 0
        marker = stream.files // MARKER_PART
        stream.marker = b""
        while files < stream.files and size < WINDOW_BYTES_MAX:
            reached = self._look(directory, reached)
            if not self._prepare(stream, reached):
                break
            for _ in range(min(len(stream.ready), _LOOK_FILES)):
                number, stream.last, data = stream.ready.popleft()
                files += 1
                if files == marker:
                    stream.marker = stream.last
                elif data is None or not self._store(number, data):
                    stream.rest = _REST_READS
                    stream.ready.clear()
                    return b""
                else:
                    size += len(data)
        # What follows this directory is read by the same reader, most likely: it begins where this one ends.
        self._files = stream.files = min(2 * stream.files, FILES_MAX)
        return reached

    def _look(self, directory: bytes, reached: bytes) -> bytes:
        """See what was read meanwhile: return how far the reader of *directory* has come, keep the others for later."""
        try:
            while path := self._channel.recv(_PATH_BYTES_MAX, socket.MSG_DONTWAIT):
                above, name = split(path)
                if above == directory:
                    reached = max(reached, name)
                else:
                    self._later.append(path)
        except BlockingIOError:
            return reached
        raise ServerGone

    def _store(self, number: int, data: bytes | memoryview) -> bool:
        """Push a whole file; False if the kernel has not heard of it."""
        try:
            os.writev(self._fd, (store_header(number, 0, len(data)), data))
        except OSError as error:
            if error.errno == errno.ENODEV:
                raise
            return False  # ENOENT: not looked up yet; ENOMEM: no room for guesses
        return True


class ServerGone(Exception):
    """The server has closed its end of the channel."""


class Started(NamedTuple):
    """A pusher that runs: what to tell it by, and its pid."""

    touches: Touches
    pid: int

    def stop(self) -> None:
        """Let it go and wait for its end; the mount is gone, so nothing holds it."""
        self.touches.close()
        os.waitpid(self.pid, 0)


def start(fuse_fd: int, open_view: Callable[[], View], read_neighbours: ReadNeighbours) -> Started | None:
    """Fork the pusher of the mount of *fuse_fd*; None: nothing is pushed.

    To be called before this process has threads or anything open that a copy of it must not use.
    """
    try:
        queue = syscalls.clone_fuse(fuse_fd)
    except OSError as error:
        log.info("nothing is pushed: %s", error)
        return None
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        try:
            _close_all_but({0, 1, 2, queue, theirs.fileno()})
            ours.detach()
            _run(queue, theirs, open_view, read_neighbours)
        finally:
            os._exit(0)
    theirs.close()
    os.close(queue)
    return Started(Touches(ours), pid)


def _run(queue: int, channel: socket.socket, open_view: Callable[[], View], read_neighbours: ReadNeighbours) -> None:
    try:
        # Most mounts are never read through: nothing is opened before the first word.
        first = channel.recv(_PATH_BYTES_MAX)
        if first:
            Pusher(queue, channel, open_view(), read_neighbours).run(first)
    except ServerGone:
        pass
    except OSError as error:
        if error.errno != errno.ENODEV:  # unmounted
            log.exception("pushing ends")
    except Exception:
        log.exception("pushing ends")


def _close_all_but(kept: set[int]) -> None:
    """Close what was inherited: locks and connections are held by the server alone."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in kept:
            with contextlib.suppress(OSError):  # the descriptor of the listing itself
                os.close(int(name))

"""READs that wait for the store: each is answered once, by whichever thread, and what fails says so once."""

from __future__ import annotations

import errno
import logging
import os
import struct
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from server_kit import eventually

from volume_core.errors import CorruptObjectError, NotFoundError, StorageError
from volume_core.mount import fetching
from volume_core.mount.fetching import Complaints, Fetchers
from volume_core.mount.requests import Fetch

FETCH = Fetch((), 0, 10, b"dir/file")


class Kernel:
    """The kernel's end of a pipe that answers are written to."""

    def __init__(self) -> None:
        self._read, self.fd = os.pipe()
        self.answers: dict[int, bytes | int] = {}

    def answer(self) -> tuple[int, bytes | int]:
        """The next answer: (unique, bytes or errno); fails if there are two to one request."""
        length, error, unique = struct.unpack("<IiQ", os.read(self._read, 16))
        data = os.read(self._read, length - 16) if length > 16 else b""
        assert unique not in self.answers
        self.answers[unique] = -error or data
        return unique, self.answers[unique]

    def close(self) -> None:
        os.close(self._read)
        os.close(self.fd)


@pytest.fixture
def kernel():
    kernel = Kernel()
    yield kernel
    kernel.close()


def test_a_fetch_is_answered_with_its_bytes(kernel):
    asked = []

    def read(extents, offset, size):
        asked.append((extents, offset, size))
        return b"x" * size

    Fetchers(kernel.fd, read, Complaints()).submit(7, FETCH)

    assert (7, b"x" * 10) == kernel.answer()
    assert [((), 0, 10)] == asked


def test_slow_fetches_do_not_hold_up_fast_ones(kernel):
    gate = threading.Event()

    def read(extents, offset, size):
        if offset:
            gate.wait()
        return b"."

    fetchers = Fetchers(kernel.fd, read, Complaints())
    for unique in range(1, 6):
        fetchers.submit(unique, FETCH._replace(offset=1))
    fetchers.submit(9, FETCH)

    assert (9, b".") == kernel.answer()
    gate.set()
    assert {1, 2, 3, 4, 5} == {kernel.answer()[0] for _ in range(5)}


def test_there_are_as_many_threads_as_allowed_and_no_more(kernel):
    under_way, most, lock, gate = [0], [0], threading.Lock(), threading.Event()

    def read(extents, offset, size):
        with lock:
            under_way[0] += 1
            most[0] = max(most[0], under_way[0])
        gate.wait()
        with lock:
            under_way[0] -= 1
        return b"."

    fetchers = Fetchers(kernel.fd, read, Complaints(), threads_max=3)
    for unique in range(10):
        fetchers.submit(unique + 1, FETCH)
    eventually(lambda: under_way[0] == 3, "three at once")
    gate.set()

    assert 10 == len({kernel.answer()[0] for _ in range(10)})
    assert 3 == most[0]


def test_threads_that_are_idle_are_used_again(kernel):
    threads = set()

    def read(extents, offset, size):
        threads.add(threading.get_ident())
        return b"."

    fetchers = Fetchers(kernel.fd, read, Complaints())
    for unique in range(1, 21):
        eventually(lambda: fetchers._busy == 0, "idle")
        fetchers.submit(unique, FETCH)
        kernel.answer()

    assert 1 == len(threads)


def test_an_interrupted_read_is_answered_once(kernel):
    gate = threading.Event()
    fetchers = Fetchers(kernel.fd, lambda *_: (gate.wait(), b".")[1], Complaints())
    fetchers.submit(5, FETCH)
    fetchers.interrupt(5)
    fetchers.interrupt(5)
    fetchers.interrupt(99)

    assert (5, errno.EINTR) == kernel.answer()
    gate.set()
    fetchers.submit(6, FETCH)
    assert (6, b".") == kernel.answer()
    eventually(lambda: fetchers._busy == 0, "all are done")
    assert {5: errno.EINTR, 6: b"."} == kernel.answers


@pytest.mark.loud
@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.EIO, StorageError("no route to host")),
        (errno.EIO, CorruptObjectError("pack abc at offset 5")),
        (errno.EIO, NotFoundError("pack abc")),
        (errno.ENOMEM, OSError(errno.ENOMEM, "no memory")),
        (errno.EIO, ZeroDivisionError("a bug")),
    ],
)
def test_an_error_is_an_errno_and_a_line_in_the_log(kernel, caplog, number, error):
    def read(extents, offset, size):
        raise error

    fetchers = Fetchers(kernel.fd, read, Complaints())
    fetchers.submit(1, FETCH)

    assert (1, number) == kernel.answer()
    assert f"dir/file: cannot be read: {error}" in caplog.text
    fetchers.submit(2, FETCH)  # the thread lives on
    assert (2, number) == kernel.answer()


@pytest.mark.loud
def test_the_same_error_is_said_once_in_a_while(caplog, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(fetching.time, "monotonic", lambda: now[0])
    complaints = Complaints()
    with ThreadPoolExecutor(4) as threads:
        numbers = list(threads.map(lambda _: complaints.errno_of(StorageError("gone"), b"f"), range(50)))
    complaints.errno_of(StorageError("another"), b"f")

    assert [errno.EIO] * 50 == numbers
    assert ["f: cannot be read: gone", "f: cannot be read: another"] == [r.getMessage() for r in caplog.records]
    now[0] += 11
    complaints.errno_of(StorageError("gone"), b"f")
    assert 3 == len(caplog.records)
    assert all(record.levelno == logging.ERROR for record in caplog.records)


def test_an_answer_that_cannot_be_written_is_an_error():
    read, write = os.pipe()
    os.close(read)

    with pytest.raises(BrokenPipeError):
        fetching.answer(write, 1, b"x")
    with pytest.raises(BrokenPipeError):
        fetching.refuse(write, 1, errno.EIO)
    os.close(write)


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENODEV, errno.ECONNABORTED])
def test_an_answer_that_nobody_waits_for_is_dropped(monkeypatch, number):
    def gone(*_):
        raise OSError(number, "")

    monkeypatch.setattr(fetching.os, "write", gone)
    monkeypatch.setattr(fetching.os, "writev", gone)
    fetching.answer(1, 1, b"x")
    fetching.answer(1, 1, bytes(10_000))
    fetching.refuse(1, 1, errno.EIO)

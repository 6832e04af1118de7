"""Calls of an FTP server: connections that threads share, and errors as those of files.

Always true: a connection is used by one thread at a time, and by the process that made it; after an error it is closed,
for nobody knows what is still on its way.  What is not there is FileNotFoundError; a server that does not answer is
ConnectionError.
"""

from __future__ import annotations

import contextlib
import ftplib
import io
import os
import posixpath
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import BinaryIO, NamedTuple

TIMEOUT_S = 30
BLOCK_BYTES = 1 << 20


class Found(NamedTuple):
    """One path of the server."""

    path: str
    is_directory: bool
    size: int
    mtime_ns: int


class Client:
    """One server.  Every method may be called from several threads at once."""

    def __init__(self, host: str, port: int = 21) -> None:
        self._address = host, port
        self._user = os.environ.get("LABFTP_USER", "anonymous"), os.environ.get("LABFTP_PASSWORD", "")
        self._lock = threading.Lock()
        self._idle: list[tuple[int, ftplib.FTP]] = []

    def read(self, path: str) -> bytes:
        """Return the whole file."""
        parts: list[bytes] = []
        self.read_into(path, parts.append)
        return b"".join(parts)

    def read_range(self, path: str, offset: int, length: int) -> bytes:
        """Return *length* bytes from *offset*; fewer where the file ends."""
        if offset >= self.stat(path).size or not length:
            return b""
        parts: list[bytes] = []
        with self._connection(path) as ftp:
            with ftp.transfercmd(f"RETR {path}", offset or None) as line:
                while length and (part := line.recv(min(length, BLOCK_BYTES))):
                    parts.append(part)
                    length -= len(part)
            with contextlib.suppress(ftplib.error_temp):  # that we hung up before the end
                ftp.voidresp()
        return b"".join(parts)

    def read_into(self, path: str, write: Callable[[bytes], object]) -> None:
        """Give *write* all bytes of a file, in order."""
        with self._connection(path) as ftp:
            ftp.retrbinary(f"RETR {path}", write, BLOCK_BYTES)

    def write(self, path: str, source: BinaryIO | bytes | memoryview, beside: str | None = None) -> None:
        """Make the file *path* what *source* holds; until it is whole it has a name in *beside*, or next to it."""
        directory = posixpath.dirname(path) if beside is None else beside
        temporary = posixpath.join(directory, f".{uuid.uuid4().hex}.part")
        reader = io.BytesIO(source) if isinstance(source, bytes | memoryview) else source
        try:
            self._write(reader, temporary, path)
        except FileNotFoundError:  # a directory is not there yet
            for folder in {directory, posixpath.dirname(path)}:
                self.make_directory(folder)
            reader.seek(0)
            self._write(reader, temporary, path)

    def _write(self, reader: BinaryIO, temporary: str, path: str) -> None:
        with self._connection(path) as ftp:
            ftp.storbinary(f"STOR {temporary}", reader, BLOCK_BYTES)
            ftp.rename(temporary, path)

    def stat(self, path: str) -> Found:
        """Return what is known of *path*."""
        with self._connection(path) as ftp:
            _, line, _ = ftp.sendcmd(f"MLST {path}").split("\n")
        facts = dict(fact.lower().split("=", 1) for fact in line.strip().split(";")[:-1])
        return _found(path, facts)

    def listing(self, path: str) -> list[Found]:
        """Return everything in the directory *path*."""
        with self._connection(path) as ftp:
            names = list(ftp.mlsd(path, ["type", "size", "modify"]))
        inner = ((name, facts) for name, facts in names if facts["type"] in {"file", "dir"})
        return [_found(posixpath.join(path, name), facts) for name, facts in inner]

    def remove(self, path: str) -> None:
        """Remove a file."""
        with self._connection(path) as ftp:
            ftp.delete(path)

    def remove_directory(self, path: str) -> None:
        """Remove an empty directory."""
        with self._connection(path) as ftp:
            ftp.rmd(path)

    def make_directory(self, path: str) -> None:
        """Make the directory *path* and all above it, as far as they are not there."""
        try:
            is_there = self.stat(path).is_directory
        except FileNotFoundError:
            is_there = False
        if is_there or path in {"", "/"}:
            return
        self.make_directory(posixpath.dirname(path))
        with contextlib.suppress(FileNotFoundError, FileExistsError), self._connection(path) as ftp:
            ftp.voidcmd(f"MKD {path}")  # refused where another was faster; who needs it will find out

    def close(self) -> None:
        """Hang up."""
        with self._lock:
            idle, self._idle = self._idle, []
        for pid, ftp in idle:
            if pid == os.getpid():
                ftp.close()

    def __del__(self) -> None:
        self.close()

    @contextlib.contextmanager
    def _connection(self, path: str) -> Iterator[ftplib.FTP]:
        """Lend a connection, for what is to be done with *path*."""
        ftp = None
        try:
            ftp = self._take()
            yield ftp
        except ftplib.error_perm as error:
            ftp.close()
            if str(error)[:3] in {"501", "550", "553"}:
                raise FileNotFoundError(2, str(error), path) from error
            raise PermissionError(13, str(error), path) from error
        except (ftplib.Error, EOFError, OSError) as error:
            if ftp is not None:
                ftp.close()
            raise ConnectionError(f"{self._address[0]}:{self._address[1]}{path}: {error}") from error
        except BaseException:
            if ftp is not None:
                ftp.close()
            raise
        with self._lock:
            self._idle.append((os.getpid(), ftp))

    def _take(self) -> ftplib.FTP:
        with self._lock:
            while self._idle:
                pid, ftp = self._idle.pop()
                if pid == os.getpid():
                    return ftp
        ftp = ftplib.FTP(timeout=TIMEOUT_S)
        ftp.connect(*self._address)
        ftp.login(*self._user)
        ftp.voidcmd("TYPE I")  # bytes, as they are
        return ftp


def _found(path: str, facts: dict[str, str]) -> Found:
    time = datetime.strptime(facts["modify"][:14], "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    return Found(path, facts["type"] == "dir", int(facts.get("size", 0)), int(time.timestamp()) * 1_000_000_000)

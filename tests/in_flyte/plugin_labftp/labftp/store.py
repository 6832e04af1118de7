"""A store of volumes on an FTP server: objects are files, by their names.

Always true: an object gets its name when it is whole.  FTP can neither create a file only if there is none, nor replace
one only if it is what it was: so the store says that it keeps no conditions, and has versions but no heads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from urllib.parse import urlsplit

from labftp.client import Client, Found
from volume_core.errors import ConflictError, InvalidNameError, NotFoundError, StorageError
from volume_core.storage.naming import check_name, check_prefix, check_range
from volume_core.storage.protocol import ObjectInfo

UNFINISHED = ".unfinished"


class LabFtpStore:
    """The store `labftp://host:port/directory`.  volume_core.storage.protocol.Store says what each method promises."""

    honours_conditions = False
    local_root = None

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.url = url.rstrip("/")
        self._root = parts.path.rstrip("/")
        self._client = Client(parts.hostname or "", parts.port or 21)

    def get(self, name: str) -> bytes:
        """Return the whole object."""
        path = self._path(name)
        with self._errors("read", name):
            return self._client.read(path)

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        """Return *length* bytes from *offset*."""
        check_range(name, offset, length)
        path = self._path(name)
        with self._errors("read", name):
            return self._client.read_range(path, offset, length)

    def put_new(self, name: str, data: bytes | memoryview) -> None:
        """Store *data* unless other bytes are there, as far as that can be seen before."""
        with contextlib.suppress(NotFoundError):
            if self.get(name) != data:
                raise ConflictError(f"{self.url}/{name} exists already and holds other bytes; nothing was changed")
            return
        self.put(name, data)

    def put(self, name: str, data: bytes | memoryview) -> None:
        """Store *data*, replacing what was there."""
        path = self._path(name)
        with self._errors("write", name):
            self._client.write(path, data, beside=f"{self._root}/{UNFINISHED}")

    def swap(self, name: str, old: bytes | None, new: bytes) -> None:
        """Refuse: nothing here is done in one step."""
        check_name(name)
        raise StorageError(f"{self.url}/{name}: FTP has no compare-and-swap, so this store has no heads")

    def info(self, name: str) -> ObjectInfo:
        """Return what a listing would say of *name*."""
        path = self._path(name)
        with self._errors("look at", name):
            found = self._client.stat(path)
            if found.is_directory:
                raise FileNotFoundError(path)
        return self._info(found)

    def names(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield every object whose name begins with *prefix*."""
        check_prefix(prefix)
        return self._names(prefix)

    def _names(self, prefix: str) -> Iterator[ObjectInfo]:
        waiting = [f"{self._root}/{prefix}".rpartition("/")[0]]
        while waiting:
            directory = waiting.pop()
            try:
                with self._errors("list", prefix):
                    listing = self._client.listing(directory)
            except NotFoundError:
                continue
            for found in listing:
                name = found.path[len(self._root) + 1 :]
                is_ours = name != UNFINISHED and (name.startswith(prefix) or prefix.startswith(f"{name}/"))
                if is_ours and found.is_directory:
                    waiting.append(found.path)
                elif is_ours:
                    yield self._info(found)

    def delete(self, name: str) -> None:
        """Remove *name*, if it is there."""
        path = self._path(name)
        try:
            with self._errors("delete", name):
                self._client.remove(path)
        except NotFoundError:  # of a server that says the same of what it may not remove
            with contextlib.suppress(NotFoundError):
                self.info(name)
                raise StorageError(f"cannot delete {self.url}/{name}: the server refuses") from None

    def close(self) -> None:
        """Hang up."""
        self._client.close()

    def _path(self, name: str) -> str:
        if check_name(name).startswith(f"{UNFINISHED}/"):
            raise InvalidNameError(f"{name!r} cannot name an object here: {UNFINISHED}/ is the store's own")
        return f"{self._root}/{name}"

    def _info(self, found: Found) -> ObjectInfo:
        return ObjectInfo(found.path[len(self._root) + 1 :], found.size, found.mtime_ns)

    @contextlib.contextmanager
    def _errors(self, doing: str, name: str) -> Iterator[None]:
        """Raise what went wrong as volume_core's errors; a line that broke is worth another try."""
        try:
            yield
        except FileNotFoundError as error:
            raise NotFoundError(f"{self.url}/{name}: there is no such object") from error
        except OSError as error:
            is_transient = isinstance(error, ConnectionError)
            raise StorageError(f"cannot {doing} {self.url}/{name}: {error}", transient=is_transient) from error

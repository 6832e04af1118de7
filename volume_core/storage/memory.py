"""A store that is a dictionary of this process: for tests, demonstrations and scratch work.

Every store opened as `memory://<name>` in one process shares the objects of that name; they end
with the process.  Compare-and-swap is real: one lock per name covers each whole operation.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from volume_core.errors import ConflictError, NotFoundError
from volume_core.storage.naming import check_name, check_prefix, check_range
from volume_core.storage.protocol import ObjectInfo


class _Object(NamedTuple):
    data: bytes
    modified_ns: int


class _Space:
    """The objects under one name, and the lock that makes each operation one step."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.objects: dict[str, _Object] = {}


_spaces: dict[str, _Space] = {}
_spaces_lock = threading.Lock()


def _renew_locks() -> None:
    # A fork may happen while another thread, which the child does not have, holds a lock.
    global _spaces_lock
    _spaces_lock = threading.Lock()
    for space in _spaces.values():
        space.lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_locks)


class MemoryStore:
    """The store `memory://<name>`; every instance of one name shows the same objects."""

    honours_conditions = True
    local_root: Path | None = None

    def __init__(self, name: str = "") -> None:
        self._name = name
        with _spaces_lock:
            self._space = _spaces.setdefault(name, _Space())

    def __repr__(self) -> str:
        return f"MemoryStore({self._name!r})"

    @property
    def url(self) -> str:
        """`memory://<name>`."""
        return f"memory://{self._name}"

    def get(self, name: str) -> bytes:
        """Return the whole object, or raise NotFoundError."""
        return self._find(name).data

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        """Return *length* bytes from *offset*, fewer only where the object ends."""
        check_range(name, offset, length)
        return self._find(name).data[offset : offset + length]

    def put_new(self, name: str, data: bytes | memoryview) -> None:
        """Store *data* unless other bytes are there (ConflictError)."""
        given = bytes(data)
        with self._space.lock:
            there = self._space.objects.setdefault(check_name(name), _Object(given, time.time_ns()))
        if there.data != given:
            raise ConflictError(f"{self.url}/{name} exists already and holds other bytes; nothing was changed")

    def put(self, name: str, data: bytes | memoryview) -> None:
        """Store *data*, replacing what was there."""
        given = bytes(data)
        with self._space.lock:
            self._space.objects[check_name(name)] = _Object(given, time.time_ns())

    def swap(self, name: str, old: bytes | None, new: bytes) -> None:
        """Replace *old* (None: nothing there) by *new*, or raise ConflictError."""
        with self._space.lock:
            there = self._space.objects.get(check_name(name))
            if (there.data if there else None) != old:
                raise ConflictError(f"{self.url}/{name} is not what it was when it was read; nothing was changed")
            self._space.objects[name] = _Object(bytes(new), time.time_ns())

    def info(self, name: str) -> ObjectInfo:
        """Return the object's size and time, or raise NotFoundError."""
        there = self._find(name)
        return ObjectInfo(name, len(there.data), there.modified_ns)

    def names(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects that were there when the listing began."""
        check_prefix(prefix)
        with self._space.lock:
            found = [(name, there) for name, there in self._space.objects.items() if name.startswith(prefix)]
        return (ObjectInfo(name, len(there.data), there.modified_ns) for name, there in found)

    def delete(self, name: str) -> None:
        """Remove *name* if it is there."""
        with self._space.lock:
            self._space.objects.pop(check_name(name), None)

    def close(self) -> None:
        """Do nothing: the objects belong to the process."""

    def clear(self) -> None:
        """Remove every object of this name, for all who share it."""
        with self._space.lock:
            self._space.objects.clear()

    def _find(self, name: str) -> _Object:
        there = self._space.objects.get(check_name(name))
        if there is None:
            raise NotFoundError(f"{self.url}/{name}: there is no such object")
        return there

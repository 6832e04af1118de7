"""The one port to whatever keeps the bytes: a bucket prefix, a directory, or memory.

Always true of every implementation (volume_core.testing ships the suite that checks it):

  1. Every method may be called from several threads at once.
  2. An object is there whole or not at all; a reader never sees a part of a write.
  3. Names are relative, "/"-separated, never empty, never hold "." or ".." parts.
  4. A failure raises StorageError (or NotFoundError); the store, not the caller, decides
     whether it is transient.  Nothing above `storage/` retries.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable


class ObjectInfo(NamedTuple):
    """One object of a listing: its name, its size in bytes, and when the store last saw it written (ns since 1970)."""

    name: str
    size_bytes: int
    modified_ns: int


@runtime_checkable
class Store(Protocol):
    """Flat names to bytes.  See the module's head for what holds for every method."""

    @property
    def url(self) -> str:
        """The store's URL, without a trailing slash and without anything secret."""
        ...

    @property
    def honours_conditions(self) -> bool:
        """Whether create-if-absent and compare-and-swap are known to be kept here."""
        ...

    @property
    def local_root(self) -> Path | None:
        """The directory whose files are this store's objects by name, or None for any other store."""
        ...

    def get(self, name: str) -> bytes:
        """Return the whole object, or raise NotFoundError."""
        ...

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        """Return *length* bytes from *offset*; fewer only where the object ends; b"" beyond its end.

        Raises NotFoundError when there is no such object.
        """
        ...

    def put_new(self, name: str, data: bytes | memoryview) -> None:
        """Store *data* under *name*, durably, whole or not at all, only if there is nothing yet.

        Writing the same bytes twice is success: a retry after a lost answer cannot do harm.
        Where other bytes are there, raises ConflictError and changes nothing.
        """
        ...

    def put(self, name: str, data: bytes | memoryview) -> None:
        """Store *data* under *name*, durably, whole or not at all, replacing what was there."""
        ...

    def swap(self, name: str, old: bytes | None, new: bytes) -> None:
        """Replace *old* by *new*, or raise ConflictError and change nothing.

        None means "does not exist yet".  If the answer is lost the implementation reads back:
        when the object now equals *new* that is success (every swapped object of the format holds
        a unique write id), when it still equals *old* or is something else the error is raised as it was.
        Raises StorageError on a store that ignores conditions.
        """
        ...

    def info(self, name: str) -> ObjectInfo:
        """Return what a listing would say of *name*, or raise NotFoundError."""
        ...

    def names(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield every object whose name begins with *prefix*, in no promised order."""
        ...

    def delete(self, name: str) -> None:
        """Remove *name*; it is no error if it is not there."""
        ...

    def close(self) -> None:
        """Give back connections; the store is not used afterwards."""
        ...

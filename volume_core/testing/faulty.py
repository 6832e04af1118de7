"""A store that fails at a chosen call: so that the 1st, then the 2nd, ... can be failed until none is left.

The fault model
  - a call fails before it has any effect, or after its whole effect (its answer was lost);
  - once (`persistent=False`) or from then on for ever;
  - as an error that a retry may cure ("transient"), as one that it cannot ("permanent"), or as the
    death of the process ("crash": a BaseException that no handler for errors catches, after which
    every further call dies as well).
Half an effect is no fault of this model: no store shows a part of an object.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

from volume_core.errors import StorageError
from volume_core.storage.protocol import ObjectInfo, Store

T = TypeVar("T")
Kind = Literal["transient", "permanent", "crash"]
WRITES = frozenset({"put_new", "put", "swap", "delete"})
OPERATIONS = WRITES | {"get", "get_range", "info", "names"}


class Crashed(BaseException):
    """The process died in a call to the store."""


class Call(NamedTuple):
    """One counted call: the method's name and the object's (or the listing's prefix)."""

    operation: str
    name: str


class FaultyStore:
    """*inner*, failing at the *fail_at*-th counted call (1 is the first; 0 never fails).

    *operations* says which methods count.  `calls` lists the counted calls in order and `faults`
    says how many of them failed, so a sweep ends when a run had none.
    """

    def __init__(
        self,
        inner: Store,
        fail_at: int = 0,
        persistent: bool = False,
        after: bool = False,
        kind: Kind = "transient",
        *,
        operations: frozenset[str] = OPERATIONS,
    ) -> None:
        self.inner = inner
        self.calls: list[Call] = []
        self.faults = 0
        self._fail_at = fail_at
        self._persistent = persistent or kind == "crash"
        self._after = after
        self._kind = kind
        self._operations = operations
        self._lock = threading.Lock()

    def heal(self) -> None:
        """Fail no call from now on; `faults` says how many there were."""
        with self._lock:
            self._fail_at, self._persistent = 0, False

    def __repr__(self) -> str:
        return f"FaultyStore({self.inner!r}, {self._fail_at})"

    @property
    def url(self) -> str:
        """The inner store's URL."""
        return self.inner.url

    @property
    def honours_conditions(self) -> bool:
        """What the inner store knows of itself."""
        return self.inner.honours_conditions

    @property
    def local_root(self) -> Path | None:
        """The inner store's directory, if it is one."""
        return self.inner.local_root

    def get(self, name: str) -> bytes:
        """Get, or fail."""
        return self._call("get", name, lambda: self.inner.get(name))

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        """Get a range, or fail."""
        return self._call("get_range", name, lambda: self.inner.get_range(name, offset, length))

    def put_new(self, name: str, data: bytes | memoryview) -> None:
        """Put, or fail."""
        self._call("put_new", name, lambda: self.inner.put_new(name, data))

    def put(self, name: str, data: bytes | memoryview) -> None:
        """Put, or fail."""
        self._call("put", name, lambda: self.inner.put(name, data))

    def swap(self, name: str, old: bytes | None, new: bytes) -> None:
        """Swap, or fail."""
        self._call("swap", name, lambda: self.inner.swap(name, old, new))

    def info(self, name: str) -> ObjectInfo:
        """Look, or fail."""
        return self._call("info", name, lambda: self.inner.info(name))

    def names(self, prefix: str) -> Iterator[ObjectInfo]:
        """List, or fail: with *after*, when the last object was given."""
        fails = self._count("names", prefix)
        if fails and not self._after:
            raise self._error("names", prefix)
        return self._listing(prefix, fails)

    def delete(self, name: str) -> None:
        """Delete, or fail."""
        self._call("delete", name, lambda: self.inner.delete(name))

    def close(self) -> None:
        """Close the inner store; never counted."""
        self.inner.close()

    def _listing(self, prefix: str, fails: bool) -> Iterator[ObjectInfo]:
        yield from self.inner.names(prefix)
        if fails:
            raise self._error("names", prefix)

    def _call(self, operation: str, name: str, call: Callable[[], T]) -> T:
        if not self._count(operation, name):
            return call()
        # Of a process that died, only the call that killed it may still have had its effect.
        if self._after and (self._kind != "crash" or self.faults == 1):
            call()
        raise self._error(operation, name)

    def _count(self, operation: str, name: str) -> bool:
        with self._lock:
            if operation not in self._operations and not (self._kind == "crash" and self.faults):
                return False
            self.calls.append(Call(operation, name))
            number = len(self.calls)
            fails = 0 < self._fail_at <= number if self._persistent else number == self._fail_at
            self.faults += fails
            return fails

    def _error(self, operation: str, name: str) -> BaseException:
        if self._kind == "crash":
            return Crashed(f"{operation} {name}")
        lost = "its answer was lost" if self._after else "it had no effect"
        return StorageError(f"injected: {operation} {self.url}/{name}: {lost}", transient=self._kind == "transient")

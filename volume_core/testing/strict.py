"""A store stricter than any real one, so that a wrong assumption fails here first.

Real stores forgive some of these; none promises any of them:
  - a listing comes in another order each time;
  - what is read never is the object that was written, but an equal one;
  - what is written is read to the end at once: bytes, or a memoryview that may be reused after;
  - a name is never also the folder of another name (a directory cannot hold both);
  - a listing is not promised to see what changes while it runs;
  - a closed store is not used.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from volume_core.storage.naming import check_name, check_prefix
from volume_core.storage.protocol import ObjectInfo, Store


class StrictStore:
    """*inner*, with every liberty that the protocol leaves to a store taken at once."""

    def __init__(self, inner: Store, seed: int | None = None) -> None:
        self.inner = inner
        self._random = random.Random(seed)
        self._closed = False

    def __repr__(self) -> str:
        return f"StrictStore({self.inner!r})"

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
        """Return a copy of the object."""
        self._require_open()
        return _copy(self.inner.get(check_name(name)))

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        """Return a copy of the range."""
        self._require_open()
        for number in (offset, length):
            assert type(number) is int
        return _copy(self.inner.get_range(check_name(name), offset, length))

    def put_new(self, name: str, data: bytes | memoryview) -> None:
        """Store *data*, which must be bytes."""
        self._require_storable(name, data)
        self.inner.put_new(name, data)

    def put(self, name: str, data: bytes | memoryview) -> None:
        """Store *data*, which must be bytes."""
        self._require_storable(name, data)
        self.inner.put(name, data)

    def swap(self, name: str, old: bytes | None, new: bytes) -> None:
        """Swap; both values must be plain bytes."""
        self._require_storable(name, new)
        assert old is None or type(old) is bytes
        assert type(new) is bytes
        self.inner.swap(name, old, new)

    def info(self, name: str) -> ObjectInfo:
        """Return the object's size and time."""
        self._require_open()
        return self.inner.info(check_name(name))

    def names(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the listing of one instant, shuffled."""
        self._require_open()
        found = list(self.inner.names(check_prefix(prefix)))
        self._random.shuffle(found)
        return iter(found)

    def delete(self, name: str) -> None:
        """Remove *name* if it is there."""
        self._require_open()
        self.inner.delete(check_name(name))

    def close(self) -> None:
        """Close the inner store; any later call fails."""
        self._closed = True
        self.inner.close()

    def _require_open(self) -> None:
        assert not self._closed, "the store is closed"

    def _require_storable(self, name: str, data: bytes | memoryview) -> None:
        self._require_open()
        assert type(data) in {bytes, memoryview}, f"{name}: {type(data).__name__} is not bytes"
        assert not isinstance(data, memoryview) or (data.contiguous and data.itemsize == 1)
        parts = check_name(name).split("/")
        for end in range(1, len(parts)):
            above = "/".join(parts[:end])
            assert not _exists(self.inner, above), f"{name} lies below {above}, which is an object"
        below = next(iter(self.inner.names(name + "/")), None)
        assert below is None, f"{name} is the folder of {below}"


def _copy(data: bytes) -> bytes:
    assert type(data) is bytes
    return bytes(bytearray(data))


def _exists(store: Store, name: str) -> bool:
    return any(found.name == name for found in store.names(name))

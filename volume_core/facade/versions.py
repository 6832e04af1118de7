"""Versions by their locator: which store, which manifest, which came before.

Always true: a manifest is believed only because it hashes to its version's id; a store is opened when
it is first needed, and once for all the handles that came from one another.
"""

from __future__ import annotations

import heapq
import os
import threading
import weakref
from collections.abc import Iterator
from typing import NamedTuple

from volume_core.errors import CorruptObjectError, NotFoundError
from volume_core.format.manifest import Manifest
from volume_core.format.names import Locator, version_name
from volume_core.plugins.manager import plugins
from volume_core.storage.protocol import Store


class Place:
    """Where a volume lies: a store that is opened by the first call that needs it.

    Every method may be called from several threads at once, and in a forked child, which opens the
    store anew: connections do not survive a fork.
    """

    def __init__(self, url: str, region: str | None = None) -> None:
        self.url = url
        self.region = region
        self._store: Store | None = None
        self._pid = 0
        self._lock = threading.Lock()
        _places.add(self)

    def store(self) -> Store:
        """Return the opened store."""
        with self._lock:
            if self._store is None or self._pid != os.getpid():
                options = {"region": self.region} if self.region else {}
                self._store, self._pid = plugins().open_store(self.url, options), os.getpid()
                weakref.finalize(self, self._store.close).atexit = False
            return self._store

    def renew_lock(self) -> None:
        """Forget who held the lock: in a forked child that thread does not exist."""
        self._lock = threading.Lock()


_places: weakref.WeakSet[Place] = weakref.WeakSet()


def _renew_locks() -> None:
    for place in _places:
        place.renew_lock()


os.register_at_fork(after_in_child=_renew_locks)


class Version(NamedTuple):
    """A version that was read and verified: its address, its manifest, and where it lies."""

    locator: Locator
    manifest: Manifest
    place: Place


def read_version(locator: Locator, place: Place) -> Version:
    """Return the version at *locator*, whose store *place* is.

    Raises NotFoundError if there is none, CorruptObjectError if its manifest is not what its name
    says.
    """
    try:
        data = place.store().get(version_name(locator.volume, locator.version))
    except NotFoundError:
        raise NotFoundError(
            f"{locator}: there is no such version; was it pruned, or is the store another one ({place.url})?"
        ) from None
    manifest = Manifest.from_bytes(locator.version, data)
    if manifest.volume != locator.volume:
        raise CorruptObjectError(f"{locator}: this is a version of {manifest.volume!r}, not of {locator.volume!r}")
    return Version(locator, manifest, place)


def history(version: Version) -> Iterator[Version]:
    """Yield *version* and all it came from, newest first.

    A parent that was pruned ends its line; the child's manifest still names it.
    """
    seen = {str(version.locator)}
    # created_at is ISO 8601 in UTC, which sorts as text; a parent never comes before the child that led to it.
    waiting = [(_newest_first(version), 0, version)]
    while waiting:
        _, _, found = heapq.heappop(waiting)
        yield found
        for parent in found.manifest.parents:
            if parent in seen:
                continue
            seen.add(parent)
            try:
                above = _parent(Locator.parse(parent), found.place)
            except NotFoundError:
                continue
            heapq.heappush(waiting, (_newest_first(above), len(seen), above))


def read_parent(version: Version) -> Version | None:
    """Return the first parent of *version*, None if it has none; NotFoundError if it was pruned."""
    parents = version.manifest.parents
    return _parent(Locator.parse(parents[0]), version.place) if parents else None


def _parent(locator: Locator, place: Place) -> Version:
    return read_version(locator, place if locator.store == place.url else Place(locator.store, place.region))


def _newest_first(version: Version) -> tuple[int, ...]:
    return tuple(-ord(character) for character in version.manifest.created_at)

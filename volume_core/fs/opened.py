"""Versions that were opened to read: by any number of threads, looked up once.

Always true:

  1. What a head is, is looked up when it is first asked for, and again after it was forgotten: all reads between
     are of one version, whatever is committed meanwhile.
  2. A version is opened once and used by all; those used longest ago are closed, when nobody reads them.
  3. In a forked child nothing that the parent has open is used: versions are opened anew.
  4. File systems of one process that differ only in how they are called (by which loop, in which thread) have one
     Versions together: what one has committed, the others read.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping, MutableMapping

from volume_core.facade.addresses import Address
from volume_core.facade.browsing import Browsers
from volume_core.facade.releasing import release_with
from volume_core.facade.versions import Place, Version, read_version
from volume_core.format.names import Locator
from volume_core.fs.naming import find_version
from volume_core.parts.forking import renew_after_fork
from volume_core.plugins.manager import plugins
from volume_core.storage.opening import store_url

# An opened version is a few descriptors and, once it was looked into, some megabytes of SQLite's pages.
_OPENED_MAX = 32
# Options that say how a file system is called, not what it reads.
_OF_CALLS = frozenset({"asynchronous", "loop", "batch_size", "skip_instance_cache"})


class Versions:
    """The versions that one file system reads.  Every method may be called from several threads at once.

    *bucket* and *region* say where the volumes of URLs without a store are, as Volume.new has them; *heads*
    remembers which version each head is, for as long as it likes.
    """

    def __init__(self, bucket: str | None, region: str | None, heads: MutableMapping[str, Version | Locator]) -> None:
        self.bucket = bucket
        self.region = region
        self._heads = heads
        self._lock = threading.RLock()
        self.committing = threading.Lock()  # held by who commits to a head: commits of one instance need no merging
        self._places: dict[str | None, Place] = {}
        self._fixed: dict[Address, Version] = {}
        self._opened: OrderedDict[str, tuple[Browsers, Callable[[], None]]] = OrderedDict()
        renew_after_fork(self)

    def _renew_after_fork(self) -> None:
        self._lock, self.committing = threading.RLock(), threading.Lock()
        self._opened = OrderedDict()

    def place(self, address: Address) -> Place:
        """Return the store that *address* lies in."""
        with self._lock:
            place = self._places.get(address.store)
            if place is None:
                url = address.store or self._default()
                place = self._places[address.store] = Place(url, None if address.store else self.region)
            return place

    def at(self, address: Address, *, anew: bool = False) -> Browsers:
        """Return the version that *address* lies in, opened; with *anew* its head is looked up again.

        Raises NotFoundError if there is none.
        """
        with self._lock:
            version = self._version(address, anew=anew)
            key = str(version.locator)
            found = self._opened.pop(key, None)
            if found is None:
                opened = Browsers(version, version.place, key)
                found = opened, release_with(self, opened)
            self._opened[key] = found
            if len(self._opened) > _OPENED_MAX:
                oldest, keep = self._opened.popitem(last=False)[1]
                keep()
                oldest.close()
            return found[0]

    def forget(self, address: Address | None = None) -> None:
        """Look up anew, at the next use, what the head of *address*'s volume is, or what all heads are."""
        with self._lock:
            if address is None:
                self._heads.clear()
            else:
                self._heads.pop(self._key(address), None)

    def moved(self, address: Address, locator: Locator) -> None:
        """The head of *address*'s volume is the version at *locator*: this file system has just made it."""
        with self._lock:
            self._heads[self._key(address)] = locator

    def _version(self, address: Address, *, anew: bool) -> Version:
        if address.ref:
            fixed = address._replace(path=b"")
            found = self._fixed.get(fixed)
            if found is None:
                found = self._fixed[fixed] = find_version(self.place(address), address.volume, address.ref)
            return found
        key = self._key(address)
        head = None if anew else self._heads.get(key)
        if isinstance(head, Version):
            return head
        place = self.place(address)
        found = read_version(head, place) if head is not None else find_version(place, address.volume, "")
        self._heads[key] = found
        return found

    def _key(self, address: Address) -> str:
        return f"{self.place(address).url}/{address.volume}"

    def _default(self) -> str:
        is_url = self.bucket is not None and "://" in self.bucket
        return store_url(None, self.bucket, "" if is_url else plugins().default_bucket())


class _Together:
    """The Versions of this process, by the options of the file systems that have them, and as long as they do."""

    def __init__(self) -> None:
        renew_after_fork(self)
        self._renew_after_fork()

    def _renew_after_fork(self) -> None:
        self._lock = threading.Lock()
        self._known: weakref.WeakValueDictionary[str, Versions] = weakref.WeakValueDictionary()

    def of(self, versions: Versions, options: Mapping[str, object]) -> Versions:
        """Return what a file system with *options* reads: *versions*, unless there are some for the same options."""
        told = sorted((name, value) for name, value in options.items() if name not in _OF_CALLS)
        with self._lock:
            return self._known.setdefault(repr((versions.bucket, versions.region, told)), versions)

    def forget(self) -> None:
        """What file systems that are made from now on read is theirs alone, and each other's."""
        with self._lock:
            self._known.clear()


together = _Together()

"""The only place that retries: a store around a store that tries transient failures again.

Always true:
  1. Only StorageError with `transient` is tried again; the last one is raised when attempts or time run out.
  2. Between attempts it waits a random time up to a bound that doubles ("full jitter"), so that many
     writers which were throttled together do not come back together.
  3. A swap whose answer was lost is decided by reading, never guessed and never reported as a
     conflict with itself: ConflictError means that no attempt of this call took effect.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from volume_core.errors import ConflictError, NotFoundError, StorageError
from volume_core.storage.protocol import ObjectInfo, Store

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Policy:
    """How often and how long to try: at most *attempts* calls, none begun after *within_s* seconds.

    The n-th wait is a random time up to `min(first_s * 2**(n-1), longest_s)`.
    """

    attempts: int = 8
    within_s: float = 300.0
    first_s: float = 0.1
    longest_s: float = 10.0


DEFAULT_POLICY: Final = Policy()


class Retrying:
    """*inner*, with its transient failures tried again as *policy* says.

    *clock*, *sleep* and *chance* (a float in [0, 1)) are given by tests.
    """

    def __init__(
        self,
        inner: Store,
        policy: Policy = DEFAULT_POLICY,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.inner = inner
        self._policy = policy
        self._clock = clock
        self._sleep = sleep
        self._chance = chance

    def __repr__(self) -> str:
        return f"Retrying({self.inner!r})"

    @property
    def url(self) -> str:
        """The inner store's URL."""
        return self.inner.url

    @property
    def honours_conditions(self) -> bool:
        """What the inner store knows of itself."""
        return self._retry("read", "format", lambda: self.inner.honours_conditions)

    @property
    def local_root(self) -> Path | None:
        """The inner store's directory, if it is one."""
        return self.inner.local_root

    def get(self, name: str) -> bytes:
        """Return the whole object, or raise NotFoundError."""
        return self._retry("read", name, lambda: self.inner.get(name))

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        """Return *length* bytes from *offset*, fewer only where the object ends."""
        return self._retry("read", name, lambda: self.inner.get_range(name, offset, length))

    def put_new(self, name: str, data: bytes | memoryview) -> None:
        """Store *data* unless other bytes are there; a repeat finds its own bytes, which is success."""
        self._retry("write", name, lambda: self.inner.put_new(name, data))

    def put(self, name: str, data: bytes | memoryview) -> None:
        """Store *data*, replacing what was there."""
        self._retry("write", name, lambda: self.inner.put(name, data))

    def swap(self, name: str, old: bytes | None, new: bytes) -> None:
        """Replace *old* by *new*; after a lost answer, read what became of it.

        Raises the lost answer's StorageError when the object is now neither *old* nor *new*: this
        call may have taken effect and been replaced since.  Who needs to know looks into the
        history that the object itself holds.
        """
        tries = self._tries("swap", name)
        uncertain: StorageError | None = None
        while True:
            try:
                return self.inner.swap(name, old, new)
            except ConflictError:
                if uncertain is None:
                    raise
                if self._now(name, uncertain) == new:
                    return None
                raise uncertain from None
            except StorageError as error:
                if not error.transient:
                    raise
                uncertain = error
                now = self._now(name, error)
                if now == new:
                    return None
                if now != old:
                    raise
                tries.wait_after(error)

    def info(self, name: str) -> ObjectInfo:
        """Return the object's size and time, or raise NotFoundError."""
        return self._retry("look at", name, lambda: self.inner.info(name))

    def names(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield each object once, also when the listing had to be begun again."""
        tries = self._tries("list", prefix)
        listing: Iterator[ObjectInfo] | None = None
        seen: set[str] = set()
        while True:
            try:
                listing = listing or self.inner.names(prefix)
                found = next(listing)
            except StopIteration:
                return
            except StorageError as error:
                tries.wait_after(error)
                listing = None
                continue
            if found.name not in seen:
                seen.add(found.name)
                yield found

    def delete(self, name: str) -> None:
        """Remove *name* if it is there."""
        self._retry("delete", name, lambda: self.inner.delete(name))

    def close(self) -> None:
        """Close the inner store."""
        self.inner.close()

    def _now(self, name: str, uncertain: StorageError) -> bytes | None:
        """Return what *name* holds (None: nothing), or raise *uncertain* if that cannot be read."""
        try:
            return self.get(name)
        except NotFoundError:
            return None
        except StorageError:
            raise uncertain from None

    def _retry(self, doing: str, name: str, call: Callable[[], T]) -> T:
        return _until_done(self._tries(doing, name), call)

    def _tries(self, doing: str, name: str) -> _Tries:
        return _Tries(f"{doing} {self.url}/{name}", self._policy, self._clock, self._sleep, self._chance)


def retried(what: str, call: Callable[[], T], policy: Policy = DEFAULT_POLICY) -> T:
    """Return what *call* returns, trying it again as *policy* says; *what* it does is for the log."""
    return _until_done(_Tries(what, policy, time.monotonic, time.sleep, random.random), call)


def _until_done(tries: _Tries, call: Callable[[], T]) -> T:
    while True:
        try:
            return call()
        except StorageError as error:
            tries.wait_after(error)


class _Tries:
    """How many tries one call has had, and since when."""

    def __init__(
        self,
        what: str,
        policy: Policy,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        chance: Callable[[], float],
    ) -> None:
        self._what = what
        self._policy = policy
        self._clock = clock
        self._sleep = sleep
        self._chance = chance
        self._made = 0
        self._deadline_s = clock() + policy.within_s

    def wait_after(self, error: StorageError) -> None:
        """Wait until the next try may begin, or raise *error* if there is none."""
        self._made += 1
        bound_s = min(self._policy.first_s * 2 ** (self._made - 1), self._policy.longest_s)
        wait_s = bound_s * self._chance()
        spent = self._made >= self._policy.attempts or self._clock() + wait_s > self._deadline_s
        if not error.transient or spent:
            raise error
        log.info("try %d to %s failed, next in %.2f s: %s", self._made, self._what, wait_s, error)
        self._sleep(wait_s)

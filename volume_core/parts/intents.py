"""A commit's intent while it is held: written before the first object, renewed, checked, removed.

Why renewed instead of long: a commit may take a day, and a crashed one should not keep garbage for a
day.  Why checked: a process that was stopped for longer than its intent lives (a suspended machine, a
paused container) may have lost packs to prune without knowing, and must then not publish.

Always true:

  1. The store's format.json, then the intent, are there before any other object of the commit.
  2. A commit that writes nothing writes no intent.
  3. An intent that has lapsed or is gone is never written again: check() fails from then on.
  4. remove() never raises StorageError: what it cannot remove lapses by itself.

      unwritten --begin--> alive --renewed--> alive --remove--> gone
                             |                  +--leave--> alive --take_over, by another process--> alive
                             +---- not renewed in time, or deleted ----> lost
"""

from __future__ import annotations

import dataclasses
import datetime
import logging
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from volume_core.errors import ConflictError, CorruptObjectError, NotFoundError, StorageError
from volume_core.format.intent import Intent
from volume_core.format.names import intent_name
from volume_core.parts.renewing import Renewer, awake_and_asleep_s
from volume_core.storage.probing import ensure_format
from volume_core.storage.protocol import Store

log = logging.getLogger(__name__)

# How long a crashed commit keeps prune from what it left.
LIFETIME_S = 1800


def iso_utc(time_ns: int) -> str:
    """Return nanoseconds since 1970 as UTC in ISO 8601 with microseconds, ending in "Z"."""
    at = datetime.datetime(1970, 1, 1) + datetime.timedelta(microseconds=time_ns // 1000)
    return at.isoformat(timespec="microseconds") + "Z"


class HeldIntent:
    """The intent of one commit.  Every method may be called from any thread.

    *versions* are the locators of the base and the parent.  *clock* gives ns since 1970 for people;
    *elapsed_s* is what the lifetime is measured with here.
    """

    def __init__(
        self,
        store: Store,
        volume: str,
        versions: Sequence[str] = (),
        *,
        clock: Callable[[], int] = time.time_ns,
        elapsed_s: Callable[[], float] = awake_and_asleep_s,
        lifetime_s: int = LIFETIME_S,
    ) -> None:
        now = iso_utc(clock())
        self._store = store
        self._clock = clock
        self._elapsed_s = elapsed_s
        self._intent = Intent(uuid.uuid4().hex, volume, lifetime_s, now, now, tuple(dict.fromkeys(versions)))
        self._name = intent_name(self._intent.id)
        self._lock = threading.Lock()
        self._attempted = False
        self._written_s: float | None = None
        self._lost = False
        self._renewer = Renewer(self._name, lifetime_s, self.renew)

    @property
    def name(self) -> str:
        """The intent's object name."""
        return self._name

    @property
    def id(self) -> str:
        """The intent's id."""
        return self._intent.id

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def begin(self) -> None:
        """Write the intent if it is not written yet, and keep it alive from then on."""
        if self._written_s is not None:  # the usual case: an upload need not wait for a renewal
            return
        with self._lock:
            if self._written_s is not None:
                return
            ensure_format(self._store)
            before_s = self._elapsed_s()
            self._attempted = True
            self._store.put_new(self._name, self._intent.to_bytes())
            self._written_s = before_s
            self._renewer.start()

    def include(self, locator: str) -> None:
        """Name one more version that the commit builds on, before anything relies on it."""
        with self._lock:
            if locator in self._intent.versions:
                return
            self._intent = dataclasses.replace(self._intent, versions=(*self._intent.versions, locator))
        if self._written_s is not None:
            self.renew()

    def take_over(self, intent_id: str) -> bool:
        """Go on as the intent *intent_id*, whose process is gone, if it is alive and has been since it began.

        Then everything that was written under it is protected as if this commit had written it.  False where that
        is not certain: this intent, which is written by then, is a new one.  To be called before anything else is
        written.  Raises StorageError as the store does.

        Why it is certain: our own intent is written first, and tells what time it is by the store's clock; by that
        clock the other one was alive; and it is written again before, by a clock that goes on while this machine
        sleeps, what was left of its life has passed.
        """
        before_s = self._elapsed_s()
        self.begin()
        now_ns = self._store.info(self._name).modified_ns
        name = intent_name(intent_id)
        try:
            found = self._store.get(name)
            other = Intent.from_bytes(name, found)
            left_s = (self._store.info(name).modified_ns - now_ns) / 1e9 + other.lifetime_s
        except (NotFoundError, CorruptObjectError):
            return False
        with self._lock:
            mine, asked_s = self._name, self._elapsed_s()
            taken = dataclasses.replace(
                other,
                volume=self._intent.volume,
                lifetime_s=self._intent.lifetime_s,  # by which it is renewed
                versions=tuple(dict.fromkeys((*self._intent.versions, *other.versions))),
                renewed_at=iso_utc(self._clock()),
                write=other.write + 1,
            )
            try:
                self._write_again(name, found, taken.to_bytes())
            except (ConflictError, NotFoundError):
                return False
            if self._elapsed_s() - before_s >= left_s:
                self._delete(name)
                return False
            self._intent, self._name, self._written_s = taken, name, asked_s
        self._delete(mine)
        return True

    def check(self) -> None:
        """Raise StorageError unless the intent is alive: nothing may be published then."""
        with self._lock:
            if not self._has_lapsed():
                try:
                    self._store.info(self._name)
                except NotFoundError:
                    self._lost = True
            if self._lost or self._has_lapsed():
                raise StorageError(
                    f"the commit of {self._intent.volume!r} lost its intent {self._name}: it was stopped, or cut off "
                    f"from the store, for longer than {self._intent.lifetime_s} s; what it had written may be pruned "
                    "by now, so nothing was published; commit again",
                    transient=True,
                )

    def has_lapsed(self) -> bool:
        """Whether its lifetime has run out, as far as can be told without asking the store."""
        with self._lock:
            return self._has_lapsed()

    def _has_lapsed(self) -> bool:
        if self._written_s is None:
            return False
        self._lost = self._lost or self._elapsed_s() - self._written_s >= self._intent.lifetime_s
        return self._lost

    def renew(self) -> None:
        """Write the intent again with a new time, unless it has lapsed or is gone."""
        with self._lock:
            if self._has_lapsed() or self._renewer.is_stopped:
                return
            before_s = self._elapsed_s()
            now = iso_utc(self._clock())
            self._intent = dataclasses.replace(self._intent, renewed_at=now, write=self._intent.write + 1)
            try:
                self._replace(self._intent.to_bytes())
            except (ConflictError, NotFoundError):
                self._lost = True
            else:
                self._written_s = before_s

    def _replace(self, data: bytes) -> None:
        # A plain put would bring back an intent that somebody deleted.  What is there is ours, if perhaps
        # of a renewal whose answer was lost: nobody else ever writes it.
        self._write_again(self._name, self._store.get(self._name), data)

    def _write_again(self, name: str, found: bytes, data: bytes) -> None:
        if self._store.honours_conditions:
            self._store.swap(name, found, data)
        else:
            self._store.put(name, data)

    def leave(self) -> None:
        """Stop renewing, and leave the intent to whoever takes it over before it lapses."""
        self._renewer.stop()

    def remove(self) -> None:
        """Stop renewing and delete the intent, if it was written or may have been."""
        self.leave()
        if self._attempted:
            self._delete(self._name)

    def _delete(self, name: str) -> None:
        try:
            self._store.delete(name)
        except StorageError as error:
            log.info("intent %s could not be removed, it lapses by itself: %s", name, error)

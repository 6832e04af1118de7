"""The exclusive lock of a volume while it is held: acquired, renewed, checked, given back.

Whoever asks for the lock has it alone among those who ask; a writer that does not ask is not kept out, and
merges as always.

No clock need agree with another.  A holder counts its lifetime from before its last renewal, by a clock that
no one sets; whoever waits takes the lock when it has itself seen it unchanged for a whole lifetime, which
began later; and it takes exactly what it saw, by compare-and-swap.  A holder that was stopped, cut off or
suspended for longer finds that out before it publishes (check), and where it is stopped between that and its
last write, the head refuses it: the token of the one who came after is in the head by then (fence_head).

Always true:

  1. Of two acquisitions the later has the greater token, whatever became of the lock's object meanwhile, as
     long as the volume has a head.
  2. A lock that has lapsed, or was taken, is never written again by its former holder: check() fails from
     then on.
  3. release() never raises StorageError: what it cannot give back lapses by itself.
  4. In a forked child nothing is held: the lock is the parent's.

      acquire --> held --renewed--> held --release--> free
                    +---- not renewed in time, or taken ----> lost
"""

from __future__ import annotations

import dataclasses
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, Self

from volume_core.errors import ConflictError, NotFoundError, StorageError
from volume_core.format.lease import Lease
from volume_core.format.names import lock_name
from volume_core.parts.heads import fence_head, person, read_head, require_conditions
from volume_core.parts.intents import iso_utc
from volume_core.parts.renewing import Renewer, awake_and_asleep_s
from volume_core.storage.probing import ensure_format
from volume_core.storage.protocol import Store

log = logging.getLogger(__name__)

# How long a crashed holder keeps others out.
LIFETIME_S = 60
# How often whoever waits looks: this many times in a lifetime, but at least once in _LOOK_S.
_LOOKS = 20
_LOOK_S = 1.0


class HeldLease:
    """The exclusive lock of one volume.  Every method may be called from any thread.

    *holder* is text for people; *clock* gives ns since 1970 for them; *elapsed_s* is what lifetimes are
    measured with, *sleep* how a waiter waits.
    """

    def __init__(
        self,
        store: Store,
        volume: str,
        *,
        holder: str = "",
        lifetime_s: int = LIFETIME_S,
        clock: Callable[[], int] = time.time_ns,
        elapsed_s: Callable[[], float] = awake_and_asleep_s,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._store = store
        self._volume = volume
        self._name = lock_name(volume)
        self._holder = holder or f"{person()} (process {os.getpid()})"
        self._lifetime_s = lifetime_s
        self._clock = clock
        self._elapsed_s = elapsed_s
        self._sleep = sleep
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._lease: Lease | None = None
        self._written_s = 0.0
        self._lost = False
        self._renewer = Renewer(self._name, lifetime_s, self.renew)

    @property
    def token(self) -> int:
        """What move_head takes: greater than that of everyone who had the lock before.  0 before acquire()."""
        return self._lease.token if self._lease else 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def acquire(self, timeout_s: float | None = None) -> Self:
        """Get the lock, and keep it alive from then on.

        Raises ConflictError naming the holder when that one still has it after *timeout_s*; 0 asks once, and
        None waits until it is known whether the holder lives: at most its lifetime, if it does not.
        """
        require_conditions(self._store, "locks")
        ensure_format(self._store)
        waiting = _Waiting(self._elapsed_s, timeout_s)
        while True:
            found = _read(self._store, self._name)
            if found is None or not found.held or waiting.has_expired(found):
                if self._take(found):
                    return self
                continue
            if waiting.is_over(found):
                raise ConflictError(
                    f"volume {self._volume!r} in {self._store.url} is locked by {found.holder} since "
                    f"{found.acquired_at}; it is free when that one unmounts it, or {found.lifetime_s} s after it died"
                )
            self._sleep(waiting.next_look_s(found))

    def check(self) -> None:
        """Raise ConflictError unless the lock is held: nothing may be published then.  Call right before."""
        self._check_process()
        with self._lock:
            if not self._has_lapsed():
                found = _read(self._store, self._name)
                self._lost = found is None or not self._is_ours(found)
            if self._lost or self._has_lapsed():
                raise ConflictError(
                    f"the lock of {self._volume!r} in {self._store.url} was lost: this process was stopped, or cut off "
                    f"from the store, for longer than {self._lifetime_s} s{self._who_has_it()}; nothing was published; "
                    "what was written is kept: mount it again with the lock, and commit"
                )

    def renew(self) -> None:
        """Write the lock again, unless it has lapsed or somebody else has it."""
        with self._lock:
            if self._lease is None or self._has_lapsed() or self._renewer.is_stopped:
                return
            before_s = self._elapsed_s()
            found = _read(self._store, self._name)
            if found is None or not self._is_ours(found):
                self._lost = True
                return
            # Also one of a renewal whose answer was lost: nobody else ever writes it with this id.
            wanted = dataclasses.replace(
                found, renewed_at=iso_utc(self._clock()), write=max(found.write, self._lease.write) + 1
            )
            self._lease = wanted
            try:
                self._store.swap(self._name, found.to_bytes(), wanted.to_bytes())
            except ConflictError:
                self._lost = True
            else:
                self._written_s = before_s

    def release(self) -> None:
        """Stop renewing, and give the lock back if it is held."""
        if self._pid != os.getpid():
            return
        self._renewer.stop()
        with self._lock:
            if self._lease is None or self._lost:
                return
            self._lost = True
            try:
                found = _read(self._store, self._name)
                if found is not None and self._is_ours(found):
                    free = dataclasses.replace(found, held=False, renewed_at=iso_utc(self._clock()))
                    self._store.swap(self._name, found.to_bytes(), free.to_bytes())
            except ConflictError:
                pass  # somebody has taken it since
            except StorageError as error:
                log.info("lock %s could not be given back, it lapses by itself: %s", self._name, error)

    def _take(self, found: Lease | None) -> bool:
        """Put our lease in place of *found*; False if somebody else was faster."""
        before_s = self._elapsed_s()
        now = iso_utc(self._clock())
        head = read_head(self._store, self._volume)
        token = max(found.token if found else 0, head.fence if head else 0) + 1
        lease = Lease(self._volume, uuid.uuid4().hex, token, self._holder, self._lifetime_s, now, now)
        self._lease = lease
        try:
            self._store.swap(self._name, found.to_bytes() if found else None, lease.to_bytes())
        except ConflictError:
            self._lease = None
            return False
        except StorageError as error:
            if not self._was_taken(found, error):
                return False
        self._written_s = before_s
        try:
            fence_head(self._store, self._volume, token)
        except BaseException:
            self.release()
            raise
        self._renewer.start()
        return True

    def _was_taken(self, found: Lease | None, error: StorageError) -> bool:
        """Whether the swap that ended with *error* put our lease there; False where somebody else's is.

        Raises *error* where the lock is as it was, or cannot be seen: it may yet be ours, and lapses then.
        """
        try:
            there = _read(self._store, self._name)
        except StorageError:
            there = found
        if there == found:
            self.release()
            raise error
        if there is not None and self._is_ours(there):
            return True
        self._lease = None
        return False

    def _is_ours(self, found: Lease) -> bool:
        return self._lease is not None and found.held and found.id == self._lease.id

    def _has_lapsed(self) -> bool:
        self._lost = self._lost or self._elapsed_s() - self._written_s >= self._lifetime_s
        return self._lost

    def _who_has_it(self) -> str:
        try:
            found = _read(self._store, self._name)
        except StorageError:
            return ""
        return f"; {found.holder} has it" if found is not None and found.held and not self._is_ours(found) else ""

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            raise ConflictError(
                f"the lock of {self._volume!r} in {self._store.url} is held by process {self._pid}, which this one was "
                "forked from: commit there"
            )


class _Seen(NamedTuple):
    """A lease, and when it was first seen."""

    lease: Lease
    since_s: float


class _Waiting:
    """What one waiter has seen of the lock, by its own clock."""

    def __init__(self, elapsed_s: Callable[[], float], timeout_s: float | None) -> None:
        self._elapsed_s = elapsed_s
        self._timeout_s = timeout_s
        self._began_s = elapsed_s()
        self._seen: _Seen | None = None
        self._renewed = False

    def has_expired(self, found: Lease) -> bool:
        """Note that *found* was just read; whether it was there, unchanged, for its whole lifetime."""
        now_s = self._elapsed_s()
        if self._seen is None or self._seen.lease != found:
            self._renewed = self._seen is not None and self._seen.lease.id == found.id
            self._seen = _Seen(found, now_s)
        return now_s - self._seen.since_s >= found.lifetime_s

    def is_over(self, found: Lease) -> bool:
        """Whether there is nothing more to wait for, when *found* is held."""
        if self._timeout_s is None:
            return self._renewed
        return self._elapsed_s() - self._began_s >= self._timeout_s

    def next_look_s(self, found: Lease) -> float:
        """How long to wait, in seconds, before the lock is read again."""
        pause_s = min(_LOOK_S, found.lifetime_s / _LOOKS)
        if self._timeout_s is None:
            return pause_s
        return min(pause_s, max(0.0, self._began_s + self._timeout_s - self._elapsed_s()))


def _read(store: Store, name: str) -> Lease | None:
    try:
        data = store.get(name)
    except NotFoundError:
        return None
    return Lease.from_bytes(f"{store.url}/{name}", data)

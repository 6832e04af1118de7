"""Heads: read one, move one, and whether one version came from another.

A head moves by compare-and-swap, so of several writers that read the same one exactly one moves it; the
others get ConflictError, and merge or try again.

Always true:

  1. ConflictError means that this move did not happen.  A move whose answer was lost is decided: the head
     itself holds the write ids of its last moves, and its version the ancestry.  What even these cannot tell
     is raised as the StorageError it was, never as a conflict and never as success.
  2. On a store that ignores the conditions of a write no head is ever written: two writers would overwrite
     each other's moves unseen.
  3. A move with a lock's token is refused where the head has seen a greater one (parts/leases.py).
"""

from __future__ import annotations

import dataclasses
import getpass
import os
import socket
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator

from volume_core.errors import ConflictError, NotFoundError, StorageError
from volume_core.format.head import HISTORY_MAX, Head, Move
from volume_core.format.manifest import Action, Manifest
from volume_core.format.names import Locator, head_name, version_name
from volume_core.parts.intents import iso_utc
from volume_core.parts.publishing import as_text
from volume_core.storage.probing import ensure_format
from volume_core.storage.protocol import Store

# Each of these tries that fails is a move of somebody else that did not.
_FENCE_TRIES = 1000


def person() -> str:
    """Return who runs this process, and where, for people: "user@host"."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        user = str(os.getuid())
    return as_text(f"{user}@{socket.gethostname()}")


def require_conditions(store: Store, what: str) -> None:
    """Raise StorageError if *store* ignores the conditions of a write, which *what* ("named heads") needs.

    Finds it out, and writes it into the store's format.json, if nobody did before.
    """
    if not store.honours_conditions:
        ensure_format(store)
    if not store.honours_conditions:
        raise StorageError(
            f"{store.url} cannot have {what}: its server ignores the conditions of a PUT (If-None-Match, If-Match), so "
            "two writers would overwrite each other unseen; pass versions on by their locators, which needs none, or "
            "use a store that keeps conditions (docs/stores.md)"
        )


def read_head(store: Store, volume: str) -> Head | None:
    """Return where the head of *volume* stands; None if it has none."""
    name = head_name(volume)
    try:
        data = store.get(name)
    except NotFoundError:
        return None
    return Head.from_bytes(f"{store.url}/{name}", data)


def move_head(
    store: Store,
    volume: str,
    found: Head | None,
    version: str,
    why: str,
    *,
    by: str = "",
    action: Action | None = None,
    token: int = 0,
    clock: Callable[[], int] = time.time_ns,
) -> Head:
    """Make *version*, an id, the head of *volume*, if it still is what read_head *found*; return the head then.

    *why* is a word for the history, *by* text that says who (default: person()), *action* the task that
    did it; *token* is that of the caller's lock, if it has one; *clock* gives ns since 1970, for people.

    Raises ConflictError if somebody else moved it, or took the lock; StorageError if the store failed, or
    ignores conditions.  After a StorageError the head may have moved: whoever reads it again sees.
    """
    require_conditions(store, "named heads")
    fence = found.fence if found else 0
    if token and fence > token:
        raise ConflictError(
            f"the lock of {volume!r} in {store.url} was lost: somebody has it with token {fence}, after ours, {token}; "
            "its head was not moved"
        )
    moved_at = iso_utc(clock())
    previous = found.version if found else None
    move = Move(version, previous, uuid.uuid4().hex, moved_at, as_text(why), as_text(by or person()), action)
    wanted = Head(volume, (move, *(found.history if found else ()))[:HISTORY_MAX], max(token, fence))
    try:
        store.swap(head_name(volume), found.to_bytes() if found else None, wanted.to_bytes())
    except (ConflictError, StorageError) as error:
        _decide(store, found, wanted, error)
    return wanted


def delete_head(store: Store, volume: str) -> None:
    """Remove the head of *volume*, if it has one; its versions stay."""
    store.delete(head_name(volume))


def fence_head(store: Store, volume: str, token: int) -> None:
    """See that no holder of a smaller token than *token* moves the head of *volume* any more, if it has one.

    Its bytes change, so a move under way, from what the head was before, fails as well.  Raises
    ConflictError where a greater token was here before.
    """
    for _ in range(_FENCE_TRIES):
        found = read_head(store, volume)
        if found is None or found.fence == token:
            return
        if found.fence > token:
            raise ConflictError(
                f"the lock of {volume!r} in {store.url} was taken by somebody else meanwhile; try again"
            )
        try:
            store.swap(head_name(volume), found.to_bytes(), dataclasses.replace(found, fence=token).to_bytes())
        except ConflictError:
            continue
        except StorageError:
            if (now := read_head(store, volume)) is None or now.fence != token:
                raise
        return
    raise ConflictError(f"the head of {volume!r} in {store.url} moves too often to be locked; try again")


def _decide(store: Store, found: Head | None, wanted: Head, error: ConflictError | StorageError) -> None:
    """Return if the swap that ended with *error* took place all the same; raise what became of it if not."""
    try:
        now = read_head(store, wanted.volume)
        took_place = _took_place(store, found, wanted, now)
    except StorageError:
        raise error from None
    if took_place:
        return
    if now is None or now == found or took_place is None:
        raise error
    latest = now.history[0]
    who = f"{latest.by} ({latest.action.engine} {latest.action.run})" if latest.action else latest.by
    raise ConflictError(
        f"the head of {wanted.volume!r} in {store.url} was moved meanwhile: to {latest.version[:12]}, by {who} at "
        f"{latest.moved_at} ({latest.why}); it was not moved to {wanted.version[:12]}"
    ) from error


def _took_place(store: Store, found: Head | None, wanted: Head, now: Head | None) -> bool | None:
    """Whether the move to *wanted*, from *found*, happened; None if nothing tells.  *now* is read after it."""
    if now is None:
        return None  # there was none before, or it was deleted since
    if now.has(wanted.write_id):
        return True
    if found is not None and now.has(found.write_id):
        return False  # the history holds all that came after *found*
    # More moves than the history holds, or the head was deleted since and made again.
    ours = Locator(store.url, wanted.volume, wanted.version)
    if is_ancestor(store, ours, ours._replace(version=now.version)):
        before = found is not None and is_ancestor(store, ours, ours._replace(version=found.version))
        return None if before else True
    return False if now.is_all else None


# -- what came from what


def is_ancestor(store: Store, older: Locator, newer: Locator) -> bool:
    """Whether *newer* is *older*, or came from it: by any of its parents, however far back.

    One request for each version in between; "no" takes one for each version that *newer* came from.  A parent
    that was pruned ends its line.
    """
    return older.version == newer.version or any(older.version in above for above in _parents(store, newer))


def _parents(store: Store, start: Locator) -> Iterator[set[str]]:
    """Yield the ids of the parents of *start*, of their parents, and so on, each version's once, nearest first."""
    seen = {start.version}
    waiting = deque([start])
    while waiting:
        at = waiting.popleft()
        try:
            # By its name in this store, which proves what it is: a store that was moved has a URL of its own.
            manifest = Manifest.from_bytes(at.version, store.get(version_name(at.volume, at.version)))
        except NotFoundError:
            continue
        parents = [Locator.parse(parent) for parent in manifest.parents]
        yield {parent.version for parent in parents}
        waiting.extend(parent for parent in parents if parent.version not in seen)
        seen.update(parent.version for parent in parents)

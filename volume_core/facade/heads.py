"""Heads as the public classes use them: whose versions they name, and when a line of its own moves one.

Always true:

  1. A line of its own moves the head of its name only forward: where there is none, or where it names a
     version that this one came from.  What else the head names stays, and nothing is lost: `promote` moves it.
  2. A version that was published is returned, whatever becomes of its head.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from volume_core.errors import ConflictError, NotFoundError, StorageError
from volume_core.facade.lines import renamed
from volume_core.facade.versions import Place, Version, read_version
from volume_core.format.head import Head
from volume_core.format.names import Locator, version_name
from volume_core.parts.heads import is_ancestor, move_head, read_head, require_conditions
from volume_core.parts.landing import Goal
from volume_core.parts.publishing import About
from volume_core.plugins.manager import plugins
from volume_core.storage.probing import ensure_format

if TYPE_CHECKING:
    from volume_core.volumes import ROVolume

log = logging.getLogger(__name__)

_TRIES = 8  # whoever loses so many swaps in a row leaves the head to those who win them


def head_version(name: str, place: Place) -> Version | None:
    """Return the version that the head of the volume *name* names; None where there is no head."""
    head = read_head(place.store(), name)
    return None if head is None else _read(head, name, place)


def _read(head: Head, name: str, place: Place) -> Version:
    return read_version(Locator(place.store().url, name, head.version), place)


def landed_version(locator: str, place: Place, stands_at: Locator | None = None) -> Version | None:
    """Return the version at *locator* if its volume's head names it, or one that came from it.

    None too where *stands_at* is that version, or came from it: what is older has landed, and is no news.
    """
    parsed, store = Locator.parse(locator), place.store()
    if stands_at is not None and is_ancestor(store, parsed, stands_at):
        return None
    head = read_head(store, parsed.volume)
    if head is None or not is_ancestor(store, parsed, parsed._replace(version=head.version)):
        return None
    return read_version(parsed, place)


def first_landed(kept: Iterable[tuple[str, bool]], place: Place, parent: Version | None) -> tuple[Version, bool] | None:
    """Return the first version of *kept*, locators and whether they are merged, that its volume's head has got to.

    *parent* is the version that is known to be the last one.  None where none of them got there.
    """
    stands_at = parent.locator if parent is not None else None
    for locator, merged in kept:
        if (version := landed_version(locator, place, stands_at)) is not None:
            return version, merged
    return None


def renewed(name: str, place: Place, about: About, goal: Goal) -> Version:
    """Publish and return a version of the named volume *name* that shows what its head does, on that head.

    *goal* gives the guard and the token of a lock.  Raises NotFoundError where there is no head.
    """
    store = place.store()
    for _ in range(_TRIES):
        head = read_head(store, name)
        if head is None:
            raise NotFoundError(f"the volume {name!r} has no head in {place.url}: it was deleted")
        version = renamed(_read(head, name, place), name, about.message, about.labels, about.produced_by)
        try:
            goal.guard()
            move_head(store, name, head, version.locator.version, goal.why, action=about.produced_by, token=goal.token)
        except ConflictError:
            store.delete(version_name(name, version.locator.version))
            goal.guard()
            continue
        return version
    raise ConflictError(f"the head of {name!r} moved {_TRIES} times while a version was put on it: try again")


def fast_forward(version: Version) -> None:
    """Move the head of *version*'s volume to it if that is forward; leave it, and say so, where it is not."""
    store, name = version.place.store(), version.locator.volume
    try:
        if not ensure_format(store).honours_conditions:
            log.debug("%s keeps no heads: that of %s is not moved", store.url, name)
            return
        for _ in range(_TRIES):
            head = read_head(store, name)
            if head is not None and not is_ancestor(
                store, version.locator._replace(version=head.version), version.locator
            ):
                log.info("the head of %s stays at %s: %s did not come from it", name, head.version, version.locator)
                return
            try:
                why = "create" if head is None else "commit"
                action = version.manifest.produced_by
                move_head(store, name, head, version.locator.version, why, action=action)
            except ConflictError:
                continue
            return
    except StorageError as error:
        log.warning("%s was committed, but the head of %s could not be moved to it: %s", version.locator, name, error)


def announce(volume: ROVolume, version: Version) -> None:
    """*version*, of a line of its own, was published: move the head of its name forward, and tell the plugins."""
    fast_forward(version)
    plugins().committed(volume, version.manifest.produced_by)


def promote(version: Version, *, why: str = "promote") -> None:
    """Make the head of *version*'s volume name it, wherever it stands."""
    store, name = version.place.store(), version.locator.volume
    ensure_format(store)
    for _ in range(_TRIES):
        head = read_head(store, name)
        if head is not None and head.version == version.locator.version:
            return
        try:
            move_head(store, name, head, version.locator.version, why, action=version.manifest.produced_by)
        except ConflictError:
            continue
        return
    raise ConflictError(f"the head of {name!r} moved {_TRIES} times while it was being promoted: try again")


def step_back(place: Place, name: str, versions: Collection[str], why: str) -> str | None:
    """Move the head of *name* back to where it stood before *versions*, if it names one of them; return its version.

    None, and nothing is moved: others have moved the head on, there was none before, or where it stood is gone.  Each
    of *versions* stays, and can be promoted.
    """
    store = place.store()
    for _ in range(_TRIES):
        head = read_head(store, name)
        if head is None or head.version not in versions:
            return None
        before: str | None = head.version
        for move in head.history:
            if move.version != before or before not in versions:
                break
            before = move.previous
        if before is None or before in versions:
            log.info("the head of %s stays at %s: it stood nowhere before", name, head.version)
            return None
        try:
            read_version(Locator(store.url, name, before), place)
            move_head(store, name, head, before, why, action=plugins().current_task())
        except ConflictError:
            continue
        except NotFoundError:
            log.info("the head of %s stays at %s: %s, where it stood before, is gone", name, head.version, before)
            return None
        return before
    return None


def existing_head(name: str, place: Place, *, create_if_missing: bool) -> Version | None:
    """Return the head's version; None where there is none and it may be made.  NotFoundError says what there is."""
    found = head_version(name, place)
    if found is None and create_if_missing:
        require_conditions(place.store(), "named heads")
    if found is not None or create_if_missing:
        return found
    raise NotFoundError(
        f"there is no volume {name!r} in {place.url}; create_if_missing=True makes it, `volume ls` lists what there is"
    )

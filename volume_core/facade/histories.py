"""What a version came from, the names it has beside its id, and where its volume's head stands.

Always true: names are decoration: the history itself follows parents, and is the same whoever gave names
since.
"""

from __future__ import annotations

import itertools
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from volume_core.domain.touching import touches
from volume_core.errors import NotFoundError
from volume_core.facade.handles import HandledRecord
from volume_core.facade.statuses import HistoryEntry
from volume_core.facade.twins import awaitable
from volume_core.facade.versions import Place, Version, history, read_parent, read_version
from volume_core.format.head import Head, Move
from volume_core.format.names import Locator
from volume_core.format.tag import Tag
from volume_core.parts.heads import move_head, read_head
from volume_core.parts.indexes import IndexCache, open_layer, open_view
from volume_core.parts.resolving import resolve
from volume_core.parts.state import State
from volume_core.parts.tags import create_tag, read_tag, tag_names, tags_of
from volume_core.plugins.manager import plugins

# So many versions' deltas are fetched at once.
_AT_ONCE = 8
_TAG_READERS = 16


class Historical(HandledRecord):
    """What a version can say of its history, and the names that it can be given."""

    def log_sync(
        self, *, limit: int | None = None, path: str | bytes | os.PathLike[str] | None = None, names: bool = False
    ) -> list[HistoryEntry]:
        """Return this version and all it came from, newest first, *limit* of them at most.

        With *path* only the versions whose tree differs from that of their first parent at or below it; with
        *names* each entry says which tags it has, and whether it is its volume's head, for which the store is
        asked.  A version that was pruned ends its line.
        """
        with self._handle.lock:
            start = self._existing()
        versions = history(start)
        if path is not None:
            versions = touching(versions, os.fsencode(path).strip(b"/"))
        found = list(itertools.islice(versions, limit))
        named = names_of(found) if names else {}
        return [
            HistoryEntry.of(self._of_version(version), version.manifest, *named.get(version.locator, ((), False)))
            for version in found
        ]

    log = awaitable(log_sync)

    def tag_sync(self, name: str, message: str = "") -> Tag:
        """Give this version the tag *name*, which `version=` and the command take for its id; return it.

        Once more for the same version is success.  Raises ConflictError if *name* is the tag of another
        version, InvalidNameError if it cannot be one, StorageError on a store that ignores conditions.
        """
        with self._handle.lock:
            version = self._existing()
        return create_tag(version.place.store(), version.locator.volume, name, version.locator.version, message)

    tag = awaitable(tag_sync)

    def tags_sync(self) -> list[Tag]:
        """Return the tags of this version, by name."""
        with self._handle.lock:
            version = self._existing()
        found = tags_of(version.place.store(), version.locator.volume)
        return [tag for tag in found if tag.version == version.locator.version]

    tags = awaitable(tags_sync)


def touching(versions: Iterator[Version], path: bytes) -> Iterator[Version]:
    """Yield those of *versions* whose tree differs from that of their first parent at or below *path*."""
    indexes = IndexCache(State.default().cache)
    while several := list(itertools.islice(versions, _AT_ONCE)):
        # Mostly one store; what came from another is fetched from there.
        for place, group in itertools.groupby(several, key=lambda version: version.place):
            changed = [version for version in group if version.manifest.delta and version.manifest.delta.rows]
            deltas = [version.manifest.delta for version in changed if version.manifest.delta]
            for version, index in zip(changed, indexes.fetch(place.store(), deltas), strict=True):
                layer = open_layer(index)
                try:
                    answer = touches(layer, path)
                finally:
                    layer.close()
                if answer or (answer is None and _had(version, path, indexes)):
                    yield version


def _had(version: Version, path: bytes, indexes: IndexCache) -> bool:
    """Whether the first parent of *version* has anything at *path*; a parent that was pruned may have had."""
    try:
        parent = read_parent(version)
    except NotFoundError:
        return True
    if parent is None:
        return False
    view = open_view(indexes.fetch(parent.place.store(), parent.manifest.stack))
    try:
        return view.resolve(path) is not None
    finally:
        view.close()


def names_of(versions: Iterable[Version]) -> dict[Locator, tuple[tuple[str, ...], bool]]:
    """Return for each of *versions* that has a name its tags, and whether it is its volume's head."""
    places = {(version.locator.store, version.locator.volume): version.place for version in versions}
    tags: dict[Locator, list[str]] = defaultdict(list)
    heads: set[Locator] = set()
    for (url, volume), place in places.items():
        store = place.store()
        head = read_head(store, volume)
        if head is not None:
            heads.add(Locator(url, volume, head.version))
        for tag in _all_tags(place, volume):
            tags[Locator(url, volume, tag.version)].append(tag.tag)
    return {each: (tuple(sorted(tags.get(each, ()))), each in heads) for each in {*tags, *heads}}


def _all_tags(place: Place, volume: str) -> list[Tag]:
    """tags_of, several at once: a tag is an object of its own."""
    store = place.store()
    names = tag_names(store, volume)
    if len(names) < 2:
        return tags_of(store, volume)

    def read(name: str) -> Tag | None:
        try:
            return read_tag(store, volume, name)
        except NotFoundError:  # deleted since
            return None

    with ThreadPoolExecutor(min(len(names), _TAG_READERS), "tags") as pool:
        return [tag for tag in pool.map(read, names) if tag is not None]


class HeadMove(NamedTuple):
    """A move of a head, with the locators of where it went and where from (None: there was no head)."""

    move: Move
    locator: Locator
    previous: Locator | None


def head_moves(place: Place, volume: str) -> list[HeadMove]:
    """Return the moves of the head of *volume*, newest first; NotFoundError if it has no head."""
    return _moves(place, _head(place, volume))


def set_head(place: Place, volume: str, text: str) -> list[HeadMove]:
    """Make the version that *text* stands for (a tag, an id, or the beginning of one) the head of *volume*.

    Returns what head_moves then does.  Nothing moves where the head stands there.  Raises NotFoundError if
    there is no such version, ConflictError if somebody else moved the head meanwhile.
    """
    store = place.store()
    found = read_head(store, volume)
    version = read_version(Locator(place.url, volume, resolve(store, volume, text)), place)
    if found is None or found.version != version.locator.version:
        action = plugins().current_task()
        found = move_head(store, volume, found, version.locator.version, "set", action=action)
    return _moves(place, found)


def _head(place: Place, volume: str) -> Head:
    head = read_head(place.store(), volume)
    if head is None:
        raise NotFoundError(
            f"volume {volume!r} in {place.url} has no head; `volume head {volume} --set VERSION` makes one"
        )
    return head


def _moves(place: Place, head: Head) -> list[HeadMove]:
    def at(version: str) -> Locator:
        return Locator(place.url, head.volume, version)

    return [
        HeadMove(move, at(move.version), at(move.previous) if move.previous is not None else None)
        for move in head.history
    ]

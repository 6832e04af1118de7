"""Where versions come from, asked of their manifests: common ancestors, and the deltas between two of them.

Always true: what follows is right whatever the clocks of those who committed said, for they only decide
where to look first; a version that was pruned ends its line.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence

from volume_core.errors import NotFoundError
from volume_core.facade.versions import Place, Version, read_version
from volume_core.format.manifest import LayerRef
from volume_core.format.names import Locator

_ONE, _OTHER, _ABOVE = 1, 2, 4  # came from the ones, from the other, from a common ancestor
_BOTH = _ONE | _OTHER
_STEPS_MAX = 1000


class Ancestry:
    """The manifests of a history, each read once.  Used by one thread at a time."""

    def __init__(self) -> None:
        self._known: dict[str, Version | None] = {}

    def parents(self, version: Version) -> list[Version]:
        """Return the parents that are still there, the first one first."""
        found = (self._version(locator, version.place) for locator in version.manifest.parents)
        return [parent for parent in found if parent is not None]

    def _version(self, locator: str, place: Place) -> Version | None:
        if locator not in self._known:
            parsed = Locator.parse(locator)
            at = place if parsed.store == place.url else Place(parsed.store, place.region)
            try:
                self._known[locator] = read_version(parsed, at)
            except NotFoundError:
                self._known[locator] = None
        return self._known[locator]

    def common(self, ones: Sequence[Version], other: Version) -> Version | None:
        """Return the nearest version that *other* and any of *ones* came from, or are; None if there is none.

        Where several are as near (each side had merged the other), the newest of them.
        """
        marks: dict[str, int] = {}
        waiting: list[tuple[tuple[int, ...], str, int, Version]] = []
        count = itertools.count()

        def mark(version: Version, marked: int) -> None:
            locator = str(version.locator)
            if marks.get(locator, 0) | marked != marks.get(locator, 0):
                marks[locator] = marks.get(locator, 0) | marked
                # created_at is ISO 8601 in UTC, which sorts as text; the newest comes first.
                key = tuple(-ord(character) for character in version.manifest.created_at)
                heapq.heappush(waiting, (key, locator, next(count), version))

        found: dict[str, Version] = {}
        for version in ones:
            mark(version, _ONE)
        mark(other, _OTHER)
        # Until all that waits is above what was found; and on, where one that was found may be above another.
        while waiting and (
            any(not marks[locator] & _ABOVE for _, locator, _, _ in waiting)
            or sum(not marks[locator] & _ABOVE for locator in found) > 1
        ):
            _, locator, _, version = heapq.heappop(waiting)
            marked = marks[locator]
            if marked & _BOTH == _BOTH:
                found[locator] = version
                marked |= _ABOVE
            for parent in self.parents(version):
                mark(parent, marked)
        nearest = [version for locator, version in found.items() if not marks[locator] & _ABOVE]
        return max(nearest, key=lambda version: (version.manifest.created_at, str(version.locator)), default=None)

    def independent(self, versions: Sequence[Version]) -> list[Version]:
        """Return those of *versions*, in order, that no other of them came from."""
        left = list(versions_by_locator(versions).values())
        for version in list(left):
            others = [other for other in left if other.locator != version.locator]
            nearest = self.common(others, version) if others else None
            if nearest is not None and nearest.locator == version.locator:
                left = others
        return left

    def deltas(self, one: Version, other: Version, rows_max: int) -> list[LayerRef] | None:
        """Return deltas that together name every path at which the trees of *one* and *other* differ.

        They are those on the way, by first parents, from each to the version where the ways meet.  None if
        they do not, or if the deltas hold more than *rows_max* rows.
        """
        ways: tuple[list[Version], list[Version]] = ([one], [other])
        rows = 0
        for _ in range(_STEPS_MAX):
            for mine, theirs in (ways, ways[::-1]):
                places = [version.locator for version in theirs]
                if mine[-1].locator in places:
                    way = [*mine[:-1], *theirs[: places.index(mine[-1].locator)]]
                    return list(dict.fromkeys(version.manifest.delta for version in way if version.manifest.delta))
            going = max((way for way in ways if way[-1].manifest.parents), key=_newness, default=None)
            if going is None:
                return None
            parent = self._version(going[-1].manifest.parents[0], going[-1].place)
            rows += going[-1].manifest.delta.rows if going[-1].manifest.delta else 0
            if parent is None or rows > rows_max:
                return None
            going.append(parent)
        return None


def versions_by_locator(versions: Sequence[Version]) -> dict[str, Version]:
    """Return *versions* by their locators, each once."""
    return {str(version.locator): version for version in versions}


def _newness(way: Sequence[Version]) -> str:
    return way[-1].manifest.created_at

"""What there is to tell of one version, for people: the line it stands in, and what it changed.

Always true: what is read is bounded by the limits that the caller gives, however long the history and however
large the change; a version that was pruned ends the line, and is no error.
"""

from __future__ import annotations

from typing import NamedTuple

from volume_core.domain.diff import path_changes, rows_of
from volume_core.errors import NotFoundError
from volume_core.facade.comparing import Difference, Opened
from volume_core.facade.versions import Version, read_parent
from volume_core.format.manifest import LayerRef
from volume_core.parts.indexes import IndexCache
from volume_core.parts.state import State

# To tell what changed, no more than this is fetched; in the process that committed, all of it is here.
FETCH_BYTES_MAX = 32 << 20


class Line(NamedTuple):
    """A version and those before it, by first parents, newest first.

    `more`: the limit was reached.  `pruned`: the locator of the parent at which it ends, for it is not there.
    """

    versions: list[Version]
    more: bool = False
    pruned: str | None = None


def line_of(version: Version, limit: int) -> Line:
    """Return *version* and those before it, *limit* of them at most, at least one."""
    versions = [version]
    while True:
        try:
            above = read_parent(versions[-1]) if len(versions) < limit else None
        except NotFoundError:
            return Line(versions, pruned=versions[-1].manifest.parents[0])
        if above is None:
            return Line(versions, more=bool(versions[-1].manifest.parents))
        versions.append(above)


class Changed(NamedTuple):
    """What a version changed against another, sorted by path; `is_all`: no path is missing."""

    paths: list[Difference]
    is_all: bool


def changed(version: Version, parent: Version, limit: int) -> Changed | None:
    """Return what *version* changed against *parent*, its first, *limit* paths at most.

    None where too much would have to be fetched to tell.
    """
    delta = version.manifest.delta
    if delta is None:
        return Changed([], True)
    if _to_fetch_bytes({delta, *parent.manifest.stack}) > FETCH_BYTES_MAX:
        return None
    with Opened() as opened:
        [layer] = opened.layers(version, [delta])
        found = path_changes(opened.view(parent), rows_of(layer), limit)
        return Changed([*map(Difference.of, found[:limit])], len(found) <= limit)


def changed_between(before: Version, after: Version, limit: int) -> Changed | None:
    """Return what turns *before* into *after*, any two versions, *limit* paths at most.

    None where too much would have to be fetched to tell.
    """
    if before.manifest.stack == after.manifest.stack:
        return Changed([], True)
    if _to_fetch_bytes({*before.manifest.stack, *after.manifest.stack}) > FETCH_BYTES_MAX:
        return None
    with Opened() as opened:
        trees = opened.trees(before, after)
        found = path_changes(trees.before, trees.rows(), limit)
        return Changed([*map(Difference.of, found[:limit])], len(found) <= limit)


def _to_fetch_bytes(refs: set[LayerRef]) -> int:
    """How large those of *refs* are whose index is not here."""
    cache = IndexCache(State.default().prepare().cache)
    return sum(ref.size_bytes for ref in refs if not cache.path(ref).exists())

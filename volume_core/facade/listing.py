"""Which volumes a store holds: what the names of its manifests and heads say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from volume_core.errors import VolumeError
from volume_core.facade.versions import Place, Version, read_version
from volume_core.format.names import HEADS, VERSIONS, Locator, head_name
from volume_core.parts.heads import read_head
from volume_core.storage.protocol import ObjectInfo, Store

_READERS = 16  # a head is an object of its own: so many are asked for at once
_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass(frozen=True, slots=True)
class VolumeInfo:
    """One volume of a store.

    `locator` is of the version that its head names, and where it has no head of the one written last, at
    `modified_ns` (ns since 1970, by the store's clock); `versions` counts all that were not deleted.
    """

    name: str
    versions: int
    locator: str
    modified_ns: int
    has_head: bool


class Listed(NamedTuple):
    """One volume as a listing of manifests tells it: how many versions, the id of the one written last, and when."""

    name: str
    versions: int
    newest: str
    modified_ns: int


class Newest(NamedTuple):
    """A volume, with the version that its head names, or without a head the one written last.

    `version` is None where it cannot be read, and `problem` says why.
    """

    name: str
    versions: int
    modified_ns: int
    has_head: bool
    version: Version | None
    problem: str = ""


def listed_in(store: Store, name: str | None = None) -> list[Listed]:
    """Return every volume of *store* that has a version, by name, or the one called *name* alone.

    Nothing but names is read, and of each volume one is held.
    """
    counts: dict[str, int] = {}
    newest: dict[str, ObjectInfo] = {}
    for info in store.names(VERSIONS if name is None else f"{VERSIONS}{name}/"):
        volume, _, leaf = info.name.removeprefix(VERSIONS).partition("/")
        if not leaf.endswith(".json"):
            continue
        counts[volume] = counts.get(volume, 0) + 1
        before = newest.get(volume)
        if before is None or (info.modified_ns, info.name) > (before.modified_ns, before.name):
            newest[volume] = info
    return [
        Listed(volume, counts[volume], info.name.rpartition("/")[2].removesuffix(".json"), info.modified_ns)
        for volume, info in sorted(newest.items())
    ]


def volumes_in(store: Store) -> list[VolumeInfo]:
    """Return every volume of *store* that has a version, by name.  Other objects are passed over."""
    listed = listed_in(store)
    heads = {info.name for info in store.names(HEADS)}

    def info(each: Listed) -> VolumeInfo:
        head = read_head(store, each.name) if head_name(each.name) in heads else None
        version = head.version if head is not None else each.newest
        locator = str(Locator(store.url, each.name, version))
        return VolumeInfo(each.name, each.versions, locator, each.modified_ns, head is not None)

    return _together(info, listed)


def newest_of(place: Place, listed: Sequence[Listed]) -> list[Newest]:
    """Return each of *listed*, which listed_in(place.store()) has found, with its newest version."""
    store = place.store()

    def newest(each: Listed) -> Newest:
        has_head = False
        try:
            head = read_head(store, each.name)
            has_head = head is not None
            version = head.version if head is not None else each.newest
            found = read_version(Locator(place.url, each.name, version), place)
        except VolumeError as error:
            return Newest(each.name, each.versions, each.modified_ns, has_head, None, str(error))
        return Newest(each.name, each.versions, each.modified_ns, has_head, found)

    return _together(newest, listed)


def _together(function: Callable[[_In], _Out], items: Sequence[_In]) -> list[_Out]:
    """map(), several at once, in order."""
    if len(items) < 2:
        return [*map(function, items)]
    with ThreadPoolExecutor(min(len(items), _READERS), "volumes") as pool:
        return list(pool.map(function, items))

"""Which volumes a store holds: what its manifests' names say."""

from __future__ import annotations

from typing import NamedTuple

from volume_core.format.names import VERSIONS, Locator
from volume_core.storage.protocol import ObjectInfo, Store


class Listed(NamedTuple):
    """One volume of a store: how many versions it has, which was written last, and when (ns since 1970)."""

    name: str
    versions: int
    newest: Locator
    modified_ns: int


def volumes_in(store: Store) -> list[Listed]:
    """Return every volume of *store* that has a version, by name.  Other objects are passed over."""
    found: dict[str, list[ObjectInfo]] = {}
    for info in store.names(VERSIONS):
        volume, _, leaf = info.name.removeprefix(VERSIONS).partition("/")
        if leaf.endswith(".json"):
            found.setdefault(volume, []).append(info)
    listed = []
    for volume, infos in sorted(found.items()):
        newest = max(infos, key=lambda info: (info.modified_ns, info.name))
        locator = Locator(store.url, volume, newest.name.rpartition("/")[2].removesuffix(".json"))
        listed.append(Listed(volume, len(infos), locator, newest.modified_ns))
    return listed

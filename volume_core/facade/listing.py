"""Which volumes a store holds: what the names of its manifests and heads say."""

from __future__ import annotations

from dataclasses import dataclass

from volume_core.format.names import HEADS, VERSIONS, Locator, head_name
from volume_core.parts.heads import read_head
from volume_core.storage.protocol import ObjectInfo, Store


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


def volumes_in(store: Store) -> list[VolumeInfo]:
    """Return every volume of *store* that has a version, by name.  Other objects are passed over."""
    found: dict[str, list[ObjectInfo]] = {}
    for info in store.names(VERSIONS):
        volume, _, leaf = info.name.removeprefix(VERSIONS).partition("/")
        if leaf.endswith(".json"):
            found.setdefault(volume, []).append(info)
    heads = {info.name for info in store.names(HEADS)}
    listed = []
    for volume, infos in sorted(found.items()):
        newest = max(infos, key=lambda info: (info.modified_ns, info.name))
        head = read_head(store, volume) if head_name(volume) in heads else None
        version = head.version if head is not None else newest.name.rpartition("/")[2].removesuffix(".json")
        locator = str(Locator(store.url, volume, version))
        listed.append(VolumeInfo(volume, len(infos), locator, newest.modified_ns, head is not None))
    return listed

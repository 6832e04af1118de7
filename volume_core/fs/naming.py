"""From a volume's name to a version, and what names a store has.

Always true: this is the one place where this package asks which version a name, a tag or a part of an id stands for.
"""

from __future__ import annotations

from volume_core.errors import NotFoundError
from volume_core.facade.heads import head_version
from volume_core.facade.listing import VolumeInfo, volumes_in
from volume_core.facade.versions import Place, Version, read_version
from volume_core.format.names import Locator
from volume_core.parts.resolving import resolve
from volume_core.volumes import RWVolume, Volume


def find_version(place: Place, volume: str, ref: str) -> Version:
    """Return the version of *volume* that *ref* names (a tag, an id, how one begins), or its head if that is "".

    Raises NotFoundError if there is none, or several versions begin so.
    """
    store = place.store()
    if ref:
        return read_version(Locator(store.url, volume, resolve(store, volume, ref)), place)
    head = head_version(volume, place)
    if head is None:
        raise NotFoundError(f"there is no volume {volume!r} in {place.url}")
    return head


def to_write(place: Place, volume: str, *, create: bool) -> RWVolume:
    """Return a writer at the head of *volume*; one that is not there is only begun if *create*, else NotFoundError."""
    return Volume.from_name_sync(volume, place.url, region=place.region, create_if_missing=create)


def volumes_at(place: Place) -> list[VolumeInfo]:
    """Return the volumes of a store, by name."""
    return volumes_in(place.store())

"""What the tests of heads, tags and locks share: versions that are manifests and nothing else, and stores."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from volume_core.errors import StorageError
from volume_core.format.manifest import Manifest
from volume_core.format.names import Locator, version_name
from volume_core.storage.protocol import Store
from volume_core.testing.faulty import FaultyStore

VOLUME = "volume"
_numbers = itertools.count()


def locator(store: Store, version: str, volume: str = VOLUME) -> Locator:
    return Locator(store.url, volume, version)


def version(store: Store, *parents: str, volume: str = VOLUME) -> str:
    """Publish a version that came from *parents* (ids), and return its id."""
    manifest = Manifest(
        volume,
        f"2026-01-01T00:00:00.{next(_numbers):06}Z",
        parents=tuple(str(locator(store, each)) for each in parents),
    )
    store.put_new(version_name(volume, manifest.version), manifest.to_bytes())
    return manifest.version


class Meddling(FaultyStore):
    """A store in which something else happens right after the swap of *name*, whose answer is then lost.

    With *takes_effect* the swap happened, without it did not.
    """

    def __init__(self, inner: Store, name: str, meddle: Callable[[], object], *, takes_effect: bool) -> None:
        super().__init__(inner)
        self._name = name
        self._meddle = meddle
        self._takes_effect = takes_effect
        self.meddled = False

    def swap(self, name: str, old: bytes | None, new: bytes) -> None:
        if name != self._name or self.meddled:
            return super().swap(name, old, new)
        self.meddled = True
        if self._takes_effect:
            super().swap(name, old, new)
        self._meddle()
        raise StorageError("injected: the answer was lost", transient=True)

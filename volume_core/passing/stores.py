"""A store that an engine knows the way into: what its adapter's own description of one has in common with others.

Always true: before anything is asked of the store, this process has its credentials.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Generic, TypeVar

from volume_core.facade.listing import VolumeInfo
from volume_core.facade.twins import awaitable
from volume_core.parts.landing import LandingPolicy
from volume_core.passing.environment import Lease
from volume_core.volumes import ROVolume, RWVolume, Volume

S = TypeVar("S", bound="OpensVolumes")


class Using(Generic[S]):
    """A store whose credentials this process has: for good, or until the end of the `with` statement."""

    def __init__(self, store: S, lease: Lease) -> None:
        self._store = store
        self._lease = lease

    def __repr__(self) -> str:
        return f"Using({self._store.url!r})"

    def __enter__(self) -> S:
        return self._store

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lease.end()


class OpensVolumes:
    """The volumes of a store with a `url` and a `region`; a mixin for what says how to `get_in`."""

    if TYPE_CHECKING:  # they may be fields of a model

        @property
        def url(self) -> str:
            """The store's URL, in its one spelling."""
            ...

        @property
        def region(self) -> str | None:
            """The bucket's region; None if nobody says."""
            ...

    def get_in(self) -> None:
        """Have the store's credentials in this process's environment."""
        raise TypeError(f"{type(self).__name__} does not say how to get in")

    def volume(self, name: str | None = None) -> RWVolume:
        """Return a writable volume without any version yet, as Volume.new does, in this store."""
        self.get_in()
        return Volume.new(name, self.url, region=self.region)

    def from_name_sync(
        self,
        name: str,
        *,
        version: str | None = None,
        create_if_missing: bool = False,
        on_conflict: LandingPolicy = "last-write-wins",
    ) -> RWVolume | ROVolume:
        """Open the volume *name* of this store as Volume.from_name does: to write, with *version* to read."""
        self.get_in()
        if version is not None:
            return Volume.from_name_sync(name, self.url, version=version, region=self.region)
        return Volume.from_name_sync(
            name, self.url, create_if_missing=create_if_missing, on_conflict=on_conflict, region=self.region
        )

    from_name = awaitable(from_name_sync)

    def volumes_sync(self) -> list[VolumeInfo]:
        """Return every volume of this store, by name."""
        self.get_in()
        return Volume.list_sync(self.url)

    volumes = awaitable(volumes_sync)

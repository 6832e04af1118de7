"""Volumes that are named now and opened later: for decorators, which run when a module is imported.

Always true: to make one does no I/O and asks nobody; it is a value: equal, hashable and picklable.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, cast

from volume_core.facade.blocks import BlockOptions, BothContexts, Terms
from volume_core.facade.handles import HandledRecord
from volume_core.facade.mounts import StrPath
from volume_core.facade.naming import checked_policy
from volume_core.facade.twins import awaitable, awaitable_context
from volume_core.format.names import validate_name
from volume_core.parts.landing import LandingPolicy

if TYPE_CHECKING:
    from volume_core.volumes import ROVolume, RWVolume


@dataclass(frozen=True)
class LazyVolume:
    """What `Volume.from_name` will be asked, by `open` or where it is mounted; `how` are its further arguments."""

    volumes: type[Any]
    name: str
    bucket: str | None
    version: str | None
    how: tuple[tuple[str, Any], ...]

    def __repr__(self) -> str:
        """Return how it was made, without what nobody said."""
        said = [repr(self.name), *(f"{key}={value!r}" for key, value in self._given() if value is not None)]
        return f"Volume.from_name_lazy({', '.join(said)})"

    def open_sync(self) -> RWVolume | ROVolume:
        """Return `Volume.from_name(...)`: a handle of its own each time."""
        found = self.volumes.from_name_sync(self.name, **dict(self._given()))
        return cast("RWVolume | ROVolume", found)

    open = awaitable(open_sync)

    def mounted_sync(
        self, mount_path: StrPath | None = None, **options: Unpack[BlockOptions]
    ) -> AbstractContextManager[Path]:
        """Open, and mount for the length of a `with` statement; see RWVolume.mounted."""
        terms = Terms.of(options)
        given = options if self.version is None else terms.options  # a version's mount has nothing to commit
        return BothContexts(self._mounted(mount_path, given), hears=terms.on_terminate is not None)

    mounted = awaitable_context(mounted_sync)

    @contextmanager
    def _mounted(self, mount_path: StrPath | None, options: Any) -> Generator[Path, None, None]:
        with self.open_sync().mounted_sync(mount_path, **options) as path:
            yield path

    def _given(self) -> tuple[tuple[str, Any], ...]:
        return (("bucket", self.bucket), ("version", self.version), *self.how)


class Lazily(HandledRecord):
    """What `Volume` finds by a name, later."""

    @classmethod
    def from_name_lazy(
        cls,
        name: str,
        bucket: str | None = None,
        *,
        create_if_missing: bool = False,
        version: str | None = None,
        on_conflict: LandingPolicy = "last-write-wins",
        storage: str | None = None,
        region: str | None = None,
    ) -> LazyVolume:
        """Return what opens the volume *name* when it is used: `Volume.from_name` with the same arguments.

        No I/O, and no default is looked up yet, so a decorator may have it.  Raises InvalidNameError if *name* or
        *on_conflict* is none.
        """
        policy = None if on_conflict == "last-write-wins" else checked_policy(on_conflict)
        how = {"create_if_missing": create_if_missing, "on_conflict": policy, "storage": storage, "region": region}
        given = tuple((key, value) for key, value in how.items() if value)
        return LazyVolume(cls, validate_name(name), bucket, version, given)

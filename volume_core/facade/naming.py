"""Volumes by name: opened at their head, listed, deleted, or there for a while only.

Always true:

  1. A handle that was opened by name commits to the head of that name, wherever others have moved it.
  2. Deleting a volume takes its head, its tags and its manifests, in this order: one that was cut short can be
     done again, and until its manifests are gone each version can still be opened by its locator.  Layers
     and packs stay, for forks share them: they are prune's.
"""

from __future__ import annotations

import contextlib
import uuid
from types import TracebackType
from typing import TYPE_CHECKING, overload

from volume_core.errors import BusyError, InvalidNameError, NotFoundError, VolumeError
from volume_core.facade.handles import HandledRecord
from volume_core.facade.heads import existing_head, promote
from volume_core.facade.lines import renamed
from volume_core.facade.listing import VolumeInfo, volumes_in
from volume_core.facade.mounts import Options
from volume_core.facade.reloading import reload
from volume_core.facade.twins import awaitable, awaitable_of_class, in_thread
from volume_core.facade.versions import Place, Version, read_version
from volume_core.facade.writers import Writer
from volume_core.format.names import TAGS, VERSIONS, Locator, head_name, lock_name, validate_name
from volume_core.parts.heads import require_conditions
from volume_core.parts.landing import LANDING_POLICIES, LandingPolicy
from volume_core.parts.leases import HeldLease
from volume_core.parts.resolving import resolve
from volume_core.plugins.manager import plugins
from volume_core.storage.opening import store_url

if TYPE_CHECKING:
    from volume_core.volumes import ROVolume, RWVolume


def place_of(bucket: str | None, storage: str | None = None, region: str | None = None) -> Place:
    """Return the store that *bucket* and *storage* name, the task's default without them."""
    default = "" if bucket is not None and "://" in bucket else plugins().default_bucket()
    return Place(store_url(storage, bucket, default), region)


def checked_policy(policy: LandingPolicy | None) -> LandingPolicy | None:
    """Return *policy*, or raise InvalidNameError saying which there are."""
    if policy is not None and policy not in LANDING_POLICIES:
        raise InvalidNameError(f"on_conflict={policy!r} is not one of {', '.join(LANDING_POLICIES)}")
    return policy


class ByName(HandledRecord):
    """What `Volume` finds by a name in a store."""

    @overload
    @classmethod
    def from_name_sync(
        cls,
        name: str,
        bucket: str | None = None,
        *,
        create_if_missing: bool = False,
        version: None = None,
        on_conflict: LandingPolicy = "last-write-wins",
        storage: str | None = None,
        region: str | None = None,
    ) -> RWVolume: ...

    @overload
    @classmethod
    def from_name_sync(
        cls,
        name: str,
        bucket: str | None = None,
        *,
        create_if_missing: bool = False,
        version: str,
        on_conflict: LandingPolicy = "last-write-wins",
        storage: str | None = None,
        region: str | None = None,
    ) -> ROVolume: ...

    @classmethod
    def from_name_sync(
        cls,
        name: str,
        bucket: str | None = None,
        *,
        create_if_missing: bool = False,
        version: str | None = None,
        on_conflict: LandingPolicy = "last-write-wins",
        storage: str | None = None,
        region: str | None = None,
    ) -> RWVolume | ROVolume:
        """Open the volume *name* at its head, for writing; with *version* that version of it, for reading.

        Each commit moves the head, wherever other writers have moved it meanwhile: what they did stays, and where
        both have changed the same path *on_conflict* decides: `last-write-wins` (the later commit's file),
        `error` (ConflictError with the paths; nothing is committed) or `keep-both`.  With *create_if_missing* a
        volume that is not there is made by its first commit.  *version* is a tag, a version's id, or the
        beginning of one that no other has.  Raises NotFoundError where there is no such volume or version,
        StorageError where the store cannot keep a head (docs/stores.md).
        """
        validate_name(name)
        policy = checked_policy(on_conflict) or "last-write-wins"
        place = place_of(bucket, storage, region)
        store = place.store()
        if version is not None:
            return cls._of_version(read_version(Locator(store.url, name, resolve(store, name, version)), place))
        found = existing_head(name, place, create_if_missing=create_if_missing)
        return cls._of_name(name, place, found, policy)

    from_name = awaitable_of_class(from_name_sync)

    @classmethod
    def list_sync(cls, bucket: str | None = None, *, storage: str | None = None) -> list[VolumeInfo]:
        """Return every volume of a store, by name."""
        return volumes_in(place_of(bucket, storage).store())

    list = awaitable_of_class(list_sync)

    @classmethod
    def delete_sync(cls, name: str, bucket: str | None = None, *, storage: str | None = None) -> None:
        """Delete the volume *name*: its head, its tags and all its versions.  Forks of it stay whole.

        Raises NotFoundError where there is none.  A writer that has it open cannot commit any more.
        """
        delete(validate_name(name), place_of(bucket, storage))

    delete = awaitable_of_class(delete_sync)

    @classmethod
    def ephemeral(cls, bucket: str | None = None, *, storage: str | None = None) -> Ephemeral:
        """Return a volume for the length of a `with` or `async with` statement; it is deleted at the end."""
        return Ephemeral(cls, place_of(bucket, storage))

    @staticmethod
    def _of_name(name: str, place: Place, version: Version | None, policy: LandingPolicy | None) -> RWVolume:
        raise TypeError(f"{name}: a record alone has no handles to give")


def delete(name: str, place: Place) -> None:
    """Delete a volume, what finds it first."""
    store = place.store()
    manifests = [info.name for info in store.names(f"{VERSIONS}{name}/")]
    tags = [info.name for info in store.names(f"{TAGS}{name}/")]
    head = [info.name for info in store.names(head_name(name))]
    if not (manifests or tags or head):
        raise NotFoundError(f"there is no volume {name!r} in {place.url}")
    for each in (*head, *tags, *manifests, lock_name(name)):
        store.delete(each)


class Ephemeral:
    """A volume that is there for a while: `with` and `async with` give an RWVolume that is opened by name.

    A process that is killed leaves it behind; its name begins with `ephemeral-`, so that it is found.
    """

    def __init__(self, volumes: type[ByName], place: Place) -> None:
        self._volumes = volumes
        self._place = place
        self._volume: RWVolume | None = None

    def __enter__(self) -> RWVolume:
        require_conditions(self._place.store(), "ephemeral volumes")
        name = f"ephemeral-{uuid.uuid4().hex[:12]}"
        self._volume = self._volumes._of_name(name, self._place, None, "last-write-wins")
        return self._volume

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        volume, self._volume = self._volume, None
        if volume is None:
            return
        try:
            volume.abandon_sync()
        finally:
            with contextlib.suppress(NotFoundError):  # nothing was ever committed
                delete(volume.name, self._place)

    async def __aenter__(self) -> RWVolume:
        return await in_thread(self.__enter__)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await in_thread(lambda: self.__exit__(kind, error, trace))


class Promoting(HandledRecord):
    """What an ROVolume does to heads."""

    def promote_sync(self, name: str | None = None) -> ROVolume:
        """Make the head of this version's volume name it, wherever the head stands; return the version.

        With another *name* it is made a version of that volume first, which takes a manifest and nothing else.
        The head's history says where it stood before.
        """
        with self._handle.lock:
            version = self._existing()
            is_new = name is not None and name != self.name
            if is_new:
                version = renamed(version, validate_name(name or ""), self.message, {}, plugins().current_task())
            promote(version)
        made = self._of_version(version)
        if is_new:
            plugins().committed(made, version.manifest.produced_by)
        return made

    promote = awaitable(promote_sync)


class Reloading(HandledRecord):
    """What an RWVolume does when others have committed."""

    def reload_sync(self) -> ROVolume | None:
        """Show the newest head at the mount, with what is not committed here on top; return the head's version.

        Raises BusyError naming the paths that are open there, and ConflictError where the volume was opened with
        on_conflict="error" and both sides have changed the same paths; the mount is then as it was.  Raises
        VolumeError for a line of its own: only what was opened by name has others to hear of.
        """
        with self._handle.lock:
            self._handle.check_process(self.name)
            policy = self._handle.policy
            if policy is None:
                raise VolumeError(f"volume {self.name!r} was not opened by name, so there is no head to reload from")
            newest = existing_head(self.name, self._place(), create_if_missing=self.index is None)
            if newest is None:
                return None
            writer = self._handle.held
            if isinstance(writer, Writer):
                writer.find_landed()  # what had landed is not taken for work that is still to be committed
            if isinstance(writer, Writer) and not writer.stands_at(newest):
                self._handle.let_go()
                try:
                    writer = reload(writer, newest)
                finally:
                    self._handle.hold(self, writer)
            self._stand_at(newest)
            return self._of_version(newest)

    reload = awaitable(reload_sync)

    def _check_lock(self, options: Options) -> None:
        """Raise BusyError where what is mounted already has not got the lock that *options* ask for."""
        held = self._handle.held
        if options.lock and (not isinstance(held, Writer) or held.lease is None):
            raise BusyError(
                f"volume {self.name!r} is mounted without its lock: unmount it before it is mounted with it"
            )

    def _locked(self, options: Options) -> HeldLease | None:
        """Take the lock that *options* ask for; what is mounted then begins where the head stands."""
        held = self._handle.held
        own = held.lease if isinstance(held, Writer) else None
        if not options.lock or own is not None:
            return own  # of a mount that died under its writer
        if self._handle.policy is None:
            raise VolumeError(
                f"volume {self.name!r} was not opened by name: its commits meet nobody else's, so it has no lock"
            )
        if options.detach:
            raise VolumeError("a detached mount outlives this process, and a lock does not: mount it without either")
        lease = HeldLease(self._place().store(), self.name).acquire(options.lock_timeout_s)
        try:
            if self._handle.held is None:
                newest = existing_head(self.name, self._place(), create_if_missing=self.index is None)
                if newest is not None:
                    self._stand_at(newest)
        except BaseException:
            lease.release()
            raise
        return lease

    def _stand_at(self, version: Version) -> None:
        raise TypeError(f"{version.locator}: a record alone does not move")

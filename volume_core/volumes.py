"""Volumes: the public classes.

    Volume.new(name) ──> RWVolume ──mount, write, commit──> ROVolume ──mount──> the same tree, anywhere
                            ^                                  │
                            └───────────── fork(name) ─────────┘

An ROVolume is one version: immutable, equal to every other handle of it, worth its JSON.  An RWVolume is
one writer's line: the version it started from, and a working copy once it is mounted.

Always true:

  1. Every method that may wait exists twice: `await x()` and `x_sync()`; `as_directory` and `as_file`, which wait
     only for a writer's commit, do not.
  2. Every method may be called from several threads at once: one works, the others wait.
  3. What a writer wrote and did not commit stays in its working copy until it is committed or
     abandoned, whatever happens to the handle, the process or the machine.
  4. In a forked child a handle knows its version, but its mounts and working copy stay the parent's.
"""

from __future__ import annotations

import os
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, Unpack

from pydantic import SerializationInfo, SerializerFunctionWrapHandler, model_serializer, model_validator
from pydantic.functional_validators import ModelWrapValidatorHandler

from volume_core.domain.view import View
from volume_core.errors import InvalidNameError, VolumeError
from volume_core.facade.attempts import note_committed
from volume_core.facade.batches import WritesFiles
from volume_core.facade.blocks import WritesInBlocks
from volume_core.facade.comparing import Compares
from volume_core.facade.contents import KnowsContents
from volume_core.facade.files import ReadsFiles
from volume_core.facade.forms import FillsForms
from volume_core.facade.heads import announce, renewed
from volume_core.facade.histories import Historical
from volume_core.facade.lazies import Lazily
from volume_core.facade.lines import renamed
from volume_core.facade.merging import Merges
from volume_core.facade.mounts import MountOptions, Options
from volume_core.facade.naming import ByName, Promoting, Reloading, checked_policy, place_of
from volume_core.facade.receiving import looked_up
from volume_core.facade.records import METADATA_STORE_TYPES, fields_of, place
from volume_core.facade.referring import Refers
from volume_core.facade.statuses import Status
from volume_core.facade.twins import awaitable, awaitable_context, awaitable_of_class
from volume_core.facade.versions import Place, Version, read_version
from volume_core.facade.worktrees import Terms
from volume_core.facade.writers import Line, Writer
from volume_core.format.names import Locator, validate_name
from volume_core.parts.checking import Problem, check_version
from volume_core.parts.landing import Goal, LandingPolicy
from volume_core.parts.publishing import About
from volume_core.plugins.manager import plugins
from volume_core.plugins.waiting import volumes_loaded
from volume_core.storage.opening import normalize

StrPath = str | os.PathLike[str]


class Volume(FillsForms, ByName, Lazily, Merges, ReadsFiles, Refers):
    """What reading and writing handles have in common, and the ways to get one.

    `Volume.model_validate(record)` gives an ROVolume for a version's record, and an RWVolume for one that has no
    version under its own name yet.  Of the classes below it gives that one: a version as an RWVolume is a fork under
    the same name, a writer as an ROVolume is committed.  Besides records it takes what else can stand for a volume:
    a locator, `NAME` or `NAME:REF`, a `vol://` URL, the JSON of a record (docs/tasks.md).
    """

    def __new__(cls, *_args: Any, **_fields: Any) -> Self:
        """Volumes come from Volume.new, from_locator, fork and commit."""
        if cls is Volume:
            raise TypeError("Volume is not made directly: use Volume.new(name) or Volume.from_locator(locator)")
        return super().__new__(cls)

    @model_validator(mode="wrap")
    @classmethod
    def _as_given(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Any:
        given = looked_up(value) if isinstance(value, str | Mapping) else value
        if isinstance(given, Version):
            given = ROVolume.of_version(given)
        if isinstance(given, RWVolume) and issubclass(cls, ROVolume):
            return given.commit_sync()
        if isinstance(given, ROVolume) and issubclass(cls, RWVolume):
            return given.fork_sync(given.name)
        if cls is not Volume or not isinstance(given, Mapping):
            return handler(given)
        index = given.get("index")
        is_version = index is not None and Locator.parse(index).volume == given.get("name")
        return (ROVolume if is_version else RWVolume).model_validate(given)

    @classmethod
    def new(
        cls,
        name: str | None = None,
        bucket: str | None = None,
        *,
        storage: str | None = None,
        region: str | None = None,
        metadata_store_type: str | None = None,
    ) -> RWVolume:
        """Return a writable volume without any version yet.  No I/O: nothing exists before a commit.

        *bucket* is a store's URL, what follows `://` in it (with *storage*: s3, gs, wasb, file or memory), or a
        directory; without one the task's default is taken (docs/configuration.md).  Raises
        InvalidNameError when a name or the store's URL is not one.
        """
        if metadata_store_type not in {None, *METADATA_STORE_TYPES}:
            raise InvalidNameError(
                f"metadata_store_type {metadata_store_type!r} is not one of {', '.join(METADATA_STORE_TYPES)}"
            )
        chosen = validate_name(name) if name is not None else f"volume-{uuid.uuid4().hex[:12]}"
        kind = metadata_store_type or METADATA_STORE_TYPES[0]
        return RWVolume(name=chosen, **place(place_of(bucket, storage).url, region), metadata_store_type=kind)

    @classmethod
    def empty(cls, name: str, bucket: str | None = None, **options: Any) -> RWVolume:
        """Return Volume.new(...): the older name, deprecated."""
        warnings.warn("Volume.empty is deprecated: use Volume.new", DeprecationWarning, stacklevel=2)
        return cls.new(name, bucket, **options)

    @classmethod
    def from_locator_sync(cls, locator: str) -> ROVolume:
        """Return the version at *locator*, which alone says where everything is.

        Raises InvalidNameError if it is no locator, NotFoundError if there is no such version.
        """
        parsed = Locator.parse(locator.strip())
        parsed = parsed._replace(store=normalize(parsed.store))
        return ROVolume.of_version(read_version(parsed, Place(parsed.store)))

    from_locator = awaitable_of_class(from_locator_sync)

    @classmethod
    def recover_sync(cls, work_id: str, *, allow_torn: bool = False) -> RWVolume:
        """Return a writer that goes on with the working copy *work_id*, which an exit or a crash left behind.

        It can be committed, mounted again or abandoned; `volume status` lists working copies.  One that was
        in use when the machine went down may be torn: it takes *allow_torn*, and what is committed says so.
        Raises NotFoundError if there is none, BusyError if it is in use.
        """
        writer = Writer.recover(work_id, allow_torn=allow_torn)
        volume = cls._of_name(writer.line.name, writer.line.place, writer.parent, writer.line.policy)
        volume._handle.hold(volume, writer, is_taken_over=True)
        return volume

    recover = awaitable_of_class(recover_sync)

    @staticmethod
    def _of_version(version: Version) -> ROVolume:
        return ROVolume.of_version(version)

    @staticmethod
    def _of_name(name: str, place_: Place, version: Version | None, policy: LandingPolicy | None) -> RWVolume:
        fields = fields_of(version.locator, version.manifest) if version else {}
        volume = RWVolume(**{**fields, **place(place_.url, place_.region), "name": name})
        volume._handle.place, volume._handle.version, volume._handle.policy = place_, version, policy
        return volume

    def _forked(self, name: str) -> RWVolume:
        if self.index is None:
            raise VolumeError(f"volume {self.name!r} has no version yet to fork from: commit it first")
        volume = RWVolume(**{**self.model_dump(), "name": validate_name(name)})
        volume._handle.place, volume._handle.version = self._handle.place, self._handle.version
        return volume


class ROVolume(Promoting, Compares, KnowsContents, Historical, Volume):
    """One version: it can be mounted to read, forked and verified, and never changes."""

    @model_validator(mode="after")
    def _names_its_version(self) -> Self:
        if self.index is None:
            raise ValueError("an ROVolume is a version, and this record has no index")
        if Locator.parse(self.index).volume != self.name:
            raise ValueError(f"{self.index} is no version of {self.name!r}")
        return self

    @classmethod
    def of_version(cls, version: Version) -> ROVolume:
        """Return a handle of a version that was read or made; for the doors beside this one."""
        volume = ROVolume(**fields_of(version.locator, version.manifest))
        volume._handle.place, volume._handle.version = version.place, version
        return volume

    @property
    def locator(self) -> str:
        """The URL of the version's manifest: `Volume.from_locator` takes it, anywhere."""
        assert self.index is not None
        return self.index

    @property
    def version(self) -> str:
        """The version's id: the hash of its manifest, 64 hexadecimal digits."""
        return Locator.parse(self.locator).version

    def mount_sync(self, mount_path: StrPath | None = None, **options: Unpack[MountOptions]) -> Path:
        """Mount the version, read-only, and return where; again: return where it is.

        Without *mount_path* it is a directory of its own below `$VOLUME_MOUNT_ROOT` (`~/volumes`).  Raises
        MountError, which says what the machine lacks and how to grant it.
        """
        with self._handle.lock:
            return self._handle.mount_reader(self, self._existing(), mount_path, Options.of(options))

    mount = awaitable(mount_sync)

    def unmount_sync(self, *, lazy: bool = False) -> None:
        """Take the mount down; nothing happens where there is none.

        Raises BusyError while files are open there, unless *lazy*: the path is then free at once, and
        they stay readable until they are closed.
        """
        with self._handle.lock:
            self._handle.unmount(lazy=lazy)

    unmount = awaitable(unmount_sync)

    def close_sync(self) -> None:
        """Be done with this handle: unmount, whoever has files open.  It can be mounted again."""
        self.unmount_sync(lazy=True)
        with self._handle.lock:
            self._handle.close_browsers()

    close = awaitable(close_sync)

    @contextmanager
    def mounted_sync(self, mount_path: StrPath | None = None, **options: Unpack[MountOptions]) -> Iterator[Path]:
        """Mount for the length of a `with` statement."""
        path = self.mount_sync(mount_path, **options)
        try:
            yield path
        finally:
            self.unmount_sync(lazy=True)

    mounted = awaitable_context(mounted_sync)

    def fork_sync(self, name: str) -> RWVolume:
        """Return a writable volume called *name* that starts from this version.  It is only a record: no I/O."""
        return self._forked(name)

    fork = awaitable(fork_sync)

    def verify_sync(self, *, read_packs: bool = True) -> list[Problem]:
        """Read everything below this version's manifest and return what is wrong: nothing, if it is whole.

        Without *read_packs* the contents of files are not read: their packs are only looked up.
        """
        return check_version(self._place().store(), self.name, self.version, read_packs=read_packs)

    verify = awaitable(verify_sync)

    def _to_refer(self) -> ROVolume:
        return self

    def _to_mount(self) -> Path:
        return self.mount_sync()

    def __eq__(self, other: object) -> bool:
        """Two handles of one version are equal, mounted or not."""
        return isinstance(other, ROVolume) and other.index == self.index

    def __hash__(self) -> int:
        return hash(self.index)


class RWVolume(Reloading, WritesFiles, WritesInBlocks, Volume):
    """One writer's line: mount it, write, commit; each commit's parent is the one before.

    `index` is the version of its last commit, or the one it was forked from; None before the first.
    """

    def mount_sync(self, mount_path: StrPath | None = None, **options: Unpack[MountOptions]) -> Path:
        """Mount the volume, writable, and return where; again: return where it is.

        What was written before an `unmount` is there again.  See ROVolume.mount.  Raises ConflictError naming the
        holder where *lock* was asked for and somebody else has it.
        """
        with self._handle.lock:
            filled = Options.of(options)
            if (path := self._handle.mounted_at(mount_path)) is not None:
                self._check_lock(filled)
                return path
            lease = self._locked(filled)
            try:
                writer = self._writer() or self._new_writer()
                path = self._handle.mount_writer(self, writer, mount_path, filled)
            except BaseException:
                held = self._writer()
                if lease is not None and (held is None or held.lease is not lease):
                    lease.release()
                raise
            writer.lease = lease
            return path

    mount = awaitable(mount_sync)

    def commit_sync(
        self,
        message: str = "",
        *,
        labels: Mapping[str, str] | None = None,
        allow_torn: bool = False,
        even_if_unchanged: bool = False,
        on_conflict: LandingPolicy | None = None,
    ) -> ROVolume:
        """Publish the tree as it is now as a version, and return it; the mount stays.

        The version is one instant of the tree, with what is in files still open.  Where nothing changed the
        version before comes back (unless *even_if_unchanged*).  Raises BusyError naming the paths that kept
        changing while they were read; *allow_torn* publishes even so, and the version says so.

        Of a volume that was opened by name it is published on the head, with what others did meanwhile;
        *on_conflict* goes before what the volume was opened with (see from_name).
        """
        terms = Terms(message, dict(labels or {}), allow_torn, policy=checked_policy(on_conflict))
        with self._handle.lock:
            writer = self._writer()
            if writer is not None:
                return self._commit(writer, terms, even_if_unchanged)
            if self.index is not None:
                return self._begin_line(terms) if even_if_unchanged else ROVolume.of_version(self._existing())
            writer = self._new_writer()
            try:
                return self._commit(writer, terms, even_if_unchanged)
            finally:
                writer.discard()

    commit = awaitable(commit_sync)

    def finalize_sync(
        self,
        message: str = "",
        *,
        labels: Mapping[str, str] | None = None,
        allow_torn: bool = False,
        on_conflict: LandingPolicy | None = None,
    ) -> ROVolume:
        """Commit, unmount and return the version.

        Works while files are open: the mount is detached, and if anything was written after the commit
        the working copy is kept and a warning names the paths.
        """
        with self._handle.lock:
            version = self.commit_sync(message, labels=labels, allow_torn=allow_torn, on_conflict=on_conflict)
            self._finish()
            return version

    finalize = awaitable(finalize_sync)

    def abandon_sync(self) -> None:
        """Unmount, and drop for good what was written since the last commit."""
        with self._handle.lock:
            writer = self._writer()
            if writer is not None:
                self._handle.let_go()
                writer.unmount(lazy=True)
                writer.discard()

    abandon = awaitable(abandon_sync)

    def unmount_sync(self, *, lazy: bool = False) -> None:
        """Take the mount down and keep what was written: commit, mount again or abandon it.

        Raises BusyError while files are open there, unless *lazy*.
        """
        with self._handle.lock:
            writer = self._writer()
            if writer is not None:
                writer.unmount(lazy=lazy)

    unmount = awaitable(unmount_sync)

    def close_sync(self) -> str | None:
        """Be done with this handle: unmount, and keep what was written and not committed.

        Returns None if there is nothing of that, else the id of the working copy that has it: for
        `Volume.recover`, or `volume commit`.  The handle can be mounted again, from the last commit.
        """
        with self._handle.lock:
            self._handle.close_browsers()
            writer = self._writer()
            if writer is None:
                return None
            return writer.work_id if self._leave() is not None else None

    close = awaitable(close_sync)

    def fork_sync(self, name: str) -> RWVolume:
        """Return a writable volume called *name* that starts from this one's last commit; later changes are
        not in it.  It is only a record: no I/O.
        """
        return self._forked(name)

    fork = awaitable(fork_sync)

    @property
    def committed(self) -> ROVolume | None:
        """The version that `index` names: the last commit, or what it was forked from; None before the first."""
        with self._handle.lock:
            return ROVolume.of_version(self._existing()) if self.index is not None else None

    def status_sync(self) -> Status:
        """Return where it is mounted, by which driver, and what is not committed yet."""
        with self._handle.lock:
            writer = self._writer()
            return writer.status() if writer is not None else Status(name=self.name, locator=self.index)

    status = awaitable(status_sync)

    def _to_refer(self) -> ROVolume:
        return self.commit_sync()

    def _to_mount(self) -> Path:
        return self.mount_sync()

    def _new_writer(self) -> Writer:
        kind, handle = self.metadata_store_type, self._handle
        return Writer.begin(Line(self.name, self._place(), self._version(), kind, handle.policy, handle.purpose))

    def _commit(self, writer: Writer, terms: Terms, even_if_unchanged: bool) -> ROVolume:
        outcome = writer.commit(terms, even_if_unchanged=even_if_unchanged)
        return self._now_at(outcome.version, is_new=outcome.changed)

    def _begin_line(self, terms: Terms) -> ROVolume:
        """Commit what was not even mounted: a manifest is all it takes."""
        action, policy, place_ = plugins().current_task(), self._handle.policy, self._place()
        if policy is None:
            version = renamed(self._existing(), self.name, terms.message, terms.labels, action)
        else:
            about = About(message=terms.message, labels=terms.labels, produced_by=action)
            version = renewed(self.name, place_, about, Goal(open_view=lambda _: View(), policy=policy))
        return self._now_at(version, is_new=True)

    def _now_at(self, version: Version, *, is_new: bool) -> ROVolume:
        self._stand_at(version)
        committed = ROVolume.of_version(version)
        if is_new:
            note_committed(version)
        if is_new and self._handle.policy is None:
            announce(committed, version)
        elif is_new:
            plugins().committed(committed, version.manifest.produced_by)
        return committed

    def _stand_at(self, version: Version) -> None:
        self._handle.version = version
        # The one place where a writer's record changes; its name stays its own.
        self.__dict__.update(fields_of(version.locator, version.manifest) | {"name": self.name})

    @model_serializer(mode="wrap")
    def _as_record(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        """In JSON a writer leaves the process: within a task that commits it, elsewhere it must have been committed."""
        is_passed_on = info.mode == "json" and plugins().current_task() is not None
        if is_passed_on:
            version = self.commit_sync()
        elif info.mode == "json":
            self._check_committed("become JSON")
        record: dict[str, Any] = handler(self)
        # The version's own: of a fork that nobody wrote to, its name is all that differs.
        return record | ({"name": version.name} if is_passed_on and "name" in record else {})

    def _check_committed(self, what: str) -> None:
        with self._handle.lock:
            writer = self._writer()
            if writer is not None and writer.has_changes():
                raise VolumeError(
                    f"volume {self.name!r} has changes that are not committed, and they cannot {what}: "
                    "commit first, and pass on the version that commit returns"
                )

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        """A pickled writer is its record, opened by name if it was; what it has not committed cannot go with it."""
        try:
            self._check_committed("be pickled")
        except VolumeError as error:
            raise TypeError(str(error)) from error
        return _from_record, (type(self), self.model_dump(), self._handle.policy)

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        """A writer is equal to itself alone."""
        return self is other


def _from_record(cls: type[RWVolume], fields: dict[str, Any], policy: LandingPolicy | None) -> RWVolume:
    volume = cls.model_validate(fields)
    volume._handle.policy = policy
    return volume


volumes_loaded()

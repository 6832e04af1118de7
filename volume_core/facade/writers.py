"""A writer: one working copy, mounted or not, and the versions it commits.

      begin ──> at rest <──mount/unmount──> mounted
                  │  commit: either way, any number of times; each one's parent is the one before
                  ├──finish──> gone: its last commit is all there was
                  ├──leave───> kept for recovery, if anything in it is not committed
                  └──discard─> gone

Always true:

  1. The upper is only ever mounted over the base recorded beside it, by the driver that wrote it.
  2. What a commit captured names its version, and so does the record, which is replaced after it: a
     crash between the two leaves captures that are not used, which costs time and loses nothing.  So does
     a disk that is too full for them: a version that was published is returned.
  3. A working copy is removed by `discard`, which was asked for; or by `finish` and `leave`, which look, once
     the mount is gone, whether anything was written after the commit, and keep the copy then.
  4. What may be torn by a crash of the machine is noted with the copy, and every version of it says so.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Self, cast

from volume_core.domain.changes import Changes
from volume_core.domain.view import View
from volume_core.errors import BusyError, MountError, VolumeError
from volume_core.facade.heads import first_landed, renewed
from volume_core.facade.lines import renamed
from volume_core.facade.mounts import LiveMount, Mounting, Options, StrPath
from volume_core.facade.mounts import mount as mount_view
from volume_core.facade.reloading import superseded_by
from volume_core.facade.settings import upper_limit_bytes
from volume_core.facade.statuses import Status
from volume_core.facade.surveying import is_detached, live_mount_of
from volume_core.facade.version_terms import SQUASH
from volume_core.facade.versions import Place, Version, read_version
from volume_core.facade.worktrees import Outcome, Terms, WorkTree, sparing
from volume_core.format.manifest import Action, LayerRef
from volume_core.format.names import Locator
from volume_core.parts import workcopies
from volume_core.parts.indexes import IndexCache, open_view
from volume_core.parts.landing import Goal, LandingPolicy
from volume_core.parts.leases import HeldLease
from volume_core.parts.progress import Progress
from volume_core.parts.publishing import About
from volume_core.parts.state import State
from volume_core.parts.workcopies import HeldLock, WorkingCopy
from volume_core.plugins.manager import plugins
from volume_core.storage.protocol import Store

log = logging.getLogger(__name__)

_REGION, _KIND, _TORN, _POLICY, _MERGED = "region", "metadata_store_type", "torn", "policy", "merged"
PURPOSE = "purpose"
_PATHS_SHOWN_MAX = 10


class Line(NamedTuple):
    """What a new working copy is of: the volume's name, its store, and the version it starts from.

    With a `policy` its commits land on the head of that name; else it is a line of its own.  `purpose` says what it is
    written for, to whoever looks for it later; whoever takes it over takes it for himself.
    """

    name: str
    place: Place
    base: Version | None = None
    metadata_store_type: str = "sqlite"
    policy: LandingPolicy | None = None
    purpose: str = ""

    def notes(self) -> dict[str, str]:
        """Return what a working copy's record says of the line besides its own fields."""
        noted = {_KIND: self.metadata_store_type, _REGION: self.place.region, _POLICY: self.policy}
        noted[PURPOSE] = self.purpose
        return {key: value for key, value in noted.items() if value}


class Writer:
    """One working copy in the hands of this process.  Used by one thread at a time."""

    def __init__(
        self,
        state: State,
        line: Line,
        copy: WorkingCopy,
        lock: HeldLock,
        parent: Version | None,
        action: Action | None,
    ) -> None:
        self.line = line
        self.parent = parent
        self._state = state
        self._copy = copy
        self._lock = lock
        self._live: LiveMount | None = None
        self._options = Options()
        self._torn = False
        self._merged = False
        self._action = action
        self.lease: HeldLease | None = None

    @classmethod
    def begin(cls, line: Line, notes: Mapping[str, str] | None = None) -> Self:
        """Make an empty working copy of *line*, its record with *notes* of the caller's."""
        action = plugins().current_task()
        state = State.default().prepare()
        workcopies.sweep(state)
        copy = workcopies.create(
            state,
            volume=line.name,
            store_url=line.place.url,
            base=str(line.base.locator) if line.base else None,
            notes=line.notes() | dict(notes or {}),
        )
        return cls(state, line, copy, copy.lock(), line.base, action)

    @classmethod
    def recover(cls, work_id: str, *, allow_torn: bool = False) -> Self:
        """Take over a working copy that an exit or a crash left behind, or that a detached mount writes.

        Raises NotFoundError if there is none, BusyError if a process has it, VolumeError if the machine went
        down under it and not *allow_torn*.
        """
        state = State.default().prepare()
        mounted = live_mount_of(work_id, state)
        copy = workcopies.load(state, work_id)
        with contextlib.ExitStack() as undo:
            lock = undo.enter_context(copy.lock())
            if mounted is not None and not is_detached(mounted):
                # Its owner has died, and its supervisor is about to take it down: it may be gone at any moment.
                mounted.unmount(lazy=True)
                mounted = None
            copy.record = workcopies.load(state, work_id).record  # as its last holder left it
            writer = cls._recover(state, copy, lock, allow_torn)
            undo.pop_all()
        if mounted is not None:
            writer._live = LiveMount(mounted, detached=True)
            writer._options = writer._options._replace(detach=True)  # wherever it is mounted again
        return writer

    @classmethod
    def drop(cls, work_id: str) -> None:
        """Remove a working copy with all that is in it, and its mount, whatever state it is in.

        Raises NotFoundError if there is none, BusyError if a process has it.
        """
        state = State.default().prepare()
        mounted = live_mount_of(work_id, state)
        copy = workcopies.load(state, work_id)
        with copy.lock():
            if mounted is not None:
                mounted.unmount(lazy=True)
            copy.record = workcopies.load(state, work_id).record  # the copy driver moves the tree
            copy.discard()

    @classmethod
    def _recover(cls, state: State, copy: WorkingCopy, lock: HeldLock, allow_torn: bool) -> Self:
        if not copy.same_boot and not allow_torn:
            raise VolumeError(
                f"working copy {copy.id} of {copy.volume} was in use when the machine went down, so what was written "
                "last may be missing or torn: look at it, and allow torn files to go on with it"
            )
        if not copy.record.ready:
            raise VolumeError(
                f"working copy {copy.id} of {copy.volume} was never finished being made, so nothing was written in it: "
                f"volume abandon {copy.id}"
            )
        notes = copy.record.notes
        if (whole := superseded_by(state, copy)) is not None:
            raise VolumeError(
                f"working copy {copy.id} of {copy.volume} was left by a reload that was interrupted: what was written "
                f"is in working copy {whole}; go on with that, and volume abandon {copy.id}"
            )
        place = Place(copy.store_url, notes.get(_REGION))
        base = _read(copy.base, place)
        parent = base if copy.parent == copy.base else _read(copy.parent, place)
        line = Line(copy.volume, place, base, notes.get(_KIND, "sqlite"), cast("LandingPolicy", notes.get(_POLICY)))
        writer = cls(state, line, copy, lock, parent, plugins().current_task())
        writer._torn = not copy.same_boot or _TORN in notes
        writer._merged = _MERGED in notes
        if PURPOSE in notes:
            with contextlib.suppress(OSError):  # of a full disk: to commit the work may be what frees it
                writer.note(PURPOSE, None)
        return writer

    @property
    def work_id(self) -> str:
        """The working copy's id: what it is recovered by."""
        return self._copy.id

    @property
    def options(self) -> Options:
        """What it was last mounted with."""
        return self._options

    @property
    def directory(self) -> Path:
        """Where the working copy lies."""
        return self._copy.path

    @property
    def path(self) -> Path | None:
        """Where it is mounted."""
        return self._live.path if self._live is not None else None

    @property
    def driver(self) -> str | None:
        """By which driver it is mounted."""
        return self._live.mounted.driver if self._live is not None else None

    def is_alive(self) -> bool:
        """Whether it is mounted and answers."""
        return self._live is not None and self._live.mounted.is_alive()

    # -- mounting

    def mount(self, wanted: StrPath | None, options: Options) -> Path:
        """Mount the working copy over its base, and return where."""
        self.take_down(lazy=True)  # what is left of a mount that died
        if self._copy.driver:
            # Every driver spells deletions its own way: who wrote the upper must mount it.
            if options.driver not in {"auto", self._copy.driver}:
                raise MountError(
                    f"working copy {self.work_id} was written by the driver {self._copy.driver}, which alone can "
                    f"mount it; to use {options.driver}, commit and fork"
                )
            options = options._replace(driver=self._copy.driver)
        what = Mounting(
            self.line.name, self.line.place.url, self.line.place.region, self.line.base, self._action, self._copy
        )
        self._live = mount_view(what, wanted, options)
        self._options = options
        self._note_mounted(self._live)
        return self._live.path

    def _note_mounted(self, live: LiveMount) -> None:
        squash = getattr(live.mounted, "squashed_owner", None)
        notes = self._copy.record.notes | ({SQUASH: f"{squash[0]}:{squash[1]}"} if squash else {})
        if self._torn:
            notes[_TORN] = "yes"  # the copy is of this boot from now on
        self._copy.update(
            driver=live.mounted.driver,
            dialect=live.mounted.dialect,
            mount_path=os.fspath(live.path),
            boot_id=workcopies.boot_id(),
            notes=notes,
        )

    def unmount(self, *, lazy: bool) -> None:
        """Take the mount down, if there is one, and give its lock back.

        BusyError, and nothing done, while files are open and it is not *lazy*.
        """
        self.take_down(lazy=lazy)
        lease, self.lease = self.lease, None
        if lease is not None:
            lease.release()

    def take_down(self, *, lazy: bool) -> None:
        """Take the mount down as unmount does, and keep the lock."""
        if self._live is not None:
            self._live.unmount(lazy=lazy)
            self._live = None
            # The copy driver moves the tree when it is unmounted.
            self._copy.record = workcopies.load(self._state, self.work_id).record

    # -- committing

    def commit(self, terms: Terms, *, even_if_unchanged: bool = False) -> Outcome:
        """Publish the tree as it is; where nothing changed, the version is the one before.

        With *even_if_unchanged* it is then a new one, of this line, that shows the same.
        """
        terms = replace(
            terms,
            allow_torn=terms.allow_torn or self._torn,
            torn=self._torn,
            action=self._action or plugins().current_task(),
            max_uploads=self._options.max_uploads,
            progress=Progress(self.line.name),
        )
        limit_bytes = upper_limit_bytes()  # a setting that cannot be read is said before anything is published
        self._forget_dead_mount()
        self.find_landed()
        plugins().committing(terms.progress, terms.action)
        try:
            outcome = self._tree().commit(terms)
        finally:
            terms.progress.end()
        if even_if_unchanged and not outcome.changed:
            outcome = self._renamed(outcome, terms)
        self._stand_at(outcome.version, outcome.merged)
        if limit_bytes is not None:
            with sparing("how large its files are"):
                self._warn_of_size(limit_bytes)
        return outcome

    def _renamed(self, outcome: Outcome, terms: Terms) -> Outcome:
        """A version of this line that shows what *outcome*'s does; of a named volume, what its head does by now."""
        goal, merged = self._goal(), outcome.merged
        if goal is None:
            version = renamed(outcome.version, self.line.name, terms.message, terms.labels, terms.action)
        else:
            about = About(message=terms.message, labels=terms.labels, produced_by=terms.action)
            version = renewed(self.line.name, self.line.place, about, goal)
            merged = merged or version.manifest.parents != (str(outcome.version.locator),)
        self._tree().remember(outcome.captured, str(version.locator), merged, must=merged)
        return outcome._replace(version=version, changed=True, merged=merged)

    def _stand_at(self, version: Version, merged: bool) -> None:
        """Take *version* for the last commit, in the record too."""
        self.parent, self._merged = version, merged
        notes = {key: value for key, value in self._copy.record.notes.items() if key != _MERGED}
        if merged:
            notes[_MERGED] = "yes"
        if self._copy.parent != str(version.locator) or notes != self._copy.record.notes:
            with sparing("which version it is"):
                self._copy.update(parent=str(version.locator), notes=notes)

    def find_landed(self) -> None:
        """Find out what became of a commit that was killed while the head was moved to it."""
        if (found := self.landed()) is not None:
            log.info("%s of working copy %s had landed when it was interrupted", found[0].locator, self.work_id)
            self._stand_at(*found)

    def landed(self) -> tuple[Version, bool] | None:
        """Return the version that such a commit has put on the head, and whether it is merged; None if it did not."""
        return first_landed(self._tree().kept(), self.line.place, self.parent) if self.line.policy is not None else None

    def _forget_dead_mount(self) -> None:
        """Go on without a mount that somebody took away, or whose processes were killed: the upper is all there."""
        if self._live is not None and not self._live.mounted.is_alive():
            log.info("%s is not mounted any more: going on with working copy %s", self._live.path, self.work_id)
            self.take_down(lazy=True)

    def _tree(self) -> WorkTree:
        return WorkTree(
            self.line.name,
            self.line.place,
            self._copy,
            self.index_cache(),
            self.line.base,
            self.parent,
            self._live.mounted if self._live is not None else None,
            self.line.metadata_store_type,
            self._merged,
            self._goal(),
        )

    def _goal(self) -> Goal | None:
        if self.line.policy is None:
            return None
        indexes, store = self.index_cache(), self.line.place.store()
        return Goal(
            open_view=lambda manifest: open_view(indexes.fetch(store, manifest.stack)),
            policy=self.line.policy,
            guard=self.lease.check if self.lease is not None else _nothing,
            token=self.lease.token if self.lease is not None else 0,
        )

    def stands_at(self, version: Version) -> bool:
        """Whether the tree shows all that *version* has: it is the last commit, and nobody else is in it."""
        return self.parent is not None and self.parent.locator == version.locator and not self._merged

    def index_cache(self) -> IndexCache:
        """Return the cache of indexes that its mounts and commits use."""
        return IndexCache(self._options.meta_dir or self._state.cache)

    def _warn_of_size(self, limit_bytes: int) -> None:
        if (found := self._copy.size_bytes()) > limit_bytes:
            log.warning(
                "the files of working copy %s (volume %s) take %d bytes, more than $VOLUME_UPPER_LIMIT: "
                "finalize, and mount the version anew",
                self.work_id, self.line.name, found,
            )  # fmt: skip

    def frozen(self, into: Store) -> AbstractContextManager[tuple[Changes, View, tuple[LayerRef, ...]]]:
        """Give what is not committed, as WorkTree.frozen does."""
        return self._tree().frozen(into)

    def successor(self, version: Version, notes: Mapping[str, str]) -> Writer:
        """Return a writer of the same line over *version*, its working copy empty, its record with *notes*."""
        fresh = type(self).begin(self.line._replace(base=version), notes)
        fresh._action, fresh.lease, fresh._torn = self._action, self.lease, self._torn
        return fresh

    def note(self, key: str, value: str | None) -> None:
        """Set a note of the working copy's record, or take it out."""
        notes = {each: said for each, said in self._copy.record.notes.items() if each != key}
        self._copy.update(notes=notes | ({key: value} if value is not None else {}))

    def is_for(self, purpose: str) -> None:
        """Have *purpose* for the line's, in the working copy's record too."""
        self.line = self.line._replace(purpose=purpose)
        self.note(PURPOSE, purpose)

    def has_changes(self) -> bool:
        """Whether the tree differs from the last commit (a brand-new volume: whether anything is in it)."""
        self._forget_dead_mount()
        return self._tree().differs()

    def status(self) -> Status:
        """Return where this writer stands."""
        return Status(
            name=self.line.name,
            locator=str(self.parent.locator) if self.parent else None,
            mount_path=self.path,
            driver=self.driver,
            working_copy=self.work_id,
            upper_bytes=self._copy.size_bytes(),
            changed=self.has_changes(),
        )

    # -- the end

    def finish(self) -> None:
        """After a commit: unmount, and remove the working copy unless something was written since.

        The version exists by now: where the tree cannot be compared with it, the working copy is kept.
        """
        try:
            self._detach()
            moved = self._tree().changed_paths()
        except (VolumeError, OSError) as error:
            self._lock.close()
            log.warning(
                "volume %s was committed, but whether anything was written after that cannot be told: %s; %s",
                self.line.name, error, self.kept(),
            )  # fmt: skip
            return
        except BaseException:
            self._lock.close()
            raise
        if not moved:
            self.discard()
            return
        self._lock.close()
        shown = ", ".join(moved[:_PATHS_SHOWN_MAX]) + (", ..." if len(moved) > _PATHS_SHOWN_MAX else "")
        log.warning("written to volume %s after its last commit: %s; %s", self.line.name, shown, self.kept())

    def leave(self) -> str | None:
        """Unmount; remove the working copy if it holds nothing new, else keep it and return where it is."""
        self._detach()
        try:
            changed = self.has_changes()
        except (VolumeError, OSError) as error:
            log.info("working copy %s could not be compared: %s", self.work_id, error)
            changed = True
        if not changed:
            self.discard()
            return None
        self._lock.close()
        return self.kept()

    def _detach(self) -> None:
        try:
            self.unmount(lazy=False)
        except BusyError:
            self.unmount(lazy=True)

    def kept(self) -> str:
        """Return a sentence that says where what is not committed is, and how to get at it."""
        return (
            f"what is not committed is kept as working copy {self.work_id}, in {self._copy.upper} "
            f"(volume commit {self.work_id}, or Volume.recover)"
        )

    def discard(self) -> None:
        """Unmount, and remove the working copy with all that is in it."""
        self.unmount(lazy=True)
        self._copy.discard()

    def hand_over(self) -> None:
        """Leave the mount and the working copy as they are, for another process to go on with."""
        self._lock.close()

    def release(self) -> None:
        """The handle is gone, or the process ends: keep what is not committed, and say so."""
        if self._live is not None and self._live.detached:
            self.hand_over()
        elif (kept := self.leave()) is not None:
            log.warning("volume %s was not committed: %s", self.line.name, kept)


def _nothing() -> None:
    pass


def _read(locator: str | None, place: Place) -> Version | None:
    return read_version(Locator.parse(locator), place) if locator is not None else None

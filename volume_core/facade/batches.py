"""Changing the files of a volume without mounting it: batches, of which each is one commit.

    with volume.batch_upload_sync() as batch:
        batch.put_file("model.bin", "/models/1/model.bin")     # noted
        batch.put_directory("data", "/data")
                                                               # all of it is read, uploaded and committed here
    batch.version

Always true:

  1. A batch is published whole, at the end of its block, or not at all; after an error in the block nothing is
     even read.
  2. What is in a batch happens in the order in which it was noted.
  3. A writer that is mounted, or holds what is not committed, is not written behind its back: BusyError.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

from volume_core.domain.edits import Edits
from volume_core.errors import BusyError, ConflictError, ExistsError, VolumeError
from volume_core.facade.browsing import Browsers
from volume_core.facade.handles import HandledRecord
from volume_core.facade.heads import landed_version
from volume_core.facade.mounts import StrPath
from volume_core.facade.twins import awaitable, awaitable_context
from volume_core.facade.versions import Version
from volume_core.facade.writers import Writer
from volume_core.format.names import Locator
from volume_core.parts.editing import EditSession
from volume_core.parts.indexes import IndexCache, open_view
from volume_core.parts.landing import Goal, LandingPolicy
from volume_core.parts.packing import MAX_UPLOADS
from volume_core.parts.publishing import About, Parent
from volume_core.parts.state import State
from volume_core.plugins.manager import plugins

if TYPE_CHECKING:
    from volume_core.volumes import ROVolume

Advance = Callable[[int], None]  # so many more bytes are done


class Batch:
    """What a batch will do; see the methods of EditSession and Edits for how each is done.

    `version` is the version that it made, or found unchanged, once its block has ended.
    """

    def __init__(self, *, force: bool) -> None:
        self._force = force
        self._steps: list[Callable[[EditSession], object]] = []
        self._version: ROVolume | None = None

    def put_file(self, local_file: StrPath | BinaryIO, remote_path: StrPath, mode: int | None = None) -> None:
        """Upload *local_file*, a path or a binary file object that stays open, as *remote_path*.

        Parents are made.  A *remote_path* that ends in a slash is the directory to put a local path into.  *mode*
        is permission bits; without it a file's own, 0o644 of a file object.
        """
        force, target = self._force, os.fsencode(remote_path)
        if isinstance(local_file, str | os.PathLike):
            path = os.path.abspath(local_file)
            self._steps.append(lambda session: session.put_file(path, target, mode=mode, force=force))
        else:
            self._steps.append(lambda session: session.put_stream(local_file, target, mode=mode, force=force))

    def put_directory(self, local_path: StrPath, remote_path: StrPath, recursive: bool = True) -> None:
        """Upload what is in the directory *local_path* into *remote_path*, which is merged with what is there.

        Symlinks stay symlinks; hard links, FIFOs, xattrs, modes, owners and times are kept; sockets are left out
        with a warning.  Without *recursive* the directories in it are left out.
        """
        path, target, force = os.path.abspath(local_path), os.fsencode(remote_path), self._force
        self._steps.append(lambda session: session.put_directory(path, target, recursive=recursive, force=force))

    def make_directory(self, path: StrPath) -> None:
        """Make a directory, and its parents."""
        wanted = os.fsencode(path)
        self._edit(lambda edits: edits.make_directory(wanted))

    def remove(self, path: StrPath, *, recursive: bool = False) -> None:
        """Remove a file, or with *recursive* a directory with all that is in it."""
        wanted = os.fsencode(path)
        self._edit(lambda edits: edits.remove(wanted, recursive=recursive))

    def copy(self, src_paths: Sequence[StrPath], dst_path: StrPath, *, recursive: bool = False) -> None:
        """Copy within the volume, as cp does."""
        sources, target = _encoded(src_paths), os.fsencode(dst_path)
        self._edit(lambda edits: edits.copy(sources, target, recursive=recursive))

    def move(self, src_path: StrPath, dst_path: StrPath) -> None:
        """Rename within the volume, as rename(2) does."""
        source, target = os.fsencode(src_path), os.fsencode(dst_path)
        self._edit(lambda edits: edits.move(source, target))

    def _edit(self, step: Callable[[Edits], object]) -> None:
        self._steps.append(lambda session: step(session.edits))

    @property
    def version(self) -> ROVolume:
        """The version after this batch."""
        if self._version is None:
            raise VolumeError("a batch has its version when its block has ended well")
        return self._version


class WritesFiles(HandledRecord):
    """The methods that change files; a mixin of the class that writes."""

    @contextmanager
    def batch_upload_sync(
        self,
        force: bool = False,
        *,
        message: str = "",
        labels: Mapping[str, str] | None = None,
        max_uploads: int = MAX_UPLOADS,
        advance: Advance | None = None,
    ) -> Iterator[Batch]:
        """Make a batch of changes for the length of a `with` statement; commit it as one version when that ends well.

        Files that exist, or that another writer of the name has made or changed meanwhile, are an ExistsError that
        names them, unless *force*.  *message* and *labels* are the version's; a batch that changes nothing makes none.
        *advance* is called, by any thread, with the number of bytes that were done since.  Raises BusyError if this
        handle is mounted.
        """
        batch = Batch(force=force)
        yield batch
        try:
            policy: LandingPolicy | None = None if force else "error"
            with self._editing(
                message, labels=labels, max_uploads=max_uploads, advance=advance, policy=policy
            ) as editing:
                for step in batch._steps:
                    step(editing.session)
        except ConflictError as error:
            if force or not error.paths or self._handle.policy == "error":
                raise
            # Whoever did not ask to replace files does not replace those that another has just made either.
            raise ExistsError(str(error), error.paths) from error
        batch._version = editing.version

    batch_upload = awaitable_context(batch_upload_sync)

    def remove_file_sync(self, path: StrPath, recursive: bool = False, *, message: str = "") -> ROVolume:
        """Remove the file *path*, or with *recursive* a directory with all that is in it, and commit that.

        Returns the version.  Raises NoSuchPathError, VolumeError for a directory without *recursive*.
        """
        with self._editing(message) as editing:
            editing.session.edits.remove(os.fsencode(path), recursive=recursive)
        return editing.version

    remove_file = awaitable(remove_file_sync)

    def copy_files_sync(
        self, src_paths: Sequence[StrPath], dst_path: StrPath, recursive: bool = False, *, message: str = ""
    ) -> ROVolume:
        """Copy files within the volume as cp does; commit and return the version.  No data is moved.

        Several sources need a directory as *dst_path*, and so does one that ends in a slash; directories need
        *recursive*, and are merged into one that is there.  Modes, owners and times are kept.
        """
        with self._editing(message) as editing:
            editing.session.edits.copy(_encoded(src_paths), os.fsencode(dst_path), recursive=recursive)
        return editing.version

    copy_files = awaitable(copy_files_sync)

    def begin_editing(self, *, max_uploads: int = MAX_UPLOADS, advance: Advance | None = None) -> Editing:
        """Return edits over the last commit, to be committed or closed; for the doors beside this one.

        Unlike a batch, what is put is read at once, and can be asked for.  Raises BusyError if this handle is
        mounted.
        """
        with self._handle.lock:
            self._check_not_mounted()
            self._find_landed()
            version = self._version()
            browsers = self._handle.browsers(version, self._place(), self.name)
            return Editing(self, version, browsers, max_uploads, advance)

    @contextmanager
    def _editing(
        self,
        message: str = "",
        *,
        labels: Mapping[str, str] | None = None,
        max_uploads: int = MAX_UPLOADS,
        advance: Advance | None = None,
        policy: LandingPolicy | None = None,
    ) -> Iterator[Editing]:
        """Edit the last commit for the length of a `with` statement; commit when it ends well.

        *policy* goes before the handle's where others have changed the same paths.
        """
        with (
            self._handle.lock,
            contextlib.closing(self.begin_editing(max_uploads=max_uploads, advance=advance)) as editing,
        ):
            yield editing
            editing.commit(message, policy, labels)

    def _commit_editing(
        self,
        before: Version | None,
        session: EditSession,
        message: str,
        policy: LandingPolicy | None,
        labels: Mapping[str, str] | None,
    ) -> ROVolume:
        with self._handle.lock:
            self._check_not_mounted()
            if self._version() != before:
                raise ConflictError(
                    f"volume {self.name!r} was committed through this handle since these edits began: make them again"
                )
            about = About(
                message=message,
                labels=dict(labels or {}),
                produced_by=plugins().current_task(),
                region=self.region,
                metadata_store_type=self.metadata_store_type,
            )
            indexes = IndexCache(State.default().prepare().cache)
            landed = session.commit(about, self._goal(indexes, policy), self._note_landing)
            self._handle.landing = None
            if landed is None:
                assert before is not None
                return self._of_version(before)
            for ref, index in landed.published.indexes if landed.published else ():
                indexes.add(ref, index)
            version = Version(Locator.parse(landed.locator), landed.manifest, self._place())
            return self._now_at(version, is_new=landed.published is not None)

    def _note_landing(self, locator: str, _merged: bool) -> None:
        self._handle.landing = locator

    def _find_landed(self) -> None:
        """Find out what became of a batch whose answer was lost: what landed is not committed again."""
        locator, self._handle.landing = self._handle.landing, None
        if locator is None:
            return
        version = self._version()
        found = landed_version(locator, self._place(), version.locator if version else None)
        if found is not None:
            self._now_at(found, is_new=True)

    def _goal(self, indexes: IndexCache, policy: LandingPolicy | None) -> Goal | None:
        own, store = self._handle.policy, self._place().store()
        if own is None:
            return None
        return Goal(open_view=lambda manifest: open_view(indexes.fetch(store, manifest.stack)), policy=policy or own)

    def _now_at(self, version: Version, *, is_new: bool) -> ROVolume:
        """Move this handle to *version*.  Only the public classes know how, and they say so."""
        raise TypeError(f"{version.locator}: a record alone does not move")

    def _check_not_mounted(self) -> None:
        self._handle.check_process(self.name)
        held = self._handle.held
        if not isinstance(held, Writer):
            return
        where = f"mounted at {held.path}: write there and commit" if held.path else "not committed yet: commit"
        raise BusyError(
            f"volume {self.name!r} is in use through this handle, {where}, or close it, before its files are changed "
            "without a mount"
        )


class Editing:
    """Edits under way, until they are committed or closed.  Used by one thread at a time, any one.

    `session` has the methods that put contents, and as `session.edits` all others and what can be asked.
    """

    def __init__(
        self,
        volume: WritesFiles,
        before: Version | None,
        browsers: Browsers,
        max_uploads: int,
        advance: Advance | None,
    ) -> None:
        self._volume = volume
        self._before = before
        self._version: ROVolume | None = None
        with contextlib.ExitStack() as opened:
            browser = opened.enter_context(browsers.lend())
            parent = Parent(str(before.locator), before.manifest, browser.view) if before else None
            store = volume._place().store()
            self.session = opened.enter_context(
                EditSession(
                    store,
                    volume.name,
                    parent,
                    journals=State.default().prepare().uploads,
                    max_uploads=max_uploads,
                    advance=advance,
                )
            )
            self._opened = opened.pop_all()

    def commit(
        self, message: str = "", policy: LandingPolicy | None = None, labels: Mapping[str, str] | None = None
    ) -> ROVolume:
        """Publish the edits as one version and return it; where they change nothing, the version before.

        *policy* goes before the handle's where others have changed the same paths of a named volume.  Raises
        ConflictError if the handle has committed anything else meanwhile.
        """
        try:
            self._version = self._volume._commit_editing(self._before, self.session, message, policy, labels)
        finally:
            self.close()
        return self._version

    def close(self) -> None:
        """Drop what was not committed."""
        self._opened.close()

    @property
    def version(self) -> ROVolume:
        """The version that commit() returned."""
        assert self._version is not None
        return self._version


def _encoded(paths: Sequence[StrPath]) -> list[bytes]:
    if isinstance(paths, str | os.PathLike):
        return [os.fsencode(paths)]
    return [os.fsencode(path) for path in paths]

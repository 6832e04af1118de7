"""A mounted writer goes on over a newer version, with what it had not committed.

    unmount ──> freeze what is not committed ──> merge it onto the newer version ──> a working copy over that,
    with the changes replayed through its mount ──> the older working copy goes

Why a new working copy: an upper is only ever mounted over the base recorded beside it; over another one its
deletions and renames would mean something else.

Always true:

  1. Until the new working copy holds everything, the old one does, untouched; from then on the new one does.
     Which of the two it is is said in one record, the old one's, so that nobody commits half, nor both.
  2. A reload that raises has the old tree mounted again where it was, or says where it is kept.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from volume_core.domain.merge import Policy, merge
from volume_core.errors import NotFoundError, VolumeError
from volume_core.facade.versions import Version
from volume_core.format.manifest import shared_layers
from volume_core.parts import workcopies
from volume_core.parts.indexes import open_view
from volume_core.parts.landing import conflict
from volume_core.parts.reading import Reader
from volume_core.parts.replaying import Row, replay
from volume_core.parts.state import State
from volume_core.parts.workcopies import WorkingCopy
from volume_core.storage.local import LocalStore
from volume_core.storage.protocol import Store

if TYPE_CHECKING:
    from volume_core.facade.writers import Writer

log = logging.getLogger(__name__)

RELOADING = "reloading"  # the note of a working copy that is made from another: the other's id
RELOADED = "reloaded"  # the note of a working copy whose work lies in another by now: the other's id
_FROZEN = "frozen"


def reload(writer: Writer, newer: Version) -> Writer:
    """Return a writer over *newer*, mounted where *writer* was, with what *writer* had not committed.

    *writer* is done with then.  Raises BusyError naming the open files, ConflictError where the line's policy
    is `error` and both sides changed the same paths; the mount is then as it was.
    """
    path = writer.path
    if path is None:
        raise VolumeError(f"volume {writer.line.name!r} is not mounted: there is nothing to reload")
    writer.take_down(lazy=False)
    try:
        return _over(writer, newer, path)
    except BaseException as error:
        try:
            writer.mount(path, writer.options)
        except VolumeError as further:
            error.add_note(f"and {path} could not be mounted again: {further}; {writer.kept()}")
        raise


def _over(writer: Writer, newer: Version, path: Path) -> Writer:
    store = newer.place.store()
    frozen = writer.directory / _FROZEN
    with contextlib.ExitStack() as opened:
        opened.callback(shutil.rmtree, frozen, ignore_errors=True)
        view = open_view(writer.index_cache().fetch(store, newer.manifest.stack))
        opened.callback(view.close)
        local = LocalStore(frozen)
        delta, tree, stack = opened.enter_context(writer.frozen(local))
        rows: list[Row] = []
        if delta.rows:
            policy = writer.line.policy or "error"
            totals = newer.manifest.used_bytes, newer.manifest.inode_count
            shared = shared_layers(stack, newer.manifest.stack)
            merged = merge(delta.rows, tree, view, Policy(policy), totals=totals, shared=shared)
            if merged.conflicts and policy == "error":
                raise conflict(writer.line.name, str(newer.locator), [each.path for each in merged.conflicts])
            rows = merged.rows
        fresh = writer.successor(newer, {RELOADING: writer.work_id} if rows else {})
        try:
            fresh.mount(path, writer.options)
            if rows:
                reader = opened.enter_context(Reader(_Either(local, store)))
                _replay(fresh, rows, view, reader, path)
        except BaseException:
            _give_up(fresh)
            raise
        try:
            if rows:
                writer.note(RELOADED, fresh.work_id)
        except BaseException:
            # Whether it is said by now nobody knows.  Only when it is not said may the one that has everything go.
            writer.note(RELOADED, None)
            _give_up(fresh)
            raise
    writer.lease = None  # it went over
    try:
        if rows:
            fresh.note(RELOADING, None)
        writer.discard()
    except (VolumeError, OSError) as error:
        log.warning("what is left of working copy %s could not be removed: %s", writer.work_id, error)
    return fresh


def _give_up(fresh: Writer) -> None:
    fresh.lease = None  # the older one still has it
    fresh.discard()


def _replay(fresh: Writer, rows: list[Row], view: Any, reader: Reader, path: Path) -> None:
    left_out = replay(rows, view, reader, path)
    if left_out:
        shown = ", ".join(repr(os.fsdecode(each)) for each in left_out[:10])
        raise VolumeError(f"this user cannot make {shown} again, so volume {fresh.line.name!r} is not reloaded")


class _Either:
    """Two stores to read from: what was frozen here, and all else."""

    local_root = None
    honours_conditions = False

    def __init__(self, here: Store, there: Store) -> None:
        self._here = here
        self._there = there
        self.url = there.url

    def __getattr__(self, name: str) -> Any:
        return getattr(self._there, name)

    def get(self, name: str) -> bytes:
        try:
            return self._here.get(name)
        except NotFoundError:
            return self._there.get(name)

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        try:
            return self._here.get_range(name, offset, length)
        except NotFoundError:
            return self._there.get_range(name, offset, length)


def superseded_by(state: State, copy: WorkingCopy) -> str | None:
    """Return the id of the working copy that has the work of *copy*, if a reload was interrupted; None if it has it."""
    notes = copy.record.notes
    if RELOADED in notes:
        return notes[RELOADED]
    other = notes.get(RELOADING)
    if other is None:
        return None
    try:
        older = workcopies.load(state, other)
    except NotFoundError:
        return None  # it went when this one had everything
    return None if older.record.notes.get(RELOADED) == copy.id else other

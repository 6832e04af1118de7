"""A working tree, and how it differs from the versions below it: what a commit is asked for.

Always true: `differs` and `changed_paths` write nothing anywhere; they ask the commit itself, with a store
that takes nothing, so that they never call unchanged what a commit would publish.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from volume_core.domain.changes import Changes, changes
from volume_core.domain.view import View
from volume_core.errors import VolumeError
from volume_core.facade.version_terms import Translation, translation
from volume_core.facade.versions import Place, Version
from volume_core.format.manifest import Action, LayerRef
from volume_core.format.names import Locator
from volume_core.mount.request import Mounted
from volume_core.parts.captured import load, save, version_of
from volume_core.parts.capturing import Captured
from volume_core.parts.committing import CommitRequest, commit, freeze
from volume_core.parts.dialects import DIALECTS, KERNEL
from volume_core.parts.indexes import IndexCache, build_index, open_index, open_view
from volume_core.parts.landing import Goal, LandingPolicy
from volume_core.parts.packing import MAX_UPLOADS
from volume_core.parts.progress import Progress
from volume_core.parts.scanning import scan
from volume_core.parts.workcopies import WorkingCopy
from volume_core.storage.protocol import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Terms:
    """What a commit is asked for besides the tree.

    `torn`: the tree as a whole may be torn, and the version shall say so.  `policy`: what goes before where
    others have changed the same paths of a named volume; None for the line's own.
    """

    message: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    allow_torn: bool = False
    torn: bool = False
    action: Action | None = None
    max_uploads: int = MAX_UPLOADS
    policy: LandingPolicy | None = None
    progress: Progress = field(default_factory=Progress)


class Outcome(NamedTuple):
    """What a commit made of the tree.

    `changed` is False where that version was there: the one before, or another's that holds the very changes.
    `merged`: it holds what others committed as well.
    """

    version: Version
    captured: Captured
    changed: bool
    merged: bool
    objects_written: int
    bytes_written: int


class _Refused(VolumeError):
    """Something would have been written."""


class _Refusing:
    """A store that answers questions and takes nothing."""

    honours_conditions = True

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def put_new(self, name: str, _data: object) -> None:
        raise _Refused(name)

    put = put_new

    def swap(self, name: str, _old: object, _new: object) -> None:
        raise _Refused(name)


@dataclass(frozen=True, slots=True)
class WorkTree:
    """The upper of *copy*, over *base* and after *parent*; `mounted` if it is mounted now."""

    name: str
    place: Place
    copy: WorkingCopy
    indexes: IndexCache
    base: Version | None
    parent: Version | None
    mounted: Mounted | None
    metadata_store_type: str
    merged: bool = False
    goal: Goal | None = None

    def commit(self, terms: Terms) -> Outcome:
        """Publish the tree, and remember what was captured.  See parts.committing.commit."""
        with self._request(self.place.store(), terms, self.goal) as request:
            result = commit(request)
        with sparing("its index"):
            for ref, index in result.indexes:
                self.indexes.add(ref, index)
        version, merged = Version(Locator.parse(result.locator), result.manifest, self.place), result.merged
        if not result.changed and self.parent is not None:
            version, merged = self.parent, self.merged
        self.remember(result.captured, str(version.locator), merged, must=result.changed and merged)
        is_new = bool(result.indexes)  # not where the others had made the very changes
        return Outcome(version, result.captured, is_new, merged, result.objects_written, result.bytes_written)

    def _keep(self, captured: Captured, locator: str, merged: bool) -> None:
        """Before the head names *locator*: what must not be lost when this process ends right after."""
        landing = self.copy.landing_path
        if self.parent is not None and version_of(landing) == _tag(str(self.parent.locator), self.merged):
            os.replace(landing, self.copy.captured_path)
        with contextlib.nullcontext() if merged else sparing("what was captured"):
            save(landing, captured, _tag(locator, merged))

    def remember(self, captured: Captured, locator: str, merged: bool, *, must: bool) -> None:
        """Keep *captured* as what the version at *locator* was made of.

        It *must* be kept where that version holds what others did: nothing else says what this tree was then.
        """
        tag = _tag(locator, merged)
        with contextlib.nullcontext() if must else sparing("what was captured"):
            if version_of(self.copy.landing_path) == tag:
                os.replace(self.copy.landing_path, self.copy.captured_path)
            else:
                save(self.copy.captured_path, captured, tag)

    def kept(self) -> list[tuple[str, bool]]:
        """Return the versions, but the parent, of which it is kept what they captured, and whether they are merged.

        Each was kept before a head was to name it.  Whether the head ever did is for the caller to find out: this
        process may have been killed in between.
        """
        tags = filter(None, map(version_of, (self.copy.landing_path, self.copy.captured_path)))
        found = [(tag.removesuffix(_MERGED), tag.endswith(_MERGED)) for tag in tags]
        return [each for each in found if self.parent is None or each[0] != str(self.parent.locator)]

    @contextlib.contextmanager
    def frozen(self, into: Store) -> Iterator[tuple[Changes, View, tuple[LayerRef, ...]]]:
        """Give what is not committed, its content in packs of *into*, the tree that it is relative to, and the layers
        with which that begins.
        """
        with self._request(self.place.store(), Terms()) as request:
            yield freeze(replace(request, store=into)), request.parent_view, request.stack

    def differs(self) -> bool:
        """Whether a commit would make a version; of a brand-new volume: whether anything is in the tree."""
        if self.parent is None:
            return any(self.copy.upper.iterdir())
        refusing: Any = _Refusing(self.place.store())
        try:
            with self._request(refusing, Terms(allow_torn=True)) as request:
                return commit(request).changed
        except _Refused:
            return True

    def changed_paths(self) -> list[str]:
        """Return the paths, as text, that have changed since the last commit; [] if a commit would make no version."""
        captured = self._captured()
        known = captured.signatures if captured is not None else {}
        if self.mounted is not None:
            self.mounted.settle()
        items = scan(self.copy.upper, self._dialect).items
        moved = {path for path, item in items.items() if known.get(path) != item.signature} | (
            known.keys() - items.keys()
        )
        if not moved or not self.differs():
            return []
        return sorted((path or b".").decode("utf-8", "backslashreplace") for path in moved)

    @property
    def _dialect(self) -> Any:
        return DIALECTS.get(self.copy.dialect, KERNEL)

    def _captured(self) -> Captured | None:
        if self.parent is None:
            return None
        tag, path, landing = (
            _tag(str(self.parent.locator), self.merged),
            self.copy.captured_path,
            self.copy.landing_path,
        )
        if landing.exists() and version_of(landing) == tag and version_of(path) != tag:
            path = landing
        return load(path, tag)

    @contextlib.contextmanager
    def _request(self, store: Store, terms: Terms, goal: Goal | None = None) -> Iterator[CommitRequest]:
        with contextlib.ExitStack() as opened:
            base_view = self._view(opened, self.base)
            as_version = translation(self.copy, base_view)
            previous = self._captured()
            shown = self.base if self.merged else self.parent
            if self.merged:
                parent_view = self._own_view(opened, base_view, previous, as_version)
            else:
                parent_view = base_view if self._at_base else self._view(opened, self.parent)
            yield CommitRequest(
                store=store,
                volume=self.name,
                root=self.copy.upper,
                dialect=self._dialect,
                mount_path=self.mounted.path if self.mounted is not None else None,
                base_view=base_view,
                base_locator=str(self.base.locator) if self.base else None,
                parent_view=parent_view,
                parent_locator=str(self.parent.locator) if self.parent else None,
                parent=self.parent.manifest if self.parent else None,
                previous=previous,
                settle=self.mounted.settle if self.mounted is not None else _nothing,
                as_version=as_version,
                message=terms.message,
                labels=terms.labels,
                produced_by=terms.action,
                region=self.place.region,
                metadata_store_type=self.metadata_store_type,
                max_uploads=terms.max_uploads,
                allow_torn=terms.allow_torn,
                torn=(b".",) if terms.torn else (),
                goal=goal if goal is None or terms.policy is None else replace(goal, policy=terms.policy),
                merged=self.merged,
                stack=shown.manifest.stack if shown else (),
                shown=self._view(opened, self.parent) if self.merged else None,
                keep=self._keep,
                progress=terms.progress,
            )

    def _own_view(
        self, opened: contextlib.ExitStack, base: View, previous: Captured | None, as_version: Translation
    ) -> View:
        """What this tree was at its last commit, whose version holds what others did as well."""
        if previous is None:
            log.warning(
                "%s: what the last commit captured is lost, so all that was written since the mount is taken for new",
                self.copy.path,
            )
            return base
        own = open_index(build_index(changes(as_version(previous.upper), base, base).rows))
        opened.callback(own.close)
        return View((*base.layers, own))

    @property
    def _at_base(self) -> bool:
        return self.base is not None and self.parent is not None and self.base.locator == self.parent.locator

    def _view(self, opened: contextlib.ExitStack, version: Version | None) -> View:
        if version is None:
            return View()
        view = open_view(self.indexes.fetch(version.place.store(), version.manifest.stack))
        opened.callback(view.close)
        return view


@contextlib.contextmanager
def sparing(what: str) -> Iterator[None]:
    """Note here what spares the next commit work.  The version exists by now: a full disk does not undo it."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        log.warning("a version was committed, but %s could not be kept on this machine: %s", what, error)


_MERGED = "#merged"


def _tag(locator: str, merged: bool) -> str:
    """How the file of what a commit captured names its version."""
    return locator + _MERGED if merged else locator


def _nothing() -> None:
    pass

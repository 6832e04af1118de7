"""Landing on a head that others move as well: three-way onto where it has gone, until the swap is won.

    rows against what the tree was ──> is the head what they build on?
                                          │ yes                │ no
                                          │                    v
                                          │          merged with what the others did
                                          v                    v
                                       manifest <──────────────┘
                                          v
                                   swap of the head ── won ──> the version
                                          │ lost: look at the head again

Why only one parent: a version that was merged onto the head follows that head and nothing else, so a named
volume's history is a line, whoever wrote at the same time.

Always true:

  1. A head names a version only when that version is whole.
  2. Nothing that others committed is undone, but where the policy says that this commit's change goes before.
  3. A manifest whose swap was lost is deleted: nobody was told of it.  One whose swap may have been won is
     kept, and the error raised.
  4. Whoever loses a swap has seen another's commit: one of any number of writers always gets on.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from volume_core.domain.changes import Changes
from volume_core.domain.merge import Policy, merge
from volume_core.domain.view import View
from volume_core.errors import ConflictError, CorruptObjectError, NotFoundError, StorageError
from volume_core.format.head import Head
from volume_core.format.manifest import LayerRef, Manifest, shared_layers
from volume_core.format.names import INTENTS, Locator, version_name
from volume_core.parts.heads import is_ancestor, move_head, read_head, require_conditions
from volume_core.parts.intents import HeldIntent
from volume_core.parts.publishing import About, Parent, Published, publish_changes
from volume_core.storage.protocol import Store

log = logging.getLogger(__name__)

# Who loses a swap waits a random part of this, doubled each time: writers that met once do not meet again.
PAUSE_S = 0.02
PAUSE_MAX_S = 1.0
_PATHS_SHOWN_MAX = 10
_MARK_CHARACTERS = 8  # of the commit's intent, in the name of a file that is kept beside another

LandingPolicy = Literal["last-write-wins", "error", "keep-both"]
LANDING_POLICIES: tuple[LandingPolicy, ...] = ("last-write-wins", "error", "keep-both")


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """The head of a named volume, which a commit is to move.

    `policy` decides where this commit and others changed the same path.  `guard` is called after the head was
    read and before it is swapped, and raises where the writer lost the right to (a lock that has lapsed).
    `token` is that of its lock, 0 without one.  `open_view` opens the tree that a manifest's stack shows; `why` is
    for the head's history.
    """

    open_view: Callable[[Manifest], View]
    policy: LandingPolicy = "last-write-wins"
    guard: Callable[[], None] = lambda: None
    token: int = 0
    why: str = "commit"


class Built(NamedTuple):
    """What a commit's rows build on.

    `parent` is the version that this writer landed last, or began with; None before the first.  `tree` is what
    the rows are relative to: the parent's tree, or, where that version holds what others did (`merged`), this
    writer's own part of it.  `stack` are the layers, oldest first, with which `tree` begins.
    """

    parent: Parent | None
    tree: View
    merged: bool = False
    stack: tuple[LayerRef, ...] = ()


class Landed(NamedTuple):
    """Where a commit landed: `published` is None where the others had made the very changes.

    `merged` says that the version holds what others did as well.
    """

    manifest: Manifest
    locator: str
    published: Published | None
    merged: bool


def land(
    store: Store,
    intent: HeldIntent,
    volume: str,
    delta: Changes,
    built: Built,
    about: About,
    goal: Goal,
    *,
    protected: tuple[str, ...] = (),
    keep: Callable[[str, bool], None] = lambda _locator, _merged: None,
) -> Landed:
    """Publish *delta* on the head of *volume*, wherever others have moved it, and move it on; return the version.

    *delta*, sealed, is what *built* was built on for.  *keep* is called with the locator of each version, and
    whether it is merged, before the head is asked to name it: what must not be lost when this process ends
    right after.  Raises ConflictError with the paths where the policy is `error` and the same paths were
    changed, or where the lock was lost; NotFoundError where the volume was deleted; StorageError.
    Nothing was published then, but for a swap that failed with a StorageError: it may have been won.
    """
    require_conditions(store, "named heads")  # before anything is published
    landing = _Landing(store, intent, volume, delta, built, about, goal, protected, keep)
    try:
        return landing.run()
    finally:
        landing.delete_lost()


class _Onto(NamedTuple):
    """A delta against the head's version."""

    delta: Changes
    parent: Parent | None
    merged: bool


class _Landing:
    def __init__(
        self,
        store: Store,
        intent: HeldIntent,
        volume: str,
        delta: Changes,
        built: Built,
        about: About,
        goal: Goal,
        protected: tuple[str, ...],
        keep: Callable[[str, bool], None],
    ) -> None:
        self._store = store
        self._intent = intent
        self._volume = volume
        self._delta = delta
        self._built = built
        self._about = about
        self._goal = goal
        self._protected = protected
        self._keep = keep
        self._lost: list[str] = []

    def run(self) -> Landed:
        pause_s = PAUSE_S
        while True:
            head = read_head(self._store, self._volume)
            with contextlib.ExitStack() as opened:
                onto = self._onto(head, opened)
                if onto.parent is not None and not onto.delta.rows:
                    return Landed(onto.parent.manifest, onto.parent.locator, None, onto.merged)
                published = publish_changes(
                    self._store, self._intent, self._volume, onto.delta, onto.parent, self._about,
                    protected=self._protected,
                )  # fmt: skip
            if self._wins(head, published, onto.merged):
                return Landed(published.manifest, published.locator, published, onto.merged)
            time.sleep(random.uniform(0, pause_s))
            pause_s = min(2 * pause_s, PAUSE_MAX_S)

    def _wins(self, head: Head | None, published: Published, merged: bool) -> bool:
        version = Locator.parse(published.locator).version
        swapping = False
        try:
            self._keep(published.locator, merged)
            self._goal.guard()
            swapping = True
            why = self._goal.why if head is not None else "create"
            action, token = self._about.produced_by, self._goal.token
            move_head(self._store, self._volume, head, version, why, action=action, token=token)
        except ConflictError:
            if swapping and self._is_named(version):
                return True  # by another, who made the very same version
            self._lost.append(published.locator)
            if not swapping:
                raise
            log.debug("the head of %s has moved meanwhile: %s is merged onto it", self._volume, version)
            return False
        except BaseException:
            if not swapping:
                self._lost.append(published.locator)
            raise
        return True

    def _is_named(self, version: str) -> bool:
        now = read_head(self._store, self._volume)
        return now is not None and any(move.version == version for move in now.history)

    # -- onto the head

    def _onto(self, head: Head | None, opened: contextlib.ExitStack) -> _Onto:
        """Return this commit's delta against the version that *head* names."""
        built, parent = self._built, self._built.parent
        if head is None:
            if parent is not None:
                raise NotFoundError(
                    f"the volume {self._volume!r} has no head in {self._store.url} any more: it was deleted after "
                    f"{parent.locator} was opened; what is not committed can be forked to a volume of another name"
                )
            return _Onto(self._delta, None, merged=False)
        if not built.merged and parent is not None and self._locator(head) == parent.locator:
            return _Onto(self._delta, parent, merged=False)
        theirs = self._version(head, opened)
        merged = merge(
            self._delta.rows, built.tree, theirs.view, Policy(self._goal.policy),
            totals=(theirs.manifest.used_bytes, theirs.manifest.inode_count),
            shared=shared_layers(built.stack, theirs.manifest.stack),
            mark=self._intent.name.removeprefix(INTENTS)[:_MARK_CHARACTERS].encode(),
        )  # fmt: skip
        if merged.conflicts and self._goal.policy == "error":
            raise conflict(self._volume, theirs.locator, [each.path for each in merged.conflicts])
        return _Onto(Changes(merged.rows, merged.used_bytes, merged.inode_count), theirs, merged=True)

    def _locator(self, head: Head) -> str:
        return str(Locator(self._store.url, self._volume, head.version))

    def _version(self, head: Head, opened: contextlib.ExitStack) -> Parent:
        locator = self._locator(head)
        parent = self._built.parent
        if parent is not None and locator == parent.locator:
            manifest = parent.manifest
        else:
            manifest = Manifest.from_bytes(head.version, self._store.get(version_name(self._volume, head.version)))
        # The rows will name nothing of this version's packs, but the stack will: it is not to go meanwhile.
        self._intent.include(locator)
        view = self._goal.open_view(manifest)
        opened.callback(view.close)
        return Parent(locator, manifest, view)

    # -- afterwards

    def delete_lost(self) -> None:
        """Delete the manifests that nobody was told of and no head names.

        Two writers that make one change at one instant make one manifest: the head, and what it came from, are asked.
        """
        if not self._lost:
            return
        try:
            head = read_head(self._store, self._volume)
            for lost in map(Locator.parse, dict.fromkeys(self._lost)):
                if head is None or not is_ancestor(self._store, lost, lost._replace(version=head.version)):
                    self._store.delete(version_name(self._volume, lost.version))
        except (StorageError, CorruptObjectError) as error:
            # They name whole objects and are named by nothing: `log` follows heads and parents.
            log.info("manifests of %s that lost their swaps could not be deleted: %s", self._volume, error)


def conflict(volume: str, locator: str, paths: list[bytes]) -> ConflictError:
    """Return the error that says which *paths* both this writer and the version at *locator* have changed."""
    shown = [os.fsdecode(path) for path in sorted(paths)]
    named = ", ".join(shown[:_PATHS_SHOWN_MAX]) + (", ..." if len(shown) > _PATHS_SHOWN_MAX else "")
    return ConflictError(
        f"volume {volume!r} was changed meanwhile ({locator}), and so were the same paths: {named}; nothing was "
        "published, and what is not committed is as it was: reload and look, or commit with another policy",
        paths=shown,
    )

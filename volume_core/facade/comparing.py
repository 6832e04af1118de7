"""Two versions side by side: what differs, and a version that undoes what came since another.

Always true: no file data is read; where the stacks of two versions share layers, or deltas say what was
changed on the way from the one to the other, only those are looked at.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from volume_core.domain.changes import Changes
from volume_core.domain.diff import ChangeKind, LayerRow, PathChange, path_changes, rows_between
from volume_core.domain.view import View
from volume_core.errors import ConflictError
from volume_core.facade.ancestry import Ancestry
from volume_core.facade.fileentries import FileEntry, entry_from
from volume_core.facade.handles import HandledRecord
from volume_core.facade.heads import announce
from volume_core.facade.twins import awaitable
from volume_core.facade.versions import Version
from volume_core.format.layer import LayerReader
from volume_core.format.manifest import LayerRef, shared_layers
from volume_core.format.names import Locator
from volume_core.parts.indexes import IndexCache, build_index, open_index, open_layer, open_view
from volume_core.parts.intents import HeldIntent
from volume_core.parts.publishing import About, Parent, publish_changes
from volume_core.parts.state import State
from volume_core.plugins.manager import plugins

if TYPE_CHECKING:
    from volume_core.volumes import ROVolume

# So many rows are compared sooner than a history is read from a store.
_ROWS_FEW = 20_000


class Difference(NamedTuple):
    """One path that differs between two versions.

    `path` is relative to the volume's root, as text (undecodable bytes escaped as by `os.fsdecode`); "" is the
    root.  `before` is None where it was added, `after` where it was removed.
    """

    path: str
    kind: ChangeKind
    before: FileEntry | None
    after: FileEntry | None

    @classmethod
    def of(cls, change: PathChange) -> Difference:
        """Return *change* as the facade tells it."""
        path, kind, *sides = change
        before, after = (entry_from(path, entry) if entry is not None else None for entry in sides)
        return cls(before.path if before else after.path if after else "", kind, before, after)

    @property
    def metadata(self) -> str:
        """What of the metadata differs, for people; "" where more than that does."""
        if self.kind is not ChangeKind.METADATA or self.before is None or self.after is None:
            return ""
        parts = []
        if self.before.mode != self.after.mode:
            parts.append(f"mode {self.before.mode:04o} -> {self.after.mode:04o}")
        owners = [f"{side.uid}:{side.gid}" for side in (self.before, self.after)]
        if owners[0] != owners[1]:
            parts.append(f"owner {owners[0]} -> {owners[1]}")
        if self.before.mtime_ns != self.after.mtime_ns:
            parts.append("time")
        return ", ".join(parts) or "xattrs or links"


class Trees(NamedTuple):
    """Two versions' views, and where they can differ: `shared` and `within` as rows_between has them."""

    before: View
    after: View
    shared: int
    within: tuple[LayerReader, ...] | None

    def rows(self) -> list[LayerRow]:
        """Return what turns the first into the second."""
        return rows_between(self.before, self.after, self.shared, within=self.within)


class Opened:
    """Indexes of versions, each fetched and opened once; closed together.  Used by one thread at a time."""

    def __init__(self, ancestry: Ancestry | None = None) -> None:
        self.ancestry = ancestry or Ancestry()
        self._cache = IndexCache(State.default().prepare().cache)
        self._views: dict[str, View] = {}
        self._trees: dict[tuple[str, str], Trees] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def prepare(self, versions: Iterable[Version]) -> None:
        """Open the views of *versions*: what is not here is fetched at once, what they share is verified once."""
        wanted = {str(v.locator): v for v in versions if str(v.locator) not in self._views}
        for url in {version.place.url for version in wanted.values()}:
            here = [version for version in wanted.values() if version.place.url == url]
            store = here[0].place.store()
            paths = iter(self._cache.fetch(store, [ref for version in here for ref in version.manifest.stack]))
            for version in here:
                view = open_view([next(paths) for _ in version.manifest.stack])
                self._stack.callback(view.close)
                self._views[str(version.locator)] = view

    def view(self, version: Version) -> View:
        """Return the tree that *version* shows."""
        self.prepare([version])
        return self._views[str(version.locator)]

    def layers(self, version: Version, refs: Sequence[LayerRef]) -> list[LayerReader]:
        """Return layers that lie in *version*'s store."""
        readers = []
        for path in self._cache.fetch(version.place.store(), refs):
            readers.append(layer := open_layer(path))
            self._stack.callback(layer.close)
        return readers

    def own(self, rows: Sequence[LayerRow]) -> LayerReader:
        """Return *rows* as a layer in memory."""
        layer = open_index(build_index(rows))
        self._stack.callback(layer.close)
        return layer

    def trees(self, before: Version, after: Version, *, step_by_step: bool = False) -> Trees:
        """Return the trees of two versions, to be compared at as few places as can be.

        With *step_by_step*, for a merge, what happened on the way from *before* counts, if it can be known: a
        directory whose files were removed one by one was not replaced.
        """
        key = str(before.locator), str(after.locator)
        if key not in self._trees:
            self.prepare([before, after])
            shared = shared_layers(before.manifest.stack, after.manifest.stack)
            within = self._within(before, after, shared, step_by_step)
            self._trees[key] = Trees(self.view(before), self.view(after), shared, within)
        return self._trees[key]

    def _within(
        self, before: Version, after: Version, shared: int, step_by_step: bool
    ) -> tuple[LayerReader, ...] | None:
        """The deltas on the way from *before* to *after*, where they say more than the layers that are not shared."""
        stacks = before.manifest.stack, after.manifest.stack
        rows = sum(ref.rows for stack in stacks for ref in stack[shared:])
        if before.place.url != after.place.url or shared == min(map(len, stacks)):
            return None
        if rows <= _ROWS_FEW and not step_by_step:
            return None
        deltas = self.ancestry.deltas(before, after, max(rows // 2, _ROWS_FEW))
        return tuple(self.layers(after, deltas)) if deltas is not None else None


def differences(before: Version, after: Version) -> list[PathChange]:
    """Return every path at which two versions differ, sorted."""
    if before.manifest.stack == after.manifest.stack:
        return []
    with Opened() as opened:
        trees = opened.trees(before, after)
        return path_changes(trees.before, trees.rows())


def reverted(
    version: Version,
    to: Version,
    message: str = "",
    labels: Mapping[str, str] | None = None,
    *,
    name: str | None = None,
) -> tuple[Version, bool]:
    """Publish a version that follows *version* and shows what *to* shows; (*version*, False) where that shows it.

    It is one of the volume *name* (default: *version*'s).  Its layers are those of *to*: what it costs is
    what it changes.  To tell the hooks of it is the caller's.
    """
    require_one_store([version, to])
    with Opened() as opened:
        trees = opened.trees(version, to)
        rows = trees.rows()
        if not rows and name in {None, version.manifest.volume}:
            return version, False
        volume = name or version.manifest.volume
        delta = Changes(rows, to.manifest.used_bytes, to.manifest.inode_count)
        about = about_of([version], message, labels or {}, torn=to.manifest.torn)
        store = version.place.store()
        versions = [str(version.locator), str(to.locator)]
        with HeldIntent(store, volume, versions) as intent:
            published = publish_changes(
                store, intent, volume, delta, Parent(versions[0], version.manifest, trees.before), about,
                protected=versions, stack=to.manifest.stack,
            )  # fmt: skip
    keep_indexes(published.indexes)
    return Version(Locator.parse(published.locator), published.manifest, version.place), True


def about_of(
    versions: Sequence[Version], message: str, labels: Mapping[str, str], *, torn: Iterable[str] | None = None
) -> About:
    """Return what a version made of *versions*, without a working copy, says about itself."""
    first = versions[0].manifest
    if torn is None:
        torn = dict.fromkeys(path for version in versions for path in version.manifest.torn)
    return About(
        message=message,
        labels=labels,
        produced_by=plugins().current_task(),
        region=first.region,
        metadata_store_type=first.metadata_store_type,
        torn_before=tuple(torn),
    )


def keep_indexes(indexes: Iterable[tuple[LayerRef, bytes]]) -> None:
    """Keep layers that were just made: what was just written need not be fetched."""
    cache = IndexCache(State.default().prepare().cache)
    for ref, index in indexes:
        cache.add(ref, index)


def require_one_store(versions: Sequence[Version]) -> None:
    """Raise ConflictError unless all *versions* lie in one store: a version names chunks of its own store only."""
    stores = list(dict.fromkeys(version.locator.store for version in versions))
    if len(stores) > 1:
        raise ConflictError(
            f"versions of several stores cannot be made one: {', '.join(stores)}; copy them into one store first"
        )


class Compares(HandledRecord):
    """The side of a version that knows others."""

    def diff_sync(self, other: ROVolume) -> list[Difference]:
        """Return what turns this version into *other*, sorted by path.

        What is added or removed with its directory is told path by path.  The cost is what differs, not the
        size of the volume, where one came from the other or both from a third.
        """
        before, after = self._locked_version(), other._locked_version()
        return [Difference.of(change) for change in differences(before, after)]

    diff = awaitable(diff_sync)

    def revert_sync(self, to: ROVolume, *, message: str = "", labels: Mapping[str, str] | None = None) -> ROVolume:
        """Return a version that follows this one and shows what *to* shows; this one, where that is the same tree.

        Nothing is lost: this version stays a parent.  No file is copied.  Raises ConflictError if *to* lies in
        another store.
        """
        made, is_new = reverted(self._locked_version(), to._locked_version(), message, labels)
        found = self._of_version(made)
        if is_new:
            announce(found, made)
        return found

    revert = awaitable(revert_sync)

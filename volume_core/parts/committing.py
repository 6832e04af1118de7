"""Turning what a working tree changed into a version: the order is the guarantee.

    1. intent     "a commit is in progress"      prune keeps its hands off what follows
    2. packs      the bytes                      nothing names them yet
    3. layers     name the packs                 nothing names them yet
    4. manifest   names the layers               <- the commit point; before it, nothing happened
    5. head       names the manifest             of a named volume: <- its commit point (parts/landing.py)
    6. the intent is removed

A crash before 4 leaves only objects that nothing names; prune removes them when the intent has
lapsed.  A crash after 4 leaves a whole version.  There is no state between.  docs/durability.md tells
the same story to users and must change with this file.

Always true:

  1. A tree that is as its parent is the parent's version: no object is written, the intent neither.
  2. A commit that raises has published nothing, but for one case that no client can tell: see
     parts/publishing.py, which takes the steps 3 and 4.
  3. Nothing here touches the working tree, and no state of this machine: the caller keeps `captured`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from volume_core.domain.changes import EMPTY_TOTALS, Changes, Upper, changes
from volume_core.domain.view import View
from volume_core.errors import CorruptObjectError
from volume_core.format.entries import ChunkRef, Extent
from volume_core.format.manifest import Action, LayerRef, Manifest
from volume_core.format.names import Locator
from volume_core.parts.capturing import Captured, capture
from volume_core.parts.dialects import Dialect
from volume_core.parts.intents import HeldIntent
from volume_core.parts.landing import Built, Goal, Landed, land
from volume_core.parts.packing import MAX_UPLOADS, Compression, Packer
from volume_core.parts.progress import Progress
from volume_core.parts.publishing import About, Parent, publish_changes
from volume_core.storage.protocol import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitRequest:
    """One working tree, what it stands on, and what its version shall say.

    `root` is the upper (of the copy driver: the tree) in `dialect`; `mount_path` is where it is
    mounted, if it is.  `base_view` shows the version it is mounted over, `parent_view` the one the new
    version follows: the base, or this working copy's own last commit.  Locators and `parent` are None,
    and the views empty, before the first commit.

    `previous` is what the last commit captured (the result's `captured`): what did not change since is
    not read.  Where `parent` is not the base it must be that commit's, or None, which costs a
    comparison of the whole tree.

    `settle` is called before the tree is scanned and before the scans are compared for the last time
    (Mounted.settle); `as_version` turns a scan of the tree into the version's terms (Achieved.as_version).
    `torn` are paths known to be torn before they are read (an upper that a crash of the machine left).
    `clock` gives ns since 1970.

    `goal` is the head that the version is to land on, None for a line of its own (parts/landing.py).  With
    `merged` the parent holds what others did as well, and `parent_view` is what the tree was at that commit.
    `stack` are the layers with which `parent_view` begins, and `shown` is what the parent does show then.
    `keep` is called, with a `goal`, before the head names the version: see landing.land.  `progress` is told how far
    the contents are.
    """

    store: Store
    volume: str
    root: Path
    dialect: Dialect
    mount_path: Path | None = None
    base_view: View = field(default_factory=View)
    base_locator: str | None = None
    parent_view: View = field(default_factory=View)
    parent_locator: str | None = None
    parent: Manifest | None = None
    previous: Captured | None = None
    settle: Callable[[], None] = lambda: None
    as_version: Callable[[Mapping[bytes, Upper]], Mapping[bytes, Upper]] = lambda upper: upper
    message: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    produced_by: Action | None = None
    region: str | None = None
    metadata_store_type: str = "sqlite"
    compression: Compression = "auto"
    max_uploads: int = MAX_UPLOADS
    allow_torn: bool = False
    torn: tuple[bytes, ...] = ()
    clock: Callable[[], int] = time.time_ns
    goal: Goal | None = None
    merged: bool = False
    stack: tuple[LayerRef, ...] = ()
    shown: View | None = None
    keep: Callable[[Captured, str, bool], None] = lambda _captured, _locator, _merged: None
    progress: Progress = field(default_factory=Progress)


@dataclass(frozen=True, slots=True)
class CommitResult:
    """The version the tree now is.  `changed` is False where that is the parent, which then comes back as it was.

    `merged`: the version holds what others committed as well, so the tree is not all of it.  `captured` is for
    the caller to keep, now that the version exists.  `indexes` are the layers made here, for IndexCache.add:
    what was just written need not be fetched.
    """

    manifest: Manifest
    locator: str
    captured: Captured
    changed: bool = True
    merged: bool = False
    rows: int = 0
    packs_written: int = 0
    objects_written: int = 0
    bytes_written: int = 0
    indexes: tuple[tuple[LayerRef, bytes], ...] = ()


def commit(request: CommitRequest) -> CommitResult:
    """Publish what *request*'s tree is as a version, or return its parent where nothing changed.

    Raises BusyError naming the paths that kept changing, StorageError where the store failed or the
    intent was lost, NotFoundError where the base or the parent is gone; nothing was published then.
    ValueError: base or parent lie in another store.
    """
    versions = [locator for locator in (request.base_locator, request.parent_locator) if locator]
    for locator in versions:
        if Locator.parse(locator).store != request.store.url:
            raise ValueError(f"{locator} is not in {request.store.url}, and the new version would name its packs")
    with (
        HeldIntent(request.store, request.volume, versions, clock=request.clock) as intent,
        Packer(request.store, _known(request), request.compression, request.max_uploads, intent.begin) as packer,
    ):
        request.progress.watch(packer)
        captured = _capture(request, packer)
        delta = _difference(request, captured)
        if not delta.rows and request.parent is not None and request.parent_locator is not None:
            return CommitResult(request.parent, request.parent_locator, captured, changed=False)
        packer.finish()
        captured = captured.sealed(packer.seal)
        delta = delta._replace(rows=[(where, name, packer.seal(entry)) for where, name, entry in delta.rows])
        return _published(request, intent, packer, delta, captured, tuple(dict.fromkeys(versions)))


def freeze(request: CommitRequest) -> Changes:
    """Return what *request*'s tree changes, its new content in packs of the request's store; publish nothing.

    For a store of this machine, from which the changes are taken again.  Raises as commit does.
    """
    with Packer(request.store, _known(request), "none", request.max_uploads) as packer:
        captured = _capture(request, packer)
        delta = _difference(request, captured)
        packer.finish()
        return delta._replace(rows=[(where, name, packer.seal(entry)) for where, name, entry in delta.rows])


def _published(
    request: CommitRequest,
    intent: HeldIntent,
    packer: Packer,
    delta: Changes,
    captured: Captured,
    versions: tuple[str, ...],
) -> CommitResult:
    """Publish *delta*, sealed, on the request's own line or on the head it is to land on."""
    about, parent = _about(request, captured), _parent(request)
    if request.goal is None:
        published = publish_changes(request.store, intent, request.volume, delta, parent, about, protected=versions)
        landed = Landed(published.manifest, published.locator, published, merged=False)
    else:
        built = Built(parent, request.parent_view, request.merged, request.stack)
        landed = land(
            request.store, intent, request.volume, delta, built, about, request.goal,
            protected=versions, keep=lambda locator, merged: request.keep(captured, locator, merged),
        )  # fmt: skip
    written = landed.published
    return CommitResult(
        landed.manifest,
        landed.locator,
        captured,
        changed=True,
        merged=landed.merged,
        rows=len(delta.rows),
        packs_written=packer.packs_written,
        objects_written=packer.packs_written + (written.objects_written if written else 0),
        bytes_written=packer.bytes_written + (written.bytes_written if written else 0),
        indexes=written.indexes if written else (),
    )


def _parent(request: CommitRequest) -> Parent | None:
    if request.parent is None or request.parent_locator is None:
        return None
    return Parent(request.parent_locator, request.parent, request.parent_view)


def _about(request: CommitRequest, captured: Captured) -> About:
    return About(
        message=request.message,
        labels=request.labels,
        produced_by=request.produced_by,
        region=request.region,
        metadata_store_type=request.metadata_store_type,
        torn=(*request.torn, *captured.torn),
        clock=request.clock,
    )


# -- what changed


def _known(request: CommitRequest) -> Callable[[bytes], ChunkRef | None]:
    """Finds chunks of the parent and of the base: the intent protects both, and nothing else."""
    views = [request.shown or request.parent_view]
    if request.base_locator != request.parent_locator:
        views.append(request.base_view)
    if not any(view.layers for view in views):
        return lambda _digest: None  # a first version asks this for each file

    def known(digest: bytes) -> ChunkRef | None:
        for view in views:
            found = view.chunk(digest)
            if found is not None:
                return found
        return None

    return known


def _capture(request: CommitRequest, packer: Packer) -> Captured:
    def base_content(path: bytes) -> tuple[Extent, ...]:
        node = request.base_view.resolve(path)
        if node is None:
            raise CorruptObjectError(
                f"{request.root} keeps the content of {path!r}, which its base has not: it was not made over this base"
            )
        return request.base_view.extents(node)

    return capture(
        request.root,
        request.dialect,
        packer.read,
        base_content,
        request.previous,
        allow_torn=request.allow_torn,
        mount_path=request.mount_path,
        settle=request.settle,
        expect=request.progress.expect,
    )


def _difference(request: CommitRequest, captured: Captured) -> Changes:
    totals = (request.parent.used_bytes, request.parent.inode_count) if request.parent else EMPTY_TOTALS
    upper = request.as_version(captured.upper)
    return changes(upper, request.base_view, request.parent_view, _made_parent(request), totals)


def _made_parent(request: CommitRequest) -> Mapping[bytes, Upper] | None:
    """What the parent was made of, where it is not the base."""
    if request.parent_locator == request.base_locator:
        return None
    if request.previous is not None:
        return request.as_version(request.previous.upper)
    # Unknown: nothing of the base is then taken to show through, so that everything is compared.
    return {b"": Upper(request.parent_view.entry(request.parent_view.root), None)}

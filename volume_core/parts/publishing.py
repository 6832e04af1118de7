"""From the rows of a delta to a version: layers, then the manifest.  The last steps of every commit.

Always true:

  1. Right before the manifest the intent is known to be alive and the versions it names to be there, as
     they were when it was written, for it protects them; where that is not so, nothing is published.
  2. The stack shows the first parent's tree with the rows on top of it, and nothing else: further parents
     are named for those who ask what came from where.
  3. What raises has published nothing, but for one case that no client can tell: the store took the
     manifest and then failed.  Such a version is whole, and committing again is right.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from volume_core.domain.changes import Changes
from volume_core.domain.view import View
from volume_core.errors import NotFoundError, StorageError
from volume_core.format.entries import Entry
from volume_core.format.manifest import Action, LayerRef, Manifest
from volume_core.format.names import Locator, layer_name, version_name
from volume_core.parts.compacting import merged_rows, needs_compaction
from volume_core.parts.indexes import build_index, open_index, pack_index
from volume_core.parts.intents import HeldIntent, iso_utc
from volume_core.storage.protocol import Store

log = logging.getLogger(__name__)

LayerRow = tuple[bytes, bytes, Entry]  # directory, name, entry: see write_layer


class Parent(NamedTuple):
    """The version that a new one follows: its locator, its manifest, and the tree it shows."""

    locator: str
    manifest: Manifest
    view: View


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a version says about itself besides its tree.

    `torn` are the paths that kept changing while they were read, `torn_before` those that the manifests of
    other versions name whose content is in this one; `clock` gives ns since 1970.
    """

    message: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    produced_by: Action | None = None
    region: str | None = None
    metadata_store_type: str = "sqlite"
    torn: tuple[bytes, ...] = ()
    torn_before: tuple[str, ...] = ()
    clock: Callable[[], int] = time.time_ns


@dataclass(frozen=True, slots=True)
class Published:
    """A version that was just published.

    `indexes` are the layers made for it, for IndexCache.add: what was just written need not be fetched.
    `objects_written` and `bytes_written` are of the layers and the manifest; packs are their packer's.
    """

    manifest: Manifest
    locator: str
    objects_written: int
    bytes_written: int
    indexes: tuple[tuple[LayerRef, bytes], ...]


def publish_changes(
    store: Store,
    intent: HeldIntent,
    volume: str,
    delta: Changes,
    parent: Parent | None,
    about: About,
    *,
    further_parents: tuple[str, ...] = (),
    protected: Iterable[str] = (),
    stack: tuple[LayerRef, ...] | None = None,
) -> Published:
    """Publish the version of *volume* whose tree is *parent*'s with *delta* on top, and return it.

    Every chunk that *delta*'s rows name lies in a sealed pack of *store* which *intent* protects, or in one
    that *parent* or one of *protected* (locators, which *intent* names too) needs.  *stack*, where given, are
    layers of one of *protected* that show the very tree that is published.  Raises NotFoundError
    where one of these versions is gone, StorageError where the store failed or the intent was lost.
    """
    layers = _layers(delta.rows, parent) if stack is None else [_layer(delta.rows)]
    written = {layer.ref: layer.stored for layer in layers}  # a merged layer may be equal to the delta
    for ref, stored in written.items():
        intent.begin()
        store.put_new(layer_name(ref.digest), stored)
    manifest = _manifest(volume, delta, layers, parent, about, further_parents, stack)
    needed = (*((parent.locator,) if parent else ()), *further_parents, *protected)
    locator = publish(store, intent, dict.fromkeys(needed), manifest)
    return Published(
        manifest,
        locator,
        len(written) + 1,
        sum(map(len, written.values())),
        tuple((layer.ref, layer.index) for layer in layers),
    )


@dataclass(frozen=True, slots=True)
class _Layer:
    ref: LayerRef
    stored: bytes
    index: bytes


def _layers(rows: Iterable[LayerRow], parent: Parent | None) -> list[_Layer]:
    """The delta, and after it the merged layer where the stack has grown too costly to mount."""
    delta = _layer(rows)
    stack = (*parent.manifest.stack, delta.ref) if parent else (delta.ref,)
    if not needs_compaction(stack):
        return [delta]
    reader = open_index(delta.index)
    try:
        older = parent.view.layers if parent else ()
        return [delta, _layer(merged_rows(View((*older, reader))))]
    finally:
        reader.close()


def _layer(rows: Iterable[LayerRow]) -> _Layer:
    index = build_index(rows)
    stored, ref = pack_index(index)
    return _Layer(ref, stored, index)


def _manifest(
    volume: str,
    delta: Changes,
    layers: list[_Layer],
    parent: Parent | None,
    about: About,
    further_parents: tuple[str, ...],
    stack: tuple[LayerRef, ...] | None,
) -> Manifest:
    older = parent.manifest.stack if parent else ()
    if stack is None:
        stack = (layers[1].ref,) if len(layers) > 1 else (*older, layers[0].ref)
    return Manifest(
        volume=volume,
        created_at=iso_utc(about.clock()),
        stack=stack,
        delta=layers[0].ref,
        parents=(*((parent.locator,) if parent else ()), *further_parents),
        message=as_text(about.message),
        used_bytes=delta.used_bytes,
        inode_count=delta.inode_count,
        metadata_store_type=about.metadata_store_type,
        region=about.region,
        produced_by=about.produced_by,
        parent_produced_by=parent.manifest.produced_by if parent else None,
        labels={as_text(key): as_text(value) for key, value in sorted(about.labels.items())},
        torn=tuple(dict.fromkeys((*map(path_text, about.torn), *about.torn_before))),
    )


def as_text(text: str) -> str:
    """*text* with lone surrogates, which stand for bytes that are no text, spelled out: JSON readers refuse them."""
    return text.encode("utf-8", "backslashreplace").decode()


def path_text(path: bytes) -> str:
    r"""Any path as text that no other has: bytes that are no UTF-8 as \xNN, a backslash twice, the root as "."."""
    return (path or b".").replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")


def publish(store: Store, intent: HeldIntent, versions: Iterable[str], manifest: Manifest) -> str:
    """Store *manifest*, whose objects *intent* protects, if that is alive and *versions* are there; return its locator.

    Raises NotFoundError where one of *versions* was deleted, StorageError where the intent was lost.
    """
    name = version_name(manifest.volume, manifest.version)
    for locator in versions:
        _require(store, manifest.volume, Locator.parse(locator))
    intent.check()
    store.put_new(name, manifest.to_bytes())
    if intent.has_lapsed():
        # The machine slept between the check and here for longer than the intent lives: prune may have
        # come by in between.  Nobody was told of this version.
        store.delete(name)
        raise StorageError(
            f"{name} was taken back: its commit was stopped for longer than its intent lives; commit again",
            transient=True,
        )
    log.debug("committed %s", name)
    return str(Locator(store.url, manifest.volume, manifest.version))


def _require(store: Store, volume: str, version: Locator) -> None:
    try:
        store.info(version_name(version.volume, version.version))
    except NotFoundError as error:
        raise NotFoundError(
            f"{version}, which this commit of {volume!r} builds on, was deleted: its chunks may be pruned, so "
            "nothing was published; what is not committed is still in the working copy"
        ) from error

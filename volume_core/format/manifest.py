"""The manifest: one immutable version of a volume, as JSON with sorted keys.

Its name is the hash of its bytes, and it names every layer with digest and size: from a manifest's
name everything below it can be verified.  docs/format/manifest.md has the fields.

Always true: `to_bytes` is a function of the values alone, so one version has one spelling.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from volume_core.errors import CorruptObjectError
from volume_core.format.digests import hex_digest, is_hex_digest, verify
from volume_core.format.names import validate_name

FORMAT = "volume-manifest/1"  # DO NOT CHANGE: on disk


@dataclass(frozen=True, slots=True)
class Action:
    """Who made a version: the task of an engine.  Every field is text, "" where unknown."""

    engine: str = ""
    org: str = ""
    project: str = ""
    domain: str = ""
    run: str = ""
    action: str = ""
    attempt: str = ""
    url: str = ""


@dataclass(frozen=True, slots=True)
class LayerRef:
    """A layer by name: `digest` and `size_bytes` of the stored object, `index_digest` and
    `index_bytes` of the SQLite file inside, `rows` entries in it."""

    digest: str
    size_bytes: int
    index_digest: str
    index_bytes: int
    rows: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """One version.  `stack` is what a mount shows, oldest layer first; `delta` what changed
    against the first parent (None only where nothing did, as in a renamed line)."""

    volume: str
    created_at: str
    stack: tuple[LayerRef, ...] = ()
    delta: LayerRef | None = None
    parents: tuple[str, ...] = ()
    message: str = ""
    used_bytes: int = 0
    inode_count: int = 0
    metadata_store_type: str = "sqlite"
    region: str | None = None
    produced_by: Action | None = None
    parent_produced_by: Action | None = None
    labels: dict[str, str] = field(default_factory=dict)
    torn: tuple[str, ...] = ()

    @property
    def index_bytes(self) -> int:
        """Size of the stack's indexes when unpacked, in bytes: what a mount needs in its cache."""
        return sum(layer.index_bytes for layer in self.stack)

    def to_bytes(self) -> bytes:
        """Return the one JSON spelling of this version."""
        fields = {**dataclasses.asdict(self), "format": FORMAT, "index_bytes": self.index_bytes}
        return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()

    @property
    def version(self) -> str:
        """The version's id: the hash of its manifest."""
        return hex_digest(self.to_bytes())

    @classmethod
    def from_bytes(cls, version: str, data: bytes) -> Self:
        """Decode *data*, which was stored as *version*.

        Raises CorruptObjectError if the bytes do not hash to their name, or are not a manifest this
        release reads.
        """
        verify(f"manifest {version}", data, version)
        try:
            manifest = cls._decode(json.loads(data))
            if manifest.to_bytes() != data:
                raise ValueError("it is not spelled as a manifest is")
            return manifest
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise CorruptObjectError(f"manifest {version}: not a {FORMAT} manifest ({error})") from error

    @classmethod
    def _decode(cls, fields: dict[str, Any]) -> Self:
        if (found := fields.pop("format")) != FORMAT:
            raise ValueError(f"its format is {found!r}; a newer release may read it")
        index_bytes = fields.pop("index_bytes")
        fields["stack"] = tuple(_layer(layer) for layer in fields["stack"])
        fields["delta"] = _layer(fields["delta"]) if fields["delta"] else None
        for key in ("parents", "torn"):
            fields[key] = tuple(fields[key])
        for key in ("produced_by", "parent_produced_by"):
            fields[key] = Action(**fields[key]) if fields[key] else None
        manifest = cls(**fields)
        manifest._check_types()
        if manifest.index_bytes != index_bytes:
            raise ValueError("index_bytes is not the sum over the stack")
        return manifest

    def _check_types(self) -> None:
        """Raise ValueError unless every field is what its annotation says: JSON can say anything."""
        validate_name(self.volume)
        texts = [self.created_at, self.message, self.metadata_store_type, *self.parents, *self.torn]
        texts += [*self.labels.keys(), *self.labels.values()] + ([] if self.region is None else [self.region])
        for action in filter(None, (self.produced_by, self.parent_produced_by)):
            texts.extend(dataclasses.astuple(action))
        numbers = [self.used_bytes, self.inode_count]
        for layer in filter(None, (*self.stack, self.delta)):
            numbers += [layer.size_bytes, layer.index_bytes, layer.rows]
        if not all(type(text) is str for text in texts) or not all(type(n) is int and n >= 0 for n in numbers):
            raise ValueError("a field is not of its type")


def shared_layers(one: Sequence[LayerRef], other: Sequence[LayerRef]) -> int:
    """Return how many of the oldest layers of two stacks are the same."""
    count = 0
    for mine, theirs in zip(one, other, strict=False):
        if mine.index_digest != theirs.index_digest:
            break
        count += 1
    return count


def _layer(fields: dict[str, Any]) -> LayerRef:
    layer = LayerRef(**fields)
    if not (is_hex_digest(layer.digest) and is_hex_digest(layer.index_digest)):
        raise ValueError("a layer's digest is not 64 hexadecimal digits")
    return layer

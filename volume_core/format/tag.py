"""The tag: a second name for a version, which never changes.  docs/format/tag.md has the fields.

Always true: a tag is written once, where there is none of that name; it cannot be spelled like a version's id.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Self

from volume_core.errors import InvalidNameError
from volume_core.format import checked
from volume_core.format.digests import is_hex_digest
from volume_core.format.names import validate_name

FORMAT = "volume-tag/1"  # DO NOT CHANGE: on disk


@dataclass(frozen=True, slots=True)
class Tag:
    """The name `tag` for `version`, an id, of `volume`; `created_at` is ISO 8601 in UTC, `message` the tagger's."""

    volume: str
    tag: str
    version: str
    created_at: str
    message: str = ""

    def to_bytes(self) -> bytes:
        """Return the one JSON spelling."""
        return checked.spell(FORMAT, dataclasses.asdict(self))

    @classmethod
    def from_bytes(cls, name: str, data: bytes) -> Self:
        """Decode the object *name*; CorruptObjectError if it is no tag that this release reads."""
        return checked.read(FORMAT, name, data, cls._decode)

    @classmethod
    def _decode(cls, fields: dict[str, Any]) -> Self:
        tag = cls(**fields)
        validate_name(tag.volume)
        validate_tag(tag.tag)
        checked.check_version_id(tag.version)
        checked.check_texts((tag.created_at, tag.message))
        return tag


def validate_tag(name: str) -> str:
    """Return *name*, or raise InvalidNameError saying what a tag may be."""
    if is_hex_digest(name):
        raise InvalidNameError(f"{name!r} cannot name a tag: it is spelled like a version's id")
    return validate_name(name, "tag")

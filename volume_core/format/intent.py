"""The intent: "a commit is in progress", as JSON with sorted keys.

While it lives, whoever deletes what nothing names keeps its hands off the packs and layers that the
commit has written and no manifest names yet, and off the versions in `versions`, whose chunks the
commit will name.  docs/format/intent.md has the fields.

Always true:

  1. Whether an intent lives is judged by the store's own clock (the time the store last saw it
     written), never by a writer's; its times of day are for people.
  2. Its name cannot be the hash of its bytes, which change; so it holds the hash of its other fields.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Self

from volume_core.format import checked

FORMAT = "volume-intent/1"  # DO NOT CHANGE: on disk


@dataclass(frozen=True, slots=True)
class Intent:
    """A commit of *volume* under way.  `write` counts its writings, so that no two hold the same bytes."""

    id: str
    volume: str
    lifetime_s: int
    started_at: str
    renewed_at: str
    versions: tuple[str, ...] = ()
    write: int = 0

    def to_bytes(self) -> bytes:
        """Return the intent as JSON."""
        return checked.spell(FORMAT, dataclasses.asdict(self))

    @classmethod
    def from_bytes(cls, name: str, data: bytes) -> Self:
        """Decode the object *name*.

        Raises CorruptObjectError if it is no intent that this release reads: whoever would delete
        must then take it for a living one.
        """
        return checked.read(FORMAT, name, data, cls._decode)

    @classmethod
    def _decode(cls, fields: dict[str, Any]) -> Self:
        fields["versions"] = tuple(fields["versions"])
        intent = cls(**fields)
        if not intent.lifetime_s > 0:  # also raises TypeError where it is no number
            raise ValueError(f"its lifetime_s is {intent.lifetime_s!r}")
        return intent

    def is_live(self, modified_ns: int, store_now_ns: int) -> bool:
        """Whether it protects at *store_now_ns*, when the store last saw it written at *modified_ns*."""
        return store_now_ns < modified_ns + self.lifetime_s * 1_000_000_000

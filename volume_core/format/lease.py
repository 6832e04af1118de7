"""The lease: who has the exclusive lock of a volume.  docs/format/lease.md has the fields.

Always true:

  1. The token grows with each acquisition and never goes back: a lock that is given back stays, with `held`
     false.
  2. Whether a holder still lives is judged by seeing the object change, never by a time of day in it: `write`
     grows with each renewal, so that no two writings hold the same bytes.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Self

from volume_core.format import checked
from volume_core.format.names import validate_name

FORMAT = "volume-lease/1"  # DO NOT CHANGE: on disk


@dataclass(frozen=True, slots=True)
class Lease:
    """The lock of `volume`, acquired for the `token`-th time by `holder`, which is text for people.

    `id` is of this acquisition alone; unless it is renewed it may be taken away `lifetime_s` after it was
    seen; `acquired_at` and `renewed_at` are ISO 8601 in UTC by the holder's clock, for people.
    """

    volume: str
    id: str
    token: int
    holder: str
    lifetime_s: int
    acquired_at: str
    renewed_at: str
    held: bool = True
    write: int = 0

    def to_bytes(self) -> bytes:
        """Return the one JSON spelling."""
        return checked.spell(FORMAT, dataclasses.asdict(self))

    @classmethod
    def from_bytes(cls, name: str, data: bytes) -> Self:
        """Decode the object *name*; CorruptObjectError if it is no lease that this release reads."""
        return checked.read(FORMAT, name, data, cls._decode)

    @classmethod
    def _decode(cls, fields: dict[str, Any]) -> Self:
        lease = cls(**fields)
        validate_name(lease.volume)
        checked.check_texts((lease.id, lease.holder, lease.acquired_at, lease.renewed_at))
        checked.check_number(lease.token, 1)
        checked.check_number(lease.write, 0)
        checked.check_number(lease.lifetime_s, 1)
        if type(lease.held) is not bool:
            raise ValueError(f"its held is {lease.held!r}")
        return lease

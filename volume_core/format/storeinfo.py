"""format.json: what kind of store this is, and what its first writer found it to promise.

Pure: bytes in, values out.  Written once, create-if-absent; docs/format/store.md has the fields.

Always true: a reader that does not know the format refuses the store; a field that it does not know
in a format that it knows is somebody's news, not damage, and is passed over.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Self

from volume_core.errors import CorruptObjectError

FORMAT = "volume-store/1"  # DO NOT CHANGE: on disk


@dataclass(frozen=True, slots=True)
class StoreFormat:
    """A store's promises.

    `create_once`: creating a name that exists is refused.  `swap_once`: replacing a version that is
    no longer there is refused.  `exact_ranges`: a range request returns that range.
    `list_after_write`: a listing shows what was just written and not what was just deleted.
    """

    create_once: bool = True
    swap_once: bool = True
    exact_ranges: bool = True
    list_after_write: bool = True

    @property
    def honours_conditions(self) -> bool:
        """Whether one object can be moved by several writers: named heads need it."""
        return self.create_once and self.swap_once

    def to_bytes(self) -> bytes:
        """Return the one JSON spelling."""
        fields = {"format": FORMAT, "promises": dataclasses.asdict(self)}
        return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Decode *data*, or raise CorruptObjectError when it is not a format this release reads."""
        try:
            fields = json.loads(data)
            found = fields["format"]
            promises = {field.name: fields["promises"][field.name] for field in dataclasses.fields(cls)}
        except (ValueError, TypeError, KeyError) as error:
            raise CorruptObjectError(f"format.json: this is no volume store's ({error!r})") from error
        if found != FORMAT:
            raise CorruptObjectError(f"format.json: the store's format is {found!r}; a newer release may read it")
        if any(type(promise) is not bool for promise in promises.values()):
            raise CorruptObjectError("format.json: a promise is neither true nor false")
        return cls(**promises)

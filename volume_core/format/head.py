"""The head: which version of a volume is the latest, and how it came to be that.

The one object of a volume that moves, by compare-and-swap only.  docs/format/head.md has the fields.

Always true:

  1. Each move has a write id that no other has, and stays in the history for HISTORY_MAX moves: whoever
     lost the answer to his swap finds it there, also when others have moved on.
  2. The first move of the history is the one that made the head what it is.
  3. `fence` never shrinks.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Self

from volume_core.format import checked
from volume_core.format.manifest import Action
from volume_core.format.names import validate_name

FORMAT = "volume-head/1"  # DO NOT CHANGE: on disk
# How many moves are remembered: some 300 bytes each, which every commit writes again.
HISTORY_MAX = 100


@dataclass(frozen=True, slots=True)
class Move:
    """One move of a head: to `version`, from `previous` (None: there was no head).

    `why` is a word ("commit", "promote", "set", ...), `by` the person and machine, `action` the task of an
    engine that did it, if one did; `moved_at` is ISO 8601 in UTC by the clock of who moved it.
    """

    version: str
    previous: str | None
    write_id: str
    moved_at: str
    why: str = ""
    by: str = ""
    action: Action | None = None


@dataclass(frozen=True, slots=True)
class Head:
    """Where the head of *volume* stands: `history` is newest first.

    `fence` is the greatest token of a lock that the head has seen (0: none): a move by the holder of a
    smaller one is refused.
    """

    volume: str
    history: tuple[Move, ...]
    fence: int = 0

    @property
    def version(self) -> str:
        """The id of the latest version."""
        return self.history[0].version

    @property
    def write_id(self) -> str:
        """What no other move has."""
        return self.history[0].write_id

    def has(self, write_id: str) -> bool:
        """Whether the move with that id made this head, or one that it remembers."""
        return any(move.write_id == write_id for move in self.history)

    @property
    def is_all(self) -> bool:
        """Whether the history reaches back to where there was no head."""
        return self.history[-1].previous is None

    def to_bytes(self) -> bytes:
        """Return the one JSON spelling."""
        return checked.spell(FORMAT, {**dataclasses.asdict(self), "version": self.version})

    @classmethod
    def from_bytes(cls, name: str, data: bytes) -> Self:
        """Decode the object *name*; CorruptObjectError if it is no head that this release reads."""
        return checked.read(FORMAT, name, data, cls._decode)

    @classmethod
    def _decode(cls, fields: dict[str, Any]) -> Self:
        version = fields.pop("version")
        fields["history"] = tuple(_move(move) for move in fields["history"])
        head = cls(**fields)
        validate_name(head.volume)
        checked.check_number(head.fence, 0)
        if not 1 <= len(head.history) <= HISTORY_MAX:
            raise ValueError(f"it has {len(head.history)} moves")
        if head.version != version:
            raise ValueError("its version is not that of its first move")
        return head


def _move(fields: dict[str, Any]) -> Move:
    action = fields.pop("action")
    move = Move(**fields, action=Action(**action) if action else None)
    checked.check_version_id(move.version)
    if move.previous is not None:
        checked.check_version_id(move.previous)
    checked.check_texts((move.write_id, move.moved_at, move.why, move.by))
    checked.check_texts(dataclasses.astuple(move.action) if move.action else ())
    return move

"""Writes the golden objects beside a volume's versions: a head, a tag, a lock.

    python tests/format/make_golden_objects.py tests/format/golden_objects/<release>

Run once for each release that changes one of their formats, by the code of that release, and never again: what
it makes is committed and only read (tests/format/test_golden_objects.py).
"""

from __future__ import annotations

import sys
from pathlib import Path

from volume_core.format.head import Head, Move
from volume_core.format.lease import Lease
from volume_core.format.manifest import Action
from volume_core.format.names import head_name, lock_name, tag_name
from volume_core.format.tag import Tag

VOLUME = "golden"
FIRST, SECOND = "1" * 64, "2" * 64
ACTION = Action("engine", "org", "project", "domain", "run", "action", "1", "https://example.org/run")
MOVES = (
    Move(SECOND, FIRST, "b" * 32, "2026-01-02T00:00:00.000000Z", "commit", "ann@host", ACTION),
    Move(FIRST, None, "a" * 32, "2026-01-01T00:00:00.000000Z", "create", "grüße@\U0001f40b"),
)
OBJECTS = {
    head_name(VOLUME): Head(VOLUME, MOVES, fence=3),
    tag_name(VOLUME, "v1.0"): Tag(VOLUME, "v1.0", FIRST, "2026-01-03T00:00:00.000000Z", "the first\nof several"),
    lock_name(VOLUME): Lease(
        VOLUME, "c" * 32, 3, "ann@host (process 7)", 60, "2026-01-04T00:00:00.000000Z", "2026-01-04T00:00:10.000000Z",
        held=False, write=1,
    ),
}  # fmt: skip


def main(place: str) -> None:
    for name, value in OBJECTS.items():
        path = Path(place) / name
        path.parent.mkdir(parents=True)
        path.write_bytes(value.to_bytes())


if __name__ == "__main__":
    main(sys.argv[1])

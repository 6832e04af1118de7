"""Which deltas touch a path, against what a comparison of whole trees says."""

from __future__ import annotations

from contextlib import closing

import pytest

from volume_core.domain.touching import touches
from volume_core.format.entries import WHITEOUT, Entry, Kind, split
from volume_core.parts.indexes import build_index, open_index

DIRECTORY, OPAQUE, FILE = (Entry(kind) for kind in (Kind.DIRECTORY, Kind.OPAQUE, Kind.FILE))
SYMLINK = Entry(Kind.SYMLINK, target=b"elsewhere")


def asked(rows: dict[bytes, Entry], path: bytes) -> bool | None:
    index = build_index(sorted((*split(each), entry) for each, entry in rows.items()))
    with closing(open_index(index)) as layer:
        return touches(layer, path)


@pytest.mark.parametrize(
    ("rows", "path", "answer"),
    [
        ({}, b"", False),
        ({}, b"a/b", False),
        ({b"": DIRECTORY}, b"", True),
        ({b"": DIRECTORY}, b"a", False),
        ({b"a/b/c": FILE}, b"", True),
        ({b"a/b/c": FILE}, b"a", True),
        ({b"a/b/c": FILE}, b"a/b", True),
        ({b"a/b/c": FILE}, b"a/b/c", True),
        ({b"a/b/c": FILE}, b"a/b/c/d", None),
        ({b"a/b/c": FILE}, b"a/b/cc", False),
        ({b"a/b/c": FILE}, b"a/b/x", False),
        ({b"a/b/c": FILE}, b"a/bb", False),
        ({b"a-b/c": FILE, b"a0/c": FILE}, b"a", False),
        ({b"a/b": DIRECTORY}, b"a/b/c", False),
        ({b"a/b": OPAQUE}, b"a/b/c", None),
        ({b"a/b": OPAQUE, b"a/b/x": FILE}, b"a/b/c", None),
        ({b"a/b": OPAQUE, b"a/b/c": FILE}, b"a/b/c", True),
        ({b"a/b": WHITEOUT}, b"a/b", True),
        ({b"a/b": WHITEOUT}, b"a/b/c/d/e", None),
        ({b"a": WHITEOUT}, b"a/b/c/d/e", None),
        ({b"a": SYMLINK}, b"a/b", None),
        ({b"": OPAQUE}, b"a/b", None),
        ({b"a": WHITEOUT}, b"ab", False),
        ({b"\xff\n/\x01": FILE}, b"\xff\n", True),
        ({b"\xff\n/\x01": FILE}, b"\xff", False),
        ({b"n" * 255: FILE}, b"n" * 255, True),
    ],
)
def test_what_touches_a_path(rows, path, answer):
    assert answer is asked(rows, path)

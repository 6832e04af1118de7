"""The golden heads, tags and locks: what a release wrote, every later one reads.  Nothing here writes to them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from blake3 import blake3
from make_golden_objects import OBJECTS

GOLDEN = Path(__file__).parent / "golden_objects"
RELEASES = sorted(path.name for path in GOLDEN.iterdir())
FILES = [pytest.param(GOLDEN / release, name, id=f"{release}-{name}") for release in RELEASES for name in OBJECTS]


def test_there_are_golden_objects():
    assert "0.1" in RELEASES


@pytest.mark.parametrize(("release", "name"), FILES)
def test_one_reads_as_it_was_written_and_is_written_again_as_it_was(release, name):
    data = (release / name).read_bytes()

    assert OBJECTS[name] == type(OBJECTS[name]).from_bytes(name, data)
    assert data == OBJECTS[name].to_bytes()


@pytest.mark.parametrize(("release", "name"), FILES)
def test_the_pages_are_enough_to_check_it(release, name):
    """JSON and BLAKE3, none of our code."""
    data = (release / name).read_bytes()
    fields = json.loads(data)

    def spelled(value: object) -> bytes:
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()

    assert data == spelled(fields)
    assert fields["digest"] == blake3(spelled({key: fields[key] for key in fields if key != "digest"})).hexdigest()

"""What the mount tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from mount_kit import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A state directory and a version to mount; the test fails if it leaves anything mounted or running."""
    made = Bench(tmp_path)
    try:
        yield made
        made.assert_clean()
    finally:
        made.sweep()

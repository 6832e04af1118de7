"""What the facade's tests share: mounts of their own, by each driver, and nothing left behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from facade_kit import mounts_below

REAL_DRIVERS = [pytest.param("kernel", marks=pytest.mark.fuse), "copy"]
ALL_DRIVERS = [*REAL_DRIVERS, pytest.param("fuse-overlay", marks=pytest.mark.fuse)]


@pytest.fixture(params=REAL_DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    """The two drivers that differ most."""
    return request.param


@pytest.fixture(params=ALL_DRIVERS)
def any_driver(request: pytest.FixtureRequest) -> str:
    """Each driver."""
    return request.param


@pytest.fixture(autouse=True)
def own_mounts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own_state: None):
    """Mounts without a path go below tmp_path; nothing is mounted there afterwards."""
    monkeypatch.setenv("VOLUME_MOUNT_ROOT", str(tmp_path / "mounts"))
    yield
    left = mounts_below(tmp_path)
    for each in reversed(left):
        subprocess.run(["umount", "-l", each], check=False)
    assert [] == left


@pytest.fixture
def python(tmp_path: Path):
    """Run Python code in a fresh process with this test's environment; return what it printed."""

    def run(code: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=check, timeout=60
        )

    return run

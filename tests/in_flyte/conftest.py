"""The adapter's tests need both SDKs: where one is missing nothing here is collected (tox -e flyte installs them)."""

from __future__ import annotations

import gc
import importlib.util
import subprocess
import time
from pathlib import Path

import pytest
from v1_kit import abandon_all

collect_ignore_glob: list[str] = []
if importlib.util.find_spec("flytekit") is None or importlib.util.find_spec("flyte") is None:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(autouse=True)
def own_mounts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own_state: None):
    """Mounts without a path go below tmp_path, and nothing is mounted there afterwards."""
    monkeypatch.setenv("VOLUME_MOUNT_ROOT", str(tmp_path / "mounts"))
    yield
    abandon_all()
    end = time.monotonic() + 20
    while (left := _mounts_below(tmp_path)) and time.monotonic() < end:
        gc.collect()  # a version stays mounted as long as anything of its task is there
        time.sleep(0.05)
    for each in reversed(left):
        subprocess.run(["umount", "-l", each], check=False)
    assert [] == left


def _mounts_below(directory: Path) -> list[str]:
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in points if point.startswith(f"{directory}/")]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """flytekit leaves a temporary directory of each failed task to the garbage collector, which warns."""
    ignore = pytest.mark.filterwarnings("ignore:Implicitly cleaning up <TemporaryDirectory:ResourceWarning")
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(ignore)

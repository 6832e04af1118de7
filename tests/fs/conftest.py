"""What the tests of the fsspec door share: trees made by the copy driver, and instances of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
from fs_kit import TREE, committed

from volume_core.fs import VolumeFileSystem


@pytest.fixture(autouse=True)
def own_instances(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own_state: None):
    """fsspec remembers instances by their options: none is left from, or for, another test."""
    monkeypatch.setenv("VOLUME_MOUNT_ROOT", str(tmp_path / "mounts"))
    VolumeFileSystem.clear_instance_cache()
    yield
    VolumeFileSystem.clear_instance_cache()


@pytest.fixture
def version():
    """A version of the volume "data" that holds TREE."""
    return committed("data", TREE)


@pytest.fixture
def fs(version) -> VolumeFileSystem:
    """A file system whose default store has the volume "data"."""
    return VolumeFileSystem()

"""Libraries that speak fsspec, on `vol://`; where they are not installed there is nothing to test."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from volume_core.fs import VolumeFileSystem

LIBRARIES = ("pandas", "pyarrow", "upath", "zarr")
collect_ignore_glob = ["test_libraries.py"] if any(importlib.util.find_spec(name) is None for name in LIBRARIES) else []


@pytest.fixture(autouse=True)
def own_instances(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own_state: None):
    """fsspec remembers instances by their options: none is left from, or for, another test."""
    monkeypatch.setenv("VOLUME_MOUNT_ROOT", str(tmp_path / "mounts"))
    VolumeFileSystem.clear_instance_cache()
    yield
    VolumeFileSystem.clear_instance_cache()


@pytest.fixture
def fs() -> VolumeFileSystem:
    """The file system that `vol://` URLs get without options."""
    return VolumeFileSystem()

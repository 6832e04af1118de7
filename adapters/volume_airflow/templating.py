"""Volumes that templates have mounted: before the operator is executed, for as long as the task takes.

Always true: one version is mounted once, however many templates name it; all of it is taken down when the task has
ended, however it ends.
"""

from __future__ import annotations

import os
from typing import Any

from volume_airflow import stores, taskvolumes
from volume_core import ROVolume

_held: dict[str, ROVolume] = {}  # by locator: a mount goes with its handle


def mounted(volume: Any, within: str = "") -> str:
    """Return the path of *within* in *volume*, which is mounted to read."""
    stores.meet_all()  # no listener has been told of the task yet, so nobody else does
    version = taskvolumes.versioned(volume)
    version = _held.setdefault(version.locator, version)
    version.mount_sync()
    return os.fspath(version / within) if within else os.fspath(version)


def release() -> None:
    """Take down what templates have mounted."""
    while _held:
        _held.popitem()[1].close_sync()

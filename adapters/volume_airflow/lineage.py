"""What tasks have read and made, as Airflow's lineage has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from volume_core import ActionRef, ROVolume


def committed(version: ROVolume, action: ActionRef) -> None:
    """The running task has made *version*.  `running.current()` has its instance and context."""


def mounted(locator: str, action: ActionRef) -> None:
    """The running task has mounted the version at *locator*."""

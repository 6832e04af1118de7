"""The plugin: what Airflow loads of this package in every process, and where.

Always true: to load it costs little, for every task's process does; what serves pages is imported at the first request.
"""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin

from volume_airflow import envelopes, listening
from volume_airflow.macros import path


class VolumePlugin(AirflowPlugin):
    """Volumes as values of tasks."""

    name = "volume"
    listeners = [listening]
    macros = [path]

    @classmethod
    def on_load(cls, *args: Any, **kwargs: Any) -> None:
        """Let tasks read volumes from XComs."""
        envelopes.allow()

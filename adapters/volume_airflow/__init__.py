"""Volumes as values of Airflow's tasks: with the package installed, a task that returns one hands its version on.

    from airflow.sdk import dag, task
    from volume_core import ROVolume, RWVolume, Volume

    @task
    def make() -> RWVolume: ...          # what is returned is committed

    @task
    def use(data: ROVolume) -> int: ...  # the next task has that version

Always true: to import this package does not import Airflow; each name is found when it is first used (PEP 562).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from volume_airflow.options import volumes
    from volume_airflow.resuming import resume

_WHERE = {"resume": "resuming", "volumes": "options"}

__all__ = ["resume", "volumes"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})

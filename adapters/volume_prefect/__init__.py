"""Volumes as values of Prefect tasks and flows.

    from prefect import flow, task
    from volume_core import ROVolume, RWVolume, Volume
    from volume_prefect import volumes

    @volumes
    @task
    def make() -> RWVolume: ...          # what is returned is committed

    @volumes
    @task
    def use(data: ROVolume) -> int: ...  # the next task has that version

Always true: to import this package does not import Prefect; each name is found when it is first used (PEP 562).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from volume_prefect.retrying import unless_permanent
    from volume_prefect.wrapping import enable_volumes, volumes

_WHERE = {"volumes": "wrapping", "enable_volumes": "wrapping", "unless_permanent": "retrying"}

__all__ = ["enable_volumes", "unless_permanent", "volumes"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})

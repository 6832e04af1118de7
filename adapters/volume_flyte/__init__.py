"""Volumes as values of Flyte tasks, for flytekit and for flyte 2.

    from flytekit import task
    from volume_core import ROVolume, RWVolume, Volume

    @task
    def make() -> RWVolume: ...          # what is returned is committed
    @task
    def use(data: ROVolume) -> int: ...  # the next task has that version

Installing the package is all that is needed: both SDKs find the types by entry points.  What is here besides is for
pods, images, caches and retries.

Always true: to import this package imports neither SDK; each name is found when it is first used (PEP 562).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from volume_flyte.images import with_high_throughput_volume_deps, with_volume_deps
    from volume_flyte.pods import fuse_pod_template
    from volume_flyte.v1.caching import VolumeHash

__all__ = [
    "VolumeHash",
    "fuse_pod_template",
    "with_high_throughput_volume_deps",
    "with_volume_deps",
]

_HOMES = {
    "VolumeHash": "v1.caching",
    "fuse_pod_template": "pods",
    "with_high_throughput_volume_deps": "images",
    "with_volume_deps": "images",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    found = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

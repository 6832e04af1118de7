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
    from volume_flyte.caching import VolumeHash
    from volume_flyte.files import as_directory, as_file
    from volume_flyte.images import with_high_throughput_volume_deps, with_volume_deps
    from volume_flyte.pods import fuse_pod_template
    from volume_flyte.resuming import resume, resume_async
    from volume_flyte.workflows import workflow_mounts

__all__ = [
    "VolumeHash",
    "as_directory",
    "as_file",
    "fuse_pod_template",
    "resume",
    "resume_async",
    "with_high_throughput_volume_deps",
    "with_volume_deps",
    "workflow_mounts",
]

_HOMES = {
    "VolumeHash": "caching",
    "as_directory": "files",
    "as_file": "files",
    "fuse_pod_template": "pods",
    "resume": "resuming",
    "resume_async": "resuming",
    "with_high_throughput_volume_deps": "images",
    "with_volume_deps": "images",
    "workflow_mounts": "workflows",
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

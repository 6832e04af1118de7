"""Versioned, forkable, mountable file systems for workflow engines.

    from volume_core import Volume

    volume = Volume.new("my-data")
    with volume.mounted_sync(message="first files") as path:
        (path / "hello.txt").write_text("hello")
    print(volume.locator)

Public names are found when they are first used (PEP 562): the mount server is a fresh process that imports
this package, and should not wait for what only the facade needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from volume_core.errors import (
        BusyError,
        ConflictError,
        CorruptObjectError,
        InvalidNameError,
        MountError,
        NotFoundError,
        ReadOnlyError,
        StorageError,
        VolumeError,
    )
    from volume_core.facade.mounts import MountOptions
    from volume_core.facade.records import ActionRef
    from volume_core.facade.statuses import HistoryEntry, Status
    from volume_core.format.tag import Tag
    from volume_core.parts.checking import Problem
    from volume_core.plugins.hookspecs import hookimpl
    from volume_core.volumes import ROVolume, RWVolume, Volume

__all__ = [
    "ActionRef",
    "BusyError",
    "ConflictError",
    "CorruptObjectError",
    "HistoryEntry",
    "InvalidNameError",
    "MountError",
    "MountOptions",
    "NotFoundError",
    "Problem",
    "ROVolume",
    "RWVolume",
    "ReadOnlyError",
    "Status",
    "StorageError",
    "Tag",
    "Volume",
    "VolumeError",
    "hookimpl",
]

_HOMES = {
    "ActionRef": "facade.records",
    "HistoryEntry": "facade.statuses",
    "MountOptions": "facade.mounts",
    "Problem": "parts.checking",
    "ROVolume": "volumes",
    "RWVolume": "volumes",
    "Status": "facade.statuses",
    "Tag": "format.tag",
    "Volume": "volumes",
    "hookimpl": "plugins.hookspecs",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    found = getattr(importlib.import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

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
    from volume_core.domain.diff import ChangeKind
    from volume_core.errors import (
        BusyError,
        ConflictError,
        CorruptObjectError,
        ExistsError,
        InvalidNameError,
        MountError,
        NoSuchPathError,
        NotFoundError,
        ReadOnlyError,
        StorageError,
        VolumeError,
    )
    from volume_core.facade.blocks import BlockOptions
    from volume_core.facade.comparing import Difference
    from volume_core.facade.decorating import mounts
    from volume_core.facade.fileentries import FileEntry, FileEntryType
    from volume_core.facade.groups import MountedVolumes
    from volume_core.facade.lazies import LazyVolume
    from volume_core.facade.listing import VolumeInfo
    from volume_core.facade.mounts import MountOptions
    from volume_core.facade.records import ActionRef
    from volume_core.facade.statuses import HistoryEntry, Status
    from volume_core.facade.terminating import listen_for_sigterm
    from volume_core.format.tag import Tag
    from volume_core.parts.checking import Problem
    from volume_core.plugins.hookspecs import hookimpl
    from volume_core.volumes import ROVolume, RWVolume, Volume

__all__ = [
    "ActionRef",
    "BlockOptions",
    "BusyError",
    "ChangeKind",
    "ConflictError",
    "CorruptObjectError",
    "Difference",
    "ExistsError",
    "FileEntry",
    "FileEntryType",
    "HistoryEntry",
    "InvalidNameError",
    "LazyVolume",
    "MountError",
    "MountOptions",
    "MountedVolumes",
    "NoSuchPathError",
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
    "VolumeInfo",
    "hookimpl",
    "listen_for_sigterm",
    "mounts",
]

_HOMES = {
    "ActionRef": "facade.records",
    "ChangeKind": "domain.diff",
    "Difference": "facade.comparing",
    "FileEntry": "facade.fileentries",
    "FileEntryType": "facade.fileentries",
    "BlockOptions": "facade.blocks",
    "HistoryEntry": "facade.statuses",
    "LazyVolume": "facade.lazies",
    "MountOptions": "facade.mounts",
    "MountedVolumes": "facade.groups",
    "Problem": "parts.checking",
    "ROVolume": "volumes",
    "RWVolume": "volumes",
    "Status": "facade.statuses",
    "Tag": "format.tag",
    "Volume": "volumes",
    "VolumeInfo": "facade.listing",
    "hookimpl": "plugins.hookspecs",
    "listen_for_sigterm": "facade.terminating",
    "mounts": "facade.decorating",
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

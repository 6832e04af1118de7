"""Versions as flytekit's directories and files: `vol://` URLs, which flytekit opens through fsspec.

Always true: what is returned names one version; nothing is fetched before it is looked into.
"""

from __future__ import annotations

from flytekit.types.directory import FlyteDirectory
from flytekit.types.file import FlyteFile

from volume_core import Volume
from volume_core.facade.mounts import StrPath
from volume_core.facade.referring import url_in


def as_directory(volume: Volume, path: StrPath = "/") -> FlyteDirectory:
    """Return the directory *path* of *volume* as a FlyteDirectory; a writer is committed first."""
    return directory_at(url_in(volume, path))


def as_file(volume: Volume, path: StrPath) -> FlyteFile:
    """Return the file *path* of *volume* as a FlyteFile; a writer is committed first."""
    return file_at(url_in(volume, path, is_file=True))


def directory_at(url: str) -> FlyteDirectory:
    """Return the FlyteDirectory at *url*, as a task would receive it: it downloads itself when it is first needed."""
    return FlyteDirectory.from_source(url)


def file_at(url: str) -> FlyteFile:
    """Return the FlyteFile at *url*, as a task would receive it."""
    return FlyteFile.from_source(url)

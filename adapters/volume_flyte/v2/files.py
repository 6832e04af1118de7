"""Versions as directories and files of flyte 2: `vol://` URLs, which flyte opens through fsspec.

Always true: what is returned names one version; nothing is fetched before it is looked into.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from flyte.io import Dir, File

from volume_core import Volume
from volume_core.facade.mounts import StrPath
from volume_core.facade.referring import url_in


def as_directory(volume: Volume, path: StrPath = "/") -> Dir[Any]:
    """Return the directory *path* of *volume* as a Dir; a writer is committed first."""
    return directory_at(url_in(volume, path))


def as_file(volume: Volume, path: StrPath) -> File[Any]:
    """Return the file *path* of *volume* as a File; a writer is committed first."""
    return file_at(url_in(volume, path, is_file=True))


def directory_at(url: str) -> Dir[Any]:
    """Return the Dir at *url*.

    With a slash at its end: then a download goes into the directory that it is given, as one from a bucket does, and
    not into one below it.
    """
    return Dir(path=f"{url.rstrip('/')}/", name=PurePosixPath(url).name)


def file_at(url: str) -> File[Any]:
    """Return the File at *url*."""
    return File(path=url, name=PurePosixPath(url).name)

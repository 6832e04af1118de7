"""Several volumes, mounted together for the length of a block, and what becomes of all of them at its end.

Always true:

  1. They are mounted in the order given; where one cannot be, those before it are unmounted again.
  2. After an error nothing is committed for any of them, and the error says for each where its work is.
  3. Once the body has ended well they are committed and unmounted in the order given.  Where one cannot be, those after
     it are not tried, and the error says which are committed: there is no commit of several volumes at once.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from volume_core.errors import BusyError, VolumeError
from volume_core.facade.blocks import Block, Terms
from volume_core.facade.lazies import LazyVolume
from volume_core.facade.mounts import StrPath
from volume_core.facade.sharing import alone_at, shared_at

if TYPE_CHECKING:
    from volume_core.volumes import ROVolume, RWVolume, Volume


class MountedVolumes(NamedTuple):
    """What is mounted in a block, each by the path that it was given.

    paths: where it is, as an absolute path
    volumes: the handle that is mounted there
    versions: of those mounted to read, from the beginning; of the others, what was committed when the block ended
    """

    paths: dict[str, Path]
    volumes: dict[str, RWVolume | ROVolume]
    versions: dict[str, ROVolume]


def checked(volumes: Mapping[StrPath, Volume | LazyVolume]) -> dict[str, Volume | LazyVolume]:
    """Return *volumes* by text.

    Raises VolumeError where two would be at one path, one in another, or one writer at two paths; TypeError for what
    is no volume.
    """
    given = {os.fspath(path): volume for path, volume in volumes.items()}
    seen: dict[Path, str] = {}
    writers: set[int] = set()
    for path, volume in given.items():
        if not callable(getattr(volume, "mounted_sync", None)):
            raise TypeError(f"{path}: {volume!r} is no volume")
        where = Path(os.path.abspath(os.path.expanduser(path)))
        for other, said in seen.items():
            if where == other or where in other.parents or other in where.parents:
                raise VolumeError(f"{path} and {said} lie in one another: mount the volumes side by side")
        seen[where] = path
        if hasattr(volume, "commit_sync") and id(volume) in writers:
            raise VolumeError(f"{path}: this writer of {volume.name!r} is to be mounted elsewhere too: fork it")
        writers.add(id(volume))
    return given


@contextlib.contextmanager
def mounted_together(volumes: Mapping[str, Volume | LazyVolume], terms: Terms) -> Generator[MountedVolumes, Any, None]:
    """Mount *volumes* for the length of a block; see the head of this file."""
    mounted = MountedVolumes({}, {}, {})
    with contextlib.ExitStack() as readers:
        blocks: dict[str, Block] = {}
        try:
            for path, volume in volumes.items():
                _mount(path, volume, terms, mounted, blocks, readers)
            yield mounted
            for path, block in blocks.items():
                mounted.versions[path] = block.commit()
        except BaseException as error:
            for path, block in reversed(blocks.items()):
                if block.version is not None:
                    error.add_note(f"{path}: volume {block.volume.name!r} is committed: {block.version.locator}")
                elif (note := block.end_after(error)) is not None:
                    error.add_note(f"{path}: {note}")
            raise


def _mount(
    path: str,
    volume: Volume | LazyVolume,
    terms: Terms,
    mounted: MountedVolumes,
    blocks: dict[str, Block],
    left: contextlib.ExitStack,
) -> None:
    handle: Any = volume.open_sync() if isinstance(volume, LazyVolume) else volume
    if not hasattr(handle, "commit_sync"):
        handle, where = left.enter_context(shared_at(path, handle, terms.options))
        mounted.versions[path] = handle
    else:
        left.enter_context(alone_at(path))
        if handle.mount_path is not None:
            raise BusyError(f"{path}: volume {handle.name!r} is mounted already, at {handle.mount_path}")
        block = Block(handle, terms)
        where = block.enter(path)
        blocks[path] = block
    mounted.paths[path], mounted.volumes[path] = where, handle

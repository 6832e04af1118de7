"""Who is at which path: two calls of one task in one process, each with mounts of its own.

Always true: a path that a writer has is nobody else's; readers of one version share one mount, and the last of them
takes it down.  In a forked child nothing is taken down, and what the parent has is not looked at.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from volume_core.errors import BusyError
from volume_core.facade.mounts import MountOptions

if TYPE_CHECKING:
    from volume_core.volumes import ROVolume


@dataclass(eq=False)
class _Place:
    """What is at one path; `locator` is that of the version which its readers share, None for a writer."""

    locator: str | None
    pid: int = field(default_factory=os.getpid)
    users: int = 0
    volume: ROVolume | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


_places: dict[str, _Place] = {}
_lock = threading.Lock()


def _in_child() -> None:
    global _lock
    _lock = threading.Lock()
    _places.clear()


os.register_at_fork(after_in_child=_in_child)


@contextlib.contextmanager
def alone_at(path: str) -> Iterator[None]:
    """Have *path* for a writer.  Raises BusyError if a call of this process is there already."""
    with _at(path, None):
        yield


@contextlib.contextmanager
def shared_at(path: str, volume: ROVolume, options: MountOptions) -> Iterator[tuple[ROVolume, Path]]:
    """Mount *volume*, unless it is mounted at *path* by another call; give the handle that is, and where.

    Raises BusyError if something else is there.
    """
    with _at(path, volume.locator) as place:
        with place.lock:
            if place.volume is None:
                # A handle that its owner has mounted elsewhere stays there.
                place.volume = volume if volume.mount_path is None else volume.__copy__()
            where = place.volume.mount_sync(path, **options)
        yield place.volume, where


@contextlib.contextmanager
def _at(path: str, locator: str | None) -> Iterator[_Place]:
    key = os.path.realpath(os.path.expanduser(path))
    with _lock:
        place = _places.setdefault(key, _Place(locator))
        if place.locator != locator or (locator is None and place.users):
            what = "a writer" if place.locator is None else place.locator
            raise BusyError(
                f"{path}: another call in this process has {what} mounted there: give each its own path, let one "
                "wait for the other, or run them as processes with mounts of their own"
            )
        place.users += 1
    try:
        yield place
    finally:
        _leave(key, place)


def _leave(key: str, place: _Place) -> None:
    if place.pid != os.getpid():
        return
    with place.lock:  # who comes meanwhile mounts after the unmount
        try:
            if place.users == 1 and place.volume is not None:
                place.volume.unmount_sync(lazy=True)
        finally:
            with _lock:
                place.users -= 1
                if place.users == 0:
                    del _places[key]

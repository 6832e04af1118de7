"""What is on this machine: mounts, working copies, the cache.

Always true: looking cleans up what crashes left of mounts, and touches no working copy.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from volume_core.facade.settings import cache_limit_bytes
from volume_core.mount.copies import CopyMounted, live_copies
from volume_core.mount.copies import clean as clean_copies
from volume_core.mount.mounting import LiveMount, live_mounts
from volume_core.mount.request import Mounted
from volume_core.parts import workcopies
from volume_core.parts.caching import PackCache
from volume_core.parts.state import State


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount of this machine's state, whoever made it.  `locator` is None for a volume without any version."""

    path: Path
    volume: str
    locator: str | None
    driver: str
    writable: bool
    working_copy: str | None
    detached: bool
    unmount: Callable[..., None]


@dataclass(frozen=True, slots=True)
class Work:
    """One working copy.  `in_use`: a process has it; `mounted`: it is mounted now; `same_boot`: the machine
    has stayed up since it was in use."""

    id: str
    volume: str
    base: str | None
    last_commit: str | None
    driver: str
    upper: Path
    upper_bytes: int
    created_at: str
    in_use: bool
    mounted: bool
    same_boot: bool


@dataclass(frozen=True, slots=True)
class Cache:
    """What was fetched and kept."""

    path: Path
    index_bytes: int
    pack_bytes: int
    pack_limit_bytes: int


@dataclass(frozen=True, slots=True)
class Survey:
    """All of it.  `broken` are working copies whose record cannot be read: (path, why)."""

    state: Path
    mounts: list[Mount]
    work: list[Work]
    cache: Cache
    broken: list[tuple[Path, str]]


def survey(state: State | None = None) -> Survey:
    """Look at everything below *state*, this user's by default."""
    state = state or State.default()
    mounts = list(_mounts(state))
    mounted = {each.working_copy for each in mounts}
    found = workcopies.survey(state)
    work = [
        Work(
            copy.id, copy.volume, copy.base, copy.parent if copy.parent != copy.base else None, copy.driver, copy.upper,
            copy.size_bytes(), copy.record.created_at, copy.in_use, copy.id in mounted, copy.same_boot,
        )
        for copy in found.copies
    ]  # fmt: skip
    limit = cache_limit_bytes()
    cache = Cache(state.cache, _size_bytes(state.layers), PackCache(state.cache, limit).size_bytes(), limit)
    return Survey(state.root, mounts, work, cache, [(each.path, each.reason) for each in found.broken])


def find_mount(path: str | os.PathLike[str], state: State | None = None) -> Mount | None:
    """Return the mount at *path*, or that holds it; None if there is none."""
    wanted = os.path.realpath(path)
    mounts = {os.path.realpath(each.path): each for each in _mounts(state or State.default())}
    while wanted not in mounts and wanted != "/":
        wanted = os.path.dirname(wanted)
    return mounts.get(wanted)


def live_mount_of(work_id: str, state: State) -> Mounted | None:
    """Return the mount of the working copy *work_id*, or None if it is not mounted."""
    for mounted in _live(state):
        if _working_copy(mounted) == work_id:
            return mounted
    return None


def is_detached(mounted: Mounted) -> bool:
    """Whether a mount that `live_mount_of` found outlives the process that asked for it."""
    if isinstance(mounted, CopyMounted):
        return mounted.record.detached
    return isinstance(mounted, LiveMount) and mounted.record.plan.detach


def _live(state: State) -> Iterator[LiveMount | CopyMounted]:
    yield from live_mounts(state)
    clean_copies(state)
    yield from live_copies(state)


def _working_copy(mounted: LiveMount | CopyMounted) -> str | None:
    return mounted.record.working_copy if isinstance(mounted, CopyMounted) else mounted.record.plan.working_copy


def _mounts(state: State) -> Iterator[Mount]:
    for mounted in _live(state):
        if isinstance(mounted, CopyMounted):
            volume, locator = mounted.record.volume, mounted.record.locator
        else:
            plan = mounted.record.plan
            volume, locator = plan.volume, plan.locator
        copy = _working_copy(mounted)
        detached = is_detached(mounted)
        yield Mount(mounted.path, volume, locator, mounted.driver, copy is not None, copy, detached, mounted.unmount)


def _size_bytes(directory: Path) -> int:
    try:
        return sum(each.stat().st_size for each in directory.iterdir())
    except FileNotFoundError:
        return 0

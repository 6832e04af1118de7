"""From a version to a mounted tree: indexes, driver, path.

Always true: a store that no other process can open is copied to where one can, before it is mounted; news
of a mount are told after it answers; two mounts that name no path never get one and the same.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self, TypedDict

from volume_core.errors import MountError
from volume_core.facade.drivers import mount_with
from volume_core.facade.settings import cache_limit_bytes, default_driver, mount_root, mount_root_is_chosen
from volume_core.facade.staging import Staged, needs_staging, stage
from volume_core.facade.versions import Version
from volume_core.format.manifest import Action
from volume_core.mount.claiming import PathTakenError
from volume_core.mount.request import MOUNT_TIMEOUT_S, Mounted, MountRequest
from volume_core.parts.indexes import IndexCache
from volume_core.parts.packing import MAX_UPLOADS
from volume_core.parts.state import State
from volume_core.parts.workcopies import WorkingCopy
from volume_core.plugins.manager import plugins
from volume_core.storage.protocol import Store

log = logging.getLogger(__name__)

StrPath = str | os.PathLike[str]


class MountOptions(TypedDict, total=False):
    """What `mount` and `mounted` take besides a path; every one may be left out.

    driver: `auto` (the best that works here; the default, or `$VOLUME_DRIVER`), `kernel`, `fuse-overlay`, `copy`,
        or the name of one that a plugin brings
    meta_dir: where unpacked indexes are cached (default: below `$VOLUME_STATE_DIR`)
    cache_dir: where contents fetched from a remote store are cached (default: below `$VOLUME_STATE_DIR`)
    timeout: seconds that the mount may take
    max_uploads: how many packs a commit uploads at once
    detach: the mount stays when this process ends, until `volume unmount`
    lock: of a volume that was opened by name: take its exclusive lock, and hold it while it is mounted
    lock_timeout: seconds to wait for the one who has it; without it as long as it takes to see whether that one
        lives, and no longer if it does
    attr_cache, entry_cache, dir_entry_cache: accepted, for code written for other volumes, and without
        effect: a version cannot change, so the kernel may keep what it has seen for ever
    """

    driver: str
    meta_dir: StrPath
    cache_dir: StrPath
    timeout: float
    max_uploads: int
    detach: bool
    lock: bool
    lock_timeout: float | None
    attr_cache: float
    entry_cache: float
    dir_entry_cache: float


@dataclass(frozen=True, slots=True)
class _StateWithCache(State):
    """A state whose contents are cached elsewhere."""

    cache_dir: Path

    @property
    def cache(self) -> Path:
        """The directory that was asked for."""
        return self.cache_dir


class Options(NamedTuple):
    """MountOptions with every gap filled."""

    driver: str = "auto"
    meta_dir: Path | None = None
    cache_dir: Path | None = None
    timeout_s: float = MOUNT_TIMEOUT_S
    max_uploads: int = MAX_UPLOADS
    detach: bool = False
    lock: bool = False
    lock_timeout_s: float | None = None

    @classmethod
    def of(cls, given: MountOptions) -> Self:
        """Fill the gaps of *given*."""
        return cls(
            given.get("driver") or default_driver(),
            _directory(given.get("meta_dir")),
            _directory(given.get("cache_dir")),
            given.get("timeout", MOUNT_TIMEOUT_S),
            given.get("max_uploads", MAX_UPLOADS),
            given.get("detach", False),
            given.get("lock", False),
            given.get("lock_timeout"),
        )

    def state(self) -> State:
        """Return the local state, with the cache that was asked for."""
        state = State.default().prepare()
        return state if self.cache_dir is None else _StateWithCache(state.root, self.cache_dir).prepare()

    def index_cache(self) -> IndexCache:
        """Return the cache of indexes that was asked for."""
        return IndexCache(self.meta_dir or self.state().cache)


def _directory(path: StrPath | None) -> Path | None:
    if path is None:
        return None
    directory = Path(os.path.abspath(os.path.expanduser(path)))
    directory.mkdir(parents=True, exist_ok=True)
    return directory


class Mounting(NamedTuple):
    """What is to be mounted: *version* (None: an empty tree), for the volume *name*."""

    name: str
    store_url: str
    region: str | None
    version: Version | None
    action: Action | None = None
    copy: WorkingCopy | None = None


class LiveMount:
    """A mount that this process asked for, and what was made for it."""

    def __init__(self, mounted: Mounted, staged: Staged | None = None, *, detached: bool = False) -> None:
        self.mounted = mounted
        self.detached = detached
        self._staged = staged

    @property
    def path(self) -> Path:
        """Where the tree is."""
        return self.mounted.path

    def unmount(self, *, lazy: bool) -> None:
        """Take it down; BusyError, and nothing changed, while files are open and it is not *lazy*."""
        self.mounted.unmount(lazy=lazy)
        if self._staged is not None:
            self._staged.close()


def mount(what: Mounting, wanted: StrPath | None, options: Options) -> LiveMount:
    """Mount *what* at *wanted*, or at a path of its own; tell the plugins; return it."""
    version, state = what.version, options.state()
    layers: tuple[Path, ...] = ()
    store_url, region, staged = what.store_url, what.region, None
    with contextlib.ExitStack() as undo:
        if version is not None:
            store = version.place.store()
            layers = options.index_cache().fetch(store, version.manifest.stack)
            if needs_staging(store):
                staged = _stage(store, layers, state, options)
                undo.callback(staged.close)
                store_url, region = staged.url, None
        request = MountRequest(
            state, Path(), store_url,
            locator=str(version.locator) if version else None,
            layers=layers,
            volume=what.name,
            used_bytes=version.manifest.used_bytes if version else 0,
            inode_count=version.manifest.inode_count if version else 0,
            working_copy=what.copy,
            cache_limit_bytes=cache_limit_bytes(),
            detach=options.detach,
            timeout_s=options.timeout_s,
            region=region,
        )  # fmt: skip
        live = LiveMount(_mount_at_first_free(request, wanted, options), staged, detached=options.detach)
        undo.pop_all()
    plugins().mounted(
        name=what.name, locator=request.locator, path=live.path, driver=live.mounted.driver,
        writable=request.writable, action=what.action,
    )  # fmt: skip
    return live


def _mount_at_first_free(request: MountRequest, wanted: StrPath | None, options: Options) -> Mounted:
    """Mount at *wanted*; without it, at the first path of its own where nothing is.

    Who looks whether a path is free and who takes it are one (mount/claiming.py), so of two that want the same
    at once the second goes on to the next.
    """
    for path, after in itertools.pairwise((*_mount_paths(wanted, request.volume), None)):
        assert path is not None
        try:
            return mount_with(options.driver, request._replace(mount_path=path))
        except PathTakenError as error:
            if after is None:
                raise
            log.info("volume %s is mounted at %s: %s", request.volume, after, error)
    raise AssertionError(wanted)


def _mount_paths(wanted: StrPath | None, name: str) -> Iterator[Path]:
    if wanted is not None:
        yield Path(os.path.abspath(os.path.expanduser(wanted)))
        return
    if mount_root_is_chosen():
        yield mount_root() / name
    yield mount_root() / f"{name}-{uuid.uuid4().hex[:8]}"


def _stage(store: Store, layers: Sequence[Path], state: State, options: Options) -> Staged:
    if options.detach:
        raise MountError(f"{store.url} ends with this process, so nothing of it can stay mounted after it")
    return stage(store, layers, state)

"""A private copy, on disk, of what a view of an in-memory store needs.

Why: the mount server is another process, and a `memory://` store lives in this one.  What a mount
shows is copied before it is mounted, laid out as a `file://` store, and is gone with the mount.

Always true: a copy belongs to the process that holds its lock; one whose process is gone is removed
by the next that is made.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path

from volume_core.format.names import pack_name
from volume_core.parts.indexes import open_layer
from volume_core.parts.state import State
from volume_core.storage.opening import normalize
from volume_core.storage.protocol import Store

_LOCK = "lock"


def needs_staging(store: Store) -> bool:
    """Whether no other process can open *store*."""
    return store.url.startswith("memory://")


class Staged:
    """One copy: `url` opens it as a store."""

    def __init__(self, state: State) -> None:
        root = state.root / "staging"
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        _remove_abandoned(root)
        name = uuid.uuid4().hex
        making = root / f".{name}"  # not seen by who removes abandoned copies, until it is locked
        making.mkdir(mode=0o700)
        self._lock = os.open(making / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._path = making.rename(root / name)

    @property
    def path(self) -> Path:
        """The directory that the copy is."""
        return self._path

    @property
    def url(self) -> str:
        """The URL under which any process of this user opens the copy."""
        return normalize(str(self._path))

    def add_packs(self, store: Store, layers: Sequence[Path]) -> None:
        """Copy every pack that the indexes at *layers* name."""
        for digest_hex in {pack.hex() for layer in layers for pack in _packs(layer)}:
            name = pack_name(digest_hex)
            path = self._path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(store.get(name))

    def close(self) -> None:
        """Remove the copy."""
        if self._lock >= 0:
            shutil.rmtree(self._path, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1


def stage(store: Store, layers: Sequence[Path], state: State) -> Staged:
    """Return a copy of what a view of *layers* reads from *store*."""
    staged = Staged(state)
    try:
        staged.add_packs(store, layers)
    except BaseException:
        staged.close()
        raise
    return staged


def _packs(layer: Path) -> list[bytes]:
    with contextlib.closing(open_layer(layer)) as reader:
        return reader.packs()


def _remove_abandoned(root: Path) -> None:
    for path in root.glob("[!.]*"):
        with contextlib.suppress(FileNotFoundError, BlockingIOError):
            descriptor = os.open(path / _LOCK, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(descriptor)

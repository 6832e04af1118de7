"""What the suites share that mount for real: versions, requests over them, and owners to be killed.

Always true: a version is made by a real commit into a directory store; closing a Bench leaves nothing
mounted.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from volume_core.domain.changes import Upper
from volume_core.errors import BusyError, MountError
from volume_core.format.manifest import Manifest
from volume_core.mount.request import Driver, Mounted, MountRequest
from volume_core.parts import workcopies
from volume_core.parts.captured import Captured, load, save
from volume_core.parts.committing import CommitRequest, commit
from volume_core.parts.dialects import DIALECTS, PLAIN
from volume_core.parts.indexes import IndexCache, open_view
from volume_core.parts.state import State
from volume_core.storage.opening import open_store

DEADLINE_S = 30.0
VOLUME = "data"


class Made(NamedTuple):
    """A version: its manifest, its locator, and its unpacked indexes, oldest first."""

    manifest: Manifest
    locator: str
    layers: tuple[Path, ...]


class Bench:
    """One test's state directory, store, and requests over them."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.state = State.at(home / "state").prepare()
        self.store = open_store(str(home / "store"))
        self._indexes = IndexCache(self.state.cache)
        self.mounted: list[Mounted] = []

    def version_of(self, tree: Path) -> Made:
        """Commit a plain directory."""
        return self._commit(CommitRequest(store=self.store, volume=VOLUME, root=tree, dialect=PLAIN))[0]

    def reader(self, version: Made, name: str = "mnt") -> MountRequest:
        """Return a request to show *version*."""
        return self._request(version, name)

    def writer(self, version: Made | None, name: str = "mnt") -> MountRequest:
        """Return a request for a writer over *version* (None: a brand-new volume)."""
        base = version.locator if version else None
        copy = workcopies.create(self.state, volume=VOLUME, store_url=self.store.url, base=base)
        return self._request(version, name)._replace(working_copy=copy)

    def _request(self, version: Made | None, name: str) -> MountRequest:
        return MountRequest(
            self.state,
            self.home / name,
            self.store.url,
            locator=version.locator if version else None,
            layers=version.layers if version else (),
            volume=VOLUME,
            used_bytes=version.manifest.used_bytes if version else 0,
            inode_count=version.manifest.inode_count if version else 0,
        )

    def mount(self, driver: Driver, request: MountRequest) -> Mounted:
        """Mount, and unmount at the end of the test if nobody did."""
        mounted = driver.mount(request)
        self.mounted.append(mounted)
        return mounted

    def commit(self, request: MountRequest, mounted: Mounted | None, base: Made | None, parent: Made | None) -> Made:
        """Commit the working copy of *request*; *parent* is its last commit, or its base."""
        copy = request.working_copy
        assert copy is not None
        if mounted is not None:
            copy.update(driver=mounted.driver, dialect=mounted.dialect)
        with contextlib.ExitStack() as views:
            base_view, parent_view = (open_view(each.layers if each else ()) for each in (base, parent))
            views.callback(base_view.close)
            views.callback(parent_view.close)
            made, captured = self._commit(
                CommitRequest(
                    store=self.store,
                    volume=VOLUME,
                    root=copy.upper,
                    dialect=DIALECTS[copy.dialect],
                    mount_path=mounted.path if mounted else None,
                    base_view=base_view,
                    base_locator=base.locator if base else None,
                    parent_view=parent_view,
                    parent_locator=parent.locator if parent else None,
                    parent=parent.manifest if parent else None,
                    previous=load(copy.captured_path, parent.locator) if parent else None,
                    settle=mounted.settle if mounted else lambda: None,
                    as_version=_terms(copy),
                )
            )
        save(copy.captured_path, captured, made.locator)
        return made

    def _commit(self, request: CommitRequest) -> tuple[Made, Captured]:
        result = commit(request)
        layers = self._indexes.fetch(self.store, result.manifest.stack)
        return Made(result.manifest, result.locator, layers), result.captured

    def close(self) -> None:
        """Unmount whatever is left, and close the store."""
        for mounted in reversed(self.mounted):
            with contextlib.suppress(BusyError, MountError):
                mounted.unmount(lazy=True)
        self.store.close()


def _terms(copy: workcopies.WorkingCopy) -> Callable[[Mapping[bytes, Upper]], Mapping[bytes, Upper]]:
    """What turns a scan of the working copy into the version's terms, as the facade would."""
    if copy.driver == "copy":
        from volume_core.mount.copying import version_terms

        return version_terms(copy)
    return lambda upper: upper


class Owner:
    """Another process, that mounts and then waits to be killed."""

    _PROGRAM = """
import importlib, sys
from pathlib import Path
from volume_core.mount.request import MountRequest
from volume_core.parts import workcopies
from volume_core.parts.state import State
module, name, root, path, url, locator, copy, *layers = sys.argv[1:]
state = State.at(root)
mounted = getattr(importlib.import_module(module), name)().mount(MountRequest(
    state, Path(path), url, locator=locator, layers=tuple(map(Path, layers)),
    working_copy=workcopies.load(state, copy) if copy else None))
print("mounted", flush=True)
sys.stdin.read()
"""

    def __init__(self, driver: Driver, request: MountRequest) -> None:
        kind, copy = type(driver), request.working_copy
        arguments = [
            kind.__module__, kind.__qualname__, str(request.state.root), str(request.mount_path), request.store_url,
            request.locator or "", copy.id if copy else "", *map(str, request.layers),
        ]  # fmt: skip
        command = [sys.executable, "-c", self._PROGRAM, *arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert "mounted\n" == self._process.stdout.readline()

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        self._process.communicate(timeout=DEADLINE_S)

"""A volume without a mount: a directory to work in, committed into any store, read back from it.

For the tests of stores and of commits, which need versions and no kernel.

Always true: what `checkout` makes was read from the store alone, and verified on the way.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from volume_core.domain.view import View
from volume_core.format.manifest import Manifest
from volume_core.format.names import Locator, version_name
from volume_core.parts.capturing import Captured
from volume_core.parts.committing import CommitRequest, CommitResult, commit
from volume_core.parts.dialects import PLAIN, Dialect
from volume_core.parts.hydrating import hydrate
from volume_core.parts.indexes import IndexCache, open_view
from volume_core.parts.reading import Reader
from volume_core.storage.protocol import Store


class Line:
    """One writer's line of versions of *volume*, below the directory *place*.

    `tree` is what is committed: in the plain dialect (where it stands for itself) the whole tree, in
    another the upper over the version *start*.  A plain line that starts from a version begins with it.
    """

    def __init__(
        self,
        store: Store,
        place: Path,
        *,
        volume: str = "volume",
        start: str | None = None,
        dialect: Dialect = PLAIN,
    ) -> None:
        self.store = store
        self.volume = volume
        self.tree = place / "tree"
        self.base = start
        self.parent = start
        self.captured: Captured | None = None
        self._dialect = dialect
        self._indexes = IndexCache(place / "cache")
        place.mkdir(parents=True, exist_ok=True)
        if start is not None and dialect is PLAIN:
            checkout(store, start, self.tree)
        else:
            self.tree.mkdir()

    def commit(self, **options: Any) -> CommitResult:
        """Commit `tree`; *options* replace fields of the CommitRequest.  `parent` is then the new version."""
        base_view, parent_view = self._view(self.base), self._view(self.parent)
        try:
            request = CommitRequest(
                **{
                    "store": self.store,
                    "volume": self.volume,
                    "root": self.tree,
                    "dialect": self._dialect,
                    "base_view": base_view,
                    "base_locator": self.base,
                    "parent_view": parent_view,
                    "parent_locator": self.parent,
                    "parent": manifest_of(self.store, self.parent) if self.parent else None,
                    "previous": self.captured,
                    **options,
                }
            )
            result = commit(request)
        finally:
            base_view.close()
            parent_view.close()
        for ref, index in result.indexes:
            self._indexes.add(ref, index)
        self.parent, self.captured = result.locator, result.captured
        return result

    def _view(self, locator: str | None) -> View:
        if locator is None:
            return View()
        return open_view(self._indexes.fetch(self.store, manifest_of(self.store, locator).stack))


def manifest_of(store: Store, locator: str) -> Manifest:
    """Return the verified manifest of *locator*, which is of *store*."""
    _, volume, version = Locator.parse(locator)
    return Manifest.from_bytes(version, store.get(version_name(volume, version)))


def checkout(store: Store, locator: str, destination: Path) -> None:
    """Make *destination*, which must not exist, the tree of *locator*, read from *store* alone."""
    with TemporaryDirectory() as scratch:
        view = open_view(IndexCache(Path(scratch)).fetch(store, manifest_of(store, locator).stack))
        with closing(view), Reader(store) as reader:
            hydrate(view, reader, destination)

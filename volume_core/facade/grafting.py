"""Between a version and plain files, without a mount: out by hydrating, in by committing them where they lie.

Always true: nothing is copied on the way in, the files are captured at one instant as a mounted tree's
are; what a version holds beside them stays; on the way out only what is whole gets its name.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import cast

from volume_core.domain.changes import Upper
from volume_core.domain.view import Node, View
from volume_core.errors import NotFoundError, VolumeError
from volume_core.facade.browsing import Browser, browse
from volume_core.facade.versions import Version
from volume_core.format.entries import Entry, join, split
from volume_core.format.names import Locator
from volume_core.parts.committing import CommitRequest, commit
from volume_core.parts.dialects import PLAIN
from volume_core.parts.editing import counting
from volume_core.parts.hydrating import hydrate
from volume_core.parts.indexes import IndexCache
from volume_core.parts.state import State
from volume_core.parts.trees import remove_tree
from volume_core.plugins.manager import plugins

Advance = Callable[[int], None]  # so many more bytes are done


class _Below:
    """A part of a view, as hydrating asks for it: *start* is the root, or the one thing in an empty root."""

    def __init__(self, view: View, start: Node) -> None:
        self._view = view
        self._start = start

    def walk(self) -> Iterator[Node]:
        if not self._start.is_directory:
            yield self._view.root._replace(path=b"")
            yield self._start._replace(path=self._start.name)
            return
        cut = len(self._start.path) + 1 if self._start.path else 0
        for node in self._view.walk(self._start.path):
            yield node._replace(path=node.path[cut:])

    def entry(self, node: Node) -> Entry:
        return self._view.entry(node)


def copy_out(browser: Browser, start: Node, destination: Path, advance: Advance) -> None:
    """Make *destination* what *start* is, with all below it.

    A file there is replaced; raises VolumeError where anything else is, OSError where the file system refuses.
    """
    below = cast("View", _Below(browser.view, start))
    if start.is_directory:
        if destination.exists() and any(destination.iterdir()):
            raise VolumeError(f"{destination} is not empty")
        with contextlib.suppress(FileNotFoundError):
            destination.rmdir()
        hydrate(below, browser.reader, destination, progress=lambda _files, count: advance(count))
        return
    holder = destination.with_name(f".{destination.name}.{os.getpid()}.copying")
    try:
        hydrate(below, browser.reader, holder, progress=lambda _files, count: advance(count))
        os.chmod(holder, 0o700)
        os.replace(os.path.join(os.fsencode(holder), start.name), destination)
    finally:
        remove_tree(holder)


def size_of(browser: Browser, start: Node) -> int:
    """Return the bytes of the files at and below *start*."""
    return sum(node.row.size for node in browser.view.walk(start.path))


def copy_in(
    version: Version, source: Path, target: bytes, *, name: str | None = None, message: str = "", advance: Advance
) -> Version:
    """Commit *source*, a file or a directory, as *target* of *version*; return the new version, or *version* itself
    where that changes nothing.  To tell the hooks of it is the caller's.

    A directory is merged into one that is there.  A *target* that is an existing directory takes a file
    into it.  Raises NotFoundError if the directory to hold *target* is not there.
    """
    with browse(version) as browser:
        there = browser.view.resolve(target)
        if source.is_dir():
            return _graft(version, browser, source, target, name, message, advance)
        if there is not None and there.is_directory:
            target = join(target, os.fsencode(source.name))
        above, leaf = split(target)
        with _holding(source, leaf) as holder:
            return _graft(version, browser, holder, above, name, message, advance, is_holder=True)


def _graft(
    version: Version,
    browser: Browser,
    root: Path,
    target: bytes,
    name: str | None,
    message: str,
    advance: Advance,
    *,
    is_holder: bool = False,
) -> Version:
    """Merge what lies below *root* into the directory *target*, which is made if it is not there (but for a holder)."""
    view = browser.view
    found = view.resolve(target)
    needed = target if is_holder else split(target)[0]
    holding = view.resolve(needed)
    if holding is None or not holding.is_directory:
        raise NotFoundError(f"/{os.fsdecode(needed)}: there is no such directory in {version.locator}")
    keeps_root = found is not None and found.is_directory
    result = commit(
        CommitRequest(
            store=counting(version.place.store(), advance),
            volume=name or version.manifest.volume,
            root=root,
            dialect=PLAIN,
            base_view=view,
            base_locator=str(version.locator),
            parent_view=view,
            parent_locator=str(version.locator),
            parent=version.manifest,
            as_version=lambda upper: _merged(view, upper, target, keeps_root=keeps_root),
            message=message,
            produced_by=plugins().current_task(),
            region=version.manifest.region,
            metadata_store_type=version.manifest.metadata_store_type,
        )
    )
    indexes = IndexCache(State.default().cache)
    for ref, index in result.indexes:
        indexes.add(ref, index)
    return Version(Locator.parse(result.locator), result.manifest, version.place)


def _merged(view: View, upper: Mapping[bytes, Upper], target: bytes, *, keeps_root: bool) -> Mapping[bytes, Upper]:
    """Return *upper* below *target*, over the tree that *view* shows."""
    merged: dict[bytes, Upper] = {}
    above: list[bytes] = [b""]
    for part in target.split(b"/") if target else []:
        above.append(join(above[-1], part))
    for path in above:
        node = view.resolve(path)
        if node is not None and node.is_directory:
            merged[path] = Upper(view.entry(node), path)
    for path, found in upper.items():
        there = join(target, path) if target and path else target or path
        if not path and keeps_root:
            continue
        node = view.resolve(there) if found.entry.is_directory else None
        merged[there] = found._replace(base=there if node is not None and node.is_directory else None)
    return merged


@contextlib.contextmanager
def _holding(source: Path, leaf: bytes) -> Iterator[Path]:
    """A directory that holds a copy of the file *source*, or of what comes from stdin ("-"), as *leaf*."""
    staging = State.default().prepare().root / "staging"
    staging.mkdir(mode=0o700, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=staging, prefix=".cp-") as made:
        inside = os.path.join(os.fsencode(made), leaf)
        if os.fspath(source) == "-":
            with open(inside, "wb") as file, open(0, "rb", closefd=False) as stdin:
                shutil.copyfileobj(stdin, file, 1 << 20)
        elif source.is_symlink():
            os.symlink(os.readlink(source), inside)
        else:
            _copy_file(os.fsencode(source), inside)
        yield Path(made)


def _copy_file(source: bytes, target: bytes) -> None:
    """Copy a file with its holes, owner, mode, xattrs and times; by reference where the file system can."""
    with open(source, "rb") as data, open(target, "wb") as copy:
        status = os.fstat(data.fileno())
        os.truncate(copy.fileno(), status.st_size)
        position = 0
        while position < status.st_size:
            try:
                start = os.lseek(data.fileno(), position, os.SEEK_DATA)
            except OSError:
                break  # nothing but a hole is left
            position = os.lseek(data.fileno(), start, os.SEEK_HOLE)
            _copy_range(data.fileno(), copy.fileno(), start, position)
    with contextlib.suppress(PermissionError):
        os.chown(target, status.st_uid, status.st_gid)
    shutil.copystat(source, target)


def _copy_range(source: int, target: int, start: int, end: int) -> None:
    while start < end:
        try:
            count = os.copy_file_range(source, target, end - start, start, start)
        except OSError:  # not between these file systems
            count = os.pwrite(target, os.pread(source, min(end - start, 1 << 20), start), start)
        if not count:
            return  # cut short meanwhile
        start += count

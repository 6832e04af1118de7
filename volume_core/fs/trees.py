"""Whole directories, out of a volume and into one: `get` and `put` with recursive=True.

Why not as fsspec does both, file by file: that knows files alone, reads through symlinks wherever they lead, and
stops at one that leads nowhere.

Always true:

  1. A directory comes out, and goes in, as a mount would show it: modes, times, symlinks as such, empty directories,
     hard links, FIFOs, xattrs; owners as far as this user may give files away.
  2. No symlink is followed but the one that the caller has named, in a volume only within that: what is read and
     written lies below what was named.
  3. Where a path goes is as everywhere in fsspec.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Iterator
from glob import has_magic
from pathlib import Path
from typing import Any

from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.implementations.local import LocalFileSystem, make_path_posix, trailing_sep
from fsspec.utils import other_paths, stringify_path

from volume_core.domain import paths
from volume_core.errors import ExistsError, NoSuchPathError
from volume_core.facade.addresses import PROTOCOL, Address, join
from volume_core.facade.grafting import lay_into, lay_out
from volume_core.format.entries import Entry, Kind
from volume_core.fs import steps
from volume_core.fs.localtrees import LocalTree
from volume_core.fs.naming import volumes_at
from volume_core.fs.threads import as_os_errors, called
from volume_core.fs.writing import Writing
from volume_core.parts.placing import Content
from volume_core.parts.scanning import time_within


class Trees(Writing):
    """Getting and putting directories, on top of all that is done to one path."""

    # Out.

    async def _get(
        self,
        rpath: Any,
        lpath: Any,
        recursive: bool = False,
        callback: Any = DEFAULT_CALLBACK,
        maxdepth: int | None = None,
        **options: Any,
    ) -> None:
        """As fsspec's; with *recursive* directories come out as they are, a list of paths file by file."""
        if not recursive or maxdepth is not None or not (_is_path(rpath) and _is_path(lpath)):
            await super()._get(rpath, lpath, recursive, callback, maxdepth, **options)
            return
        name, target = self._strip_protocol(rpath), make_path_posix(stringify_path(lpath))
        is_pattern = has_magic(name) and not await self._exists(name)
        names = await self._glob(name) if is_pattern else [name]
        if not names:
            raise FileNotFoundError(errno.ENOENT, "nothing has such a name", f"{PROTOCOL}://{name}")
        is_into = not is_pattern and not trailing_sep(stringify_path(rpath))
        is_into = is_into and (trailing_sep(target) or os.path.isdir(target))
        is_into = is_into or (is_pattern and len(names) == 1 and not await called(self._holds_anything, names[0]))
        progress = _Progress(callback)
        for each, local in zip(names, other_paths(names, target, exists=is_into), strict=True):
            await called(_check_no_link, target.rstrip("/"), local)
            await called(self._lay_out, each, local, progress, not is_pattern)
        progress.end()

    def _holds_anything(self, path: str) -> bool:
        return self.isdir(path) and bool(self.ls(path, detail=False))

    def _lay_out(self, path: str, local: str, progress: _Progress, follow: bool) -> None:
        """Make the local path *local* what *path* is."""
        with self._address(path) as address:
            if not address.volume:
                for each in volumes_at(self._versions.place(address)):
                    _check_no_link(local, f"{local}/{each.name}")
                    self._lay_out(join(address.root, each.name), f"{local}/{each.name}", progress, True)
                return
            with self._contents(address) as (tree, content):
                start = paths.find(tree, address.path, follow=follow)
                if start is None:
                    raise NoSuchPathError(f"{paths.shown(address.path)}: there is no such path in {address.root}")
                if progress.is_wanted:
                    progress.expect(_count(tree, start))
                os.makedirs(os.path.dirname(local) or ".", exist_ok=True)
                lay = lay_into if start.is_directory and os.path.isdir(local) else lay_out
                lay(tree, content, start, Path(local), progress)

    @contextlib.contextmanager
    def _contents(self, address: Address) -> Iterator[tuple[Any, Content]]:
        """What *address*'s volume shows, and what has the bytes, while the `with` statement lasts."""
        draft = self._draft_of(address)
        if draft is None:
            with self._versions.at(address).lend() as browser:
                yield browser.view, browser.reader
        else:
            with draft.lock, draft.content() as content:
                yield draft.edits, content

    # In.

    async def _put(
        self,
        lpath: Any,
        rpath: Any,
        recursive: bool = False,
        callback: Any = DEFAULT_CALLBACK,
        batch_size: int | None = None,
        maxdepth: int | None = None,
        mode: str = "overwrite",
        **options: Any,
    ) -> None:
        """As fsspec's, in one commit; with *recursive* directories go in as they are, a list of paths file by file."""
        if not recursive or maxdepth is not None or not (_is_path(rpath) and _is_path(lpath)):
            options |= {"maxdepth": maxdepth, "mode": mode}
            await super()._put(lpath, rpath, recursive, callback, batch_size, **options)
            return
        local, target = make_path_posix(stringify_path(lpath)), stringify_path(rpath)
        is_pattern = has_magic(local) and not os.path.lexists(local)
        names = sorted(LocalFileSystem().glob(local)) if is_pattern else [local.rstrip("/") or "/"]
        if not names:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), local)
        is_into = not is_pattern and not trailing_sep(local) and (trailing_sep(target) or await self._isdir(target))
        is_into = is_into or (is_pattern and len(names) == 1 and not (os.path.isdir(names[0]) and os.listdir(names[0])))
        progress = _Progress(callback)
        async with self._together():
            others = other_paths(names, self._strip_protocol(target), exists=is_into)
            for each, there in zip(names, others, strict=True):
                await called(self._put_in, each, there, mode == "create", not is_pattern, progress)
        progress.end()

    def _put_in(self, local: str, path: str, exclusive: bool, follow: bool, progress: _Progress) -> None:
        """Make *path* what the local path *local* is."""
        path = self._strip_protocol(path)
        if os.path.islink(local) and not follow:
            link = _link(local)
            self.change(path, lambda within: steps.put_link(within, link), creates=True)
        elif os.path.isdir(local):
            with as_os_errors(path):
                tree = LocalTree(local)
            if (keeper := self._keeper()) is not None:
                with as_os_errors(path):
                    tree = tree.copied_to(keeper.new_file())
            progress.expect(tree.files)
            self.change(path, lambda within: steps.put_tree(within, tree, exclusive=exclusive), creates=True)
        else:
            progress.expect(1)
            self.put_file(local, path, mode="create" if exclusive else "overwrite")


class _Progress:
    """Tells a callback of fsspec how many files are done; called by any thread, as hydrating does."""

    def __init__(self, callback: Any) -> None:
        self._callback = callback
        self._lock = threading.Lock()
        self._expected = self._done = 0

    @property
    def is_wanted(self) -> bool:
        """Whether anybody listens."""
        return self._callback is not DEFAULT_CALLBACK

    def expect(self, files: int) -> None:
        """There will be so many more."""
        with self._lock:
            self._expected += files
            self._callback.set_size(self._expected)

    def __call__(self, files: int, _size_bytes: int) -> None:
        with self._lock:
            self._done += files
            self._callback.relative_update(files)

    def end(self) -> None:
        """All are done, those of no size too."""
        if self.is_wanted:
            self(self._expected - self._done, 0)


def _check_no_link(named: str, local: str) -> None:
    """Raise ExistsError if a symlink to a directory lies on the way from *named*, the caller's own, to *local*."""
    above = local.rstrip("/")
    while len(above) > len(named):
        if os.path.islink(above) and os.path.isdir(above):
            raise ExistsError(f"{above} is no directory, but a symlink to one: remove it first", [above])
        above = os.path.dirname(above)


def _is_path(value: Any) -> bool:
    return isinstance(value, str | os.PathLike)


def _count(tree: Any, start: Any) -> int:
    """Return how many names at and below *start* are not those of directories."""
    waiting, found = [start], 0
    while waiting:
        place = waiting.pop()
        if place.is_directory:
            waiting.extend(tree.listing(place))
        else:
            found += 1
    return found


def _link(local: str) -> Entry:
    status, target = os.lstat(local), os.readlink(os.fsencode(local))
    mtime_ns = time_within(status.st_mtime_ns)
    return Entry(Kind.SYMLINK, 0o777, status.st_uid, status.st_gid, mtime_ns, target=target)

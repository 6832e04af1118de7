"""What the file system does to write.

Always true:

  1. What one call changes of one volume is one commit; within a transaction, all calls together are. A call, or a
     transaction, that fails commits nothing.
  2. Only heads are written: a path in a fixed version is read-only.
  3. Reads within a transaction see what was written in it; others see it when it is committed.
"""

from __future__ import annotations

import contextlib
import contextvars
import errno
import os
from collections.abc import AsyncIterator, Callable, Iterator
from glob import has_magic
from typing import Any, cast

from fsspec.asyn import sync
from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.implementations.local import trailing_sep
from fsspec.transaction import Transaction

from volume_core.errors import NotFoundError, ReadOnlyError
from volume_core.facade.addresses import PROTOCOL, Address, parse
from volume_core.format.entries import Entry
from volume_core.format.names import Locator
from volume_core.fs import steps
from volume_core.fs.drafts import Draft, Drafts, Source, Step
from volume_core.fs.files import Content
from volume_core.fs.infos import Info, Tree
from volume_core.fs.looking import Looking
from volume_core.fs.naming import to_write
from volume_core.fs.threads import as_os_errors, awaited, called

# The drafts of the call under way, in its tasks and threads.
_of_call: contextvars.ContextVar[Drafts | None] = contextvars.ContextVar("volume_core_fs_drafts", default=None)


class VolumeTransaction(Transaction):
    """All that is written in its `with` block becomes one commit of each volume at its end; nothing after an error."""

    fs: Writing

    def __init__(self, fs: Writing, **options: Any) -> None:
        super().__init__(fs, **options)
        self.drafts = Drafts()

    def complete(self, commit: bool = True) -> None:
        """Commit, or drop what was written."""
        fs = self.fs
        try:
            while self.files:
                file = self.files.popleft()
                if commit:
                    file.close()
                else:
                    file.discard()
            if commit:
                fs.commit_drafts(self.drafts)
        finally:
            while self.files:
                self.files.popleft().discard()
            self.drafts.close()
            fs._intrans, fs._transaction = False, None


class Writing(Looking):
    """Writing, on top of looking and reading."""

    transaction_type = VolumeTransaction

    def __init__(self, bucket: str | None = None, region: str | None = None, **options: Any) -> None:
        self._message = options.get("message")
        super().__init__(bucket, region, **options)

    # Steps, drafts and commits.

    def change(self, path: str, make: Callable[[bytes], Step], *, creates: bool = False) -> None:
        """Do the step that *make* makes of *path* within its volume: in the drafts, or as a commit.

        A volume that is not there is made, if the step *creates*.
        """
        with self._writable(path) as address:
            step = make(address.path)
            drafts = self._drafts()
            if drafts is not None:
                drafts.of(address.root, lambda: self._begin(address, creates)).add(step, creates=creates)
            else:
                self._commit(address, [step], creates)

    def commit_drafts(self, drafts: Drafts) -> None:
        """Commit each of *drafts*."""
        for root, draft in drafts:
            with as_os_errors(root), draft.lock:
                if draft.steps:
                    self._commit(parse(root), draft.steps, draft.creates)

    def _commit(self, address: Address, todo: list[Step], creates: bool) -> None:
        message = self._message or f"written through {PROTOCOL}://"
        with self._versions.committing:
            volume = to_write(self._versions.place(address), address.volume, create=creates)
            with contextlib.closing(volume.begin_editing()) as editing:
                for step in todo:
                    step(editing.session)
                try:
                    version = editing.commit(message)
                except BaseException:
                    # The head may have moved all the same: the answer that says so may be lost.
                    self._versions.forget(address)
                    raise
            self._versions.moved(address, Locator.parse(version.locator))

    def _begin(self, address: Address, creates: bool) -> Draft:
        try:
            return Draft(self._versions.at(address))
        except NotFoundError:
            if creates:
                return Draft(None)
            raise

    def _drafts(self) -> Drafts | None:
        drafts = _of_call.get()
        return self.drafts_of_transaction() if drafts is None else drafts

    def drafts_of_transaction(self) -> Drafts | None:
        """Return what is written in the transaction that is open; None if none is."""
        if self._intrans and self._transaction is not None:
            return cast("VolumeTransaction", self._transaction).drafts
        return None

    def _keeper(self) -> Drafts | None:
        """Return what keeps copies of all that is put; None where it is committed before the caller goes on.

        He may change or remove his file before a transaction ends, and has his memory for himself.
        """
        return self.drafts_of_transaction() if _of_call.get() is None else None

    @contextlib.contextmanager
    def _writable(self, path: str) -> Iterator[Address]:
        """The address of *path*, if it can be written at all."""
        path = self._strip_protocol(path)
        with as_os_errors(path):
            address = parse(path)
            if address.ref:
                raise ReadOnlyError(
                    f"{PROTOCOL}://{path} lies in a fixed version; {PROTOCOL}://{address.volume} is written"
                )
            if not address.volume:
                raise IsADirectoryError(errno.EISDIR, "it is a store, not a file", f"{PROTOCOL}://{path}")
            yield address

    @contextlib.asynccontextmanager
    async def _together(self) -> AsyncIterator[None]:
        """Commit together all that is written while the `with` statement lasts."""
        if self._drafts() is not None:
            yield
            return
        drafts = Drafts()
        token = _of_call.set(drafts)
        try:
            yield
            await called(self.commit_drafts, drafts)
        finally:
            _of_call.reset(token)
            await called(drafts.close)

    # Reading what was written.

    @contextlib.contextmanager
    def _tree(self, address: Address, *, anew: bool = False) -> Iterator[Tree]:
        draft = self._draft_of(address)
        if draft is None:
            with super()._tree(address, anew=anew) as tree:
                yield tree
        else:
            with draft.lock:
                yield draft.edits

    def _content(self, address: Address, entry: Entry, info: Info) -> Content:
        draft = self._draft_of(address)
        source = draft.source(entry.content) if draft is not None else None
        return (
            Content(None, (), info, entry.mtime_ns, source)
            if source is not None
            else super()._content(address, entry, info)
        )

    def _draft_of(self, address: Address) -> Draft | None:
        drafts = self._drafts()
        return None if drafts is None or address.ref else drafts.find(address.root)

    # The calls of fsspec.

    def pipe_file(self, path: str, value: Any, mode: str = "overwrite", **_options: Any) -> None:
        """Write *value*, bytes, to the file *path*; with *mode* "create" only if nothing is there."""
        self.put_source(path, Source(bytes(value)), exclusive=mode == "create")

    _pipe_file = awaited(pipe_file)

    def put_source(self, path: str, source: Source, *, exclusive: bool = False) -> None:
        """Write *source* to the file *path*; for the files of this package."""
        keeper = self._keeper()
        kept = source if keeper is None or source.ours else source.copied_to(keeper.new_file())
        self.change(path, lambda within: steps.put(within, kept, exclusive=exclusive), creates=True)

    def put_file(
        self, lpath: Any, rpath: str, callback: Any = DEFAULT_CALLBACK, mode: str = "overwrite", **_options: Any
    ) -> None:
        """Write what the local file *lpath* holds to the file *rpath*; of a directory only make one."""
        lpath = os.fspath(lpath)
        if os.path.isdir(lpath):
            self.makedirs(rpath, exist_ok=True)
            return
        callback.set_size(os.stat(lpath).st_size)
        self.put_source(rpath, Source(path=lpath), exclusive=mode == "create")
        callback.relative_update(os.stat(lpath).st_size)

    _put_file = awaited(put_file)

    def mkdir(self, path: str, create_parents: bool = True, **_options: Any) -> None:
        """Make the directory *path*; a volume, if that is one that is not there."""
        self._make_directory(path, parents=create_parents, exist_ok=False)

    _mkdir = awaited(mkdir)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Make the directory *path* and all above it."""
        self._make_directory(path, parents=True, exist_ok=exist_ok)

    _makedirs = awaited(makedirs)

    def _make_directory(self, path: str, *, parents: bool, exist_ok: bool) -> None:
        path = self._strip_protocol(path)
        kind = self._type_of(path)
        if kind == "directory" and exist_ok:
            return
        if kind is not None:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), f"{PROTOCOL}://{path}")
        # Of a volume that is not there the root is made with it.
        self.change(
            path,
            lambda within: steps.make_directory(within, parents=parents, exist_ok=exist_ok or not within),
            creates=parents or not parse(path).path,
        )

    def rmdir(self, path: str) -> None:
        """Remove the empty directory *path*."""
        self.change(path, steps.remove_directory)

    def rm_file(self, path: str) -> None:
        """Remove the file *path*."""
        self._remove(path, recursive=False)

    _rm_file = awaited(rm_file)

    async def _rm(
        self, path: Any, recursive: bool = False, batch_size: int | None = None, maxdepth: int | None = None, **_: Any
    ) -> None:
        """Remove files, and with *recursive* directories with all that is in them; of a volume's root what is in it."""
        async with self._together():
            if maxdepth is not None and recursive:
                names = await self._expand_path(path, recursive=True, maxdepth=maxdepth)
            else:
                names = await self._expand_path(path)
            for name in sorted(names, reverse=True):
                if recursive and maxdepth is not None and await self._isdir(name) and await self._ls(name):
                    continue  # what lies deeper stays
                await called(self._remove, name, recursive)

    def _remove(self, path: str, recursive: bool) -> None:
        self.change(path, lambda within: steps.remove(within, recursive=recursive))

    def cp_file(self, path1: str, path2: str, **_options: Any) -> None:
        """Copy a file, within a volume without moving any data; of a directory only make one."""
        source = parse(self._strip_protocol(path1))
        if not source.ref and source.root == parse(self._strip_protocol(path2)).root:
            self.change(path2, lambda within: steps.copy(source.path, within))
        elif self.isdir(path1):
            self.makedirs(path2, exist_ok=True)
        else:
            self._bring(path1, path2)

    _cp_file = awaited(cp_file)

    def _bring(self, path1: str, path2: str) -> None:
        """Copy a file from another volume, or version."""
        drafts = self._drafts()
        own = Drafts() if drafts is None else drafts
        try:
            local = own.new_file()
            self.get_file(path1, local)
            self.put_source(path2, Source(path=local, ours=True))
        finally:
            if drafts is None:
                own.close()

    async def _copy(self, path1: Any, path2: Any, recursive: bool = False, **options: Any) -> None:
        """As fsspec's, in one commit; a whole directory within a volume is copied with its symlinks as such."""
        async with self._together():
            if recursive and not options.get("maxdepth") and await called(self._copy_tree, path1, path2):
                return
            await super()._copy(path1, path2, recursive=recursive, **options)

    def _copy_tree(self, path1: Any, path2: Any) -> bool:
        """Copy the directory *path1* in one step, if that can be; return whether it was done."""
        if not isinstance(path1, str) or not isinstance(path2, str) or has_magic(path1):
            return False
        source, target = self._strip_protocol(path1), self._strip_protocol(path2)
        if self.isdir(target) and not trailing_sep(path1):
            target = f"{target}/{source.rpartition('/')[2]}"
        here, there = parse(source), parse(target)
        if here.ref or there.ref or here.root != there.root or not self.isdir(source) or not there.path:
            return False
        if f"{target}/".startswith(f"{source}/"):
            return False
        self.change(target, lambda within: steps.copy_tree(here.path, within))
        return True

    async def _pipe(self, path: Any, value: Any = None, batch_size: int | None = None, **options: Any) -> None:
        async with self._together():
            await super()._pipe(path, value, batch_size=batch_size, **options)

    async def _put(self, lpath: Any, rpath: Any, *arguments: Any, **options: Any) -> None:
        async with self._together():
            await super()._put(lpath, rpath, *arguments, **options)

    async def _mv(
        self, path1: Any, path2: Any, recursive: bool = False, maxdepth: int | None = None, **_options: Any
    ) -> None:
        async with self._together():
            if path1 == path2 or (maxdepth is None and await called(self._move, path1, path2, recursive)):
                return
            await self._copy(path1, path2, recursive=recursive, maxdepth=maxdepth, on_error="raise")
            await self._rm(path1, recursive=recursive)

    def mv(self, path1: Any, path2: Any, recursive: bool = False, maxdepth: int | None = None, **options: Any) -> None:
        """Move as copying and removing would, in one commit; within a volume without moving any data."""
        sync(self.loop, self._mv, path1, path2, recursive=recursive, maxdepth=maxdepth, **options)

    def _move(self, path1: Any, path2: Any, recursive: bool) -> bool:
        """Rename *path1*, if that is what moving it means; return whether it was done."""
        if not isinstance(path1, str) or not isinstance(path2, str) or has_magic(path1) or trailing_sep(path1):
            return False
        source, target = self._strip_protocol(path1), self._strip_protocol(path2)
        if self.isdir(target) or trailing_sep(path2):
            target = f"{target}/{source.rpartition('/')[2]}"
        here, there = parse(source), parse(target)
        is_within = not here.ref and not there.ref and here.root == there.root and here.path and there.path
        if not is_within or self.isdir(target) or (self.isdir(source) and not recursive):
            return False
        self.change(target, lambda within: steps.move(here.path, within))
        return True

    def touch(self, path: str, truncate: bool = True, **_options: Any) -> None:
        """Make an empty file of *path*, or without *truncate* set the time of what is there to now."""
        if truncate or not self.exists(path):
            self.pipe_file(path, b"")
        else:
            self.change(path, steps.touch)

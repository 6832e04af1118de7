"""What the file system does to look and to read.

Each method that may wait is written once, without waiting for a loop, and so may be called from any thread,
any loop and any process; its awaited spelling (`_info` of `info`) runs it in a thread.

Always true:

  1. Instances of the same options read one version of each volume: its head is looked up when it is first needed, and
     again after `invalidate_cache` (and as `listings_expiry_time` and `use_listings_cache` say).
  2. Paths go in and come out as addresses.strip() makes them: what `ls`, `find`, `glob` and `walk` return can be
     given to any method.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import errno
import os
import stat
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, cast

from fsspec import asyn
from fsspec.asyn import AsyncFileSystem, get_loop
from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.utils import isfilelike, stringify_path

from volume_core.errors import InvalidNameError, NotFoundError
from volume_core.facade.addresses import PROTOCOL, Address, join, parse, strip
from volume_core.facade.versions import Version
from volume_core.format.entries import Entry, Kind
from volume_core.fs.files import Content
from volume_core.fs.infos import Info, Tree, below, children, directory_info, find, fingerprint, info_of
from volume_core.fs.naming import volumes_at
from volume_core.fs.opened import Versions, together
from volume_core.fs.threads import as_os_errors, awaited, called

_COPIED_BYTES = 4 << 20  # at a time, from a volume to a local file


class Looking(AsyncFileSystem):
    """Looking and reading.  *bucket* and *region* say which store `vol://NAME` is in, as Volume.new has them."""

    protocol = PROTOCOL
    _pid: int

    def __init__(self, bucket: str | None = None, region: str | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._options = options
        self._own_versions = Versions(bucket, region, self.dircache)
        self._shared_versions: Versions | None = None

    @property
    def _versions(self) -> Versions:
        """What is read: with all other instances of the same options, unless this one is to be like no other."""
        if self._shared_versions is None:
            is_alone = self._cache.get(self._fs_token) is not self  # skip_instance_cache
            self._shared_versions = self._own_versions if is_alone else together.of(self._own_versions, self._options)
        return self._shared_versions

    @classmethod
    def clear_instance_cache(cls) -> None:
        """Forget every instance: the next ones look at all heads anew."""
        super().clear_instance_cache()
        together.forget()

    # Names.

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(each) for each in path]
        return strip(stringify_path(path))

    @property
    def fsid(self) -> str:
        """The same for any two that read and write the same volumes."""
        return f"{PROTOCOL}_{self._fs_token}"

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop that runs what has no direct spelling: in a forked child, one of the child."""
        if self._pid != os.getpid():
            # Not every release of fsspec forgets the parent's loop, which nothing runs in the child.
            if asyn.iothread[0] is not None and not asyn.iothread[0].is_alive():
                asyn.reset_lock()
            self._pid = os.getpid()
            self._loop = None if self.asynchronous else get_loop()
        return cast("asyncio.AbstractEventLoop | None", self._loop)

    def invalidate_cache(self, path: str | None = None) -> None:
        """Look up anew which version the head of *path*'s volume is, or all heads are, at the next use."""
        with contextlib.suppress(InvalidNameError):
            self._versions.forget(None if path is None else parse(self._strip_protocol(path)))
        super().invalidate_cache(path)

    # Looking.

    def info(self, path: str, *, refresh: bool = False, **_options: Any) -> Info:
        """Return what is known of *path* (infos.py has the keys), after symlinks; *refresh* looks at the head anew."""
        path = self._strip_protocol(path)
        with self._address(path) as address:
            if not address.volume:
                return directory_info(address.root)
            with self._tree(address, anew=refresh) as tree:
                return info_of(find(tree, address.path), path)

    _info = awaited(info)

    def ls(self, path: str, detail: bool = True, *, refresh: bool = False, **_options: Any) -> list[Any]:
        """Return the infos of what lies in the directory *path*, or of the file that it is; names without *detail*.

        The directories of a store are its volumes.
        """
        path = self._strip_protocol(path)
        with self._address(path) as address:
            infos = self._listing(address, path, anew=refresh)
        return infos if detail else [info["name"] for info in infos]

    _ls = awaited(ls)

    def _listing(self, address: Address, path: str, *, anew: bool) -> list[Info]:
        if not address.volume:
            return [
                directory_info(join(address.root, each.name), each.modified_ns)
                for each in volumes_at(self._versions.place(address))
            ]
        with self._tree(address, anew=anew) as tree:
            found = find(tree, address.path)
            if not found.is_directory:
                return [info_of(found, path)]
            return [info_of(each, name) for name, each in children(tree, found, path)]

    def exists(self, path: str, **options: Any) -> bool:
        """Whether anything is at *path*.  A store that does not answer is an error, not a no."""
        return self._type_of(path, **options) is not None

    _exists = awaited(exists)

    def isfile(self, path: str) -> bool:
        """Whether a file is at *path*."""
        return self._type_of(path) == "file"

    _isfile = awaited(isfile)

    def isdir(self, path: str) -> bool:
        """Whether a directory is at *path*."""
        return self._type_of(path) == "directory"

    _isdir = awaited(isdir)

    def islink(self, path: str) -> bool:
        """Whether a symlink is at *path*."""
        try:
            return bool(self.info(path)["islink"])
        except FileNotFoundError:
            return False

    def _type_of(self, path: str, **options: Any) -> str | None:
        try:
            return cast("str", self.info(path, **options)["type"])
        except (FileNotFoundError, NotADirectoryError):
            return None

    def find(
        self, path: str, maxdepth: int | None = None, withdirs: bool = False, detail: bool = False, **options: Any
    ) -> Any:
        """Return the names of all files below *path*, sorted; with *detail* a dict of their infos."""
        if maxdepth is not None and maxdepth < 1:
            raise ValueError("maxdepth must be at least 1")
        path = self._strip_protocol(path)
        found: dict[str, Info] = {}
        with contextlib.suppress(FileNotFoundError), self._address(path) as address:
            self._find_below(address, path, maxdepth, found, anew=bool(options.get("refresh")))
        names = sorted(name for name, info in found.items() if withdirs or info["type"] != "directory")
        return {name: found[name] for name in names} if detail else names

    _find = awaited(find)

    def _find_below(
        self, address: Address, path: str, levels: int | None, found: dict[str, Info], *, anew: bool
    ) -> None:
        if not address.volume:
            for info in self._listing(address, path, anew=anew):
                found[info["name"]] = info
                if levels is None or levels > 1:
                    self._find_below(parse(info["name"]), info["name"], levels and levels - 1, found, anew=anew)
            return
        with self._tree(address, anew=anew) as tree:
            start = find(tree, address.path)
            found[path] = info_of(start, path)
            if start.is_directory:
                found.update((name, info_of(each, name)) for name, each in below(tree, start, path, levels))

    def walk(
        self, path: str, maxdepth: int | None = None, topdown: bool = True, on_error: Any = "omit", **options: Any
    ) -> Iterator[tuple[str, Any, Any]]:
        """Yield (path, directories, files) as os.walk does; the last two by name, with *detail* as dicts of infos.

        Symlinks to directories are followed, but for those that lead to where they came from.
        """
        if maxdepth is not None and maxdepth < 1:
            raise ValueError("maxdepth must be at least 1")
        detail = options.pop("detail", False)
        start = self._strip_protocol(path)
        number = 0
        with contextlib.suppress(OSError):
            number = self.info(start, **options).get("ino", 0)
        yield from self._walk_below(start, frozenset((number,)), maxdepth, topdown, on_error, detail, options)

    async def _walk(self, path: str, *arguments: Any, **options: Any) -> AsyncIterator[tuple[str, Any, Any]]:
        steps = self.walk(path, *arguments, **options)
        while (step := await called(next, steps, None)) is not None:
            yield step

    def _walk_below(
        self,
        path: str,
        came_from: frozenset[int],
        levels: int | None,
        topdown: bool,
        on_error: Any,
        detail: bool,
        options: dict[str, Any],
    ) -> Iterator[tuple[str, Any, Any]]:
        try:
            listing = self.ls(path, detail=True, **options)
        except OSError as error:
            if on_error == "raise":
                raise
            if callable(on_error):
                on_error(error)
            listing = []
        inner: dict[str, Info] = {}
        others: dict[str, Info] = {}
        for info in listing:
            name = "" if info["name"] == path else info["name"].rpartition("/")[2]
            (inner if info["type"] == "directory" else others)[name] = info
        dirs, files = (dict(inner), others) if detail else (list(inner), list(others))
        if topdown:
            yield path, dirs, files
        for name in list(dirs) if levels is None or levels > 1 else ():
            # One without a number is a volume.  The caller may have put in a name of his own.
            number = inner.get(name, {}).get("ino", 0)
            if not number or number not in came_from:
                left = levels and levels - 1
                known = came_from | {number}
                yield from self._walk_below(join(path, name), known, left, topdown, on_error, detail, options)
        if not topdown:
            yield path, dirs, files

    def ukey(self, path: str) -> str:
        """Return a text that is equal only for equal contents; of a directory, only for the same of one version."""
        path = self._strip_protocol(path)
        with self._address(path) as address:
            _check_not_store(address)
            with self._tree(address) as tree:
                found = find(tree, address.path)
                if found.kind is Kind.FILE:
                    entry = tree.entry(found.place)
                    return fingerprint(entry.size, entry.content)
            return f"{self._version(address).locator.version}-{found.number:x}"

    def checksum(self, path: str) -> int:
        """Return ukey() as a number."""
        return int(self.ukey(path).replace("-", ""), 16)

    def created(self, path: str) -> datetime.datetime:
        """Return when the version that *path* lies in was committed: what it is there, it is since then."""
        with self._address(self._strip_protocol(path)) as address:
            _check_not_store(address)
            with self._tree(address) as tree:
                find(tree, address.path)
            return datetime.datetime.fromisoformat(self._version(address).manifest.created_at)

    def modified(self, path: str) -> datetime.datetime:
        """Return when the file at *path* was last written."""
        return datetime.datetime.fromtimestamp(self.info(path)["mtime"], datetime.UTC)

    # Reading.

    def content(self, path: str) -> Content:
        """Return the bytes of the file at *path*; for the files of this package."""
        path = self._strip_protocol(path)
        with self._address(path) as address:
            _check_not_store(address)
            with self._tree(address) as tree:
                found = find(tree, address.path)
                if found.is_directory:
                    raise IsADirectoryError(errno.EISDIR, "it is a directory", f"{PROTOCOL}://{path}")
                if found.kind is Kind.SYMLINK:
                    raise FileNotFoundError(errno.ENOENT, "a symlink leads nowhere", f"{PROTOCOL}://{path}")
                if found.kind is not Kind.FILE:
                    raise OSError(errno.EINVAL, "it is no file that could be read", f"{PROTOCOL}://{path}")
                return self._content(address, tree.entry(found.place), info_of(found, path))

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_options: Any) -> bytes:
        """Return the bytes of a file; from *start* up to *end*, as a slice would have them."""
        content = self.content(path)
        begin, stop, _ = slice(start, end).indices(content.info["size"])
        return content.read(begin, stop)

    _cat_file = awaited(cat_file)

    async def _cat(
        self,
        path: Any,
        recursive: bool = False,
        on_error: str = "raise",
        batch_size: int | None = None,
        **options: Any,
    ) -> Any:
        """As fsspec's; with *recursive* of all files below *path*, where fsspec's would also read the directories."""
        if not recursive:
            return await super()._cat(path, on_error=on_error, batch_size=batch_size, **options)
        names: dict[str, None] = {}
        for each in await self._expand_path(path):
            names.update(dict.fromkeys(await self._find(each)))
        reads = (self._cat_file(name, **options) for name in names)
        results = await asyncio.gather(*reads, return_exceptions=on_error != "raise")
        return {
            name: result
            for name, result in zip(names, results, strict=True)
            if on_error != "omit" or not isinstance(result, BaseException)
        }

    def get_file(
        self, rpath: str, lpath: Any = None, callback: Any = DEFAULT_CALLBACK, outfile: Any = None, **_options: Any
    ) -> None:
        """Copy a file to the local path *lpath*, or into a file that is open; a directory is made there, empty.

        The local file has its name when it is whole, the mode of the original as far as the umask lets it, and its
        time.
        """
        if outfile is None and isfilelike(lpath):
            outfile = lpath
        if outfile is None and self.isdir(rpath):
            os.makedirs(lpath, exist_ok=True)
            return
        content = self.content(rpath)
        callback.set_size(content.info["size"])
        if outfile is not None:
            _copy(content, outfile.write, callback)
            return
        lpath = os.fspath(lpath)
        os.makedirs(os.path.dirname(os.path.abspath(lpath)), exist_ok=True)
        with _whole(lpath, content) as file:
            _copy(content, file.write, callback)

    _get_file = awaited(get_file)

    # What all of these use.

    @contextlib.contextmanager
    def _address(self, path: str) -> Iterator[Address]:
        with as_os_errors(path):
            try:
                address = parse(path)
            except InvalidNameError as error:
                raise NotFoundError(str(error)) from error
            yield address

    @contextlib.contextmanager
    def _tree(self, address: Address, *, anew: bool = False) -> Iterator[Tree]:
        """What *address*'s volume shows, to ask while the `with` statement lasts."""
        with self._versions.at(address, anew=anew).lend() as browser:
            yield browser.view

    def _content(self, address: Address, entry: Entry, info: Info) -> Content:
        return Content(self._versions.at(address), entry.content, info, entry.mtime_ns)

    def _version(self, address: Address) -> Version:
        version = self._versions.at(address).version
        assert version is not None
        return version


def _check_not_store(address: Address) -> None:
    """Raise IsADirectoryError where *address* is a store's."""
    if not address.volume:
        raise IsADirectoryError(errno.EISDIR, "it is a store, not a file", f"{PROTOCOL}://{address.root}")


def _copy(content: Content, write: Callable[[bytes], object], callback: Any) -> None:
    size = content.info["size"]
    for start in range(0, size, _COPIED_BYTES):
        block = content.read(start, start + _COPIED_BYTES)
        write(block)
        callback.relative_update(len(block))


@contextlib.contextmanager
def _whole(path: str, like: Content) -> Iterator[Any]:
    """A file to write that becomes *path* at the end; what is there and no regular file is written into."""
    if os.path.exists(path) and not os.path.isfile(path):
        with open(path, "wb") as file:
            yield file
        return
    target = os.path.realpath(path)
    temporary = f"{os.path.dirname(target)}/.{uuid.uuid4().hex}.part"
    # Whoever gets a file may read it: it is his.
    mode = stat.S_IMODE(like.info["mode"]) & 0o777 | stat.S_IRUSR
    try:
        with open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            yield file
            file.flush()
            os.utime(file.fileno(), ns=(like.mtime_ns, like.mtime_ns))
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise

"""Open files, as fsspec has them.

Always true:

  1. A file that is read stays at the version it was opened in, whatever is committed meanwhile.
  2. A file that is written is a local one until it is closed, or its transaction ends: nothing of it is seen before.
  3. A `with` statement that ends with an error, and a file that nobody closed, write nothing.
"""

from __future__ import annotations

import io
import os
import warnings
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from fsspec.asyn import AbstractAsyncStreamedFile
from fsspec.spec import AbstractBufferedFile

from volume_core.facade.browsing import Browsers
from volume_core.fs.drafts import Drafts, Source
from volume_core.fs.threads import as_os_errors, called

if TYPE_CHECKING:
    from volume_core.format.entries import Extent
    from volume_core.fs.filesystem import VolumeFileSystem
    from volume_core.fs.infos import Info

# What a read fetches beyond what was asked for: from the local cache, where that is quick; the reader below
# fetches windows ahead of it by itself.
BLOCK_BYTES = 1 << 20
WRITING_MODES = ("wb", "xb", "ab", "r+b", "w+b", "x+b", "a+b")


class Content:
    """The bytes of one file, of a version or of a *source*; they stay what they are, whatever is written meanwhile."""

    def __init__(
        self,
        opened: Browsers | None,
        extents: tuple[Extent, ...],
        info: Info,
        mtime_ns: int,
        source: Source | None = None,
    ) -> None:
        self._opened = opened
        self._pid = os.getpid()
        self._extents = extents
        self._source = source
        self.info = info
        self.mtime_ns = mtime_ns

    def read(self, start: int, end: int) -> bytes:
        """Return the bytes from *start* up to *end*, or the file's end."""
        if self._source is not None:
            return self._source.read(start, end)
        assert self._opened is not None
        with as_os_errors(self.info["name"]), self._here(self._opened).reopened() as reader:
            return reader.read(self._extents, start, max(end - start, 0))

    def _here(self, opened: Browsers) -> Browsers:
        """What reads it in this process, which may be a forked child of the one that opened it."""
        if opened.version is not None and self._pid != os.getpid():
            opened = Browsers(opened.version, opened.version.place, str(opened.version.locator))
            self._opened, self._pid = opened, os.getpid()
        return opened


class FileToRead(AbstractBufferedFile):
    """A file opened to read; used by one thread at a time."""

    DEFAULT_BLOCK_SIZE = BLOCK_BYTES

    def __init__(self, fs: VolumeFileSystem, path: str, mode: str = "rb", **options: Any) -> None:
        self._content = fs.content(path)
        self._details = self._content.info
        super().__init__(fs, path, mode, **{**options, "size": self._content.info["size"]})

    def _fetch_range(self, start: int, end: int) -> bytes:
        return self._content.read(start, end)


class FileToWrite(io.BufferedIOBase):
    """A file opened to write, in any mode that may; used by one thread at a time.

    `commit` and `discard` are what fsspec calls where *autocommit* is not set.
    """

    def __init__(self, fs: VolumeFileSystem, path: str, mode: str, *, autocommit: bool = True) -> None:
        self.fs, self.path, self.mode, self.autocommit = fs, path, mode, autocommit
        self.blocksize = BLOCK_BYTES
        self._is_exclusive = "x" in mode
        fs.check_file_to_write(path, exclusive=self._is_exclusive, existing="r" in mode)
        self._transaction = fs.drafts_of_transaction()
        self._drafts: Drafts | None = self._transaction or Drafts()
        self._local_path = self._drafts.new_file()
        if mode[0] in "ar" and fs.exists(path):
            with open(self._local_path, "wb") as local:  # whatever the mode of what is there
                fs.get_file(path, local)
        local_mode = {"r": "r+b", "a": "a+b"}.get(mode[0], "w+b")
        self._local = open(self._local_path, local_mode)  # noqa: SIM115 -- closed with this

    @property
    def full_name(self) -> str:
        """The URL of what is written."""
        return str(self.fs.unstrip_protocol(self.path))

    def readable(self) -> bool:
        """Whether it may be read too."""
        return not self.closed and "+" in self.mode

    def writable(self) -> bool:
        """Whether it is open."""
        return not self.closed

    def seekable(self) -> bool:
        """It is: what is written lies on the local disk."""
        return not self.closed

    def write(self, data: Any) -> int:
        """Write *data*, bytes, and return how many."""
        return self._local.write(data)

    def read(self, size: int | None = -1) -> bytes:
        """Return *size* bytes from where it stands."""
        if not self.readable():
            raise io.UnsupportedOperation("not readable")
        data: bytes = self._local.read(-1 if size is None else size)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place, and return it."""
        return self._local.seek(offset, whence)

    def tell(self) -> int:
        """Return where it stands."""
        return self._local.tell()

    def truncate(self, size: int | None = None) -> int:
        """Cut or lengthen it."""
        return self._local.truncate(size)

    def flush(self, force: bool = False) -> None:
        """Give what was written to the operating system; it is committed when the file is closed."""
        if not self._local.closed:
            self._local.flush()

    def close(self) -> None:
        """Write it, unless that waits for commit()."""
        if self.closed:
            return
        try:
            self._local.close()
            if self.autocommit or self._transaction is not None:
                self.commit()
        except BaseException:
            self._drop()
            raise
        finally:
            super().close()

    def commit(self) -> None:
        """Write what was closed; once."""
        if self._drafts is not None:
            try:
                source = Source(path=self._local_path, ours=True)
                transaction = self.fs.drafts_of_transaction()
                if transaction is not None and self._drafts is not transaction:  # one that began since
                    source = source.copied_to(transaction.new_file())
                self.fs.put_source(self.path, source, exclusive=self._is_exclusive)
            finally:
                self._drop()

    def discard(self) -> None:
        """Write nothing."""
        self._drop()
        if not self.closed:
            self._local.close()
            super().close()

    def _drop(self) -> None:
        if self._drafts is not None and self._drafts is not self._transaction:
            self._drafts.close()
        self._drafts = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def __del__(self) -> None:
        if not getattr(self, "_local", None) or self.closed:
            return
        warnings.warn(f"{self.full_name} was never closed, and is not written", ResourceWarning, stacklevel=2)
        self.discard()

    def __reduce__(self) -> Any:
        raise TypeError(f"{self.full_name} is being written: that cannot be pickled")


class TextToWrite(io.TextIOWrapper):
    """Text over a FileToWrite."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.detach().discard()  # type: ignore[attr-defined]  # it is a FileToWrite


class StreamToRead(AbstractAsyncStreamedFile):
    """A file opened by a coroutine to read."""

    DEFAULT_BLOCK_SIZE = BLOCK_BYTES

    def __init__(self, fs: VolumeFileSystem, path: str, content: Content, **options: Any) -> None:
        self._content = content
        self._details = content.info
        # Each read is one visit to a thread: a cache would only copy what the reader below has at hand.
        options |= {"size": content.info["size"], "cache_type": "none", "cache_options": None}
        super().__init__(fs, path, "rb", **options)

    async def _fetch_range(self, start: int, end: int) -> bytes:
        return await called(self._content.read, start, end)


class StreamToWrite:
    """A FileToWrite, for a coroutine."""

    def __init__(self, file: FileToWrite) -> None:
        self._file = file

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._file.closed

    def tell(self) -> int:
        """Return where it stands."""
        return self._file.tell()

    async def write(self, data: Any) -> int:
        """Write *data*, bytes, and return how many."""
        return await called(self._file.write, data)

    async def flush(self, force: bool = False) -> None:
        """See FileToWrite."""
        await called(self._file.flush)

    async def close(self) -> None:
        """Write it."""
        await called(self._file.close)

    async def discard(self) -> None:
        """Write nothing."""
        await called(self._file.discard)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await (self.close() if kind is None else self.discard())

"""`vol://` for fsspec: one file system whose directories are volumes.

Always true: what is pickled is the options; what goes through a fork is opened anew.
"""

from __future__ import annotations

import errno
import os
from typing import Any

from volume_core.facade.addresses import PROTOCOL
from volume_core.fs.files import (
    BLOCK_BYTES,
    WRITING_MODES,
    FileToRead,
    FileToWrite,
    StreamToRead,
    StreamToWrite,
    TextToWrite,
)
from volume_core.fs.threads import called
from volume_core.fs.trees import Trees


class VolumeFileSystem(Trees):
    """Volumes as directories of one file system.  docs/fsspec.md has its URLs, and what each option means.

    *bucket* and *region* say which store `vol://NAME` is in, as Volume.new has them; *message* is that of commits.
    """

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        """Open the file *path*; modes are those of the built-in open().  What is written is seen when it is closed."""
        if "b" in mode or mode.replace("t", "") == "r":
            return super().open(path, mode, **options)
        text = {key: options.pop(key) for key in ("encoding", "errors", "newline") if key in options}
        file = self.open(path, mode.replace("t", "") + "b", **options)
        return TextToWrite(file, **text)

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,
        **options: Any,
    ) -> FileToRead | FileToWrite:
        if mode == "rb":
            return FileToRead(self, path, block_size=block_size or BLOCK_BYTES, **options)
        mode = mode.replace("b", "") + "b"
        if mode not in WRITING_MODES:
            raise ValueError(f"mode {mode!r} is none of rb, {', '.join(WRITING_MODES)}")
        return FileToWrite(self, path, mode, autocommit=autocommit)

    async def open_async(self, path: str, mode: str = "rb", **options: Any) -> StreamToRead | StreamToWrite:
        """Open *path* for a coroutine, to read or to write it."""
        if "b" not in mode or options.pop("compression", None):
            raise ValueError("a file is opened for a coroutine in binary, and without compression")
        path = self._strip_protocol(path)
        if mode == "rb":
            return StreamToRead(self, path, await called(self.content, path), **options)
        file = await called(self._open, path, mode)
        assert isinstance(file, FileToWrite)
        return StreamToWrite(file)

    def check_file_to_write(self, path: str, *, exclusive: bool, existing: bool) -> None:
        """Raise what writing the file *path* would, as far as that is known before; for the files of this package."""
        with self._writable(path) as address:
            kind = self._type_of(path)
            if kind == "directory" or not address.path:
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), f"{PROTOCOL}://{path}")
            if kind is not None and exclusive:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), f"{PROTOCOL}://{path}")
            if kind is None and existing:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{PROTOCOL}://{path}")
            above = path
            while kind is None and "/" in above:
                above = self._parent(above)
                kind = self._type_of(above)
            if above != path and kind not in {None, "directory"}:
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), f"{PROTOCOL}://{above}")

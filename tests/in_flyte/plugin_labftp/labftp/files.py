"""Files and directories of an FTP server for fsspec: `labftp://host:port/path`.

Always true: the server is a part of each path, for whoever asks by URL gives no other options; what blocks is done in
threads, so the same class serves callers that wait and callers that do not.
"""

from __future__ import annotations

import asyncio
import os
import threading

from fsspec.asyn import AbstractAsyncStreamedFile, AsyncFileSystem
from fsspec.spec import AbstractBufferedFile

from labftp.client import Client, Found

_clients: dict[str, Client] = {}
_lock = threading.Lock()


class LabFtpFileSystem(AsyncFileSystem):
    """list: _ls.  exists: _info.  get: _cat_file, _get_file.  put: _pipe_file, _put_file.  The rest is fsspec's."""

    protocol = "labftp"

    def at(self, path: str) -> tuple[Client, str]:
        """Return (who is asked, the path there)."""
        server, _, within = self._strip_protocol(path).partition("/")
        host, _, port = server.partition(":")
        with _lock:
            return _clients.setdefault(server, Client(host, int(port or 21))), f"/{within}"

    def _as_info(self, path: str, found: Found) -> dict:
        kind = "directory" if found.is_directory else "file"
        return {"name": path, "type": kind, "size": found.size, "mtime": found.mtime_ns / 1e9}

    async def _info(self, path, **_options):
        path = self._strip_protocol(path)
        client, within = self.at(path)
        return self._as_info(path, await asyncio.to_thread(client.stat, within))

    async def _ls(self, path, detail=True, **_options):
        path = self._strip_protocol(path)
        info = await self._info(path)
        infos = [info]
        if info["type"] == "directory":
            client, within = self.at(path)
            listing = await asyncio.to_thread(client.listing, within)
            infos = [self._as_info(f"{path}/{found.path.rpartition('/')[2]}", found) for found in listing]
        return infos if detail else sorted(info["name"] for info in infos)

    async def _cat_file(self, path, start=None, end=None, **_options):
        client, within = self.at(path)
        if start is None and end is None:
            return await asyncio.to_thread(client.read, within)
        size = (await self._info(path))["size"]
        begin, stop, _ = slice(start, end).indices(size)
        return await asyncio.to_thread(client.read_range, within, begin, max(stop - begin, 0))

    async def _pipe_file(self, path, value, mode="overwrite", **_options):
        client, within = self.at(path)
        if mode == "create" and await self._exists(path):
            raise FileExistsError(path)
        await asyncio.to_thread(client.write, within, bytes(value))

    async def _get_file(self, rpath, lpath, **_options):
        if await self._isdir(rpath):
            os.makedirs(lpath, exist_ok=True)
            return
        client, within = self.at(rpath)
        os.makedirs(os.path.dirname(lpath) or ".", exist_ok=True)
        with open(lpath, "wb") as file:
            await asyncio.to_thread(client.read_into, within, file.write)

    async def _put_file(self, lpath, rpath, mode="overwrite", **_options):
        if os.path.isdir(lpath):
            await self._makedirs(rpath, exist_ok=True)
            return
        if mode == "create" and await self._exists(rpath):
            raise FileExistsError(rpath)
        client, within = self.at(rpath)
        with open(lpath, "rb") as file:
            await asyncio.to_thread(client.write, within, file)

    async def _makedirs(self, path, exist_ok=False):
        client, within = self.at(path)
        if not exist_ok and await self._exists(path):
            raise FileExistsError(path)
        await asyncio.to_thread(client.make_directory, within)

    async def _mkdir(self, path, create_parents=True, **_options):
        await self._makedirs(path)

    async def _rm_file(self, path, **_options):
        client, within = self.at(path)
        remove = client.remove_directory if await self._isdir(path) else client.remove
        await asyncio.to_thread(remove, within)

    async def _rm(self, path, recursive=False, **_options):
        # One after the other: a directory goes when it is empty.
        for each in sorted(await self._expand_path(path, recursive=recursive), reverse=True):
            await self._rm_file(each)

    async def _cp_file(self, path1, path2, **_options):
        if await self._isdir(path1):
            await self._makedirs(path2, exist_ok=True)
        else:
            await self._pipe_file(path2, await self._cat_file(path1))

    def _open(self, path, mode="rb", **options):
        return LabFtpFile(self, path, mode, **options)

    async def open_async(self, path, mode="rb", **_options):
        """Open *path* for a coroutine; `File.open` of flyte 2 is this."""
        size = (await self._info(path))["size"] if mode == "rb" else None
        return LabFtpStream(self, path, mode, size=size, cache_type="none")


class LabFtpFile(AbstractBufferedFile):
    """A file, opened to read or to write."""

    def _fetch_range(self, start, end):
        client, within = self.fs.at(self.path)
        return client.read_range(within, start, end - start)

    def _initiate_upload(self):
        self.parts = []

    def _upload_chunk(self, final=False):
        self.parts.append(self.buffer.getvalue())
        if final and self.autocommit:
            self.commit()
        return True

    def commit(self):
        """Write it: FTP has no upload in parts."""
        client, within = self.fs.at(self.path)
        client.write(within, b"".join(self.parts))

    def discard(self):
        """Write nothing."""
        self.parts = []


class LabFtpStream(AbstractAsyncStreamedFile):
    """The same for a coroutine."""

    async def _fetch_range(self, start, end):
        client, within = self.fs.at(self.path)
        return await asyncio.to_thread(client.read_range, within, start, end - start)

    async def _initiate_upload(self):
        self.parts = []

    async def _upload_chunk(self, final=False):
        self.parts.append(self.buffer.getvalue())
        if final:
            client, within = self.fs.at(self.path)
            await asyncio.to_thread(client.write, within, b"".join(self.parts))
        return True

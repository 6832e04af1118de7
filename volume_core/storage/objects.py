"""Stores in buckets: S3 and what speaks its protocol, Google Cloud Storage, Azure Blob Storage.

Everything goes through obstore (the Rust object_store library), called synchronously from our
callers' threads; it releases the interpreter lock while it waits.

Always true:
  1. A name is created by a conditional PUT, and a value replaced by one that names the version read
     before.  Where the server is known to ignore conditions (probing.py found out, format.json
     holds it), `put_new` looks first and then puts: enough for names that are content hashes, which
     only ever get the same bytes; `swap` is refused.
  2. Every error of the library is turned into one of ours before it leaves this file.
  3. The library's threads do not survive fork(2): in a child of a process that used a bucket, a call
     is refused at once, where it would hang for ever.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from obstore import exceptions

from volume_core.errors import ConflictError, NotFoundError, StorageError
from volume_core.format.names import FORMAT_NAME
from volume_core.format.storeinfo import StoreFormat
from volume_core.storage.connecting import Connection, connect
from volume_core.storage.explaining import answer, explain, is_transient
from volume_core.storage.naming import check_name, check_prefix, check_range
from volume_core.storage.protocol import ObjectInfo

if TYPE_CHECKING:
    from obstore import ObjectMeta

T = TypeVar("T")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LIST_AT_ONCE = 1000
# obstore tells about an unsatisfiable range (416) only in words.
_BEYOND = re.compile(r"status code: 416|Wanted range starting at \d+, but object was only \d+ bytes long")
_library_errors = (exceptions.BaseError, OSError, ValueError)
# The process that started the library's threads.
_started_in: int | None = None


class ObjectStore:
    """The store at an s3://, gs://, az:// or abfs:// URL."""

    local_root: Path | None = None

    def __init__(self, url: str, connection: Connection) -> None:
        self._url = url
        self._connection = connection
        self._conditions: bool | None = True if connection.standard else None

    @classmethod
    def open(cls, url: str, options: Mapping[str, str]) -> ObjectStore:
        """Return the store at the normalized *url*; see connecting.py for *options*."""
        return cls(url, connect(url, options))

    def __repr__(self) -> str:
        return f"ObjectStore({self._url!r})"

    @property
    def url(self) -> str:
        """The URL, which never holds anything secret."""
        return self._url

    @property
    def honours_conditions(self) -> bool:
        """True where the provider promises it or the first writer's probe found it; False while nobody knows."""
        return bool(self._known_conditions())

    def learn(self, honours_conditions: bool) -> None:
        """Be told what a probe found."""
        self._conditions = honours_conditions

    def get(self, name: str) -> bytes:
        """Return the whole object, or raise NotFoundError."""
        return self._do("read", name, lambda: self._connection.reads.get(name).bytes().to_bytes())

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        """Return *length* bytes from *offset*, fewer only where the object ends."""
        check_range(name, offset, length)
        if length == 0:
            # There is no such thing as an empty range in HTTP; whether the object is there still counts.
            self.info(name)
            return b""
        return self._do("read", name, lambda: self._get_range(name, offset, length))

    def put_new(self, name: str, data: bytes | memoryview) -> None:
        """Store *data* unless other bytes are there (ConflictError)."""
        check_name(name)
        if self._conditions is False:
            created = self._absent(name)
            if created:
                self._put("write", name, data, "overwrite")
        else:
            created = self._create("write", name, data)
        if not created and self._now(name) != data:
            raise ConflictError(f"{self._url}/{name} exists already and holds other bytes; nothing was changed")

    def put(self, name: str, data: bytes | memoryview) -> None:
        """Store *data*, replacing what was there."""
        self._put("write", name, data, "overwrite")

    def swap(self, name: str, old: bytes | None, new: bytes) -> None:
        """Replace *old* (None: nothing there) by *new*, or raise ConflictError."""
        check_name(name)
        if self._known_conditions() is False:
            raise StorageError(
                f"cannot swap {self._url}/{name}: this server ignores the conditions of a PUT (If-None-Match, "
                "If-Match), so two writers would overwrite each other unseen; use a store that keeps them"
            )
        if old is None:
            swapped = self._create("swap", name, new)
        else:
            found = self._find(name)
            swapped = found is not None and found[0] == old and self._replace(name, found[1], new)
        if not swapped:
            raise ConflictError(f"{self._url}/{name} is not what it was when it was read; nothing was changed")

    def refuses_stale_swap(self, name: str) -> bool:
        """Write *name* twice, then try to replace its first version: True if the server says no, as it must."""
        self._put("probe", name, b"first", "overwrite")
        found = self._find(name)
        self._put("probe", name, b"second, and longer", "overwrite")
        return found is not None and not self._replace(name, found[1], b"third")

    def info(self, name: str) -> ObjectInfo:
        """Return the object's size and time, or raise NotFoundError."""
        return _object_info(self._do("look at", name, lambda: self._connection.reads.head(name)), name)

    def names(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield every object whose name begins with *prefix*."""
        check_prefix(prefix)
        return self._names(prefix)

    def delete(self, name: str) -> None:
        """Remove *name* if it is there."""
        with suppress(NotFoundError):
            self._do("delete", name, lambda: self._connection.writes.delete(name))

    def close(self) -> None:
        """Do nothing: the library closes its connections when the store is collected."""

    def _names(self, prefix: str) -> Iterator[ObjectInfo]:
        # The library lists whole folders only, so the rest of the prefix is looked at here.
        folder = prefix.rpartition("/")[0]
        pages = self._library(
            "list", prefix, lambda: self._connection.reads.list(folder or None, chunk_size=_LIST_AT_ONCE)
        )
        while page := self._library("list", prefix, lambda: next(pages, None)):
            for meta in page:
                if meta["path"].startswith(prefix):
                    yield _object_info(meta, meta["path"])

    def _get_range(self, name: str, offset: int, length: int) -> bytes:
        try:
            return self._connection.reads.get_range(name, start=offset, length=length).to_bytes()
        except exceptions.GenericError as error:
            if _BEYOND.search(str(error)):
                return b""
            raise

    def _create(self, doing: str, name: str, data: bytes | memoryview) -> bool:
        """Put *data* where nothing is and return True, or return False."""
        try:
            self._put(doing, name, data, "create")
        except _Refused:
            return False
        return True

    def _replace(self, name: str, meta: ObjectMeta, data: bytes) -> bool:
        """Put *data* in place of the version that *meta* describes and return True, or return False."""
        try:
            self._put("swap", name, data, {key: meta[key] for key in ("e_tag", "version") if meta[key]})
        except (_Refused, NotFoundError):
            return False
        return True

    def _put(self, doing: str, name: str, data: bytes | memoryview, mode: Any) -> None:
        # In one request: only that can be conditional, and a pack is no larger than one may be.
        self._do(doing, name, lambda: self._connection.writes.put(name, data, mode=mode, use_multipart=False))

    def _find(self, name: str) -> tuple[bytes, ObjectMeta] | None:
        def get() -> tuple[bytes, ObjectMeta]:
            found = self._connection.reads.get(name)
            return found.bytes().to_bytes(), found.meta

        try:
            return self._do("read", name, get)
        except NotFoundError:
            return None

    def _now(self, name: str) -> bytes:
        try:
            return self.get(name)
        except NotFoundError:
            # Refused because somebody else was creating it, or deleted since: the next try will tell.
            raise StorageError(f"cannot write {self._url}/{name}: it came and went meanwhile", transient=True) from None

    def _absent(self, name: str) -> bool:
        try:
            self.info(name)
        except NotFoundError:
            return True
        return False

    def _known_conditions(self) -> bool | None:
        if self._conditions is None:
            with suppress(NotFoundError):
                self._conditions = StoreFormat.from_bytes(self.get(FORMAT_NAME)).honours_conditions
        return self._conditions

    def _do(self, doing: str, name: str, call: Callable[[], T]) -> T:
        return self._library(doing, check_name(name), call)

    def _library(self, doing: str, name: str, call: Callable[[], T]) -> T:
        global _started_in
        if _started_in != os.getpid():
            if _started_in is not None:
                self._refuse_forked(doing, name)
            _started_in = os.getpid()
        try:
            return call()
        except _library_errors as error:
            raise self._ours(error, doing, name) from None

    def _ours(self, error: Exception, doing: str, name: str) -> Exception:
        # "from None" at the caller: the library's text may hold a signed URL, and a traceback would print it.
        aws = self._connection.aws
        if isinstance(error, exceptions.UnauthenticatedError) and aws is not None and aws.problem is not None:
            return StorageError(f"cannot {doing} {self._url}/{name}: {aws.problem}", transient=aws.problem.transient)
        refused = isinstance(error, exceptions.AlreadyExistsError | exceptions.PreconditionError)
        if refused and not is_transient(error):
            return _Refused(answer(error).code)
        return explain(error, doing, f"{self._url}/{name}", self._connection.where)

    def _refuse_forked(self, doing: str, name: str) -> NoReturn:
        raise StorageError(
            f"cannot {doing} {self._url}/{name}: this process was forked from one that had used a remote store, "
            'whose connections do not survive that; start it with the "spawn" method, or fork before the first use'
        )


class _Refused(Exception):
    """The server kept a condition: the name is taken, or the version is another."""


def _object_info(meta: ObjectMeta, name: str) -> ObjectInfo:
    since = meta["last_modified"] - _EPOCH
    return ObjectInfo(name, meta["size"], since // _MICROSECOND * 1000)

"""From a URL to a store: which schemes there are, and the one spelling of each store's URL.

    s3://bucket/prefix                                    Amazon S3 and whatever speaks its protocol
    gs://bucket/prefix                                    Google Cloud Storage
    az://container/prefix                                 Azure Blob Storage, the account from the environment
    abfs://container@account.dfs.core.windows.net/prefix  Azure Blob Storage, the account named
    file:///directory                                     a directory; a plain path means this too
    memory://name                                         this process

Why one spelling: locators begin with the store's URL, and the record of a version must be the same
bytes wherever it is made.

Always true: `normalize(normalize(url)) == normalize(url)`; opening does no I/O and imports the
remote stores' library only when a remote store is opened.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from urllib.parse import quote_from_bytes, unquote_to_bytes

from volume_core.errors import InvalidNameError
from volume_core.format.names import without_secrets
from volume_core.storage.local import LocalStore
from volume_core.storage.memory import MemoryStore
from volume_core.storage.naming import check_name
from volume_core.storage.protocol import Store
from volume_core.storage.retrying import Retrying

BUILTIN_SCHEMES = ("file", "memory", "s3", "gs", "az", "abfs")
# What a record calls the kind of store, and the scheme that its URLs get.
_SCHEME_OF_STORAGE = {"s3": "s3", "gs": "gs", "wasb": "az", "file": "file", "memory": "memory"}
_STORAGE_OF_SCHEME = {"s3": "s3", "gs": "gs", "az": "wasb", "abfs": "wasb", "file": "file", "memory": "memory"}
_ALIASES = {"s3a": "s3", "gcs": "gs", "azure": "az", "abfss": "abfs", "wasb": "abfs", "wasbs": "abfs"}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_AZURE_HOST = re.compile(
    r"(?P<container>[a-z0-9$][a-z0-9-]*)@(?P<account>[a-z0-9]+)\.(dfs|blob)\.(?P<domain>[a-z0-9.-]+)"
)
_AZURE_DOMAIN = "core.windows.net"


def open_store(url: str, options: Mapping[str, str] | None = None) -> Store:
    """Return the store at *url*, which retries transient failures by itself.

    *options* say what the URL does not: `region`, `endpoint` (a URL), `profile` (AWS), `anonymous`
    ("true": requests are not signed).  They go before the environment.  Raises InvalidNameError when
    *url* is no built-in store's, or an option is not known.
    """
    url = normalize(url)
    scheme, rest = _parts(url)
    if scheme == "file":
        return Retrying(LocalStore(_path(rest)))
    if scheme == "memory":
        return Retrying(MemoryStore(rest))
    if scheme not in BUILTIN_SCHEMES:
        raise InvalidNameError(
            f"{url}: no built-in store has the scheme {scheme!r}; these have one: {', '.join(BUILTIN_SCHEMES)}"
        )
    # The library of the remote stores takes a while to load; who mounts from a directory never needs it.
    from volume_core.storage.objects import ObjectStore

    return Retrying(ObjectStore.open(url, options or {}))


def normalize(url: str) -> str:
    """Return the one spelling of the store's URL *url*, or raise InvalidNameError saying what is wrong.

    A plain path becomes a `file://` URL (`~` and relative paths are made absolute); trailing slashes
    go; a scheme that is not built in is kept as it is.
    """
    if not _SCHEME.match(url):
        return _file_url(_absolute(url))
    scheme, rest = _parts(url)
    if scheme == "file":
        return _file_url(_path(rest))
    if scheme == "memory":
        return f"memory://{_prefix(url, rest.strip('/'))}"
    if scheme == "abfs":
        return _azure_url(url, rest)
    if scheme in _STORAGE_OF_SCHEME:
        return f"{scheme}://{_bucket(url, rest)}"
    return url.rstrip("/")


def store_url(storage: str | None, bucket: str | None, default: str) -> str:
    """Return the URL of the store that *storage* and *bucket* name, normalized.

    *storage* is s3, gs, wasb, file or memory; *bucket* is what follows `://`, a path, or a whole URL.
    Without a bucket it is *default*.  Without a storage a bucket that looks like a path is a
    directory, and any other lies where *default* lies if that is remote, in S3 if it is not.
    """
    if storage is not None and storage not in _SCHEME_OF_STORAGE:
        raise InvalidNameError(f"storage {storage!r} is not one of {', '.join(_SCHEME_OF_STORAGE)}")
    if not bucket:
        return _default_url(storage, default)
    if _SCHEME.match(bucket):
        url = normalize(bucket)
        if storage and (found := split_url(url)[0]) != storage:
            raise InvalidNameError(f"{bucket} is a store of {found}, not of storage={storage!r}")
        return url
    if storage is None:
        storage = "file" if bucket.startswith(("/", ".", "~")) else _remote(default)
    if storage == "file":
        return _file_url(_absolute(bucket))
    if storage == "wasb" and "@" in bucket:
        return normalize(f"abfs://{bucket}")
    return normalize(f"{_SCHEME_OF_STORAGE[storage]}://{bucket}")


def split_url(url: str) -> tuple[str, str]:
    """Return (storage, bucket) of the store's URL *url*: `store_url` makes it the same URL again.

    *bucket* is what follows `://`, prefix included; of a directory its path (percent-encoded as in
    the URL only where it is not text).  A scheme that is not built in stands for itself.
    """
    url = normalize(url)
    scheme, rest = _parts(url)
    if scheme == "file":
        path = _path(rest)
        return "file", path if path.isprintable() else url
    return _STORAGE_OF_SCHEME.get(scheme, scheme), rest if scheme in _STORAGE_OF_SCHEME else url


def _parts(url: str) -> tuple[str, str]:
    match = _SCHEME.match(url)
    if not match:
        raise InvalidNameError(
            f"{without_secrets(url)!r} is not a URL; a store's looks like s3://bucket/prefix or file:///directory"
        )
    scheme = match[1].lower()
    return _ALIASES.get(scheme, scheme), match[2]


def _default_url(storage: str | None, default: str) -> str:
    url = normalize(default)
    if storage is None or split_url(url)[0] == storage:
        return url
    if storage == "memory":
        return "memory://"
    raise InvalidNameError(f"storage={storage!r} needs a bucket as well: the default store is {url}")


def _remote(default: str) -> str:
    storage = split_url(default)[0] if default else ""
    return storage if storage in {"s3", "gs", "wasb"} else "s3"


def _path(rest: str) -> str:
    """Return the path in what follows `file://`, absolute, with its percent-encoding undone."""
    if rest.startswith("localhost/"):
        rest = rest.removeprefix("localhost")
    path = os.fsdecode(unquote_to_bytes(rest))
    if path == "~" or path.startswith("~/"):
        path = _absolute(path)
    if not path.startswith("/") or "\0" in path:
        raise InvalidNameError(
            f"file://{rest} names no directory: a file URL has three slashes and an absolute path, "
            f"like {_file_url(_absolute(path.replace(chr(0), '') or 'directory'))}"
        )
    return _absolute(path)


def _absolute(path: str) -> str:
    if not path or "\0" in path:
        raise InvalidNameError(f"{path!r} is neither a path nor a store's URL, like s3://bucket/prefix")
    # A leading "//" would survive normpath, and would make the URL's path a host.
    return "/" + os.path.abspath(os.path.expanduser(path)).lstrip("/")


def _file_url(path: str) -> str:
    return "file://" + quote_from_bytes(os.fsencode(path), safe="/")


def _bucket(url: str, rest: str) -> str:
    bucket, _, prefix = rest.partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise InvalidNameError(
            f"{without_secrets(url)} cannot name a bucket; a store's URL looks like s3://bucket/prefix, "
            "and credentials are taken from the environment (docs/stores.md)"
        )
    return f"{bucket}/{prefix}".rstrip("/") if _prefix(url, prefix.rstrip("/")) else bucket


def _prefix(url: str, prefix: str) -> str:
    if not prefix:
        return prefix
    try:
        check_name(prefix)
    except InvalidNameError as error:
        raise InvalidNameError(f"{without_secrets(url)} is no store's URL: {without_secrets(str(error))}") from None
    if not prefix.isprintable() or any(mark in prefix for mark in "?#%\\"):
        raise InvalidNameError(
            f"{without_secrets(url)} is no store's URL: its prefix may not hold ? # % \\ or control characters"
        )
    return prefix


def _azure_url(url: str, rest: str) -> str:
    """Return abfs://container@account.dfs.<domain>/prefix, or az://container/prefix where no account is named."""
    host, _, prefix = rest.partition("/")
    if "@" not in host:
        return f"az://{_bucket(url, rest)}"
    match = _AZURE_HOST.fullmatch(host.lower())
    if not match:
        raise InvalidNameError(
            f"{without_secrets(url)} names no container; it looks like container@account.dfs.{_AZURE_DOMAIN}"
        )
    prefix = _prefix(url, prefix.rstrip("/"))
    container = f"abfs://{match['container']}@{match['account']}.dfs.{match['domain']}"
    return f"{container}/{prefix}" if prefix else container

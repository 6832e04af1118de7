"""`vol://` for ObjectStoragePath: paths in volumes, without a mount.

    ObjectStoragePath("vol://data/train/a.csv")                the head, in the default store
    ObjectStoragePath("vol://data~v7/a.csv", conn_id="team")   a version, in the store of that connection
    ObjectStoragePath("vol://team@data~v7/a.csv")              the same: what is left of an "@" is the connection's id

Always true: credentials are taken when the store is opened, and not when a path is made, which DAG files do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from volume_core.fs import VolumeFileSystem

schemes = ["vol"]


def get_fs(conn_id: str | None, storage_options: dict[str, Any] | None = None) -> VolumeFileSystem:
    """Return the file system of the connection *conn_id*'s store, without one of the default store.

    *storage_options* are those of VolumeFileSystem, and go before what the connection says.  Raises what
    VolumeHook.store does.
    """
    from volume_airflow import stores
    from volume_core.fs import VolumeFileSystem

    options = dict(storage_options or {})
    if "bucket" not in options and (store := stores.located(conn_id)) is not None:
        options["bucket"] = store.url
        if store.region:
            options.setdefault("region", store.region)
    return VolumeFileSystem(**options)

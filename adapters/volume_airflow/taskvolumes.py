"""The volume that an operator of ours works on: from what its DAG says to a writer, or to versions.

    NAME                      the head of that volume, in the store of the connection; made if it is not there
    a version, NAME:REF, ...  a fork of it under the same name; to work on it is not to change what was given
    a lazy volume, a writer   itself

Always true: it holds whether or not the plugin's listener is there.
"""

from __future__ import annotations

from typing import Any

from volume_airflow import stores
from volume_core import InvalidNameError, ROVolume, RWVolume, Volume
from volume_core.facade.lazies import LazyVolume
from volume_core.format.names import validate_name
from volume_core.parts.landing import LandingPolicy


def is_name(value: Any) -> bool:
    """Whether *value* is text that is the name of a volume alone."""
    if not isinstance(value, str):
        return False
    try:
        validate_name(value)
    except InvalidNameError:
        return False
    return True


def opened(
    value: Any,
    conn_id: str | None = None,
    *,
    create_if_missing: bool = True,
    on_conflict: LandingPolicy = "last-write-wins",
) -> RWVolume:
    """Return the writer for *value*, in the store of the connection *conn_id*, else the default one.

    Raises InvalidNameError where it can stand for no volume, NotFoundError where there is none, and what
    stores.located does.
    """
    store = stores.used(conn_id)
    if isinstance(value, LazyVolume):
        value = value.open_sync()
    if isinstance(value, RWVolume):
        return value
    if is_name(value):
        url, region = (store.url, store.region) if store is not None else (None, None)
        return Volume.from_name_sync(
            value, url, region=region, create_if_missing=create_if_missing, on_conflict=on_conflict
        )
    version = versioned(value, conn_id)
    return version.fork_sync(version.name)


def versioned(value: Any, conn_id: str | None = None) -> ROVolume:
    """Return the version that *value* stands for: the head's, of a name.  A writer is committed.

    Raises what `opened` does.
    """
    store = stores.used(conn_id)
    if isinstance(value, LazyVolume):
        value = value.open_sync()
    if isinstance(value, str) and store is not None and "://" not in value:
        name, _, ref = value.strip().partition(":")
        if is_name(name):
            value = store.from_name_sync(name, version=ref or None)
            if isinstance(value, RWVolume):  # just opened: its head
                value = value.committed
    return ROVolume.model_validate(value)

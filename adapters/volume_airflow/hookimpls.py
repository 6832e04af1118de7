"""What Airflow answers to the hooks of volume_core: which task runs here, and where its volumes lie.

Always true: nothing here imports Airflow: where it is not imported it runs no task in this process.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from volume_core.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from volume_core import ActionRef, ROVolume


def _is_loaded() -> bool:
    # Airflow loads this module with the plugin, whichever of its versions it is.
    return "volume_airflow.calling" in sys.modules


def _tells_airflow() -> bool:
    # A task's function may run in another interpreter, where nobody hears of assets and which need not have Airflow.
    return _is_loaded() and "airflow" in sys.modules


@hookimpl
def volume_current_task() -> ActionRef | None:
    """The task that Airflow is running in this process."""
    if not _is_loaded():
        return None
    from volume_airflow import running

    return running.current_task()


@hookimpl
def volume_default_bucket() -> str | None:
    """The store that volumes lie in, where Airflow has a connection that says so, and not `$VOLUME_BUCKET`."""
    if not _is_loaded() or os.environ.get("VOLUME_BUCKET"):
        return None
    from volume_airflow import stores

    return stores.default_bucket()


@hookimpl
def volume_open_store(url: str) -> None:
    """None, for the built-in stores open it: with the credentials of its connection, in the environment by then."""
    if _is_loaded() and url.partition("://")[0] in {"s3", "gs", "az", "abfs"}:
        from volume_airflow import stores

        stores.reach(url)


@hookimpl
def volume_reference(url: str) -> Any:
    """Within a task a directory or file of a version is an ObjectStoragePath."""
    if not _is_loaded():
        return None
    from volume_airflow import running

    if running.current() is None:
        return None
    from volume_airflow.compat import ObjectStoragePath

    return ObjectStoragePath(url)


@hookimpl
def volume_committed(version: ROVolume, action: ActionRef | None) -> None:
    """A version of a task: a retry may go on from it; it is an event of its asset, and lineage."""
    if _tells_airflow() and action is not None:
        from volume_airflow import calling, lineage

        calling.committed(version)
        lineage.committed(version, action)


@hookimpl
def volume_mounted(locator: str | None, action: ActionRef | None) -> None:
    """What a task mounts is upstream of what it commits."""
    if _tells_airflow() and action is not None and locator is not None:
        from volume_airflow import lineage

        lineage.mounted(locator, action)

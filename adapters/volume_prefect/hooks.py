"""What Prefect answers to the hooks of volume_core: which task runs here, and where its volumes lie.

Always true: nothing here imports Prefect: where it is not imported it runs no task in this process.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from volume_core.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from volume_core import ActionRef, ROVolume
    from volume_core.parts.progress import Progress


def _runs_here() -> bool:
    # A run's context is in this module: who has not got it runs nothing, and does not pay for what else it imports.
    return "prefect.context" in sys.modules


@hookimpl
def volume_current_task() -> ActionRef | None:
    """The task or flow that Prefect is running in this process."""
    if not _runs_here():
        return None
    from volume_prefect import running

    return running.current_task()


@hookimpl
def volume_default_bucket() -> str | None:
    """The store that the running task's volumes lie in, where Prefect says one, and not `$VOLUME_BUCKET`."""
    if not _runs_here() or os.environ.get("VOLUME_BUCKET"):
        return None
    from volume_prefect import running

    return running.default_bucket()


@hookimpl
def volume_open_store(url: str) -> None:
    """None, for the built-in stores open it: with the credentials of its block, which are in the environment then."""
    if _runs_here() and url.partition("://")[0] in {"s3", "gs", "az", "abfs"}:
        from volume_prefect import reaching

        reaching.reach(url)


@hookimpl
def volume_committing(progress: Progress, action: ActionRef | None) -> None:
    """A commit of a run: it shows how far it is once it takes long."""
    if _runs_here() and action is not None:
        from volume_prefect import news

        news.committing(progress, action)


@hookimpl
def volume_committed(version: ROVolume, action: ActionRef | None) -> None:
    """A version of a run: it gets a page, an event, and is an asset."""
    if _runs_here() and action is not None:
        from volume_prefect import news

        news.committed(version, action)


@hookimpl
def volume_mounted(locator: str | None, action: ActionRef | None) -> None:
    """What a task mounts is upstream of what it commits."""
    if _runs_here() and action is not None and locator is not None:
        from volume_prefect import news

        news.mounted(locator, action)

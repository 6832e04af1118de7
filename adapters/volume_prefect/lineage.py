"""Volumes as assets of the task that runs: what it makes, and what that was made from.

Which volumes a task touches is known only while it runs, and Prefect's decorators want assets beforehand; so they are
added to the task's AssetContext, from which Prefect emits its events when the task has ended.  That class is not
documented for this: tests/in_prefect/test_prefect_news.py fails when it changes, and until then a change costs the
lineage and nothing else (whoever calls this spares the task).

Always true: an asset is a volume, not a version, which is in its metadata; a volume is not upstream of itself.
"""

from __future__ import annotations

from typing import Any

from prefect.assets import Asset
from prefect.context import AssetContext, TaskRunContext
from prefect.utilities.collections import visit_collection

from volume_core import HistoryEntry
from volume_core.facade.addresses import PROTOCOL, store_root
from volume_core.facade.records import Record
from volume_core.format.names import Locator


def produced(key: str, entry: HistoryEntry) -> None:
    """The task that runs here has made the version of *entry* of the volume whose key is *key*."""
    context = AssetContext.get()
    if context is None:
        return
    asset = Asset(key=key)
    context.downstream_assets.add(asset)
    context.direct_asset_dependencies.update(_above(entry))
    context.direct_asset_dependencies.difference_update(context.downstream_assets)
    version = entry.volume
    told = {"version": version.version, "locator": version.locator, "message": version.message}
    context.add_asset_metadata(key, {**told, "parents": list(entry.parents)})
    context.update_tracked_assets()


def used(locator: str) -> None:
    """The task that runs here reads the version at *locator*."""
    context = AssetContext.get()
    if context is not None:
        context.direct_asset_dependencies.update({_asset(locator)} - context.downstream_assets)


def _above(entry: HistoryEntry) -> set[Asset]:
    """What the version came from, and what the task was given."""
    found = {_asset(locator) for locator in entry.parents}

    def look(value: Any) -> None:
        if isinstance(value, Record) and value.index is not None:
            found.add(_asset(value.index))

    task = TaskRunContext.get()
    if task is not None:
        visit_collection(task.parameters, look, return_data=False)
    return found


def _asset(locator: str) -> Asset:
    parsed = Locator.parse(locator)
    return Asset(key=f"{PROTOCOL}://{store_root(parsed.store)}/{parsed.volume}")

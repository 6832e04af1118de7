"""What Airflow is told of the volumes of a task: asset events with the version, and lineage for OpenLineage.

    volume_committed ──┬──> a declared outlet that is the volume: its event's `extra`
                       ├──> no such outlet: an event through the alias `volumes`, which makes the asset
                       └──> an output, for whoever reads hook lineage (OpenLineage)
    volume_mounted   ─────> an input

Airflow gives a declared outlet one event a task, so every volume has one: that of its last version, and `versions`
in it names all that the task has committed.  Events leave the task's process when it has ended well: a task that
fails makes none.

Always true: outside a task nothing is told; what fails here is a line in the log, and no task fails for it; an asset is
a volume, and its version is in the `extra`.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import Any, cast

from volume_airflow import compat, running
from volume_airflow.assets.vol import asset_of, is_volume, uri_of
from volume_core import ActionRef, HistoryEntry, ROVolume
from volume_core.facade.addresses import url_of
from volume_core.facade.records import Record
from volume_core.format.names import Locator
from volume_core.passing import replaced

log = logging.getLogger(__name__)

ALIAS = "volumes"
OPT_OUT = "volume_assets"  # an attribute of a task's function, or of its operator
_PARENTS_MAX = 50
_VERSIONS_MAX = 50  # an event's `extra` is a row of Airflow's database


def no_assets(function: Any) -> Any:
    """Have a task make no asset events of volumes: a decorator of its function, below `@task`; or of an operator.

    OpenLineage is told of its volumes all the same.
    """
    setattr(function, OPT_OUT, False)
    return function


def committed(version: ROVolume, action: ActionRef | None) -> None:
    """The task that *action* names has made *version*."""
    ti = _instance(action)
    if ti is None:
        return
    with _sparing("asset event"):
        entry = version.log_sync(limit=1)[0]
        extra = _extra(entry)
        with _sparing("asset event"):
            if _wanted(ti.task):
                _tell(ti, version, extra)
        with _sparing("lineage"):
            for parent in entry.parents[:_PARENTS_MAX]:
                _collect_input(ti, parent)
            _collect_output(ti, version, extra)


def mounted(locator: str | None, action: ActionRef | None) -> None:
    """The task that *action* names reads the version at *locator*."""
    ti = _instance(action)
    if locator is not None and ti is not None:
        with _sparing("lineage"):
            _collect_input(ti, locator)


def given(ti: Any) -> None:
    """The task *ti* begins: the versions that are its arguments are read by it, as far as anybody can know."""
    with _sparing("lineage"):
        for name in ("op_args", "op_kwargs"):
            replaced(getattr(ti.task, name, None), lambda each: _is_given(ti, each))


def _is_given(ti: Any, value: Any) -> Any:
    if isinstance(value, Record) and value.index is not None:
        _collect_input(ti, value.index)
    return value


@contextlib.contextmanager
def _sparing(what: str) -> Iterator[None]:
    """The version exists: whatever Airflow raises, no task fails for what is only told."""
    try:
        yield
    except Exception as error:
        log.warning("the %s about a volume could not be made: %s: %s", what, type(error).__name__, error)


def _instance(action: ActionRef | None) -> Any:
    """The running task, if it is the one that *action* names."""
    here = running.current()
    if here is None or action is None or action.engine != "airflow":
        return None
    return here.ti if (here.ti.dag_id, here.ti.run_id) == (action.project, action.run) else None


def _context_of_task() -> Mapping[str, Any]:
    here = running.current()
    if here is not None and here.context:
        return here.context
    return cast("Mapping[str, Any]", compat.get_current_context())


# -- asset events


def _wanted(task: Any) -> bool:
    """Whether the configuration and the task want events."""
    marked = all(getattr(each, OPT_OUT, True) for each in (task, getattr(task, "python_callable", None)))
    return marked and compat.conf.getboolean("volume", "assets", fallback=True)


def _extra(entry: HistoryEntry) -> dict[str, Any]:
    volume = entry.volume
    return {
        "volume": volume.name,
        "version": volume.version,
        "locator": volume.locator,
        "url": url_of(volume.locator),
        "message": volume.message,
        "used_bytes": volume.used_bytes,
        "inode_count": volume.inode_count,
        "parents": list(entry.parents[:_PARENTS_MAX]),
    }


def _tell(ti: Any, version: ROVolume, extra: dict[str, Any]) -> None:
    events = _context_of_task()["outlet_events"]
    declared = [each for each in ti.task.outlets if _is(each, version)]
    for outlet in declared:
        accessor = events[outlet]
        accessor.extra = {**accessor.extra, **_together(accessor.extra, extra)}  # what the task says of it itself stays
    if not declared and compat.IS_3:  # before, an alias is one that the DAG was parsed with
        _tell_by_alias(ti.task, events, version, extra)


def _is(outlet: Any, version: ROVolume) -> bool:
    uri = getattr(outlet, "uri", None)
    return isinstance(uri, str) and is_volume(uri, version.store_url, version.name)


def _together(before: Mapping[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    """*extra*, with the ids of all versions that the task has committed, oldest first."""
    versions = [each for each in before.get("versions", []) if each != extra["version"]]
    return {**extra, "versions": [*versions, extra["version"]][-_VERSIONS_MAX:]}


def _tell_by_alias(task: Any, events: Any, version: ROVolume, extra: dict[str, Any]) -> None:
    alias = compat.AssetAlias(ALIAS)
    if all(getattr(each, "name", None) != ALIAS or not isinstance(each, type(alias)) for each in task.outlets):
        task.outlets = [*task.outlets, alias]  # of this run's copy of the operator
    accessor = events[alias]
    told = accessor.asset_alias_events
    uri = uri_of(version.store_url, version.name)
    before = next((each for each in told if _uri_of_event(each) == uri), None)
    extra = _together(before.extra, extra) if before is not None else _together({}, extra)
    if before is not None:
        told.remove(before)
    accessor.add(asset_of(version.store_url, version.name), extra=extra)


def _uri_of_event(event: Any) -> str:
    return str(event.dest_asset_key.uri)


# -- hook lineage, which OpenLineage reads


class _Context:
    """Who has told something: the collector tells contexts apart by their identity.  One is of one try of a task."""

    def __init__(self, task: str) -> None:
        self.task = task


_context = _Context("")


def _context_of(ti: Any) -> _Context:
    global _context
    task = f"{ti.dag_id} {ti.run_id} {ti.task_id} {ti.map_index} {ti.try_number}"
    if _context.task != task:
        _context = _Context(task)
    return _context


def _collect_output(ti: Any, version: ROVolume, extra: dict[str, Any]) -> None:
    """The collector keeps one asset of each URI and extra; a volume that is committed again is one output still."""
    collector, context = compat.lineage_collector(), _context_of(ti)
    uri = asset_of(version.store_url, version.name).uri
    told = {"version": extra["version"], "locator": extra["locator"]}
    for each in collector.collected_assets.outputs:
        if each.context is context and each.asset.uri == uri:
            each.asset.extra.update(told)
            return
    collector.add_output_asset(context=context, uri=uri, asset_extra=told)


def _collect_input(ti: Any, locator: str) -> None:
    collector, context, parsed = compat.lineage_collector(), _context_of(ti), Locator.parse(locator)
    uri = asset_of(parsed.store, parsed.volume).uri
    lineage = collector.collected_assets
    made = [each.asset.extra.get("version") for each in lineage.outputs if each.context is context]
    if parsed.version not in made:  # what this task has committed itself is no input of it
        told = {"version": parsed.version, "locator": locator}
        collector.add_input_asset(context=context, uri=uri, asset_extra=told)

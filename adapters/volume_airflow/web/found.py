"""Which versions a task instance returned and committed, as Airflow's database knows them.

    XComs          what it returned or pushed: volumes anywhere in a value, by the envelopes that they are stored in
    asset events   what it committed: the `extra` of its events that name a locator

Always true: read-only; no class is imported and nothing is deserialized: an envelope is a dictionary here, which nobody
writes but Airflow's own serialization, and never text that reads like one; what is no locator is passed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from sqlalchemy import select

from volume_airflow.web.places import Task
from volume_core.errors import VolumeError
from volume_core.format.names import Locator

_CLASSES = frozenset({"volume_core.volumes.ROVolume", "volume_core.volumes.RWVolume"})
_NODES_MAX = 100_000  # of all XComs of a task together


class Found(NamedTuple):
    """A version of a task instance: `keys` are the XComs that it is in, and it was `committed` by the task."""

    locator: Locator
    name: str
    message: str
    used_bytes: int
    keys: tuple[str, ...]
    committed: bool


def volumes_of(task: Task) -> list[Found]:
    """Return the versions of *task*: those that it returned first."""
    from airflow.utils.session import create_session

    with create_session() as session:
        returned = list(_returned(session, task))
        committed = list(_committed(session, task))
    found: dict[str, Found] = {}
    for key, record in returned:
        _add(found, record.get("index"), record, key)
    for extra in committed:
        _add(found, extra.get("locator"), extra, None)
        locator = str(extra.get("locator", ""))
        for version in extra.get("versions") or ():
            if isinstance(version, str):
                _add(found, locator.rpartition("/")[0] + f"/{version}.json", {}, None)
    return list(found.values())


def returned_record(task: Task) -> dict[str, Any] | None:
    """Return the record of the first volume in what *task* returned; None if it returned none."""
    from airflow.utils.session import create_session

    with create_session() as session:
        return next((record for _, record in _returned(session, task, key="return_value")), None)


def _add(found: dict[str, Found], locator: Any, told: dict[str, Any], key: str | None) -> None:
    try:
        parsed = Locator.parse(locator) if isinstance(locator, str) else None
    except VolumeError:
        parsed = None
    if parsed is None:
        return
    before = found.get(str(parsed))
    size = told.get("used_bytes")
    keys = (*(before.keys if before else ()), *((key,) if key is not None else ()))
    found[str(parsed)] = Found(
        parsed,
        parsed.volume,
        before.message if before else str(told.get("message") or ""),
        before.used_bytes if before else size if isinstance(size, int) else -1,
        tuple(dict.fromkeys(keys)),
        key is None or (before is not None and before.committed),
    )


def _returned(session: Any, task: Task, key: str | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    from airflow.models.xcom import XComModel

    query = select(XComModel.key, XComModel.value).where(
        XComModel.dag_id == task.dag_id,
        XComModel.run_id == task.run_id,
        XComModel.task_id == task.task_id,
        XComModel.map_index == task.map_index,
    )
    if key is not None:
        query = query.where(XComModel.key == key)
    # What it returned comes first.
    rows = sorted(session.execute(query).all(), key=lambda row: (row[0] != "return_value", row[0]))
    left = _NODES_MAX
    for name, value in rows:
        waiting = [value]
        while waiting and left:
            left -= 1
            node = waiting.pop()
            if isinstance(node, list):
                waiting.extend(reversed(node))
            elif isinstance(node, dict):
                data = node.get("__data__")
                if node.get("__classname__") in _CLASSES and isinstance(data, dict):
                    yield name, data
                else:
                    waiting.extend(reversed(node.values()))


def _committed(session: Any, task: Task) -> Iterator[dict[str, Any]]:
    from airflow.models.asset import AssetEvent

    query = (
        select(AssetEvent.extra)
        .where(
            AssetEvent.source_dag_id == task.dag_id,
            AssetEvent.source_run_id == task.run_id,
            AssetEvent.source_task_id == task.task_id,
            AssetEvent.source_map_index == task.map_index,
        )
        .order_by(AssetEvent.id.desc())
        .limit(1000)
    )
    for (extra,) in session.execute(query):
        if isinstance(extra, dict) and isinstance(extra.get("locator"), str):
            yield extra

"""The link "Volume" of a task: to the page of the version that it returned.

GlobalVolumeLink is the plugin's: the API server asks it for every task, so any task that has returned a volume has the
link.  VolumeLink is for operators of ours: it is made by the worker, when the task has ended, and kept as an XCom.

Always true: a task without a volume has no link; the link leads to the task's own page of the version, which whoever
may read its XComs may see; to import this module imports neither the database's models nor FastAPI.
"""

from __future__ import annotations

from typing import Any

from volume_airflow.compat import BaseOperatorLink
from volume_airflow.web.places import Task, VersionPlace, outside
from volume_core.format.names import Locator

NAME = "Volume"


def link_of(task: Task, locator: str) -> str:
    """Return where the version at *locator*, which *task* returned, is shown."""
    parsed = Locator.parse(locator)
    return VersionPlace(outside(""), parsed.volume, parsed.version, task=task).page


def _task(key: Any) -> Task:
    return Task(key.dag_id, key.run_id, key.task_id, -1 if key.map_index is None else key.map_index)


class GlobalVolumeLink(BaseOperatorLink):
    """A link on any task that has returned a volume, alone or in a list, a dictionary and so on: the first one."""

    name = NAME

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Return where the version is shown; "" if the task returned none."""
        from volume_airflow.web.found import returned_record

        task = _task(ti_key)
        record = returned_record(task)
        index = record.get("index") if record else None
        return link_of(task, index) if isinstance(index, str) else ""


class VolumeLink(BaseOperatorLink):
    """The same, of an operator: `operator_extra_links = (VolumeLink(),)`."""

    name = NAME

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Return where the version is shown; "" if the task returned none."""
        from volume_airflow.compat import BaseXCom
        from volume_core import ROVolume
        from volume_core.passing import replaced

        found: list[str] = []

        def look(value: Any) -> Any:
            if isinstance(value, ROVolume) and value.index is not None:
                found.append(value.index)
            return value

        replaced(BaseXCom.get_value(ti_key=ti_key, key="return_value"), look)
        task = _task(ti_key)
        return link_of(task, found[0]) if found else ""

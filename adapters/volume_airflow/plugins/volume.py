"""The plugin: what Airflow loads of this package in every process, and where.

Always true: to load it costs little, for every task's process does; what serves pages is imported at the first request.
"""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin

from volume_airflow import compat, envelopes, listening
from volume_airflow.links.volume import GlobalVolumeLink
from volume_airflow.macros import path
from volume_airflow.web.lazy import app
from volume_airflow.web.places import PREFIX

# An address of the API server, without a slash in front: it is relative to `[api] base_url`.
_PAGES = PREFIX.removeprefix("/")
_VIEWS: list[dict[str, Any]] = [
    {
        "name": "Volumes",
        "href": f"{_PAGES}/index",
        "destination": "nav",
        "category": "browse",
        "url_route": "volumes",
    },
    {
        "name": "Volumes",
        "href": f"{_PAGES}/ti/{{DAG_ID}}/{{RUN_ID}}/{{TASK_ID}}?map_index={{MAP_INDEX}}",
        "destination": "task_instance",
        "url_route": "task_volumes",
    },
]


class VolumePlugin(AirflowPlugin):
    """Volumes as values of tasks."""

    name = "volume"
    listeners = [listening]
    macros = [path]
    # Before Airflow 3 there is no server that these could be mounted in.
    fastapi_apps = [{"app": app, "url_prefix": PREFIX, "name": "Volumes"}] if compat.IS_3 else []
    external_views = _VIEWS if compat.IS_3 else []
    global_operator_extra_links = [GlobalVolumeLink()] if compat.IS_3 else []

    @classmethod
    def on_load(cls, *args: Any, **kwargs: Any) -> None:
        """Let tasks read volumes from XComs."""
        envelopes.allow()

"""Who may see what.

    a task instance's volumes, and these versions   whoever may read the XComs of its DAG: that is where they are
    the volumes of the default store                whoever may see assets: each volume is one

A page about a task shows the versions that this task returned or committed, and no others, whichever store they lie in:
nobody opens a store with the server's credentials by writing a locator into an address.

Always true: every route has one of the two; who is not logged in gets 401, who may not 403, before anything is read.
"""

from __future__ import annotations

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import requires_access_asset, requires_access_dag
from fastapi import Depends, HTTPException, Request

from volume_airflow.web.found import volumes_of
from volume_airflow.web.places import Task
from volume_core import ROVolume, Volume
from volume_core.facade.naming import place_of
from volume_core.format.names import Locator, validate_name
from volume_core.parts.resolving import resolve

may_browse = Depends(requires_access_asset("GET"))
may_read_task = Depends(requires_access_dag("GET", DagAccessEntity.XCOM))


def task_of(request: Request) -> Task:
    """Return the task instance that the address names."""
    found = request.path_params
    text = str(found.get("map_index", request.query_params.get("map_index", "-1")))
    try:
        index = int(text)
    except ValueError:
        index = -1  # "{MAP_INDEX}" stays as it is where the page that links here knows none
    return Task(found["dag_id"], found["run_id"], found["task_id"], index)


def version_in_store(name: str, version: str) -> ROVolume:
    """Return the version that a tag, an id or the beginning of one stands for, in the default store."""
    place = place_of(None)
    found = resolve(place.store(), validate_name(name), version)
    return Volume.from_locator_sync(str(Locator(place.url, name, found)))


def version_of_task(task: Task, version: str) -> ROVolume:
    """Return the version with that id, which *task* returned or committed; 404 if it did neither."""
    for found in volumes_of(task):
        if found.locator.version == version:
            return Volume.from_locator_sync(str(found.locator))
    raise HTTPException(404, "this task instance has neither returned nor committed such a version")

"""Who may see what.

    a task instance's volumes, and these versions   whoever may read the XComs of its DAG: that is where they are
    the volumes of the default store                whoever may see assets: each volume is one

The default store is that of tasks which name no connection, and its credentials, and those for the store of a task's
version, are those of the connection, while a page is made.

A page about a task shows the versions that this task returned or committed, and no others, whichever store they lie in:
nobody opens a store with the server's credentials by writing a locator into an address.

Always true: every route has one of the two; who is not logged in gets 401, who may not 403, before anything is read.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import requires_access_asset, requires_access_dag
from fastapi import Depends, HTTPException, Request

from volume_airflow import stores
from volume_airflow.stores import VolumeStore
from volume_airflow.turns import turns
from volume_airflow.web.found import volumes_of
from volume_airflow.web.places import Task
from volume_core import ROVolume, Volume
from volume_core.facade.naming import place_of
from volume_core.facade.versions import Place
from volume_core.format.names import Locator, validate_name
from volume_core.parts.resolving import resolve

_Answer = TypeVar("_Answer")

may_browse = Depends(requires_access_asset("GET"))
may_read_task = Depends(requires_access_dag("GET", DagAccessEntity.XCOM))

_KNOWN_S = 30.0
_KNOWN_MAX = 64
_lock = threading.Lock()
_known: dict[str, tuple[float, VolumeStore | None]] = {}  # by URL, the default one by "": when it was asked for


def task_of(request: Request) -> Task:
    """Return the task instance that the address names."""
    found = request.path_params
    text = str(found.get("map_index", request.query_params.get("map_index", "-1")))
    try:
        index = int(text)
    except ValueError:
        index = -1  # "{MAP_INDEX}" stays as it is where the page that links here knows none
    return Task(found["dag_id"], found["run_id"], found["task_id"], index)


def default_place() -> Place:
    """Return where the volumes of tasks lie that name no connection.  Raises what stores.located does."""
    store = _default_store()
    return Place(store.url, store.region) if store is not None else place_of(None)


def _default_store() -> VolumeStore | None:
    return _lately("", stores.located)


def store_around(url: str) -> VolumeStore | None:
    """Return the store whose credentials are for the one at *url*; None: those that the server has by itself."""
    default = _default_store()
    if default is not None and url == default.url:
        return default
    return _lately(url, lambda: stores.around(url))


def _lately(key: str, ask: Callable[[], VolumeStore | None]) -> VolumeStore | None:
    """Return what *ask* has returned half a minute ago at most: a page takes many steps, and a role's keys a second."""
    with _lock:
        asked, store = _known.get(key, (float("-inf"), None))
    if time.monotonic() - asked >= _KNOWN_S:
        store = ask()
        with _lock:
            if store is not None:
                _known.pop(key, None)
                _known[key] = (time.monotonic(), store)
            while len(_known) > _KNOWN_MAX:
                del _known[next(iter(_known))]
    return store


def in_default_store(handler: Callable[..., _Answer]) -> Callable[..., _Answer]:
    """Have *handler* called with the credentials of the default store."""

    @functools.wraps(handler)
    def answer(**given: Any) -> _Answer:
        with turns.taken_by(_default_store()):
            return handler(**given)

    return answer


def in_store_of_version(handler: Callable[..., _Answer]) -> Callable[..., _Answer]:
    """Have *handler* called with the credentials of the store in which the `version` of its `task` lies."""

    @functools.wraps(handler)
    def answer(*, task: Task, version: str, **given: Any) -> _Answer:
        with turns.taken_by(store_around(_locator(task, version).store)):
            return handler(task=task, version=version, **given)

    return answer


def version_in_store(name: str, version: str) -> ROVolume:
    """Return the version that a tag, an id or the beginning of one stands for, in the default store."""
    place = default_place()
    found = resolve(place.store(), validate_name(name), version)
    return Volume.from_locator_sync(str(Locator(place.url, name, found)))


def version_of_task(task: Task, version: str) -> ROVolume:
    """Return the version with that id, which *task* returned or committed; 404 if it did neither."""
    return Volume.from_locator_sync(str(_locator(task, version)))


def _locator(task: Task, version: str) -> Locator:
    for found in volumes_of(task):
        if found.locator.version == version:
            return found.locator
    raise HTTPException(404, "this task instance has neither returned nor committed such a version")

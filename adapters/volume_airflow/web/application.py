"""The application: which address leads to which page.

Always true: every route has a dependency of access.py; handlers are plain functions, which FastAPI runs in threads, for
they wait for stores and the database; an error of a store is a page that says it, with a status, and never a traceback.
"""

from __future__ import annotations

import logging
from html import escape
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException as StarletteHTTPException

from volume_airflow.web import versions
from volume_airflow.web.access import (
    default_place,
    in_default_store,
    in_store_of_version,
    may_browse,
    may_read_task,
    task_of,
    version_in_store,
    version_of_task,
)
from volume_airflow.web.found import Found, volumes_of
from volume_airflow.web.layout import HEADERS, page, problem
from volume_airflow.web.places import Task, VersionPlace, part, query_of
from volume_core import ROVolume
from volume_core.errors import InvalidNameError, NotFoundError, StorageError, VolumeError
from volume_core.facade.listing import Listed, listed_in, newest_of
from volume_core.format.names import validate_name
from volume_core.pages import history_page, spelling, volumes_page
from volume_core.pages.html import wrapped

log = logging.getLogger(__name__)

PAGES_AT_ONCE = 8  # each has a thread of the server, which has 40 for all that it answers
VOLUMES_MAX = 50  # on one page: of each a head and a manifest are read
TaskOf = Annotated[Task, Depends(task_of)]


def make() -> FastAPI:
    """Return the application that answers below /volumes."""
    app = FastAPI(title="Volumes", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.turns = anyio.Semaphore(PAGES_AT_ONCE)
    app.include_router(_store)
    app.include_router(_task)
    app.middleware("http")(_with_headers)
    app.exception_handler(VolumeError)(_failed)
    app.exception_handler(StarletteHTTPException)(_refused)
    app.exception_handler(RequestValidationError)(_not_understood)
    app.exception_handler(Exception)(_broken)
    return app


async def _with_headers(request: Request, call_next: Any) -> Any:
    # A store that does not answer holds up these pages, and nothing else of Airflow's.
    async with request.app.state.turns:
        response = await call_next(request)
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def _root(request: Request) -> str:
    return str(request.scope.get("root_path", "")).rstrip("/")


# -- the default store

_store = APIRouter(dependencies=[may_browse], default_response_class=HTMLResponse)


@_store.get("/")
@in_default_store
def volumes(request: Request, q: str = "", page_number: int = 1) -> HTMLResponse:
    """List the volumes of the default store whose name has *q* in it."""
    root, place = _root(request), default_place()
    found = [each for each in listed_in(place.store()) if q.lower() in each.name.lower()]
    pages = max(-(-len(found) // VOLUMES_MAX), 1)
    number = min(max(page_number, 1), pages)
    shown = newest_of(place, found[(number - 1) * VOLUMES_MAX : number * VOLUMES_MAX])
    links = VersionPlace(root, "", "", store=place.url)
    form = (
        f'<form method="get" action="{escape(root)}/"><input type="search" name="q" value="{escape(spelling.line(q))}" '
        'placeholder="part of a name" aria-label="Part of a name"/><button>Find</button></form>'
    )
    listed = volumes_page(place.url, shown, links=links)
    return HTMLResponse(
        page("Volumes", ["<h1>Volumes</h1>", form, listed, _none(found, q), _turns(root, q, number, pages)])
    )


def _none(found: list[Listed], q: str) -> str:
    if found:
        return ""
    what = "No volume has that in its name." if q else "There is no volume in this store yet."
    return f'<p class="empty">{what}</p>'


def _turns(root: str, q: str, number: int, pages: int) -> str:
    if pages == 1:
        return ""
    ways = {"Previous": number - 1, "Next": number + 1}
    links = [
        f'<a href="{escape(f"{root}/?q={part(q)}&page_number={to}")}">{name}</a>'
        for name, to in ways.items()
        if 1 <= to <= pages
    ]
    return f'<p class="turn">Page {number} of {pages} &nbsp; {" · ".join(links)}</p>'


@_store.get("/index")
def index(request: Request) -> Response:
    """Lead to the list: where the menu of Airflow points, which takes a slash off an address's end."""
    return RedirectResponse(f"{_root(request)}/")


@_store.get("/volume/{name}")
@in_default_store
def volume(request: Request, name: str) -> HTMLResponse:
    """Show the versions of the volume *name*: of its head, or without one of the version written last."""
    root, place = _root(request), default_place()
    found = listed_in(place.store(), validate_name(name))
    if not found:
        raise NotFoundError(f"there is no volume {name!r} in {place.url}")
    [newest] = newest_of(place, found)
    if newest.version is None:
        raise VolumeError(newest.problem)
    fragment = history_page(
        ROVolume.of_version(newest.version), links=VersionPlace(root, name, "", store=place.url), versions_max=200
    )
    return HTMLResponse(page(name, [fragment], way=[("Volumes", f"{root}/"), (name, None)]))


def _in_store(request: Request, name: str, version: str) -> tuple[ROVolume, VersionPlace, versions.Way]:
    root, found = _root(request), version_in_store(name, version)
    place = VersionPlace(root, found.name, found.version, store=found.store_url)
    return found, place, [("Volumes", f"{root}/"), (name, place.volume(name))]


@_store.get("/volume/{name}/{version}")
@in_default_store
def overview(request: Request, name: str, version: str) -> HTMLResponse:
    """Show one version."""
    return versions.overview(*_in_store(request, name, version))


@_store.get("/volume/{name}/{version}/files")
@in_default_store
def files(request: Request, name: str, version: str, after: int = 0) -> HTMLResponse:
    """Show one directory of a version."""
    return versions.files(*_in_store(request, name, version), _path(request), after)


@_store.get("/volume/{name}/{version}/file")
@in_default_store
def file(request: Request, name: str, version: str) -> Response:
    """Send one file of a version."""
    return versions.download(_in_store(request, name, version)[0], _path(request))


@_store.get("/volume/{name}/{version}/changes")
@in_default_store
def changes(request: Request, name: str, version: str) -> HTMLResponse:
    """Show what turns another version of that volume, by default the parent, into this one."""
    asked = query_of(request.scope["query_string"], "with").strip()
    other = version_in_store(name, asked) if asked else None
    return versions.changes(*_in_store(request, name, version), other, asked)


def _path(request: Request) -> str:
    return query_of(request.scope["query_string"], "path").strip("/")


# -- a task instance

_task = APIRouter(prefix="/ti/{dag_id}/{run_id}/{task_id}", dependencies=[may_read_task])


@_task.get("")
def task_instance(request: Request, task: TaskOf) -> HTMLResponse:
    """List the versions that a task instance returned and committed."""
    root, found = _root(request), volumes_of(task)
    if not found:
        what = "This task instance has returned no volume, and committed none."
        return HTMLResponse(page("Volumes", [f'<p class="empty">{what}</p>']))
    rows = "".join(_row(root, task, each) for each in found)
    head = '<tr><th>Volume</th><th>Version</th><th>Message</th><th>XCom</th><th class="vp-right">Size</th></tr>'
    table = f'<table class="vp-volumes"><thead>{head}</thead><tbody>{rows}</tbody></table>'
    return HTMLResponse(page("Volumes", [wrapped(["<h2>Volumes of this task instance</h2>", table])]))


def _row(root: str, task: Task, found: Found) -> str:
    place = VersionPlace(root, found.name, found.locator.version, task=task)
    marks = '<span class="vp-mark vp-added">committed</span>' if found.committed else ""
    keys = ", ".join(f"<code>{escape(spelling.line(key, 100))}</code>" for key in found.keys)
    size = spelling.size(found.used_bytes) if found.used_bytes >= 0 else ""
    return (
        f'<tr><td class="vp-name"><a href="{escape(place.page)}"><strong>{escape(found.name)}</strong></a></td>'
        f'<td class="vp-when"><a href="{escape(place.page)}"><code>{found.locator.version[:12]}</code></a> {marks}</td>'
        f'<td class="vp-told">{escape(spelling.line(found.message, 200))}</td><td class="vp-when">{keys}</td>'
        f'<td class="vp-right">{size}</td></tr>'
    )


def _of_task(request: Request, task: Task, version: str) -> tuple[ROVolume, VersionPlace, versions.Way]:
    root, found = _root(request), version_of_task(task, version)
    place = VersionPlace(root, found.name, found.version, task=task)
    return found, place, [("Volumes of the task instance", f"{root}{task.page}"), (found.name, None)]


@_task.get("/{map_index}/{version}")
@in_store_of_version
def task_overview(request: Request, task: TaskOf, version: str) -> HTMLResponse:
    """Show one version of a task instance."""
    return versions.overview(*_of_task(request, task, version))


@_task.get("/{map_index}/{version}/files")
@in_store_of_version
def task_files(request: Request, task: TaskOf, version: str, after: int = 0) -> HTMLResponse:
    """Show one directory of such a version."""
    return versions.files(*_of_task(request, task, version), _path(request), after)


@_task.get("/{map_index}/{version}/file")
@in_store_of_version
def task_file(request: Request, task: TaskOf, version: str) -> Response:
    """Send one file of such a version."""
    return versions.download(_of_task(request, task, version)[0], _path(request))


@_task.get("/{map_index}/{version}/changes")
@in_store_of_version
def task_changes(request: Request, task: TaskOf, version: str) -> HTMLResponse:
    """Show what such a version changed against its parent."""
    return versions.changes(*_of_task(request, task, version), None, "")


# -- what goes wrong


def _failed(request: Request, error: Exception) -> HTMLResponse:
    status, title = 500, "This cannot be shown"
    if isinstance(error, NotFoundError):
        status, title = 404, "There is no such thing"
    elif isinstance(error, InvalidNameError):
        status, title = 400, "This address is none"
    elif isinstance(error, StorageError):
        status, title = 503 if error.transient else 502, "The store cannot be read"
    return HTMLResponse(problem(title, str(error)), status)


def _refused(request: Request, error: Exception) -> HTMLResponse:
    assert isinstance(error, StarletteHTTPException)
    titles = {401: "Log in to Airflow first", 403: "You may not see this", 404: "There is no such page"}
    title = titles.get(error.status_code, "This cannot be shown")
    return HTMLResponse(problem(title, str(error.detail)), error.status_code, headers=error.headers)


def _not_understood(request: Request, error: Exception) -> HTMLResponse:
    return HTMLResponse(problem("This address is none", "a number in it is none"), 400)


def _broken(request: Request, error: Exception) -> HTMLResponse:
    log.error("a page about volumes failed: %s", request.url.path, exc_info=error)
    return HTMLResponse(problem("This page has failed", "the API server's log says why"), 500, headers=HEADERS)

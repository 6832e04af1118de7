"""The pages about one version: what it is, its files, what it changed; the same for both ways that lead to one.

Always true: nothing here decides who may look; it is given a version that the reader may see.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from html import escape
from urllib.parse import quote

from fastapi.responses import HTMLResponse, Response, StreamingResponse

from volume_airflow.turns import turns
from volume_airflow.web.access import store_around
from volume_airflow.web.layout import HEADERS, Tab, page
from volume_airflow.web.places import VersionPlace
from volume_core import ROVolume
from volume_core.facade.versions import read_parent
from volume_core.pages import differences_page, files_page, version_page

Way = list[tuple[str, str | None]]


def overview(version: ROVolume, place: VersionPlace, way: Way) -> HTMLResponse:
    """Return the page that says what *version* is."""
    return _shown(version, place, way, "Overview", version_page(version))


def files(version: ROVolume, place: VersionPlace, way: Way, path: str, after: int) -> HTMLResponse:
    """Return one page of the directory *path* of *version*."""
    return _shown(version, place, way, "Files", files_page(version, path, links=place, after=after))


def changes(version: ROVolume, place: VersionPlace, way: Way, other: ROVolume | None, asked: str) -> HTMLResponse:
    """Return what turns *other*, by default the first parent, into *version*."""
    form = (
        f'<form method="get" action="{escape(place.changes)}"><input name="with" value="{escape(asked)}" '
        'placeholder="a tag, or how a version’s id begins" aria-label="The version to compare with"/>'
        "<button>Compare</button></form>"
        if place.volume("") is not None
        else ""
    )
    if other is None:
        above = read_parent(version._locked_version())
        other = ROVolume.of_version(above) if above is not None else None
    told = (
        differences_page(other, version, links=place)
        if other is not None
        else '<p class="empty">It has no parent: it is the first version of its line.</p>'
    )
    return _shown(version, place, way, "Changes", form + told)


def _shown(version: ROVolume, place: VersionPlace, way: Way, here: str, body: str) -> HTMLResponse:
    tabs = [
        Tab(name, address, name == here)
        for name, address in (("Overview", place.page), ("Files", place.files), ("Changes", place.changes))
    ]
    step: tuple[str, str | None] = (version.version[:12], None)
    return HTMLResponse(page(f"{version.name} {version.version[:12]}", [body], way=[*way, step], tabs=tabs))


def download(version: ROVolume, path: str) -> Response:
    """Return the file *path* of *version*, as a file to be saved, whatever is in it."""
    entry = version.stat_sync(path)
    blocks = version.read_file_sync(path)
    first = next(blocks, b"")  # what cannot be read is an error before anything is sent

    store = store_around(version.store_url)

    def body() -> Iterator[bytes]:
        yield first
        yield from turns.each(store, blocks)  # whoever saves it slowly holds up nobody

    name = os.fsencode(path.rstrip("/").rpartition("/")[2])
    headers = {
        **HEADERS,
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}",
        "Content-Length": str(entry.size),
        "Content-Encoding": "identity",  # the server would compress it, and nobody would know how long it takes
    }
    return StreamingResponse(body(), media_type="application/octet-stream", headers=headers)

"""The addresses of the pages, for the application and for links from elsewhere in Airflow.

    /volumes/                                                   the volumes of the default store
    /volumes/volume/NAME                                        its versions
    /volumes/volume/NAME/VERSION                                one of them; /files, /file and /changes below it
    /volumes/ti/DAG/RUN/TASK?map_index=N                        what a task instance returned and committed
    /volumes/ti/DAG/RUN/TASK/N/VERSION                          one of these; /files, /file and /changes below it

Always true: what is put into an address is encoded, also a path that is no UTF-8; nothing here imports Airflow's web.
"""

from __future__ import annotations

import os
from typing import NamedTuple
from urllib.parse import parse_qs, quote, urlsplit

from volume_core.format.names import Locator

PREFIX = "/volumes"


def part(text: str) -> str:
    """Return *text* as one part of an address."""
    return quote(text, safe="")


def query_of(raw: bytes, name: str) -> str:
    """Return the value of *name* in the query string *raw*, bytes that are no UTF-8 as os.fsdecode has them."""
    found = parse_qs(raw.decode("latin-1"), keep_blank_values=True, encoding="utf-8", errors="surrogateescape")
    return found.get(name, [""])[0]


class Task(NamedTuple):
    """One task instance."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1

    @property
    def page(self) -> str:
        """Where its volumes are listed, below the prefix."""
        return f"{self._path}?map_index={self.map_index}"

    @property
    def versions(self) -> str:
        """What the addresses of its versions begin with."""
        return f"{self._path}/{self.map_index}"

    @property
    def _path(self) -> str:
        return f"/ti/{part(self.dag_id)}/{part(self.run_id)}/{part(self.task_id)}"


class VersionPlace:
    """The pages about one version, in a store that is browsed, or of a task: `Links` of volume_core.pages."""

    def __init__(self, root: str, volume: str, version: str, *, task: Task | None = None, store: str = "") -> None:
        self._root = root
        self._task = task
        self._store = store  # whose volumes the reader may browse
        above = f"{root}{task.versions}" if task is not None else f"{root}/volume/{part(volume)}"
        self.page = f"{above}/{part(version)}"

    @property
    def files(self) -> str:
        """Where its files are."""
        return f"{self.page}/files"

    @property
    def changes(self) -> str:
        """Where it is compared with another one."""
        return f"{self.page}/changes"

    def volume(self, name: str) -> str | None:
        """Return where the versions of *name* are."""
        return f"{self._root}/volume/{part(name)}" if self._task is None else None

    def version(self, locator: str) -> str | None:
        """Return where the version at *locator* is, if its store is browsed here."""
        parsed = Locator.parse(locator)
        if self._task is not None or parsed.store != self._store:
            return None
        return f"{self._root}/volume/{part(parsed.volume)}/{parsed.version}"

    def directory(self, path: str, after: int = 0) -> str | None:
        """Return where the listing of *path* is."""
        return f"{self.files}?path={part_of_path(path)}" + (f"&after={after}" if after else "")

    def file(self, path: str) -> str | None:
        """Return where the file *path* is downloaded."""
        return f"{self.page}/file?path={part_of_path(path)}"


def part_of_path(path: str) -> str:
    """Return a path of a volume as a value in a query."""
    return quote(os.fsencode(path), safe="/")


def outside(path: str) -> str:
    """Return *path*, which is below the prefix, as the browser asks for it: behind the path of `[api] base_url`."""
    from volume_airflow.compat import conf

    base = urlsplit(conf.get("api", "base_url", fallback="") or "").path.rstrip("/")
    return f"{base}{PREFIX}{path}"

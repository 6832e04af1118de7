"""The files of a version as an HTML fragment: one directory at a time, page by page.

Always true: as html.py has it; however large a directory is, no more of it is held than one page shows.
"""

from __future__ import annotations

import itertools
import os
import time
from html import escape
from typing import TYPE_CHECKING

from volume_core.domain.paths import shown
from volume_core.errors import InvalidNameError, VolumeError
from volume_core.facade.browsing import browse
from volume_core.facade.fileentries import FileEntry, entry_of
from volume_core.pages import spelling
from volume_core.pages.html import wrapped
from volume_core.pages.links import Links, linked

if TYPE_CHECKING:
    from volume_core.volumes import ROVolume

ENTRIES_MAX = 500


def files_page(
    version: ROVolume, path: str = "", *, links: Links, after: int = 0, entries_max: int = ENTRIES_MAX
) -> str:
    """Return an HTML fragment about the directory *path* of *version*: *entries_max* entries, behind position *after*.

    Positions come from the links of the page before.  Raises NoSuchPathError where there is no such path, VolumeError
    where it is no directory, InvalidNameError where *after* is no position in it.
    """
    entries, following = _entries(version, path, after, entries_max)
    rows = "".join(_row(entry, links) for entry in entries)
    if not entries:
        rows = f'<tr><td colspan="3" class="vp-quiet">{"Nothing more." if after else "It is empty."}</td></tr>'
    more = links.directory(path, following) if following is not None else None
    turn = f'<p class="vp-turn">{linked("Next page", more)}</p>' if more else ""
    head = '<tr><th>Name</th><th class="vp-right">Size</th><th class="vp-right">Modified</th></tr>'
    table = f'<table class="vp-listing"><thead>{head}</thead><tbody>{rows}</tbody></table>'
    return wrapped([f'<p class="vp-crumbs">{_crumbs(path, links)}</p>', f'<div class="vp-scroll">{table}</div>', turn])


def _entries(version: ROVolume, path: str, after: int, limit: int) -> tuple[list[FileEntry], int | None]:
    """What one page shows, and the position of its last entry if there are more."""
    with browse(version._locked_version()) as browser:
        directory = browser.find(os.fsencode(path))
        if not directory.is_directory:
            raise VolumeError(f"{shown(directory.path)}: it is no directory")
        try:
            nodes = list(itertools.islice(browser.view.children(directory, after), limit + 1))
        except (KeyError, IndexError, OverflowError):
            problem = f"{after} is no position in {shown(directory.path)}: begin with its first page"
            raise InvalidNameError(problem) from None
        following = browser.view.position(nodes[limit - 1]) if len(nodes) > limit else None
        return [entry_of(node, node.path) for node in nodes[:limit]], following


def _crumbs(path: str, links: Links) -> str:
    """The way from the root to *path*."""
    parts = [part for part in path.split("/") if part]
    below = ["/".join(parts[: number + 1]) for number in range(len(parts))]
    names = ["/", *parts]
    first, *ways = [
        linked(f"<code>{escape(spelling.line(name, 200))}</code>", links.directory(there))
        for name, there in zip(names, ["", *below], strict=True)
    ]
    return f"{first} {'<span> / </span>'.join(ways)}"


def _row(entry: FileEntry, links: Links) -> str:
    name = escape(spelling.line(entry.name, spelling.PATH_MAX))
    if entry.is_dir():
        text = linked(f"<code>{name}/</code>", links.directory(entry.path), "vp-directory")
    elif entry.is_file():
        text = linked(f"<code>{name}</code>", links.file(entry.path))
    elif entry.target is not None:
        target = escape(spelling.line(entry.target, spelling.PATH_MAX))
        text = f'<code>{name}</code> <span class="vp-quiet">→ <code>{target}</code></span>'
    else:
        text = f"<code>{name}</code>"
    what = "" if entry.is_dir() else spelling.entry(entry)
    return (
        f'<tr><td class="vp-path">{text}</td><td class="vp-right">{what}</td>'
        f'<td class="vp-right vp-quiet">{_when(entry.mtime)}</td></tr>'
    )


def _when(mtime: int) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.gmtime(mtime))
    except (ValueError, OverflowError, OSError):  # a time that a program set, of another age
        return "–"

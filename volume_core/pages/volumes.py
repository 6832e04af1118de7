"""The volumes of a store as an HTML fragment.

Always true: as html.py has it; what cannot be read of one volume is said in its row, and the others are shown.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from html import escape

from volume_core.facade.listing import Newest
from volume_core.pages import spelling
from volume_core.pages.html import wrapped
from volume_core.pages.links import Links, linked


def volumes_page(store: str, found: Iterable[Newest], *, links: Links) -> str:
    """Return an HTML fragment that lists the volumes *found* in the store whose URL is *store*."""
    rows = "".join(_row(each, links) for each in found)
    head = "".join(
        f"<th{style}>{name}</th>"
        for name, style in (
            ("Volume", ""), ("Version", ""), ("Message", ""), ("Written", ""),
            ("Size", ' class="vp-right"'), ("Files", ' class="vp-right"'), ("Versions", ' class="vp-right"'),
        )
    )  # fmt: skip
    table = f'<table class="vp-volumes"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
    table = f'<div class="vp-scroll">{table}</div>'
    return wrapped([f'<p class="vp-quiet">in <code>{escape(spelling.line(store))}</code></p>', table if rows else ""])


def _row(found: Newest, links: Links) -> str:
    name = linked(f"<strong>{escape(found.name)}</strong>", links.volume(found.name))
    versions = f'<td class="vp-right">{spelling.number(found.versions)}</td>'
    written = time.strftime("%Y-%m-%d %H:%M", time.gmtime(found.modified_ns // 1_000_000_000))
    when = f'<td class="vp-when vp-quiet">{written}</td>'
    if found.version is None:
        told = f'<td></td><td class="vp-told vp-removed">{escape(spelling.line(found.problem, 200))}</td>'
        return f"<tr><td>{name}</td>{told}{when}<td></td><td></td>{versions}</tr>"
    manifest = found.version.manifest
    locator = found.version.locator
    short = linked(f"<code>{locator.version[:12]}</code>", links.version(str(locator)))
    mark = '<span class="vp-mark vp-head">head</span>' if found.has_head else ""
    message = escape(spelling.line(manifest.message.partition("\n")[0], 200))
    return (
        f'<tr><td class="vp-name">{name}</td><td class="vp-when">'
        f'{short} {mark}</td><td class="vp-told">{message}</td>{when}'
        f'<td class="vp-right">{spelling.size(manifest.used_bytes)}</td>'
        f'<td class="vp-right">{spelling.number(manifest.inode_count)}</td>{versions}</tr>'
    )

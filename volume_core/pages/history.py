"""A volume as an HTML fragment: how it grew, and its versions, newest first, with their names and their graph.

Always true: as html.py has it; at most as many manifests are read as versions are shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from volume_core.errors import VolumeError
from volume_core.facade.statuses import HistoryEntry
from volume_core.pages import spelling
from volume_core.pages.facts import HISTORY_MAX, gather
from volume_core.pages.html import numbers, wrapped
from volume_core.pages.lanes import crossings, drawn
from volume_core.pages.links import Links, linked

if TYPE_CHECKING:
    from volume_core.volumes import ROVolume


def history_page(version: ROVolume, *, links: Links, versions_max: int = HISTORY_MAX) -> str:
    """Return an HTML fragment about the volume whose newest version is *version*.

    At most *versions_max* versions are listed and charted.  Reads that many manifests, the volume's head and its tags;
    a store that does not answer is a sentence on the page.
    """
    facts = gather(version, versions_max, 0)
    parts = [f"<h2>{escape(version.name)}</h2>", *_where(version), numbers(facts, charts=len(facts.history) > 1)]
    try:
        entries = version.log_sync(limit=versions_max + 1, names=True)
    except VolumeError as error:
        parts.append(f'<p class="vp-note">The history cannot be read: {escape(spelling.line(str(error)))}</p>')
        return wrapped(parts)
    parts.append(_table(entries[:versions_max], links))
    if len(entries) > versions_max:
        parts.append(f'<p class="vp-quiet">The newest {spelling.number(versions_max)} versions; there are more.</p>')
    return wrapped(parts)


def _where(version: ROVolume) -> list[str]:
    return [f'<p class="vp-quiet">in <code>{escape(spelling.line(version.store_url))}</code></p>']


def _table(entries: Sequence[HistoryEntry], links: Links) -> str:
    parents = {entry.volume.locator: entry.parents for entry in entries}
    rows = list(crossings(parents))
    width = max(row.width for row in rows)
    body = "".join(_row(entry, drawn(row, width), links) for entry, row in zip(entries, rows, strict=True))
    head = "".join(f"<th>{name}</th>" for name in ("", "Version", "Message", "Committed"))
    return (
        '<h3>Versions</h3><div class="vp-scroll"><table class="vp-history"><thead><tr>'
        f'{head}<th class="vp-right">Size</th></tr></thead><tbody>{body}</tbody></table></div>'
    )


def _row(entry: HistoryEntry, picture: str, links: Links) -> str:
    volume = entry.volume
    told = escape(spelling.line(volume.message.partition("\n")[0], 200)) or '<span class="vp-quiet">–</span>'
    names = [("vp-head", "head")] if entry.is_head else []
    names += [("vp-tag", name) for name in entry.tags]
    marks = "".join(f'<span class="vp-mark {style}">{escape(spelling.line(name, 60))}</span>' for style, name in names)
    if entry.torn:
        marks += '<span class="vp-mark vp-removed">torn</span>'
    producer = escape(spelling.producer(volume.produced_by)) if volume.produced_by else ""
    cells = (
        f'<td class="vp-lanes">{picture}</td>',
        f"<td>{linked(f'<code>{volume.version[:12]}</code>', links.version(volume.locator))}</td>",
        f'<td class="vp-told" title="{producer}">{marks}{told}</td>',
        f'<td class="vp-when">{escape(spelling.when(entry.created_at))}</td>',
        f'<td class="vp-right">{spelling.size(volume.used_bytes)}</td>',
    )
    return f"<tr>{''.join(cells)}</tr>"

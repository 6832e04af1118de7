"""A version as an HTML fragment.

Always true: it is well-formed, has no script and no element with an id, loads nothing, and may stand several times on
a page; every text in it went through spelling.py and html.escape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from volume_core.domain.diff import ChangeKind
from volume_core.facade.comparing import Difference
from volume_core.facade.records import ActionRef
from volume_core.pages import spelling
from volume_core.pages.chart import Dot, chart
from volume_core.pages.facts import CHANGES_MAX, HISTORY_MAX, Changes, Facts, Point, gather
from volume_core.pages.style import STYLE

if TYPE_CHECKING:
    from volume_core.volumes import ROVolume


def version_page(version: ROVolume, *, history_max: int = HISTORY_MAX, changes_max: int = CHANGES_MAX) -> str:
    """Return an HTML fragment about *version*: what it is, what it changed, how it grew, how to get it.

    At most *history_max* versions of its line are charted and *changes_max* changed paths listed; 0 leaves a part out,
    and what it would have read.  Reads manifests, and indexes of at most 32 MiB that are not here already; a parent
    that was deleted, or a store that does not answer, is a sentence on the page.
    """
    facts = gather(version, history_max, changes_max)
    return wrapped(
        [
            _heading(facts),
            _remarks(facts),
            numbers(facts, charts=history_max > 0),
            _facts(facts),
            _changed(facts),
            _torn(facts),
            _use(facts),
        ]
    )


def wrapped(parts: Iterable[str]) -> str:
    """Return *parts*, those that are not empty, as one fragment with its style."""
    return "\n".join(['<div class="volume-page"><style>', STYLE, "</style>", *filter(None, parts), "</div>"])


def document(fragments: Iterable[str], title: str) -> str:
    """Return *fragments* as a page by itself, which follows the reader's light or dark."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        f"<title>{escape(spelling.line(title))}</title>"
        "<style>:root{color-scheme:light dark}body{margin:1.5rem auto;max-width:62rem;padding:0 1rem}</style></head>"
        f"<body>\n{''.join(fragments)}\n</body></html>\n"
    )


def _heading(facts: Facts) -> str:
    volume = facts.volume
    message = spelling.message(volume.message)
    told = f'<p class="vp-message">{escape(message)}</p>' if message else ""
    return f'<h2>{escape(volume.name)} <code class="vp-id">{volume.version[:12]}</code></h2>{told}'


def _remarks(facts: Facts) -> str:
    return "".join(f'<p class="vp-note">{escape(spelling.line(remark))}</p>' for remark in facts.remarks)


def numbers(facts: Facts, *, charts: bool) -> str:
    """Return the two numbers of a version, each with how it came to be."""
    used = [point.used_bytes for point in facts.history]
    counts = [point.inode_count for point in facts.history]
    of_bytes = _Number("Bytes", "vp-bytes", spelling.size, used, binary=True)
    of_files = _Number("Files and directories", "vp-files", spelling.number, counts)
    cards = "".join(_card(number, facts.history if charts else []) for number in (of_bytes, of_files))
    return f'<div class="vp-charts">{cards}</div>{_span(facts) if charts else ""}'


class _Number(NamedTuple):
    name: str
    style: str
    spelled: Callable[[int], str]
    values: list[int]  # over the history
    binary: bool = False


def _card(number: _Number, charted: list[Point]) -> str:
    value = number.values[-1]
    grown = ""
    if len(number.values) > 1:
        more = value - number.values[-2]
        grown = f' <span class="vp-quiet">{escape(spelling.difference(number.spelled(more), more))}</span>'
    dots = [
        Dot(each, spelling.when(point.created_at).removesuffix(" UTC"), _told(point, number.spelled(each)))
        for each, point in zip(number.values, charted, strict=False)
    ]
    picture = chart(dots, number.name, number.spelled, binary=number.binary) if dots else ""
    return (
        f'<div class="vp-card {number.style}"><div class="vp-quiet">{number.name}</div>'
        f'<div><span class="vp-big">{escape(number.spelled(value))}</span>{grown}</div>{picture}</div>'
    )


def _told(point: Point, value: str) -> str:
    """What the pointer is told of a dot."""
    parts = [value, point.version[:12], spelling.when(point.created_at), spelling.line(point.message, 120)]
    return " · ".join(part for part in parts if part)


def _span(facts: Facts) -> str:
    """What the charts are of."""
    count = len(facts.history)
    if count == 1:
        return ""
    told = (
        f"the last {count} versions of a longer line"
        if facts.earlier
        else f"all {count} versions of its line that there are"
    )
    return f'<p class="vp-quiet">Over {told}, by first parents, oldest to newest; times in UTC.</p>'


def _facts(facts: Facts) -> str:
    volume = facts.volume
    rows = [
        ("Version", f"<code>{volume.version}</code>"),
        ("Locator", f"<code>{escape(spelling.line(volume.locator))}</code>"),
        ("Committed", escape(spelling.when(facts.created_at))),
        ("Produced by", _action(volume.produced_by)),
        ("Parents" if len(facts.parents) > 1 else "Parent", _lines(spelling.several(facts.parents), code=True)),
        ("Parent produced by", _action(volume.parent_produced_by)),
        ("Labels", _lines(spelling.labels(facts.labels))),
    ]
    told = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in rows if value)
    return f'<dl class="vp-facts">{told}</dl>'


def _lines(texts: list[str], *, code: bool = False) -> str:
    return "<br/>".join(f"<code>{escape(each)}</code>" if code else escape(each) for each in texts)


def _action(action: ActionRef | None) -> str:
    if action is None:
        return ""
    told, url = escape(spelling.producer(action)), spelling.link(action)
    if url is not None:
        return f'<a href="{escape(url)}" target="_blank" rel="noopener noreferrer">{told or escape(url)}</a>'
    return told + (f" ({escape(spelling.line(action.url))})" if action.url else "")


def _changed(facts: Facts) -> str:
    if facts.changes is None:
        return ""
    return f"<h3>What changed against its {facts.first_parent}</h3>{listed(facts.changes)}"


def listed(changes: Changes) -> str:
    """Return what changed: how many paths of each kind, and a table of them."""
    if not changes.total:
        return "<p>Nothing: it shows the same tree.</p>"
    marks = "".join(
        f'<span class="vp-mark vp-{kind.value}">{spelling.number(changes.counts[kind])} {kind.value}</span>'
        for kind in ChangeKind
        if changes.counts.get(kind)
    )
    more = "" if changes.is_all else " of the first that were looked at; there are more"
    left = changes.total - len(changes.paths)
    rest = f"and {spelling.number(left)} more{'' if changes.is_all else ' at least'}" if left else ""
    head = "".join(
        (
            "<tr><th></th><th>Path</th>",
            *(f'<th class="vp-right">{side}</th>' for side in ("Before", "After")),
            "</tr>",
        )
    )
    return "".join(
        (
            f'<p>{marks}<span class="vp-quiet">{more}</span></p>',
            f'<div class="vp-scroll"><table><thead>{head}</thead><tbody>',
            *map(_change, changes.paths),
            f'</tbody></table></div><p class="vp-quiet">{rest}</p>',
        )
    )


def _change(found: Difference) -> str:
    what = f' <span class="vp-quiet">{escape(found.metadata)}</span>' if found.metadata else ""
    cells = (
        f'<td class="vp-kind vp-{found.kind.value}">{found.kind.value}</td>',
        f'<td class="vp-path"><code>{escape(spelling.path(found.path))}</code>{what}</td>',
        *(f'<td class="vp-right">{spelling.entry(side)}</td>' for side in (found.before, found.after)),
    )
    return f"<tr>{''.join(cells)}</tr>"


def _torn(facts: Facts) -> str:
    if not facts.torn:
        return ""
    paths = "".join(f"<li><code>{escape(each)}</code></li>" for each in spelling.several(facts.torn))
    return (
        '<div class="vp-note vp-warning"><strong>Torn</strong>: these paths kept changing while they were read, and '
        f"may be as they never were at one moment.<ul>{paths}</ul></div>"
    )


def _use(facts: Facts) -> str:
    return f"<h3>Use it</h3><pre>{escape(facts.command)}</pre><pre>{escape(facts.python)}</pre>"

"""A version as Markdown: what html.py says, in tables, for places that take nothing else.

Always true: text from a volume stands in the cells of tables only, where it cannot end a cell, begin a link, or become
HTML; every row is one line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from volume_core.domain.diff import ChangeKind
from volume_core.facade.comparing import Difference
from volume_core.facade.records import ActionRef
from volume_core.pages import spelling
from volume_core.pages.facts import CHANGES_MAX, HISTORY_MAX, Changes, Facts, Point, gather
from volume_core.pages.picture import picture as drawn

if TYPE_CHECKING:
    from volume_core.volumes import ROVolume

# What can begin something within a cell, and what makes a link by itself; a backslash makes each of them plain.
_SPECIAL = re.compile(r"[\\`*_\[\]|~$@]|:(?=//)|(?<=www)\.", re.IGNORECASE)
_NOT_IN_LINKS = re.compile(r"[<>|`\\]")  # what means something even between < and >, or to a table
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def version_markdown(
    version: ROVolume, *, history_max: int = HISTORY_MAX, changes_max: int = CHANGES_MAX, picture: bool = False
) -> str:
    """Return Markdown (with tables) about *version*; see version_page for what is read and how much of it.

    With *picture* its growth is drawn as well, in an image whose address is the image (`data:`), where that is shown.
    """
    facts = gather(version, history_max, changes_max)
    parts = [
        f"## {text(facts.volume.name)} {facts.volume.version[:12]}",
        *(f"*{text(spelling.line(remark))}*" for remark in facts.remarks),
        _facts(facts),
        _changes(facts.changes, facts.first_parent) if facts.changes is not None else "",
        drawn(facts.history) if picture and len(facts.history) > 1 else "",
        _history(facts) if history_max > 0 and len(facts.history) > 1 else "",
        _torn(facts),
        "### Use it",
        fenced(facts.command, "sh"),
        fenced(facts.python, "python"),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def text(value: str) -> str:
    """Return *value*, one line, as text that is no markup."""
    escaped = _SPECIAL.sub(r"\\\g<0>", value)
    return "".join(_HTML.get(character, character) for character in escaped)


def fenced(code: str, language: str) -> str:
    """Return *code* as a block that nothing in it can end."""
    longest = max(map(len, re.findall("`+", code)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{code}\n{fence}"


def table(heading: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Return a table of cells that are Markdown; the columns *right* have numbers."""
    lines = ["--:" if column in right else "---" for column in range(len(heading))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heading, lines, *rows))


def _facts(facts: Facts) -> str:
    volume, own, before = facts.volume, facts.history[-1], facts.parent
    size, count = text(spelling.size(own.used_bytes)), text(spelling.number(own.inode_count))
    if before is not None:
        more_bytes, more_files = own.used_bytes - before.used_bytes, own.inode_count - before.inode_count
        size += f" ({text(spelling.difference(spelling.size(more_bytes), more_bytes))})"
        count += f" ({text(spelling.difference(spelling.number(more_files), more_files))})"
    rows = [
        ("Message", text(" ".join(spelling.message(volume.message).split("\n")))),
        ("Version", volume.version),
        ("Locator", text(spelling.line(volume.locator))),
        ("Committed", text(spelling.when(facts.created_at))),
        ("Produced by", _action(volume.produced_by)),
        ("Bytes", size),
        ("Files and directories", count),
        ("Parents" if len(facts.parents) > 1 else "Parent", ", ".join(map(text, spelling.several(facts.parents)))),
        ("Parent produced by", _action(volume.parent_produced_by)),
        ("Labels", ", ".join(map(text, spelling.labels(facts.labels)))),
    ]
    return table(("", ""), [row for row in rows if row[1]])


def _action(action: ActionRef | None) -> str:
    if action is None:
        return ""
    told, url = text(spelling.producer(action)), spelling.link(action)
    if url is not None:
        plain = _NOT_IN_LINKS.sub(lambda found: f"%{ord(found[0]):02X}", url)
        return f"[{told or text(url)}](<{plain}>)"
    return told + (f" ({text(spelling.line(action.url))})" if action.url else "")


def _changes(changes: Changes, parent: str) -> str:
    heading = f"### What changed against its {parent}\n\n"
    if not changes.total:
        return f"{heading}Nothing: it shows the same tree."
    told = ", ".join(
        f"{spelling.number(changes.counts[kind])} {kind.value}" for kind in ChangeKind if changes.counts.get(kind)
    )
    more = "" if changes.is_all else " of the first that were looked at; there are more"
    rows = table(("", "Path", "Before", "After"), map(_change, changes.paths), right=(2, 3))
    left = changes.total - len(changes.paths)
    rest = f"\n\nand {spelling.number(left)} more{'' if changes.is_all else ' at least'}" if left else ""
    return f"{heading}{told}{more}\n\n{rows}{rest}"


def _change(found: Difference) -> tuple[str, ...]:
    what = f" ({text(found.metadata)})" if found.metadata else ""
    sides = (spelling.entry(found.before), spelling.entry(found.after))
    return (found.kind.value, text(spelling.path(found.path)) + what, *sides)


def _history(facts: Facts) -> str:
    told = f"The last {len(facts.history)} versions" if facts.earlier else f"All {len(facts.history)} versions"
    rows = table(
        ("Committed", "Version", "Bytes", "Files", "Message"), map(_version, reversed(facts.history)), right=(2, 3)
    )
    return f"### History\n\n{told} of its line, by first parents, newest first.\n\n{rows}"


def _version(point: Point) -> tuple[str, ...]:
    return (
        text(spelling.when(point.created_at)),
        point.version[:12],
        spelling.size(point.used_bytes),
        spelling.number(point.inode_count),
        text(spelling.line(point.message, 120)),
    )


def _torn(facts: Facts) -> str:
    if not facts.torn:
        return ""
    told = "These paths kept changing while they were read, and may be as they never were at one moment."
    return f"### Torn\n\n{told}\n\n{table(('Path',), [(text(each),) for each in spelling.several(facts.torn)])}"

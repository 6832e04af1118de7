"""How values are spelled on a page: sizes, times, names that may be any bytes.

Always true: what comes out of here is printable text in one line (message() keeps line ends), so that no name from
a volume can hide, turn round or end what stands beside it; what a format has to escape besides is the format's.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence

from volume_core.domain.paths import printable
from volume_core.facade.fileentries import FileEntry, FileEntryType
from volume_core.facade.records import ActionRef
from volume_core.format.names import Locator

TEXT_MAX = 2_000
PATH_MAX = 400
LABEL_MAX = 200
MANY = 20  # parents, labels, torn paths: so many are listed
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_OTHERS = {FileEntryType.DIRECTORY: "directory", FileEntryType.SYMLINK: "symlink", FileEntryType.FIFO: "FIFO"}
_HTTP = re.compile(r"https?://[!-~]+", re.IGNORECASE)


def cut(text: str, limit: int) -> str:
    """Return *text*, its middle left out where it is longer than *limit*."""
    if len(text) <= limit:
        return text
    return f"{text[: limit - limit // 3]} … {text[-(limit // 3) :]}"


def line(text: str, limit: int = TEXT_MAX) -> str:
    """Return *text* in one line of printable characters."""
    return printable(cut(text, limit))


def message(text: str) -> str:
    """Return *text* as printable lines."""
    return "\n".join(map(printable, cut(text.strip(), TEXT_MAX).splitlines()))


def path(text: str) -> str:
    """Return a path of a volume, from its root."""
    return line("/" + text, PATH_MAX)


def short(locator: str) -> str:
    """Return a locator's volume and the beginning of its version."""
    parsed = Locator.parse(locator)
    return f"{parsed.volume} {parsed.version[:12]}"


def size(count: int) -> str:
    """Return a number of bytes with three digits and a unit of 1024."""
    value, unit = float(abs(count)), 0
    while value >= 1023.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    digits = f"{value:.0f}" if not unit or value >= 99.95 else f"{value:.1f}"
    return f"{'−' if count < 0 else ''}{digits.removesuffix('.0')} {_UNITS[unit]}"


def number(count: int) -> str:
    """Return a number with its thousands apart."""
    return f"{count:,}".replace("-", "−")


def difference(text: str, count: int) -> str:
    """Return *text*, which spells *count*, with a sign in front."""
    return f"+{text}" if count > 0 else text if count else "±0"


def when(created_at: str) -> str:
    """Return a manifest's time to the second."""
    return line(f"{created_at[:10]} {created_at[11:19]} UTC".strip(), 40) if created_at else ""


def entry(found: FileEntry | None) -> str:
    """Return what stands at a path: a file's size, or what else it is."""
    if found is None:
        return "–"
    return size(found.size) if found.is_file() else _OTHERS.get(found.type, "device")


def several(texts: Sequence[str]) -> list[str]:
    """Return *texts*, each in one line, and how many more there are where they are many."""
    left = len(texts) - MANY
    return [line(text, PATH_MAX) for text in texts[:MANY]] + ([f"and {number(left)} more"] if left > 0 else [])


def labels(pairs: Mapping[str, str]) -> list[str]:
    """Return labels, each in one line."""
    return several([f"{cut(key, LABEL_MAX)} = {cut(value, LABEL_MAX)}" for key, value in pairs.items()])


def producer(action: ActionRef) -> str:
    """Return who made a version, the engine first."""
    parts = (action.engine, action.org, action.project, action.domain, action.run, action.action)
    told = " / ".join(line(part, 200) for part in parts if part)
    return f"{told}, attempt {line(action.attempt, 20)}" if action.attempt else told


def link(action: ActionRef) -> str | None:
    """Return where the producer can be looked at, if that is a web page."""
    return action.url if _HTTP.fullmatch(action.url) else None


def shell_word(text: str) -> str:
    """Return *text* as one word of a shell, in printable characters."""
    if text.isprintable():
        return shlex.quote(text)
    return "$'" + "".join(_octet(octet) for octet in os.fsencode(text)) + "'"


def _octet(octet: int) -> str:
    character = chr(octet)
    if character in "'\\":
        return "\\" + character
    return character if 32 <= octet < 127 else f"\\x{octet:02x}"

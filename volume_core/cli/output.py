"""How things are shown: columns for people, JSON for scripts, bars for the impatient.

Always true: what goes to stdout is what was asked for; bars and remarks go to stderr.  Text from a volume
is printed so that no file's name can move the cursor or end a line.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_NUMBER = re.compile(r"[0-9.]+[KMGTP]?")
_UNITS = ("", "K", "M", "G", "T", "P")


def as_json(value: object) -> None:
    """Print *value* as one JSON document."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=True, default=str))


def size(count: float) -> str:
    """Return a number of bytes for people: 3 digits and a unit of 1024."""
    unit = 0
    while count >= 1024 and unit < len(_UNITS) - 1:
        count /= 1024
        unit += 1
    digits = f"{count:.0f}" if unit == 0 or count >= 100 else f"{count:.1f}"
    return f"{digits}{_UNITS[unit]}"


def json_text(path: bytes) -> str:
    """Return a path for JSON: bytes that are no UTF-8 as lone surrogates, which os.fsencode turns back."""
    return os.fsdecode(path)


def columns(rows: Sequence[Sequence[str]], heading: Sequence[str] = ()) -> None:
    """Print *rows* in columns, numbers to the right."""
    shown = [list(heading), *map(list, rows)] if heading else list(map(list, rows))
    if not shown:
        return
    widths = [max(len(row[column]) for row in shown) for column in range(len(shown[0]))]
    columns = list(zip(*rows, strict=True)) or [()] * len(widths)
    right = [any(cells) and all(_NUMBER.fullmatch(cell) for cell in cells if cell) for cells in columns]
    for row in shown:
        cells = [cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(row, widths, right, strict=True)]
        click.echo("  ".join(cells).rstrip())


class Bar:
    """One line of progress on stderr; nothing where stderr is no terminal."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def advance(self, count: int) -> None:
        """*count* more bytes are done.  May be called from any thread."""
        self._progress.update(self._task, advance=count)

    def finish(self) -> None:
        """All is done, however little of it had to be moved."""
        total = self._progress.tasks[0].total
        self._progress.update(self._task, completed=total, refresh=True)


@contextmanager
def bar(what: str, total_bytes: int | None) -> Iterator[Bar]:
    """Show a bar while the block runs."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    console.quiet = not console.is_terminal  # some releases end even a bar that is disabled with an empty line
    layout: tuple[Any, ...] = (
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*layout, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield Bar(progress, progress.add_task(what, total=total_bytes))


def is_terminal() -> bool:
    """Whether a person reads stdout."""
    return sys.stdout.isatty()

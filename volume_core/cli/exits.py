"""Exit codes, and how an error is told: one line, no traceback.  docs/cli.md has the same table.

Always true: every error that volume_core raises on purpose has a code of its own, so that a script can
tell what to do; an error nobody expected keeps its traceback, since it is a bug.
"""

from __future__ import annotations

import os
from typing import IO, Any

import click

from volume_core.errors import (
    BusyError,
    ConflictError,
    CorruptObjectError,
    ExistsError,
    InvalidNameError,
    MountError,
    NotFoundError,
    ReadOnlyError,
    StorageError,
    VolumeError,
)
from volume_core.parts.state import STATE_DIR_VARIABLE

FAILED = 1
USAGE = 2  # click's own, for a command line that does not parse
TRANSIENT = 7
# The first class that fits counts.
CODES: dict[type[VolumeError], int] = {
    InvalidNameError: USAGE,
    NotFoundError: 3,
    ConflictError: 4,
    CorruptObjectError: 5,
    StorageError: 6,
    MountError: 8,
    BusyError: 9,
    ReadOnlyError: 10,
    ExistsError: 11,
    VolumeError: FAILED,
}
PROBLEMS_FOUND = CODES[CorruptObjectError]


def code_of(error: BaseException) -> int:
    """Return the exit code for *error*."""
    if isinstance(error, StorageError) and error.transient:
        return TRANSIENT
    return next((code for kind, code in CODES.items() if isinstance(error, kind)), FAILED)


def _system_text(error: OSError) -> str:
    """Return what the system said, and which setting it is about."""
    if error.filename is None or error.strerror is None:
        return error.strerror or str(error)
    path = os.path.abspath(os.fsdecode(error.filename))
    root = os.path.abspath(os.path.expanduser(os.environ.get(STATE_DIR_VARIABLE) or "~/.volumes"))
    ours = os.path.commonpath([path, root]) in (root, path)  # below it, or on the way to it
    hint = f"; local state is kept in {root}: set ${STATE_DIR_VARIABLE} to a directory of your own" if ours else ""
    return f"{path}: {error.strerror}{hint}"


class Failure(click.ClickException):
    """An error to be told in one line."""

    def __init__(self, error: BaseException) -> None:
        notes = getattr(error, "__notes__", [])
        text = _system_text(error) if isinstance(error, OSError) else str(error) or type(error).__name__
        super().__init__("; ".join(" ".join(part.split()) for part in (text, *notes)))
        self._code = code_of(error)

    @property
    def exit_code(self) -> int:  # type: ignore[override]  # a class variable there, one value per class
        """What the process ends with."""
        return self._code

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the line."""
        click.echo(f"volume: {self.message}", file=file, err=file is None)

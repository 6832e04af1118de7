"""The command itself: finds the sub-commands, turns errors into lines and exit codes.

Always true: a sub-command's module is imported when that command is used or the help lists it, so that
`volume mount` does not wait for what only `volume demo` needs.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from volume_core.cli.exits import Failure
from volume_core.errors import VolumeError

COMMANDS = {
    "abandon": "mounting",
    "cat": "files",
    "commit": "mounting",
    "cp": "copying",
    "demo": "demo",
    "diff": "comparing",
    "doctor": "machine",
    "explore": "explore",
    "fork": "versions",
    "get": "transfers",
    "head": "history",
    "log": "history",
    "ls": "files",
    "merge": "comparing",
    "mount": "mounting",
    "new": "versions",
    "page": "versions",
    "promote": "naming",
    "put": "transfers",
    "revert": "comparing",
    "rm": "transfers",
    "show": "versions",
    "status": "machine",
    "tag": "history",
    "tree": "files",
    "unmount": "mounting",
    "verify": "versions",
}


class _Commands(click.Group):
    """Sub-commands by name, each found in its module."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"volume_core.cli.{COMMANDS[cmd_name]}")
        found: click.Command = getattr(module, cmd_name)
        return found

    def make_context(self, *args: Any, **more: Any) -> click.Context:
        try:
            return super().make_context(*args, **more)
        except BrokenPipeError:
            raise
        except OSError as error:  # the help could not be printed
            _drop_unprintable()
            raise Failure(error) from error

    def invoke(self, ctx: click.Context) -> Any:
        with _told():
            return super().invoke(ctx)


class _Guest(click.Command):
    """One of our commands in another command line."""

    def __init__(self, name: str, ours: click.Command) -> None:
        super().__init__(name, callback=ours.callback, params=ours.params, help=ours.help)

    def make_context(self, *args: Any, **more: Any) -> click.Context:
        with _told():
            return super().make_context(*args, **more)

    def invoke(self, ctx: click.Context) -> Any:
        with _told():
            return super().invoke(ctx)


def guest(command: str, name: str) -> click.Command:
    """Return *command*, one of `COMMANDS`, called *name*, for a group of another command line.

    Its errors are click's, with our texts and exit codes.
    """
    ours = main.get_command(click.Context(main), command)
    assert ours is not None, command
    return _Guest(name, ours)


@contextmanager
def _told() -> Iterator[None]:
    """Have errors told in a line."""
    try:
        yield
    except BrokenPipeError:
        _drop_unprintable()  # whoever read our output has seen enough
        raise click.exceptions.Exit(0) from None
    except (VolumeError, OSError) as error:
        _drop_unprintable()
        raise Failure(error) from error


def _drop_unprintable() -> None:
    """Where stdout takes nothing more, let what is still to be printed go nowhere: at exit it would fail again."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("-v", "--verbose", count=True, help="Say what is being done; twice: in detail.")
@click.option("--bucket", help="The store of names: a URL or a directory.  Default: $VOLUME_BUCKET, else a local one.")
@click.version_option(package_name="volume-core", prog_name="volume")
def main(verbose: int, bucket: str | None) -> None:
    """Versioned, forkable, mountable file systems.

    A VERSION is a locator, the URL that `new`, `commit` and `log` print; or the NAME of a volume, for the version
    that its head names; or NAME:REF, where REF is a tag, a version's id or the beginning of one.  VERSION:/path is
    a path in it.  Exit codes are listed in docs/cli.md; settings, all of them environment variables, in
    docs/configuration.md.
    """
    if bucket is not None:
        os.environ["VOLUME_BUCKET"] = bucket
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(level=logging.WARNING, format="volume: %(message)s", stream=sys.stderr)
    logging.getLogger("volume_core").setLevel(level)

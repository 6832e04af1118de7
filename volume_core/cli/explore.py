"""The command `explore`: look into a version and its history in a terminal.

Always true: what draws (textual) is imported when it is needed, and asked for by name where it is missing.
"""

from __future__ import annotations

import sys

import click

from volume_core.cli.places import locator_argument
from volume_core.errors import VolumeError
from volume_core.format.names import Locator
from volume_core.volumes import Volume


@click.command()
@locator_argument
def explore(locator: Locator) -> None:
    """Look into LOCATOR: its files with their sizes, what is in them, and the versions that it came from.

    Nothing is mounted; what is read are the indexes, and of files that are looked at the beginning.
    """
    version = Volume.from_locator_sync(str(locator))
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise VolumeError("explore needs a terminal: `volume tree`, `volume log` and `volume cat` print the same")
    try:
        from volume_core.cli.explorer import Explorer
    except ImportError as error:
        raise VolumeError(
            f"explore needs a package that is not installed ({error}): pip install 'volume-core[explore]'"
        ) from error
    Explorer(version).run()

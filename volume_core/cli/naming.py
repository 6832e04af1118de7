"""Volumes by name: move a head to a version, delete a volume."""

from __future__ import annotations

import click

from volume_core.cli.places import locator_argument
from volume_core.cli.versions import as_json, print_version
from volume_core.format.names import Locator
from volume_core.volumes import Volume


@click.command()
@locator_argument
@click.option("--name", help="Make it a version of the volume NAME first, which takes a manifest and nothing else.")
@as_json
def promote(locator: Locator, name: str | None, json_: bool) -> None:
    """Make the head of VERSION's volume name it, wherever the head stands, and print the locator.

    `volume head NAME --history` says where it stood before.
    """
    print_version(Volume.from_locator_sync(str(locator)).promote_sync(name), json_)

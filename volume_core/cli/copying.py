"""cp: files into a new version, out of one, or from one place of it to another."""

from __future__ import annotations

import os
from pathlib import Path

import click

from volume_core.cli import output
from volume_core.cli.places import At, parse_at
from volume_core.cli.transfers import check_sources, upload, writer_of
from volume_core.cli.versions import as_json, message, print_version
from volume_core.errors import NoSuchPathError
from volume_core.facade.browsing import browse
from volume_core.facade.grafting import copy_out, size_of


@click.command()
@click.argument("source")
@click.argument("destination")
@click.option("-r", "--recursive", is_flag=True, help="Within a version: copy directories too.")
@click.option("--fork", "name", metavar="NAME", help="Make the new version one of the volume NAME.")
@message
@as_json
def cp(source: str, destination: str, recursive: bool, name: str | None, message: str, json_: bool) -> None:
    """Copy a file or directory into a version, out of one, or within one.

    One side is VERSION:/path, or both are, of one version.  Copying out makes DESTINATION, or goes into it if it is a
    directory.

    Copying in, or within, makes a new version and prints its locator; what was there stays, but for files of the same
    path.  A directory is merged into /path, a file goes into it if it is a directory; SOURCE "-" is stdin.  Within a
    version no data is moved.  Nothing is mounted.
    """
    here, there = parse_at(source), parse_at(destination)
    if here is not None and there is not None:
        if here.locator != there.locator:
            raise click.UsageError("SOURCE and DESTINATION are not of one version: copy out, then in")
        volume = writer_of(there, name)
        to = os.fsdecode(there.path) + "/" * destination.endswith("/")
        made = volume.copy_files_sync([os.fsdecode(here.path)], to, recursive=recursive, message=message)
        print_version(made, json_)
    elif here is not None:
        _copy_out(here, Path(destination))
    elif there is not None:
        check_sources([source])
        volume = writer_of(there, name)
        above = os.path.dirname(os.fsdecode(there.path))
        if not volume.exists_sync(above):
            raise NoSuchPathError(f"/{above}: there is no such directory in {there.locator}")
        into = destination.endswith("/")
        print_version(upload(volume, [source], there.path, force=True, message=message, into=into), json_)
    else:
        raise click.UsageError("one of SOURCE and DESTINATION must be VERSION:/path, the other a local path")


def _copy_out(source: At, destination: Path) -> None:
    with browse(source.version()) as browser:
        start = browser.find(source.path, follow=False)
        if destination.is_dir() and start.name:
            destination /= os.fsdecode(start.name)
        if not destination.absolute().parent.is_dir():
            raise click.UsageError(f"{destination.parent}: there is no such directory to copy into")
        with output.bar(f"copying to {destination}", size_of(browser, start)) as bar:
            copy_out(browser, start, destination, bar.advance)

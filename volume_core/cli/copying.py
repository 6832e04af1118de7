"""cp: files into a new version, or out of one."""

from __future__ import annotations

import os
from pathlib import Path

import click

from volume_core.cli import output
from volume_core.cli.places import At, parse_at
from volume_core.cli.versions import as_json, message, record
from volume_core.facade.browsing import browse
from volume_core.facade.grafting import copy_in, copy_out, size_of
from volume_core.facade.heads import announce
from volume_core.volumes import ROVolume


@click.command()
@click.argument("source")
@click.argument("destination")
@click.option("--fork", "name", metavar="NAME", help="Copying in: make the new version one of the volume NAME.")
@message
@as_json
def cp(source: str, destination: str, name: str | None, message: str, json_: bool) -> None:
    """Copy a file or directory into a version, or out of one.

    One side is LOCATOR:/path.  Copying out makes DESTINATION, or goes into it if it is a directory.

    Copying in makes a new version and prints its locator; what was there stays.  A directory is merged
    into /path, a file goes into it if it is a directory; SOURCE "-" is stdin.  Nothing is mounted.
    """
    here, there = parse_at(source), parse_at(destination)
    if (here is None) == (there is None):
        raise click.UsageError("one of SOURCE and DESTINATION must be LOCATOR:/path, the other a local path")
    if here is not None:
        _copy_out(here, Path(destination))
    elif there is not None:
        _copy_in(Path(source), there, name, message, json_)


def _copy_out(source: At, destination: Path) -> None:
    with browse(source.version()) as browser:
        start = browser.find(source.path, follow=False)
        if destination.is_dir() and start.name:
            destination /= os.fsdecode(start.name)
        if not destination.absolute().parent.is_dir():
            raise click.UsageError(f"{destination.parent}: there is no such directory to copy into")
        with output.bar(f"copying to {destination}", size_of(browser, start)) as bar:
            copy_out(browser, start, destination, bar.advance)


def _copy_in(source: Path, destination: At, name: str | None, message: str, json_: bool) -> None:
    if os.fspath(source) != "-" and not os.path.lexists(source):
        raise click.UsageError(f"{source}: there is no such file or directory")
    with output.bar(f"copying {source}", _size_below(source)) as bar:
        before = destination.version()
        made = copy_in(before, source, destination.path, name=name, message=message, advance=bar.advance)
        bar.finish()
    volume = ROVolume.of_version(made)
    if made.locator != before.locator:
        announce(volume, made)
    if json_:
        output.as_json(record(volume))
    else:
        click.echo(volume.locator)


def _size_below(source: Path) -> int | None:
    """Return how much is to be read, or None if that is not known."""
    if not source.is_dir():
        return source.stat().st_size if source.is_file() else None
    sizes = 0
    for where, _, names in os.walk(source):
        for each in names:
            try:
                sizes += os.lstat(os.path.join(where, each)).st_size
            except OSError:
                continue
    return sizes

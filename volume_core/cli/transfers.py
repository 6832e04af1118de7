"""put, get and rm: files into a volume, out of one, and away, without a mount."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from volume_core.cli import output
from volume_core.cli.places import At, at_argument, parse_at
from volume_core.cli.versions import as_json, message, print_version
from volume_core.domain.view import Node
from volume_core.errors import ExistsError
from volume_core.facade.browsing import Browser, browse
from volume_core.facade.grafting import copy_out, merge, size_of
from volume_core.volumes import ROVolume, RWVolume, Volume

STDIN = "-"


def writer_of(at: At, fork: str | None = None) -> RWVolume:
    """Return what commits after *at*'s version: to the head, where the volume was given by its name alone."""
    if at.name is not None and fork is None:
        return Volume.from_name_sync(at.name, at.locator.store)
    return ROVolume.of_version(at.version()).fork_sync(fork or at.locator.volume)


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="LOCAL...")
@click.argument("target", metavar="VERSION:/PATH")
@click.option("--force", is_flag=True, help="Replace files that are there.")
@click.option("--fork", "name", metavar="NAME", help="Make the new version one of the volume NAME.")
@message
@as_json
def put(sources: tuple[str, ...], target: str, force: bool, name: str | None, message: str, json_: bool) -> None:
    """Upload files and directories as one new version, and print its locator.

    One directory is merged into /PATH.  A file becomes /PATH, or goes into it if that is a directory or ends in a
    slash; so do several, files and directories, each under its own name.  LOCAL "-" is stdin.  Directories are made.
    An upload that broke off goes on where it was when the same command is run again within four hours.
    """
    at = parse_at(target)
    if at is None:
        raise click.UsageError(f"{target!r}: the last argument must be VERSION:/PATH")
    check_sources(sources)
    volume = writer_of(at, name)
    made = upload(volume, sources, at.path, force=force, message=message, into=target.endswith("/"))
    print_version(made, json_)


def check_sources(sources: Sequence[str]) -> None:
    """Raise UsageError naming what is not there."""
    for source in sources:
        if source != STDIN and not os.path.lexists(source):
            raise click.UsageError(f"{source}: there is no such file or directory")


def upload(volume: RWVolume, sources: Sequence[str], path: bytes, *, force: bool, message: str, into: bool) -> ROVolume:
    """Commit *sources* at, or where there are several or *into* asks for it in, *path*."""
    there = os.fsdecode(path)
    is_into = into or len(sources) > 1 or not path or _is_directory(volume, there)
    what = sources[0] if len(sources) == 1 else f"{len(sources)} files and directories"
    with output.bar(f"uploading {what}", _size_of(sources)) as bar:
        with volume.batch_upload_sync(force, message=message, advance=bar.advance) as batch:
            for source in sources:
                name = os.path.basename(os.path.abspath(source))
                if os.path.isdir(source):
                    batch.put_directory(source, os.path.join(there, name) if len(sources) > 1 else f"{there}/")
                elif source == STDIN:
                    batch.put_file(sys.stdin.buffer, there)
                else:
                    batch.put_file(source, os.path.join(there, name) if is_into else there)
        bar.finish()
    return batch.version


def _is_directory(volume: RWVolume, path: str) -> bool:
    return volume.exists_sync(path) and volume.stat_sync(path).is_dir()


def _size_of(sources: Sequence[str]) -> int | None:
    """Return how much is to be read, or None if that is not known."""
    total = 0
    for source in sources:
        if source == STDIN:
            return None
        if not os.path.isdir(source):
            total += os.stat(source).st_size
        for where, _, names in os.walk(source):
            for each in names:
                try:
                    total += os.lstat(os.path.join(where, each)).st_size
                except OSError:
                    continue
    return total


@click.command()
@at_argument
@click.argument("local", type=click.Path(path_type=Path), default=".", required=False)
@click.option("--force", is_flag=True, help="Replace files that are there, and merge directories.")
def get(at: At, local: Path, force: bool) -> None:
    """Download a file or directory: as LOCAL, or into it if that is a directory (default: here)."""
    with browse(at.version()) as browser:
        start = browser.find(at.path, follow=not at.path)
        download(browser, start, local, force=force)


def download(browser: Browser, start: Node, local: Path, *, force: bool) -> None:
    """Make *local*, or what is to be in it, what *start* is."""
    target = local / os.fsdecode(start.name) if local.is_dir() and start.name else local
    if not target.absolute().parent.is_dir():
        raise click.UsageError(f"{target.parent}: there is no such directory to download into")
    with output.bar(f"downloading to {target}", size_of(browser, start)) as bar:
        if not os.path.lexists(target) or (target.is_dir() and not any(target.iterdir())):
            copy_out(browser, start, target, bar.advance)
            return
        if not force:
            raise ExistsError(f"{target} is there already: --force replaces files", [os.fspath(target)])
        with tempfile.TemporaryDirectory(prefix=".volume-get-", dir=target.absolute().parent) as made:
            fresh = Path(made) / "fresh"
            copy_out(browser, start, fresh, bar.advance)
            merge(fresh, target)


@click.command()
@click.argument("target", metavar="VERSION:/PATH|NAME")
@click.option("-r", "--recursive", is_flag=True, help="Remove a directory with all that is in it.")
@click.option("-y", "--yes", is_flag=True, help="Delete the volume NAME without asking.")
@message
@as_json
def rm(target: str, recursive: bool, yes: bool, message: str, json_: bool) -> None:
    """Remove a file: make a new version without it, and print its locator.  What was there stays in the old one.

    With a NAME alone the volume is deleted, with its head, its tags and all its versions, after asking.  Forks of it
    stay whole.
    """
    at = parse_at(target)
    if at is None:
        _delete(target, yes)
        return
    print_version(writer_of(at).remove_file_sync(os.fsdecode(at.path), recursive=recursive, message=message), json_)


def _delete(name: str, yes: bool) -> None:
    found = [each for each in Volume.list_sync() if each.name == name]
    if not yes and found:
        [volume] = found
        click.confirm(
            f"Delete the volume {name} with all its versions ({volume.versions}), its tags and its head?",
            abort=True, err=True,
        )  # fmt: skip
    Volume.delete_sync(name)

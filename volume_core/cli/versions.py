"""Versions: make one, fork one, look at one, verify one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from volume_core.cli import output
from volume_core.cli.exits import PROBLEMS_FOUND
from volume_core.cli.places import locator_argument
from volume_core.domain.paths import printable
from volume_core.facade.statuses import HistoryEntry
from volume_core.format.names import Locator
from volume_core.pages import document, version_markdown, version_page
from volume_core.volumes import ROVolume, Volume

as_json = click.option("--json", "json_", is_flag=True, help="Print JSON.")
message = click.option("-m", "--message", default="", help="What the version is for.")


def record(volume: Volume) -> dict[str, Any]:
    """Return a volume's record as JSON's values."""
    return volume.model_dump(mode="json")


def print_version(volume: ROVolume, json_: bool) -> None:
    """Print a version that was just made: its locator, or its record."""
    if json_:
        output.as_json(record(volume))
    else:
        click.echo(volume.locator)


@click.command()
@click.argument("name", required=False)
@click.option("--bucket", help="The store: a URL, or a directory.  Default: $VOLUME_BUCKET, else a local one.")
@click.option(
    "--storage", type=click.Choice(["s3", "gs", "wasb", "file", "memory"]), help="What kind of store BUCKET is."
)
@click.option("--region", help="The bucket's region.")
@message
@as_json
def new(
    name: str | None, bucket: str | None, storage: str | None, region: str | None, message: str, json_: bool
) -> None:
    """Make a volume: commit an empty version of it and print its locator."""
    print_version(Volume.new(name, bucket, storage=storage, region=region).commit_sync(message), json_)


@click.command()
@locator_argument
@click.argument("name")
@message
@as_json
def fork(locator: Locator, name: str, message: str, json_: bool) -> None:
    """Begin the volume NAME where LOCATOR stands, and print its first version's locator.

    Nothing is copied, whatever the size.
    """
    line = Volume.from_locator_sync(str(locator)).fork_sync(name)
    print_version(line.commit_sync(message, even_if_unchanged=True), json_)


def history_fields(entry: HistoryEntry) -> dict[str, Any]:
    """Return what is known of a version as JSON's values."""
    keys = ("created_at", "parents", "labels", "torn", "tags", "is_head")
    return record(entry.volume) | {"locator": entry.volume.locator} | {key: getattr(entry, key) for key in keys}


@click.command()
@locator_argument
@as_json
def show(locator: Locator, json_: bool) -> None:
    """Say what the version at LOCATOR is."""
    volume = Volume.from_locator_sync(str(locator))
    [entry] = volume.log_sync(limit=1, names=True)
    fields = history_fields(entry)
    if json_:
        output.as_json(fields)
        return
    sizes = {"used_bytes", "index_bytes"}
    rows = [
        (key, _shown(value, key in sizes))
        for key, value in fields.items()
        if value not in (None, "", {}, ()) and value is not False
    ]
    output.columns(rows)


def _shown(value: object, is_size: bool) -> str:
    if isinstance(value, int) and is_size:
        return f"{value} ({output.size(value)})"
    if isinstance(value, dict):
        return ", ".join(f"{key}={each}" for key, each in value.items() if each)
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return printable(str(value))


@click.command()
@locator_argument
@click.option("-o", "--output", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write it there.")
@click.option("--markdown", is_flag=True, help="Write Markdown instead of HTML.")
def page(locator: Locator, file: Path | None, markdown: bool) -> None:
    """Write a page about VERSION: what it changed, how it grew, how to get it."""
    volume = Volume.from_locator_sync(str(locator))
    text = version_markdown(volume) if markdown else document([version_page(volume)], volume.name)
    if file is None:
        click.echo(text, nl=False)
    else:
        file.write_text(text, encoding="utf-8")


@click.command()
@locator_argument
@click.option("--no-data", is_flag=True, help="Only look up the packs, do not read them.")
@as_json
@click.pass_context
def verify(ctx: click.Context, locator: Locator, no_data: bool, json_: bool) -> None:
    """Check everything below LOCATOR against its hashes; exit code 5 if anything is wrong."""
    problems = Volume.from_locator_sync(str(locator)).verify_sync(read_packs=not no_data)
    if json_:
        output.as_json([problem._asdict() for problem in problems])
    else:
        for problem in problems:
            click.echo(f"{problem.name}: {problem.text}")
        if not problems:
            click.echo("whole")
    ctx.exit(PROBLEMS_FOUND if problems else 0)

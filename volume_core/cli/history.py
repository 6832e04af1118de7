"""What came from what, and names: log, tag, head."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import click

from volume_core.cli import output
from volume_core.cli.graph import graph as drawn
from volume_core.cli.places import locator_argument, parse_locator
from volume_core.cli.versions import as_json, history_fields, message
from volume_core.domain.paths import printable
from volume_core.facade.histories import HeadMove, head_moves, set_head
from volume_core.facade.statuses import HistoryEntry
from volume_core.facade.versions import Place
from volume_core.format.manifest import Action
from volume_core.format.names import Locator, validate_name
from volume_core.parts.tags import delete_tag, tags_of
from volume_core.plugins.manager import plugins
from volume_core.storage.opening import store_url
from volume_core.volumes import Volume

_bucket = click.option("--bucket", help="The store: a URL, or a directory.  Default: $VOLUME_BUCKET, else a local one.")


@click.command()
@locator_argument
@click.argument("path", required=False)
@click.option("-n", "--number", type=click.IntRange(min=1), help="Stop after so many versions.")
@click.option("--graph/--no-graph", default=None, help="Draw what came from what.  Default: where there are merges.")
@as_json
def log(locator: Locator, path: str | None, number: int | None, graph: bool | None, json_: bool) -> None:
    """List LOCATOR and the versions that it came from, newest first.

    With PATH, a path in the volume, only the versions that changed something at or below it.  Names that a
    version has are shown beside it: its tags, and "head" if it is its volume's latest.
    """
    if graph and path is not None:
        raise click.UsageError("--graph shows parents, and with PATH not all of them are listed")
    inner = os.fsencode(path) if path is not None else None
    entries = Volume.from_locator_sync(str(locator)).log_sync(limit=number, path=inner, names=True)
    if json_:
        output.as_json([history_fields(entry) for entry in entries])
        return
    named = any(entry.tags or entry.is_head for entry in entries)
    rows = {entry.volume.locator: _log_row(entry, named) for entry in entries}
    parents = {entry.volume.locator: entry.parents for entry in entries}
    heading = ["created", "size", "volume", "locator", *(["names"] if named else []), "message"]
    if graph is None:
        graph = path is None and any(len(each) > 1 for each in parents.values())
    if graph:
        output.columns(_beside_graph(rows, parents), ["", *heading])
    else:
        output.columns([*rows.values()], heading)


def _log_row(entry: HistoryEntry, named: bool) -> list[str]:
    volume = entry.volume
    when = entry.created_at[:19] + "Z"
    names = [", ".join([*(["head"] if entry.is_head else []), *entry.tags])] if named else []
    cells = (when, output.size(volume.used_bytes), volume.name, volume.locator, *names, volume.message)
    return [*map(printable, cells)]


def _beside_graph(rows: Mapping[str, list[str]], parents: Mapping[str, Sequence[str]]) -> list[list[str]]:
    nothing = [""] * len(next(iter(rows.values()), []))
    return [[line, *(rows[version] if version is not None else nothing)] for line, version in drawn(parents)]


@click.command()
@click.argument("target", metavar="LOCATOR|VOLUME")
@click.argument("name", required=False)
@click.option("-l", "--list", "list_", is_flag=True, help="List the tags of VOLUME.")
@click.option("-d", "--delete", is_flag=True, help="Delete the tag NAME of VOLUME; the version stays.")
@_bucket
@message
@as_json
def tag(
    target: str, name: str | None, list_: bool, delete: bool, bucket: str | None, message: str, json_: bool
) -> None:
    """Give the version at LOCATOR the second name NAME, which never moves.

    With --list and --delete, VOLUME is a volume's name, or a locator of any of its versions.
    """
    if list_ and delete:
        raise click.UsageError("--list and --delete are two things")
    if list_ != (name is None):
        raise click.UsageError("NAME is the tag to make or delete; --list takes none")
    if list_:
        _list_tags(*_volume_at(target, bucket), json_=json_)
    elif delete:
        place, volume = _volume_at(target, bucket)
        delete_tag(place.store(), volume, str(name))
    else:
        locator = _locator(target)
        made = Volume.from_locator_sync(str(locator)).tag_sync(str(name), message)
        if json_:
            output.as_json(dataclasses.asdict(made) | {"locator": str(locator)})
        else:
            click.echo(f"{made.tag} is {locator}", err=True)


def _list_tags(place: Place, volume: str, *, json_: bool) -> None:
    found = [(each, str(Locator(place.url, volume, each.version))) for each in tags_of(place.store(), volume)]
    if json_:
        output.as_json([dataclasses.asdict(each) | {"locator": locator} for each, locator in found])
        return
    rows = [(each.tag, each.created_at[:19] + "Z", locator, printable(each.message)) for each, locator in found]
    output.columns(rows, ("tag", "created", "locator", "message"))


def _locator(text: str) -> Locator:
    try:
        return parse_locator(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _volume_at(text: str, bucket: str | None) -> tuple[Place, str]:
    """The store and the volume that *text* names: a volume, or one of its versions."""
    if "/" in text and bucket is None:
        locator = _locator(text)
        return Place(locator.store), locator.volume
    return Place(store_url(None, bucket, plugins().default_bucket())), validate_name(text)


@click.command()
@click.argument("name")
@_bucket
@click.option("--set", "to", metavar="VERSION", help="Move it: to a tag, a version's id, or the beginning of one.")
@click.option("--history", is_flag=True, help="Who moved it when, from what, to what: newest first.")
@as_json
def head(name: str, bucket: str | None, to: str | None, history: bool, json_: bool) -> None:
    """Print the latest version of the volume NAME: where its head stands.

    --set moves it on purpose, to any version of NAME, and notes that in its history.
    """
    place, volume = _volume_at(name, bucket)
    moves = set_head(place, volume, to) if to is not None else head_moves(place, volume)
    if json_:
        fields = [_move_fields(move) for move in moves]
        output.as_json(fields if history else fields[0])
    elif history:
        rows = [_move_row(move) for move in moves]
        output.columns(rows, ("moved", "why", "by", "from", "locator"))
    else:
        click.echo(str(moves[0].locator))


def _move_fields(found: HeadMove) -> dict[str, Any]:
    move = found.move
    return {
        "locator": str(found.locator),
        "version": move.version,
        "previous": move.previous,
        "moved_at": move.moved_at,
        "why": move.why,
        "by": move.by,
        "action": dataclasses.asdict(move.action) if move.action else None,
    }


def _move_row(found: HeadMove) -> list[str]:
    move = found.move
    by = f"{move.by}, {_task(move.action)}" if move.action else move.by
    cells = (move.moved_at[:19] + "Z", move.why, by, (move.previous or "-")[:12], str(found.locator))
    return [*map(printable, cells)]


def _task(action: Action) -> str:
    return "/".join(filter(None, (action.engine, action.project, action.run, action.action)))

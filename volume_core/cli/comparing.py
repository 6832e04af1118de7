"""Versions side by side: what differs, several made one, an old one shown again."""

from __future__ import annotations

import difflib
import os
from collections import Counter
from collections.abc import Iterator
from typing import Any, get_args

import click

from volume_core.cli import output
from volume_core.cli.places import after_argument, before_argument, locator_argument, locators_argument, to_option
from volume_core.cli.versions import as_json, message, print_version
from volume_core.domain.diff import ChangeKind
from volume_core.domain.paths import printable
from volume_core.facade.browsing import Browser, browse
from volume_core.facade.comparing import Difference
from volume_core.facade.fileentries import FileEntry
from volume_core.facade.merging import OnConflict
from volume_core.facade.versions import Place, read_version
from volume_core.format.names import Locator
from volume_core.volumes import ROVolume, Volume

_TEXT_BYTES_MAX = 256 << 10  # comparing lines takes a time that grows with their square
_NO_NEWLINE = "\\ No newline at end of file"
_COLOURS = {"+": "green", "-": "red", "@": "cyan"}


@click.command()
@before_argument
@after_argument
@click.option("--stat", is_flag=True, help="Print sizes, and sums.")
@click.option("-p", "--patch", is_flag=True, help="Print the lines of small text files that differ.")
@as_json
def diff(before: Locator, after: Locator, stat: bool, patch: bool, json_: bool) -> None:
    """List what turns the first version into the second."""
    if (stat, patch, json_).count(True) > 1:
        raise click.UsageError("--stat, --patch and --json are three ways to show it: choose one")
    old, new = (read_version(each, Place(each.store)) for each in (before, after))
    found = ROVolume.of_version(old).diff_sync(ROVolume.of_version(new))
    if json_:
        output.as_json([_fields(each) for each in found])
    elif stat:
        _print_stat(found)
    elif patch:
        with browse(old) as one, browse(new) as other:
            for each in found:
                _print_patch(each, one, other)
    else:
        for each in found:
            what = each.metadata
            click.echo(f"{each.kind.value:8}  {_shown(each)}{f'  ({what})' if what else ''}")


def _shown(found: Difference) -> str:
    return printable("/" + found.path)


def _fields(found: Difference) -> dict[str, Any]:
    sides = {"before": found.before, "after": found.after}
    return {"path": found.path, "kind": found.kind.value} | {
        side: entry and entry._asdict() | {"type": entry.type.name.lower()} for side, entry in sides.items()
    }


def _print_stat(found: list[Difference]) -> None:
    sizes = [[each.size if each is not None else None for each in (one.before, one.after)] for one in found]
    rows = [
        (one.kind.value, *("-" if size is None else output.size(size) for size in pair), _shown(one))
        for one, pair in zip(found, sizes, strict=True)
    ]
    output.columns(rows, ("", "before", "after", "path"))
    counts = Counter(each.kind for each in found)
    sums = [sum(pair[side] or 0 for pair in sizes) for side in (0, 1)]
    told = ", ".join(f"{counts[kind]} {kind.value}" for kind in ChangeKind if counts[kind]) or "no difference"
    click.echo(f"{told}; {output.size(sums[0])} -> {output.size(sums[1])} bytes in them")


def _print_patch(found: Difference, one: Browser, other: Browser) -> None:
    """Print what differs at a path: lines where it is a small text, else what it is."""
    name = printable(found.path)
    if found.kind is ChangeKind.METADATA:
        click.echo(f"metadata /{name}: {found.metadata}")
        return
    if not any(_has_content(entry) for entry in (found.before, found.after)):
        click.echo(f"{found.kind.value} /{name}")
        return
    texts = [_text(browser, entry) for browser, entry in ((one, found.before), (other, found.after))]
    old, new = texts
    if old is None or new is None:
        click.echo(f"{found.kind.value} /{name}: not a small text")
        return
    end = "\t" if " " in name else ""  # who applies it takes a name up to there
    names = [
        f"{each}/{name}{end}" if entry else "/dev/null" for each, entry in (("a", found.before), ("b", found.after))
    ]
    for line in difflib.unified_diff(_lines(old), _lines(new), names[0], names[1]):
        body = line.removesuffix("\n")
        click.secho(body, fg=_COLOURS.get(line[0]))
        if body == line:
            click.echo(_NO_NEWLINE)


def _has_content(entry: FileEntry | None) -> bool:
    return entry is not None and (entry.is_file() or entry.target is not None)


def _text(browser: Browser, entry: FileEntry | None) -> str | None:
    """The content of a file or symlink, "" for anything else; None if it is large or no text."""
    if entry is None or not _has_content(entry):
        return ""
    if entry.target is not None:
        return entry.target.encode("utf-8", "backslashreplace").decode()
    if entry.size > _TEXT_BYTES_MAX:
        return None
    data = b"".join(browser.stream(browser.find(os.fsencode(entry.path), follow=False)))
    try:
        return None if b"\0" in data else data.decode()
    except UnicodeDecodeError:
        return None


def _lines(text: str) -> list[str]:
    """The lines of *text* with their ends: "\\n" alone ends one."""
    return list(_split(text))


def _split(text: str) -> Iterator[str]:
    *lines, last = text.split("\n")
    yield from (line + "\n" for line in lines)
    if last:
        yield last


@click.command()
@locators_argument
@click.option("--name", help="The volume to make it a version of.  Default: the first one's.")
@click.option(
    "--on-conflict", type=click.Choice(get_args(OnConflict)), default="error", help="What to take where two differ."
)
@message
@as_json
def merge(locators: tuple[Locator, ...], name: str | None, on_conflict: OnConflict, message: str, json_: bool) -> None:
    """Make one version of several that came from one, and print its locator.

    With a conflict and no decision nothing is published, and the exit code is 4.
    """
    versions = [ROVolume.of_version(read_version(each, Place(each.store))) for each in locators]
    print_version(Volume.merge_sync(versions, name, on_conflict=on_conflict, message=message), json_)


@click.command()
@locator_argument
@to_option
@message
@as_json
def revert(locator: Locator, to: Locator, message: str, json_: bool) -> None:
    """Make a version that follows LOCATOR and shows what another shows, and print its locator.

    LOCATOR stays its parent: nothing is lost.
    """
    version = Volume.from_locator_sync(str(locator))
    print_version(version.revert_sync(Volume.from_locator_sync(str(to)), message=message), json_)

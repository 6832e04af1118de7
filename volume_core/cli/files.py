"""Looking into a version, or a store, without mounting: ls, tree, cat."""

from __future__ import annotations

import dataclasses
import itertools
import os
import stat
import sys
import time
from collections.abc import Iterator
from typing import Any

import click

from volume_core.cli import output
from volume_core.cli.places import At, at_argument, ats_argument, parse_at, parse_version
from volume_core.domain.paths import Pattern, find, printable
from volume_core.domain.view import Node
from volume_core.errors import NotFoundError
from volume_core.facade.browsing import Browser, browse
from volume_core.facade.listing import volumes_in
from volume_core.facade.versions import Place
from volume_core.format.entries import Entry, Kind
from volume_core.plugins.manager import plugins
from volume_core.storage.opening import store_url
from volume_core.storage.probing import read_format

_FORMATS = {
    Kind.FILE: stat.S_IFREG,
    Kind.DIRECTORY: stat.S_IFDIR,
    Kind.SYMLINK: stat.S_IFLNK,
    Kind.FIFO: stat.S_IFIFO,
    Kind.CHAR: stat.S_IFCHR,
    Kind.BLOCK: stat.S_IFBLK,
}


@click.command()
@click.argument("target", required=False)
@click.option("-l", "--long", "long_", is_flag=True, help="Modes, owners, sizes and times too.")
@click.option("-R", "--recursive", is_flag=True, help="All below, by path.")
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
def ls(target: str | None, long_: bool, recursive: bool, json_: bool) -> None:
    """List the volumes of a store, or the files of a version.

    A path may be a pattern, `**` standing for any number of directories: what matches is listed by path.

    TARGET is VERSION, VERSION:/path, or a store's URL or directory; without one, the default store.  A bare word is
    a directory if there is one of that name, else a volume.
    """
    at = parse_at(target) if target else None
    if at is None and target and os.sep not in target:
        if os.path.isdir(target):
            target = os.path.abspath(target)
        else:
            at = parse_version(target)
    if at is None:
        _list_store(target, json_)
        return
    with browse(at.version()) as browser:
        found = list(_listed(browser, at.path, recursive=recursive))
        if json_:
            output.as_json([_fields(node, browser.entry(node)) for _, node in found])
        elif long_:
            output.columns([_long(browser, node, name) for name, node in found])
        else:
            for name, _ in found:
                click.echo(printable(name))


def _listed(browser: Browser, path: bytes, *, recursive: bool) -> Iterator[tuple[bytes, Node]]:
    """Yield (name to show, node) of what *path* says to list."""
    start = find(browser.view, path)
    pattern = Pattern.parse(path) if start is None else None
    if pattern is not None:
        yield from pattern.matches(browser.view)
        return
    start = browser.find(path)
    if recursive and start.is_directory:
        cut = len(start.path) + 1 if start.path else 0
        yield from ((node.path[cut:], node) for node in itertools.islice(browser.view.walk(start.path), 1, None))
        return
    for node in browser.view.listing(start) if start.is_directory else [start]:
        yield node.name, node


def _list_store(target: str | None, json_: bool) -> None:
    default = plugins().default_bucket()
    store = Place(store_url(None, target, default)).store()
    found = volumes_in(store)
    if target and not found and read_format(store) is None:
        raise NotFoundError(f"{store.url}: there is no store; its first volume makes it: volume new --bucket {target}")
    if json_:
        output.as_json([dataclasses.asdict(each) for each in found])
        return
    rows = [(each.name, str(each.versions), _when(each.modified_ns), each.locator) for each in found]
    output.columns(rows, ("volume", "versions", "newest", "locator"))


def _when(time_ns: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time_ns // 1_000_000_000))


def _fields(node: Node, entry: Entry) -> dict[str, Any]:
    fields = {
        "name": output.json_text(node.name),
        "path": output.json_text(node.path),
        "kind": entry.kind.name.lower(),
        "mode": f"{entry.mode:04o}",
        "uid": entry.uid,
        "gid": entry.gid,
        "mtime_ns": entry.mtime_ns,
        "size_bytes": entry.size,
    }
    return fields | ({"target": output.json_text(entry.target)} if entry.kind is Kind.SYMLINK else {})


def _long(browser: Browser, node: Node, name: bytes) -> tuple[str, ...]:
    entry = browser.entry(node)
    mode = stat.filemode(_FORMATS[entry.kind] | entry.mode)
    return mode, str(entry.uid), str(entry.gid), str(entry.size), _when(entry.mtime_ns), _named(node, name)


def _named(node: Node, path: bytes) -> str:
    name = printable(path)
    return f"{name} -> {printable(node.row.target or b'')}" if node.row.kind == Kind.SYMLINK else name


@click.command()
@at_argument
@click.option("-L", "--level", type=click.IntRange(min=1), help="Go down so many levels only.")
@click.option("-s", "--sizes", is_flag=True, help="Print files' sizes too.")
@click.option("--json", "json_", is_flag=True, help="Print JSON: one flat list.")
def tree(at: At, level: int | None, sizes: bool, json_: bool) -> None:
    """Show everything below LOCATOR, or LOCATOR:/path, as a tree."""
    with browse(at.version()) as browser:
        start = browser.find(at.path)
        if json_:
            below = (node for node, _ in _below(browser, start, level, ""))
            output.as_json([_fields(node, browser.entry(node)) for node in below])
            return
        click.echo(printable(b"/" + start.path))
        directories = files = 0
        for node, lead in _below(browser, start, level, ""):
            size = f"  [{output.size(node.row.size)}]" if sizes and node.row.kind == Kind.FILE else ""
            click.echo(f"{lead}{_named(node, node.name)}{size}")
            directories += node.is_directory
            files += not node.is_directory
        click.echo(f"\n{directories} directories, {files} files")


def _below(browser: Browser, start: Node, levels: int | None, lead: str) -> Iterator[tuple[Node, str]]:
    """Yield what lies below *start*, in order, each with the lines that lead to it."""
    if not start.is_directory:
        return
    # Not recursive: a version may be deeper than Python's stack.
    waiting = [(node, lead, last, 1) for node, last in _marked(browser, start)]
    while waiting:
        node, before, last, depth = waiting.pop()
        yield node, before + ("└── " if last else "├── ")
        if node.is_directory and (levels is None or depth < levels):
            inner = before + ("    " if last else "│   ")
            waiting.extend((each, inner, end, depth + 1) for each, end in _marked(browser, node))


def _marked(browser: Browser, directory: Node) -> list[tuple[Node, bool]]:
    """The listing of *directory* backwards, each with whether it is the last."""
    nodes = browser.view.listing(directory)
    return [(node, index == 0) for index, node in enumerate(reversed(nodes))]


@click.command()
@ats_argument
def cat(ats: tuple[At, ...]) -> None:
    """Print the contents of files of versions."""
    out = sys.stdout.buffer
    for at in ats:
        with browse(at.version()) as browser:
            for block in browser.stream(browser.find(at.path)):
                out.write(block)
    out.flush()

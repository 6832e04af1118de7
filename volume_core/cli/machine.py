"""This machine: what is mounted, what is not committed, what can be mounted here."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from volume_core.cli import output
from volume_core.cli.versions import as_json
from volume_core.domain.paths import printable
from volume_core.facade.surveying import Mount, Survey, Work, survey
from volume_core.mount.doctor import examine
from volume_core.parts.state import State


@click.command()
@as_json
def status(json_: bool) -> None:
    """Show mounts, work that is not committed, and the cache."""
    found = survey()
    if json_:
        output.as_json(_fields(found))
        return
    _print_mounts(found.mounts)
    _print_work(found.work)
    for path, reason in found.broken:
        click.echo(f"\ncannot be read, and is left as it is: {path} ({reason})")
    cache = found.cache
    click.echo(
        f"\ncache: {output.size(cache.index_bytes)} of indexes, {output.size(cache.pack_bytes)} of contents "
        f"(limit {output.size(cache.pack_limit_bytes)}), in {cache.path}"
    )


def _fields(found: Survey) -> dict[str, Any]:
    mounts = [
        {f.name: getattr(each, f.name) for f in dataclasses.fields(Mount) if f.name != "unmount"}
        for each in found.mounts
    ]
    return {
        "state": found.state,
        "mounts": mounts,
        "work": [dataclasses.asdict(each) for each in found.work],
        "cache": dataclasses.asdict(found.cache),
        "broken": [{"path": path, "reason": reason} for path, reason in found.broken],
    }


def _print_mounts(mounts: list[Mount]) -> None:
    if not mounts:
        click.echo("nothing is mounted")
        return
    rows = [
        (
            str(each.path),
            each.volume,
            "writable" if each.writable else "read-only",
            each.driver,
            each.locator or "(new)",
        )
        for each in mounts
    ]
    output.columns([[*map(printable, row)] for row in rows], ("mounted at", "volume", "access", "driver", "shows"))


def _print_work(work: list[Work]) -> None:
    if not work:
        click.echo("\nno work is uncommitted")
        return
    click.echo("")
    rows = [
        (each.id, each.volume, output.size(each.upper_bytes), _condition(each), each.created_at[:19] + "Z")
        for each in work
    ]
    output.columns(rows, ("working copy", "volume", "size", "condition", "since"))
    if any(not each.in_use for each in work):
        click.echo("volume commit ID commits a working copy, volume abandon ID drops it")


def _condition(work: Work) -> str:
    if work.mounted:
        return "mounted"
    if work.in_use:
        return "in use"
    return "left behind" if work.same_boot else "left behind, the machine went down: --allow-torn"


@click.command()
@click.option("--try/--no-try", "try_", default=True, show_default=True, help="Try each driver for real.")
@as_json
def doctor(try_: bool, json_: bool) -> None:
    """Say which mount drivers work here, and what is missing for the better ones.

    Exit code 0 as long as any driver works, which one always does.
    """
    report = examine(State.default().prepare().work, try_mounts=try_)
    if json_:
        output.as_json(report.to_fields())
    else:
        click.echo(report.text())

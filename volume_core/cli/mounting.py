"""Mounts: make one, commit what was written in one, take one down."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from volume_core.cli import output
from volume_core.cli.places import At, version_argument
from volume_core.cli.versions import as_json, message, print_version
from volume_core.errors import BusyError, NotFoundError
from volume_core.facade.surveying import find_mount
from volume_core.facade.writers import Writer
from volume_core.mount.doctor import DRIVERS
from volume_core.volumes import ROVolume, RWVolume, Volume


@click.command()
@version_argument
@click.argument("path", required=False, type=click.Path(path_type=Path))
@click.option(
    "--rw",
    is_flag=True,
    help="Writable: what is committed there is a new version of the volume, on its head if VERSION is a NAME.",
)
@click.option("--fork", "name", metavar="NAME", help="Writable, as the volume NAME.")
@click.option("--driver", default="auto", show_default=True, metavar="|".join(("auto", *DRIVERS)), help="How to mount.")
@click.option("-d", "--detach", is_flag=True, help="Return at once; the mount stays until `volume unmount`.")
@as_json
def mount(version: At, path: Path | None, rw: bool, name: str | None, driver: str, detach: bool, json_: bool) -> None:
    """Mount a version, read-only, at PATH (default: a new directory in $VOLUME_MOUNT_ROOT) and print where.

    In the foreground it stays until Ctrl-C or SIGTERM.  What was written by then is kept: commit it with
    `volume commit`, drop it with `volume abandon`.
    """
    volume = _to_mount(version, rw, name)
    if detach:
        _print_mount(volume, volume.mount_sync(path, driver=driver, detach=True), json_)
        return
    with _asked_to_end() as asked:
        _print_mount(volume, volume.mount_sync(path, driver=driver), json_)
        asked.wait()
        _take_down(volume)


def _to_mount(at: At, rw: bool, name: str | None) -> ROVolume | RWVolume:
    """Return what is to be mounted: a version, a line of its own, or a volume that was opened by name."""
    if rw and not name and at.name is not None:
        return Volume.from_name_sync(at.name, at.locator.store)
    version = Volume.from_locator_sync(str(at.locator))
    return version.fork_sync(name or version.name) if rw or name else version


def _print_mount(volume: ROVolume | RWVolume, where: Path, json_: bool) -> None:
    if not json_:
        click.echo(where)
        return
    work_id = volume.status_sync().working_copy if isinstance(volume, RWVolume) else None
    output.as_json({"path": str(where), "locator": volume.locator, "working_copy": work_id})


@contextmanager
def _asked_to_end() -> Iterator[threading.Event]:
    """An event that is set by the signals that ask a process to end.

    They are caught from the beginning: one that comes while the mount is made ends it as soon as it is there.
    One that whoever started this has had ignored stays so: nohup's SIGHUP, Ctrl-C for a script's `&`.
    """
    asked = threading.Event()
    ending = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    heard = [each for each in ending if signal.getsignal(each) is not signal.SIG_IGN]
    before = {each: signal.signal(each, lambda *_: asked.set()) for each in heard}
    try:
        yield asked
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _take_down(volume: ROVolume | RWVolume) -> None:
    kept = volume.close_sync()
    if kept is not None:
        click.echo(f"what was written and not committed is kept: volume commit {kept}", err=True)


def _writer(target: str, *, allow_torn: bool = False) -> RWVolume:
    """Return the writer of the mount at *target*, or of the working copy so called."""
    if os.sep not in target and not os.path.isdir(target):
        return Volume.recover_sync(target, allow_torn=allow_torn)
    found = find_mount(target)
    if found is None:
        raise NotFoundError(f"nothing is mounted at {target}: volume status lists mounts and working copies")
    if found.working_copy is None:
        raise NotFoundError(f"{target} is mounted to read only: there is nothing to commit")
    return Volume.recover_sync(found.working_copy, allow_torn=allow_torn)


@click.command()
@click.argument("target", metavar="PATH|ID")
@click.option("--unmount", "finalize", is_flag=True, help="Unmount afterwards.")
@click.option("--allow-torn", is_flag=True, help="Even if files keep changing, or the machine went down meanwhile.")
@message
@as_json
def commit(target: str, finalize: bool, allow_torn: bool, message: str, json_: bool) -> None:
    """Commit what was written at the mount PATH, or in the working copy ID (see `volume status`).

    Prints the new version's locator; the one before if nothing has changed.
    """
    volume = _writer(target, allow_torn=allow_torn)
    # A working copy that is not mounted has served its purpose with this commit.
    finish = finalize or volume.mount_path is None
    print_version((volume.finalize_sync if finish else volume.commit_sync)(message, allow_torn=allow_torn), json_)


@click.command()
@click.argument("target", metavar="PATH|ID")
def abandon(target: str) -> None:
    """Drop what was written and not committed: at the mount PATH, or in the working copy ID."""
    if os.sep not in target and not os.path.isdir(target):
        Writer.drop(target)
    else:
        _writer(target, allow_torn=True).abandon_sync()


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--lazy", is_flag=True, help="Even if files are open there: they work until they are closed.")
def unmount(path: Path, lazy: bool) -> None:
    """Take the mount at PATH down.  What was written there is kept: `volume status` lists it."""
    found = find_mount(path)
    if found is None:
        raise NotFoundError(f"nothing is mounted at {path}: volume status lists the mounts")
    found.unmount(lazy=lazy)
    if found.working_copy is None:
        return
    try:
        writer = Volume.recover_sync(found.working_copy, allow_torn=True)
    except BusyError:  # the process that mounted it lives, and goes on with the working copy
        return
    _take_down(writer)

"""demo: the whole way once, on real files, with every byte compared.

    the Python library this runs under ──copy──> a new volume ──commit──> a version
        ──mount, read only──> compared byte by byte, and Python run from it
        ──fork, twice, at the same time──> two writers ──commit──> two versions that know nothing of each other

Always true: whatever fails, nothing stays mounted; a difference is an error, never a remark.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

from volume_core.cli import output
from volume_core.errors import VolumeError
from volume_core.facade.versions import Place
from volume_core.volumes import ROVolume, RWVolume, Volume

if TYPE_CHECKING:
    from rich.console import Console

_SKIPPED = {"site-packages", "dist-packages"}  # what was installed besides Python may be of any size
_BLOCK_BYTES = 1 << 20

# Run by the interpreter with the mount as its home: every module it imports comes out of the volume.
_PROGRAM = """
import collections, decimal, json, sqlite3, sys, zlib
home = sys.argv[1]
modules = [module.__file__ for module in sys.modules.values() if getattr(module, "__file__", None)]
outside = [file for file in modules if not file.startswith(home)]
assert not outside, outside
assert json.loads(json.dumps({"pi": str(decimal.Decimal(355) / 113)}))["pi"].startswith("3.14159")
print(len(modules))
"""


@dataclass(slots=True)
class Step:
    """One row of the table."""

    what: str
    seconds: float = 0.0
    files: int = 0
    bytes_moved: int = 0
    stored_bytes: int | None = None


@dataclass(slots=True)
class Table:
    """What was done, and how much the store grew by it."""

    place: Place
    steps: list[Step] = field(default_factory=list)

    def stored(self) -> int:
        """Return how many bytes the store holds."""
        return sum(info.size_bytes for info in self.place.store().names(""))

    @contextmanager
    def step(self, what: str, *, stores: bool = False) -> Iterator[Step]:
        """Measure a block."""
        step = Step(what)
        before = self.stored() if stores else 0
        started = time.perf_counter()
        yield step
        step.seconds = time.perf_counter() - started
        step.stored_bytes = self.stored() - before if stores else None
        self.steps.append(step)


@click.command()
@click.option("--bucket", metavar="URL", help="The store to use.  Default: $VOLUME_BUCKET, else a local one.")
@click.option("--driver", default="auto", show_default=True, help="How to mount.")
@click.option(
    "--tree", "source", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Another tree to take in."
)
def demo(bucket: str | None, driver: str, source: Path | None) -> None:
    """Show what volumes do: take in a real tree, compare every byte, fork it twice.

    It takes the library of the Python it runs under (thousands of files) into a new volume, commits, mounts the
    version read-only, compares all of it, runs Python from the mount, changes two forks at the same time and
    commits both.  Nothing stays mounted; the versions stay in the store, to look at.
    """
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    tree = source or Path(sysconfig.get_path("stdlib"))
    name = f"demo-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    volume = Volume.new(name, bucket)
    table = Table(Place(volume.store_url, volume.region))
    console.print(f"[bold]{tree}[/bold] into the volume [bold]{name}[/bold] in {volume.store_url}")
    first = _take_in(console, table, volume, tree, driver)
    used = _read_back(console, table, first, tree, driver, run_python=source is None)
    forks = asyncio.run(_fork_twice(console, table, first, driver))
    _print_graph(console, first, forks)
    _print_table(console, table)
    console.print(
        f"\ndriver: [bold]{used}[/bold] (volume doctor says what else works here).  Nothing is mounted any more."
    )
    console.print(f"look at it:  volume tree -L 2 {first.locator}\n             volume mount {forks[0].locator}")


def _inside(source: Path) -> Path:
    """Where the tree lies in the volume: so that the volume can be an interpreter's home."""
    return Path(sys.platlibdir, source.name)


def _take_in(console: Console, table: Table, volume: RWVolume, source: Path, driver: str) -> ROVolume:
    try:
        with table.step("mount a new volume"):
            path = volume.mount_sync(driver=driver)
        with table.step("copy the tree into it") as step:
            shutil.copytree(source, path / _inside(source), symlinks=True, ignore=_skip)
            (path / "demo.py").write_text(_PROGRAM)
            step.files, step.bytes_moved = _measure(path)
        with table.step("commit", stores=True) as step:
            version = volume.commit_sync(f"the library of Python {sys.version.split()[0]}")
            step.files, step.bytes_moved = version.inode_count, version.used_bytes
    finally:
        volume.abandon_sync()  # what is committed is safe; the rest of this demo reads it from there
    _done(console, f"{version.inode_count} files and directories, {output.size(version.used_bytes)}, committed")
    return version


def _skip(_directory: str, names: list[str]) -> set[str]:
    return _SKIPPED.intersection(names)


def _measure(top: Path) -> tuple[int, int]:
    files = size_bytes = 0
    for where, _, names in os.walk(top):
        for name in names:
            status = os.lstat(os.path.join(where, name))
            files += 1
            size_bytes += status.st_size if stat.S_ISREG(status.st_mode) else 0
    return files, size_bytes


def _read_back(
    console: Console, table: Table, version: ROVolume, source: Path, driver: str, *, run_python: bool
) -> str:
    """Compare the mounted version with the tree it came from; return the driver that mounted it."""
    # From the locator alone, as another machine would.
    again = Volume.from_locator_sync(version.locator)
    with table.step("mount the version"):
        path = again.mount_sync(driver=driver)
    try:
        with table.step("compare every byte") as step:
            step.files, step.bytes_moved = _compare(source, path / _inside(source))
        _done(console, f"{step.files} files compared, {output.size(step.bytes_moved)}: identical")
        if run_python:
            with table.step("run Python from the mount") as step:
                step.files = _run_python(path)
            _done(console, f"Python ran from the mount: {step.files} modules imported, all of them out of the volume")
        used = again.driver or driver
    finally:
        again.close_sync()
    return used


def _compare(source: Path, copy: Path) -> tuple[int, int]:
    """Raise VolumeError at the first difference; return (files, bytes) that are equal."""
    files = size_bytes = 0
    for where, directories, names in os.walk(source):
        directories[:] = [name for name in directories if name not in _SKIPPED]
        below = copy / os.path.relpath(where, source)
        if sorted(os.listdir(below)) != sorted({*directories, *names}):
            raise VolumeError(f"{below} does not hold what {where} holds")
        for name in (*names, *(each for each in directories if os.path.islink(os.path.join(where, each)))):
            size_bytes += _compare_one(os.path.join(where, name), os.path.join(below, name))
            files += 1
    return files, size_bytes


def _compare_one(original: str, copy: str) -> int:
    one, other = os.lstat(original), os.lstat(copy)
    if (one.st_mode, one.st_size) != (other.st_mode, other.st_size):
        raise VolumeError(f"{copy} is not what {original} is: mode and size differ")
    if stat.S_ISLNK(one.st_mode):
        if os.readlink(original) != os.readlink(copy):
            raise VolumeError(f"{copy} does not lead where {original} leads")
        return 0
    if one.st_mtime_ns != other.st_mtime_ns:
        raise VolumeError(f"{copy} is not as old as {original}, to the nanosecond")
    with open(original, "rb") as first, open(copy, "rb") as second:
        while block := first.read(_BLOCK_BYTES):
            if second.read(_BLOCK_BYTES) != block:
                raise VolumeError(f"{copy} does not hold the bytes of {original}")
    return one.st_size


def _run_python(home: Path) -> int:
    """Run the program with the volume as Python's home; return how many modules it imported from there."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    ran = subprocess.run(
        [os.path.realpath(sys.executable), "-S", "-s", "-P", os.fspath(home / "demo.py"), os.fspath(home)],
        env=environment | {"PYTHONHOME": os.fspath(home), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if ran.returncode:
        raise VolumeError(f"Python did not run from {home}: {ran.stderr.strip()}")
    return int(ran.stdout)


async def _fork_twice(console: Console, table: Table, version: ROVolume, driver: str) -> list[ROVolume]:
    """Change two forks of *version* at the same time and commit both; check that neither sees the other."""
    with table.step("fork twice"):
        left, right = await version.fork(f"{version.name}-left"), await version.fork(f"{version.name}-right")
    with table.step("change and commit both, at once", stores=True) as step:
        results = await asyncio.gather(_add_files(left, driver), _replace_tree(right, driver))
        step.files, step.bytes_moved = (sum(each) for each in zip(*(moved for _, moved in results), strict=True))
    forks = [committed for committed, _ in results]
    async with forks[0].mounted(driver=driver) as a, forks[1].mounted(driver=driver) as b:
        if not (a / "results").is_dir() or (b / "results").exists() or (a / "renamed").exists():
            raise VolumeError("a fork sees what only the other one wrote")
    _done(
        console, "two forks, changed at the same time, neither sees the other; nothing of the first version was copied"
    )
    return forks


async def _add_files(fork: RWVolume, driver: str) -> tuple[ROVolume, tuple[int, int]]:
    async with fork.mounted(driver=driver, message="results of an experiment") as path:
        await asyncio.to_thread(_write_results, path / "results")
    return _last_commit(fork), (500, 500 * 1000)


def _write_results(directory: Path) -> None:
    directory.mkdir()
    for number in range(500):
        (directory / f"{number:03}.txt").write_text(f"{number:>999}\n")


async def _replace_tree(fork: RWVolume, driver: str) -> tuple[ROVolume, tuple[int, int]]:
    async with fork.mounted(driver=driver, message="a directory moved, a file deleted") as path:
        await asyncio.to_thread(_rearrange, path)
    return _last_commit(fork), (1, 0)


def _rearrange(path: Path) -> None:
    shutil.move(path / sys.platlibdir, path / "renamed")
    (path / "demo.py").unlink()


def _last_commit(fork: RWVolume) -> ROVolume:
    committed = fork.committed
    assert committed is not None
    return committed


def _done(console: Console, text: str) -> None:
    console.print(f"[green]✓[/green] {text}")


def _print_graph(console: Console, first: ROVolume, forks: list[ROVolume]) -> None:
    console.print("")
    console.print(_version_line(first))
    for index, fork in enumerate(forks):
        last = index == len(forks) - 1
        console.print(f"{'└──' if last else '├──'} {_version_line(fork)}")


def _version_line(version: ROVolume) -> str:
    return f"[bold]{version.name}[/bold] {version.version[:12]}  {output.size(version.used_bytes)}  {version.message}"


def _print_table(console: Console, table: Table) -> None:
    from rich.table import Table as RichTable

    shown = RichTable(box=None, pad_edge=False)
    shown.add_column("step")
    for heading in ("time", "files", "bytes", "rate", "into the store"):
        shown.add_column(heading, justify="right")
    for step in table.steps:
        rate = f"{output.size(step.bytes_moved / step.seconds)}/s" if step.bytes_moved and step.seconds else ""
        stored = output.size(step.stored_bytes) if step.stored_bytes is not None else ""
        moved = output.size(step.bytes_moved) if step.bytes_moved else ""
        shown.add_row(step.what, _time(step.seconds), str(step.files or ""), moved, rate, stored)
    console.print("")
    console.print(shown)


def _time(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"

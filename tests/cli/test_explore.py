"""`volume explore`, driven as a person would: by keys, on a screen of its own."""

from __future__ import annotations

import asyncio
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from volume_core import ROVolume, Volume

pytest.importorskip("textual", reason="volume explore draws with textual: pip install 'volume-core[explore]'")

from textual.pilot import Pilot
from textual.widgets.tree import TreeNode

from volume_core.cli import explorer
from volume_core.cli.explorer import Explorer


@pytest.fixture
def versions(tmp_path: Path) -> list[ROVolume]:
    """Two versions of one line, the older first."""
    volume = Volume.new("data")
    found = []
    with volume.mounted_sync(driver="copy", message="first") as path:
        (path / "dir").mkdir()
        (path / "dir" / "inner.txt").write_text("below\n")
        (path / "hello.txt").write_text("hello\tthere\n[bold]and[/bold]\x1b[31m\n")
        (path / "data.bin").write_bytes(b"\0\1" * 700)
        (path / "link").symlink_to("hello.txt")
        (path / "odd\nname[red]").write_text("odd")
    found.append(volume.committed)
    with volume.mounted_sync(driver="copy", message="second [b]version[/b]") as path:
        (path / "later.txt").write_text("later")
    found.append(volume.committed)
    found[-1].tag_sync("good")
    return found


def drive(version: ROVolume, steps: Callable[[Explorer, Pilot], Awaitable[None]]) -> None:
    """Run the explorer on *version*, and *steps* in it."""

    async def run() -> None:
        app = Explorer(version)
        async with app.run_test(size=(120, 40)) as pilot:
            await becomes(pilot, lambda: bool(app.shown), True)
            await steps(app, pilot)

    asyncio.run(run())


async def becomes(pilot: Pilot, read: Callable[[], object], expected: object) -> None:
    """Wait until *read* gives what is *expected*: what is looked for is read by other threads."""
    deadline = time.monotonic() + 10
    while read() != expected and time.monotonic() < deadline:
        await pilot.pause(0.01)
    assert expected == read()


async def choose(app: Explorer, pilot: Pilot, name: str) -> TreeNode:
    """Go to the entry whose label begins with *name*, and press Enter."""
    [found] = [each for each in app.files.root.children if str(each.label).startswith(name)]
    app.files.move_cursor(found)
    await pilot.press("enter")
    return found


def labels(node: TreeNode) -> list[str]:
    return [str(child.label) for child in node.children]


def test_it_shows_the_files_with_their_sizes_and_the_history(versions):
    async def steps(app, pilot):
        assert [
            "data.bin  1.4K", "dir/", "hello.txt  34", "later.txt  5", "link -> hello.txt", r"odd\nname[red]  3",
        ] == labels(app.files.root)  # fmt: skip
        rows = [[str(cell) for cell in app.history.get_row_at(number)] for number in range(app.history.row_count)]
        assert [["1.4K", "head, good", "second [b]version[/b]", versions[1].version[:12]]] == [rows[0][1:]]
        assert "first" == rows[1][3]
        assert versions[1].locator in app.shown

    drive(versions[1], steps)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("hello.txt", "hello   there\n[bold]and[/bold]\N{REPLACEMENT CHARACTER}[31m"),
        ("data.bin", "1.4K that are no text; file, mode 0644, owner 0:0"),
        ("link", "symlink, mode 0777, owner 0:0\nto: hello.txt"),
        ("odd", "odd"),
    ],
)
def test_a_file_that_is_chosen_is_shown_as_text_whatever_is_in_it(versions, name, shown):
    shown = shown.replace("0:0", f"{os.geteuid()}:{os.getegid()}")

    async def steps(app, pilot):
        await choose(app, pilot, name)
        await becomes(pilot, lambda: app.shown, shown)

    drive(versions[1], steps)


def test_a_long_file_is_shown_as_far_as_it_is_read(versions, monkeypatch):
    monkeypatch.setattr(explorer, "PREVIEW_BYTES", 8)

    async def steps(app, pilot):
        await choose(app, pilot, "hello.txt")
        await becomes(pilot, lambda: app.shown, "hello   th\n... 34 in all: volume cat")

    drive(versions[1], steps)


def test_a_directory_is_listed_when_it_is_opened(versions):
    async def steps(app, pilot):
        directory = await choose(app, pilot, "dir/")
        await becomes(pilot, lambda: labels(directory), ["inner.txt  6"])

    drive(versions[1], steps)


def test_a_large_directory_says_how_much_more_there_is(versions, monkeypatch):
    monkeypatch.setattr(explorer, "ENTRIES_MAX", 2)

    async def steps(app, pilot):
        assert ["data.bin  1.4K", "dir/", "... and 4 more: volume ls"] == labels(app.files.root)

    drive(versions[1], steps)


def test_an_older_version_is_looked_into_by_choosing_it(versions):
    async def steps(app, pilot):
        await pilot.press("tab")
        await pilot.press("down", "enter")
        await becomes(pilot, lambda: "message: first" in app.shown, True)
        assert versions[0] == app.version
        assert "later.txt  5" not in labels(app.files.root)

    drive(versions[1], steps)


def test_a_store_that_fails_is_told_on_the_screen(versions):
    packs = Path(os.environ["VOLUME_STATE_DIR"]) / "store" / "packs"

    async def steps(app, pilot):
        for each in packs.rglob("*"):
            if each.is_file():
                each.unlink()
        await choose(app, pilot, "hello.txt")
        await becomes(pilot, lambda: app.shown.startswith("it cannot be read: "), True)

    drive(versions[1], steps)


def test_a_version_that_is_gone_is_told_on_the_screen(versions):
    version = ROVolume.model_validate(versions[1].model_dump())
    Volume.delete_sync("data")

    async def steps(app, pilot):
        assert app.shown.startswith("the history cannot be read: ")
        assert [] == labels(app.files.root)

    drive(version, steps)


def test_keys_end_it(versions):
    async def steps(app, pilot):
        await pilot.press("q")
        await becomes(pilot, lambda: app.is_running, False)

    drive(versions[1], steps)


def test_without_a_terminal_it_says_what_to_use_instead(volume, versions):
    assert "explore needs a terminal: `volume tree`" in volume("explore", versions[1].locator, code=1).stderr
    volume("explore", "nowhere", code=3)


def test_without_its_package_it_says_what_to_install(versions):
    said, code = in_a_terminal("import sys; sys.modules['textual'] = None", versions[1].locator)

    assert 1 == code
    assert "pip install 'volume-core[explore]'" in said


def test_it_runs_in_a_terminal(versions):
    said, code = in_a_terminal("pass", versions[1].locator, until="later.txt", keys=b"q")

    assert 0 == code, said
    assert "hello.txt" in said


def in_a_terminal(before: str, locator: str, until: str = "", keys: bytes = b"") -> tuple[str, int]:
    """Run the command in a terminal of its own; send *keys* once it has printed *until*."""
    code = f"{before}\nfrom volume_core.cli.main import main\nmain(['explore', {locator!r}])"
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color"},
        start_new_session=True,
    )
    os.close(theirs)
    said, deadline, sent = b"", time.monotonic() + 60, False
    while time.monotonic() < deadline:
        if not select.select([ours], [], [], 0.1)[0]:
            continue
        try:
            block = os.read(ours, 65536)
        except OSError:  # nobody has the other end any more
            break
        if not block:
            break
        said += block
        if until and not sent and until.encode() in said:
            os.write(ours, keys)
            sent = True
    os.close(ours)
    return said.decode(errors="replace"), process.wait(10)

"""The table of docs/durability.md, row by row: a process that commits is killed -9 after each step.

Also: two processes that commit forks of one version into one store at the same time.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import committer
import handle_committer
import pytest

from volume_core import Volume
from volume_core.format.intent import Intent
from volume_core.format.names import Locator
from volume_core.parts.checking import check_version
from volume_core.storage.local import LocalStore
from volume_core.testing.lines import Line, checkout, manifest_of
from volume_core.testing.oracle import assert_same_tree, describe

pytestmark = pytest.mark.faults
DURABILITY = Path(__file__).parents[2] / "docs" / "durability.md"


class Row(NamedTuple):
    """What is true after a crash: of the calls that write, the *call*-th was the last (0: none was made).

    The rest is in the store and was not there before: `published` says whether that is a version.
    """

    call: int
    intent: bool = False
    packs: int = 0
    layers: int = 0
    published: bool = False


# Calls of a commit that is the store's first, and of one that is compacted (without the format).
FIRST = ["format.json", "intents/", "packs/", "packs/", "layers/", "versions/", "intents/"]
LATER = ["intents/", "packs/", "packs/", "layers/", "layers/", "versions/", "intents/"]
FIRST_ROWS = {
    "the commit began": Row(0),
    "the store's format was written": Row(1),
    "the intent was written": Row(2, intent=True),
    "the first pack was written": Row(3, intent=True, packs=1),
    "the last pack was written": Row(4, intent=True, packs=2),
    "the delta was written": Row(5, intent=True, packs=2, layers=1),
    "the manifest was written": Row(6, intent=True, packs=2, layers=1, published=True),
    "the intent was removed": Row(7, packs=2, layers=1, published=True),
}
LATER_ROWS = {
    "the commit began": Row(0),
    "the intent was written": Row(1, intent=True),
    "the first pack was written": Row(2, intent=True, packs=1),
    "the last pack was written": Row(3, intent=True, packs=2),
    "the delta was written": Row(4, intent=True, packs=2, layers=1),
    "the merged layer was written": Row(5, intent=True, packs=2, layers=2),
    "the manifest was written": Row(6, intent=True, packs=2, layers=2, published=True),
    "the intent was removed": Row(7, packs=2, layers=2, published=True),
}


# Steps on the local disk, of a handle's second commit: does committing again return the version itself?
LOCAL_ROWS = {"what was captured was noted": ("save", False), "the record was replaced": ("update", True)}


def table() -> list[list[str]]:
    """The rows of the table under "Crashes"."""
    text = DURABILITY.read_text().split("## Crashes")[1]
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return rows[2:]


def test_every_row_of_the_table_has_a_test_and_every_test_a_row():
    assert {row[0] for row in table()} == FIRST_ROWS.keys() | LATER_ROWS.keys() | LOCAL_ROWS.keys()


@pytest.mark.parametrize("row", table(), ids=lambda row: row[0])
def test_the_table_says_what_the_tests_check(row):
    crash, store, disk, user, repairs = row
    for expected in filter(None, (FIRST_ROWS.get(crash), LATER_ROWS.get(crash))):
        assert expected.published == ("the new version, whole" in store)
        assert expected.published != ("nothing new" in store)
        assert expected.intent == ("a live intent" in store)
        assert bool(expected.packs) == bool(re.search(r"pack", store)) or expected.published
        assert disk.startswith("the changes")
        assert user
        assert repairs
    if crash in LOCAL_ROWS:
        assert store == "the new version, whole"
        assert ("returns the new version" in repairs) == LOCAL_ROWS[crash][1]


# -- a process to kill


class Process:
    """A script, started and read line by line."""

    def __init__(self, script: str | None, *arguments: str) -> None:
        command = [sys.executable, str(script), *arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.calls: list[tuple[str, str]] = []

    def hear(self, word: str) -> object:
        """Read until it says *word*; return what it says."""
        for line in self.process.stdout:
            said = json.loads(line)
            if "call" in said:
                self.calls.append(tuple(said["call"]))
            if word in said:
                return said[word]
        raise AssertionError(f"it ended with {self.process.wait()} and never said {word}")

    def go(self) -> None:
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        assert -signal.SIGKILL == self.process.wait()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


@contextmanager
def started(script: str | None, *arguments: str) -> Iterator[Process]:
    process = Process(script, *arguments)
    try:
        yield process
    finally:
        process.close()


def arguments(store: LocalStore, place: Path, start: str = "", **options: object) -> tuple[str, ...]:
    return committer.__file__, store.url, str(place), start, json.dumps(options)


def names(store: LocalStore, prefix: str) -> set[str]:
    return {found.name for found in store.names(prefix)}


def whole(store: LocalStore, name: str) -> None:
    found = Locator.parse(f"{store.url}/{name}")
    assert [] == check_version(store, found.volume, found.version)


def killed(store: LocalStore, place: Path, row: Row, expected: list[str], **options: object) -> Path:
    """Kill a commit after the row's call; return its tree."""
    at, before = (row.call, False) if row.call else (1, True)
    with started(*arguments(store, place, at=at, before=before, **options)) as process:
        tree = Path(str(process.hear("tree")))
        process.go()
        process.hear("stopped")
        process.kill()

        made = [name for _, name in process.calls]
        assert all(name.startswith(prefix) for name, prefix in zip(made, expected, strict=False))
        assert max(row.call, 1) == len(made)
    return tree


@pytest.mark.parametrize("crash", list(FIRST_ROWS))
def test_a_first_commit_is_killed_after(crash, tmp_path):
    row = FIRST_ROWS[crash]
    store = LocalStore(tmp_path / "store")

    tree = killed(store, tmp_path / "line", row, FIRST, first="prepare")

    left = {kind: names(store, kind) for kind in ("packs/", "layers/", "intents/", "versions/")}
    assert (row.packs, row.layers) == (len(left["packs/"]), len(left["layers/"]))
    examine(store, row, tree, set(), tmp_path)


@pytest.mark.parametrize("crash", list(LATER_ROWS))
def test_a_compacted_commit_is_killed_after(crash, tmp_path):
    row = LATER_ROWS[crash]
    store = LocalStore(tmp_path / "store")
    before = Line(store, tmp_path / "before")
    committer.prepare(before.tree)
    first = before.commit()
    old = {kind: names(store, kind) for kind in ("packs/", "layers/", "versions/")}

    tree = killed(store, tmp_path / "line", row, LATER, start=first.locator, first="change", seed=1)

    assert row.packs == len(names(store, "packs/") - old["packs/"])
    assert row.layers == len(names(store, "layers/") - old["layers/"])
    examine(store, row, tree, old["versions/"], tmp_path)
    checkout(store, first.locator, tmp_path / "old")
    assert_same_tree(before.tree, tmp_path / "old")


def examine(store: LocalStore, row: Row, tree: Path, old: set[str], place: Path) -> None:
    """The store after a crash: versions as the row says and whole, the intent readable; then commit again."""
    found = names(store, "versions/")
    assert row.published == len(found - old)
    assert old <= found
    for name in found:
        whole(store, name)
    for number, name in enumerate(found - old):
        checkout(store, f"{store.url}/{name}", place / f"published{number}")
        assert_same_tree(tree, place / f"published{number}")
    intents = [Intent.from_bytes(name, store.get(name)) for name in names(store, "intents/")]
    assert row.intent == len(intents)
    for intent in intents:
        assert intent.volume == "volume"
        assert set(intent.versions) == {f"{store.url}/{name}" for name in old}

    again = Line(store, place / "again", start=f"{store.url}/{next(iter(old))}" if old else None)
    again.tree = tree  # what the crash left on the local disk
    result = again.commit()

    checkout(store, result.locator, place / "out")
    assert_same_tree(tree, place / "out")
    whole(store, result.locator.removeprefix(f"{store.url}/"))


@pytest.mark.parametrize("crash", list(LOCAL_ROWS))
def test_a_handle_is_killed_after(crash, tmp_path):
    """The copy driver, since it needs nothing; the order of the steps is the same for all."""
    step, is_returned = LOCAL_ROWS[crash]
    store = LocalStore(tmp_path / "store")
    with started(handle_committer.__file__, store.url, str(tmp_path / "mount"), step) as process:
        said = process.hear("working_copy")
        process.hear("stopped")
        process.kill()
    (first, published) = sorted(names(store, "versions/"), key=lambda name: store.info(name).modified_ns)
    for name in (first, published):
        whole(store, name)
    checkout(store, f"{store.url}/{published}", tmp_path / "published")
    assert_same_tree(tmp_path / "mount", tmp_path / "published")

    recovered = Volume.recover_sync(str(said))
    again = recovered.commit_sync()

    assert is_returned == (again.locator == f"{store.url}/{published}")
    assert again.locator is not None
    checkout(store, again.locator, tmp_path / "out")
    assert_same_tree(tmp_path / "published", tmp_path / "out")
    expected = manifest_of(store, f"{store.url}/{published}").parents
    assert expected == (f"{store.url}/{first}",) == manifest_of(store, again.locator).parents
    recovered.abandon_sync()


def test_forks_of_one_version_are_committed_by_several_processes_at_once(tmp_path):
    store = LocalStore(tmp_path / "store")
    line = Line(store, tmp_path / "line")
    committer.prepare(line.tree)
    base = line.commit()
    processes = [
        Process(*arguments(store, tmp_path / f"fork{seed}", base.locator, first="change", seed=seed))
        for seed in range(10, 14)
    ]
    try:
        trees = [Path(str(process.hear("tree"))) for process in processes]
        for process in processes:
            process.go()
        locators = [str(process.hear("locator")) for process in processes]
    finally:
        for process in processes:
            process.close()

    assert {base.locator, *locators} == {f"{store.url}/{name}" for name in names(store, "versions/")}
    assert set() == names(store, "intents/")
    assert 4 == len({json.dumps(sorted(map(str, describe(tree).values()))) for tree in trees})
    for number, (locator, tree) in enumerate(zip(locators, trees, strict=True)):
        whole(store, locator.removeprefix(f"{store.url}/"))
        assert (base.locator,) == manifest_of(store, locator).parents
        checkout(store, locator, tmp_path / f"out{number}")
        assert_same_tree(tree, tmp_path / f"out{number}")
    checkout(store, base.locator, tmp_path / "base")
    assert_same_tree(line.tree, tmp_path / "base")

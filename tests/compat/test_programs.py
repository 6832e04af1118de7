"""The programs on the pages run, and print what the pages say; the calls in their tables are there.

What a program mounts at `/data` and the like is below the test's directory instead.
"""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest
from compat_kit import PAGES, ROOT, Program, blocks, placed, programs

import volume_core
from volume_core.facade.batches import Batch

DRIVERS = ["copy", pytest.param("kernel", marks=pytest.mark.fuse)]
THEIRS = [(page.stem, info, text) for page in PAGES for _, info, text in blocks(page) if info.startswith("python ")]
_CALL = re.compile(r"\b(vol|volume|Volume|batch)\.(\w+)\b(?:\(([^()`]*)\))?")
_KINDS = {
    "Volume": [volume_core.Volume],
    "vol": [volume_core.RWVolume],
    "volume": [volume_core.RWVolume, volume_core.ROVolume],
    "batch": [Batch],
}


def cells() -> list[tuple[str, str]]:
    """Return (page, text) of each cell of a table that says what a call is here: all but the first of a row."""
    rows = [(page.stem, line) for page in PAGES for line in page.read_text().splitlines() if line.startswith("| ")]
    return [(page, cell) for page, row in rows for cell in row.strip("| ").split(" | ")[1:]]


def keywords(function) -> set[str]:
    """Return what *function* takes by keyword."""
    taken = inspect.signature(function).parameters
    return {*taken, *(volume_core.BlockOptions.__annotations__ if "options" in taken else ())}


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("program", programs(), ids=lambda program: program.id)
def test_a_program_prints_what_the_page_says(program: Program, driver, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VOLUME_DRIVER", driver)
    monkeypatch.setenv("VOLUME_MOUNT_ROOT", str(tmp_path / "volumes"))
    monkeypatch.chdir(tmp_path)

    exec(compile(placed(program.text, tmp_path), program.id, "exec"), {"__name__": "__main__"})

    assert program.prints == capsys.readouterr().out.replace(f"{tmp_path}/", "/")
    assert [] == [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {tmp_path}/" in line]


def test_both_pages_have_pairs_of_programs():
    for page in PAGES:
        theirs = [text for stem, _, text in THEIRS if stem == page.stem]
        ours = [program for program in programs() if program.page == page.stem]

        assert 4 <= len(theirs) <= 8, page.name
        assert len(theirs) <= len(ours), page.name
    assert {"coming-from-modal", "coming-from-covalent"} == {page.stem for page in PAGES}


@pytest.mark.parametrize(("page", "info", "text"), THEIRS, ids=range(len(THEIRS)))
def test_a_program_of_theirs_is_one(page, info, text):
    ast.parse(text)

    assert info == f"python {page.removeprefix('coming-from-')}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_call_in_a_table_is_there(page):
    calls = {match.groups() for stem, cell in cells() if stem == page.stem for match in _CALL.finditer(cell)}

    assert calls
    for kind, name, arguments in calls:
        found = next((getattr(each, name) for each in _KINDS[kind] if hasattr(each, name)), None)
        assert found is not None or name in volume_core.RWVolume.model_fields, f"{page.name}: {kind}.{name}"
        for keyword in re.findall(r"(\w+)=", arguments or ""):
            assert keyword in keywords(found), f"{page.name}: {kind}.{name}({keyword}=)"


def test_every_page_is_linked_from_the_front_page():
    front = (ROOT / "README.md").read_text()

    assert set() == {page.name for page in PAGES if f"docs/{page.name}" not in front}

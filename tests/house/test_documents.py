"""Documents rot where nothing reads them: these tests do."""

from __future__ import annotations

import pkgutil
import re
from pathlib import Path

import pytest

import volume_core

ROOT = Path(__file__).resolve().parents[2]
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text()


@pytest.mark.parametrize("dotted", sorted(set(re.findall(r"`(volume_core\.[\w.]+)`", ARCHITECTURE))))
def test_every_name_in_the_architecture_exists(dotted):
    assert pkgutil.resolve_name(dotted) is not None


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:volume_core|tests|docs)/[\w/.-]*)`", ARCHITECTURE))))
def test_every_path_in_the_architecture_exists(path):
    assert (ROOT / path).exists()


def test_every_part_of_the_core_is_in_the_architecture():
    parts = {module.name for module in pkgutil.iter_modules(volume_core.__path__) if module.ispkg}

    assert set() == {part for part in parts if f"volume_core/{part}/" not in ARCHITECTURE}


def test_every_test_named_in_posix_md_exists():
    text = (ROOT / "docs" / "posix.md").read_text()
    named = set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?(?:::(\w+))?`", text))

    assert named, "docs/posix.md names its tests"
    for file, *names in named:
        source = (ROOT / file).read_text()
        for found in filter(None, names):
            assert f"def {found}(" in source or f"class {found}" in source, f"{file} has no {found}"


@pytest.mark.parametrize(
    "path", sorted([*ROOT.glob("*.*"), *(ROOT / "docs").rglob("*.md")]), ids=lambda path: path.name
)
def test_no_document_is_left_half_merged(path):
    marks = ("<" * 7, "|" * 7, ">" * 7)
    text = path.read_text() if path.is_file() else ""

    assert [] == [line for line in text.splitlines() if line.startswith(marks)]

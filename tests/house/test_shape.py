"""The shape rules, each with its reason in the test's name."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE = sorted(p for top in ("volume_core", "adapters") for p in (ROOT / top).rglob("*.py"))
EVERY = sorted({*CORE, *(p for top in ("tests", "benchmarks", "examples") for p in (ROOT / top).rglob("*.py"))})
TEXTS = sorted({*EVERY, *ROOT.glob("*.md"), *ROOT.glob("*.toml"), *ROOT.glob("*.ini"), *(ROOT / "docs").rglob("*.md")})

FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 500


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function, its docstring not counted."""
    first = function.body[0]
    docstring = (
        isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    )
    lines = function.end_lineno - function.lineno + 1
    return lines - (first.end_lineno - first.lineno + 1 if docstring else 0)


@pytest.mark.parametrize("path", EVERY, ids=name)
def test_no_function_needs_scrolling(path):
    functions = [
        n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    long = [f"{f.name} has {code_lines(f)} lines" for f in functions if code_lines(f) > FUNCTION_LINES_MAX]

    assert [] == long


@pytest.mark.parametrize("path", EVERY, ids=name)
def test_no_file_gets_a_reader_lost(path):
    assert len(path.read_text().splitlines()) <= FILE_LINES_MAX


@pytest.mark.parametrize("path", CORE, ids=name)
def test_every_file_says_why_it_exists(path):
    assert ast.get_docstring(ast.parse(path.read_text()))


@pytest.mark.parametrize("path", [p for p in CORE if "volume_core" in p.parts and "plugins" not in p.parts], ids=name)
def test_the_core_knows_no_engine_by_name(path):
    assert not re.search(r"flyte|prefect|airflow", path.read_text(), re.IGNORECASE)


@pytest.mark.parametrize("path", EVERY, ids=name)
def test_a_suppression_names_what_it_suppresses(path):
    text = path.read_text()

    assert not re.search(r"#\s*noqa(?!: [A-Z]+[0-9]+)", text)
    assert not re.search(r"#\s*type: ignore(?!\[)", text)


@pytest.mark.parametrize("path", CORE, ids=name)
def test_nothing_is_left_for_later(path):
    assert not re.search(r"\b(TODO|FIXME|XXX|NotImplementedError)\b", path.read_text())


@pytest.mark.parametrize("path", TEXTS, ids=name)
def test_no_file_speaks_of_one_machine(path):
    words = ("/" + "work/", "/" + "farm/", "/tmp/" + "bash", "/root/" + "dev")
    text = path.read_text()

    assert [] == [word for word in words if word in text]


def documented_paths() -> list[tuple[str, str]]:
    """Every relative link of the documents, with the document it stands in."""
    found = []
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", document.read_text()):
            found.append((name(document), target))
    return found


@pytest.mark.parametrize(("document", "target"), documented_paths())
def test_every_link_of_the_documents_leads_somewhere(document, target):
    assert (ROOT / document).parent.joinpath(target).exists()

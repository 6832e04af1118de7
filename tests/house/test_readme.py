"""The code on the front page and the examples run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def run(program: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Run *program* as a user would, with nothing configured but a home of its own."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("VOLUME_")}
    environ |= {"HOME": str(home), "VOLUME_STATE_DIR": str(home / "state")}
    return subprocess.run(
        [sys.executable, "-c", program], env=environ, cwd=home, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_front_page_has_code():
    assert BLOCKS


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_the_code_on_the_front_page_runs(block, tmp_path):
    done = run(block, tmp_path)

    assert (0, "") == (done.returncode, done.stderr)
    assert done.stdout.startswith(f"file://{tmp_path}/state/store/versions/training-data/")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_runs(path, tmp_path):
    done = run(path.read_text(), tmp_path)

    assert (0, "") == (done.returncode, done.stderr)
    assert "hello from a volume" in done.stdout

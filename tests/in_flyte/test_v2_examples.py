"""The examples for flyte 2 run as they stand, with nothing configured, and print what they are there to show."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples" / "flyte"
SAYS = {
    "create_and_read.py": ["airport 19.0, harbour 19.0, hill 19.0"],
    "fork_and_update.py": [
        "metadata /, modified /1.md, added /3.md; with the ending of happy <- first edition",
        "metadata /, modified /1.md, added /3.md; with the ending of sad <- first edition",
    ],
    "fan_out.py": ["8 shards, 50005000 in all"],
    "checkpoint_loop.py": [r"epoch 30: 0\.0\d+", r"epoch 20: 0\.0\d+", r"epoch 10: 0\.1\d+", "fifty points"],
    "across_runs.py": ["3 colours", "4 more-colours"],
    "tuning.py": [
        r"\d+ files a second, by the driver [\w-]+",
        r"\d+ files a second the first time",
        r"\d+ files a second the second time",
        "2000 files",
    ],
}


def example(name: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Run an example as a reader would, with a home of its own."""
    environ = {each: value for each, value in os.environ.items() if not each.startswith("VOLUME_")}
    environ |= {"HOME": str(home), "TMPDIR": str(home)}
    return subprocess.run(
        [sys.executable, EXAMPLES / name],
        env=environ, cwd=home, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("name", SAYS)
def test_an_example_does_what_it_says(name, tmp_path):
    done = example(name, tmp_path)

    assert (0, "") == (done.returncode, done.stderr)
    lines = done.stdout.splitlines()
    assert len(SAYS[name]) == len(lines), done.stdout
    for expected, line in zip(SAYS[name], lines, strict=True):
        assert re.fullmatch(expected, line), line


def test_an_example_can_be_run_again(tmp_path):
    """A line that begins anew has the name of one that is there already, which keeps its head."""
    first, second = (example("fork_and_update.py", tmp_path) for _ in range(2))

    assert (0, "") == (second.returncode, second.stderr)
    assert first.stdout == second.stdout


def test_each_example_is_short_enough_to_be_read():
    for name in SAYS:
        assert len((EXAMPLES / name).read_text().splitlines()) <= 80, name


def test_every_example_for_flyte_2_is_run_here():
    programs = {path.name for path in EXAMPLES.glob("*.py") if "import flyte\n" in path.read_text()}

    assert programs == set(SAYS)

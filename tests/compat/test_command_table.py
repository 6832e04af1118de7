"""The commands that the page for those who come from Modal gives for theirs: each is run once."""

from __future__ import annotations

import re

import pytest
from click.testing import CliRunner
from compat_kit import ROOT

from volume_core import Volume
from volume_core.cli.main import main

PAGE = ROOT / "docs" / "coming-from-modal.md"
# Each in the order in which it makes sense, and what the words of the page stand for.
STEPS = {
    "volume new NAME": {},
    "volume ls": {},
    "volume put LOCAL NAME:/REMOTE": {"LOCAL": "weights", "REMOTE": "v1"},
    "volume ls NAME:/PATH": {"PATH": "v1"},
    "volume get NAME:/REMOTE LOCAL": {"LOCAL": "copy", "REMOTE": "v1"},
    "volume cat NAME:/REMOTE": {"REMOTE": "v1/0.txt"},
    "volume cp NAME:/FROM NAME:/TO": {"FROM": "v1/0.txt", "TO": "best.txt"},
    "volume cp LOCAL NAME:/PATH": {"LOCAL": "weights", "PATH": "v2"},
    "volume cp NAME:/PATH LOCAL": {"LOCAL": "again", "PATH": "v2"},
    "volume rm -r NAME:/PATH": {"PATH": "v1"},
    "volume promote OLD --name NEW": {"OLD": "models", "NEW": "renamed"},
    "volume rm NAME": {},
}
STAYS = {"volume mount --rw NAME"}  # until Ctrl-C: tests/cli has it


@pytest.fixture
def run():
    def run(command: str, words: dict[str, str]) -> str:
        line = re.sub(r"[A-Z]{2,}", lambda match: {"NAME": "models", **words}[match[0]], command)
        result = CliRunner().invoke(main, line.split()[1:], input="y\n", catch_exceptions=False)
        assert 0 == result.exit_code, f"{line}: {result.output}"
        return result.output

    return run


def test_the_page_has_these_commands():
    table = PAGE.read_text().partition("## The command")[2]

    assert STEPS.keys() | STAYS == set(re.findall(r"`(volume [^`]+)`", table))


def test_each_command_does_what_theirs_does(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/0.txt").write_text("zero")
    said = {command: run(command, words) for command, words in STEPS.items()}

    assert "models" in said["volume ls"]
    assert ["0.txt"] == said["volume ls NAME:/PATH"].split()
    assert "zero" == said["volume cat NAME:/REMOTE"]
    assert "zero" == (tmp_path / "copy/0.txt").read_text() == (tmp_path / "again/0.txt").read_text()
    assert ["renamed"] == [info.name for info in Volume.list_sync()]
    assert ["best.txt", "v2"] == [entry.path for entry in Volume.from_name_sync("renamed").listdir_sync("/")]

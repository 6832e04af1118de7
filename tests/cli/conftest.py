"""The command as users run it: in a process of its own, and in this one where that is enough."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from volume_core.cli.main import main

VOLUME = [sys.executable, "-m", "volume_core.cli"]
# Before click 8.2 the runner mixed stderr into stdout unless it was told not to.
APART = {"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}


@pytest.fixture(autouse=True)
def own_mounts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own_state: None):
    """Mounts without a path go below tmp_path; nothing is mounted there afterwards."""
    monkeypatch.setenv("VOLUME_MOUNT_ROOT", str(tmp_path / "mounts"))
    yield
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    left = [point for point in points if point.startswith(f"{tmp_path}/")]
    for each in reversed(left):
        subprocess.run(["umount", "-l", each], check=False)
    assert [] == left


@pytest.fixture
def volume():
    """Run the command in this process; return its result, after checking its exit code."""

    def run(*arguments: str | Path, code: int = 0, **options) -> Result:
        result = CliRunner(**APART).invoke(main, [str(each) for each in arguments], **options)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert code == result.exit_code, result.output
        return result

    return run


@pytest.fixture
def said(volume):
    """Run the command and return what it printed, without the last line's end."""
    return lambda *arguments, **options: volume(*arguments, **options).stdout.rstrip("\n")


@pytest.fixture
def told(volume):
    """Run the command with --json and return the value."""
    return lambda *arguments, **options: json.loads(volume(*arguments, "--json", **options).stdout)


@pytest.fixture
def locator(said, tmp_path: Path) -> str:
    """A version with a few files of several kinds."""
    tree = tmp_path / "tree"
    (tree / "dir").mkdir(parents=True)
    (tree / "hello.txt").write_text("hello\n")
    (tree / "dir" / "data.bin").write_bytes(bytes(range(256)) * 20)
    (tree / "dir" / "link").symlink_to("../hello.txt")
    (tree / "odd\nname\x1b[31m").write_text("odd")
    (tree / "hello.txt").chmod(0o640)
    return said("cp", tree, f"{said('new', 'data')}:/", "-m", "first files")

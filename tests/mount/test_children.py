"""What a mount starts: whatever is wrong with the process that asks, and without leaving zombies to it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mount_kit import Bench

from volume_core.mount.machine import read_machine
from volume_core.mount.trying import MOUNTED, try_driver

pytestmark = pytest.mark.fuse

_MOUNT = """
import json, os, sys, time
from pathlib import Path
from volume_core.mount.kernel import KernelDriver
from volume_core.mount.request import MountRequest
from volume_core.parts.state import State

state, path, said = map(Path, sys.argv[1:])
def mount():
    KernelDriver().mount(MountRequest(State.at(state), path, "file:///nowhere", volume="data")).unmount()
"""


def run(bench: Bench, program: str, *wrapper: str, **options: object) -> object:
    """Run _MOUNT and *program* in a process of its own; return what it wrote, as JSON, to the file `said`."""
    said = bench.home / "said"
    command = [*wrapper, sys.executable, "-c", _MOUNT + program, bench.state.root, bench.home / "mnt", said]
    subprocess.run([*map(str, command)], check=True, timeout=60, **options)  # type: ignore[call-overload]
    return json.loads(said.read_text())


@pytest.mark.parametrize("closed", [(0,), (1,), (0, 1), (0, 1, 2)], ids=str)
def test_a_process_without_standard_streams_mounts(bench: Bench, closed):
    redirections = " ".join(f"{fd}>&-" for fd in closed)

    assert run(bench, 'mount()\nsaid.write_text("1")', "sh", "-c", f'exec "$@" {redirections}', "sh") == 1


def test_the_first_process_of_a_container_is_left_no_zombies(bench: Bench):
    if shutil.which("unshare") is None or os.geteuid() != 0:
        pytest.skip("needs a pid namespace")
    program = """
assert os.getpid() == 1
def states():
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            yield path.read_text().rpartition(")")[2].split()[0]
        except OSError:
            pass
for _ in range(4):
    mount()
deadline = time.monotonic() + 20
while sum(state != "Z" for state in states()) > 1:  # until the last supervisor has ended
    assert time.monotonic() < deadline
    time.sleep(0.01)
mount()
said.write_text(json.dumps(list(states()).count("Z")))
"""

    assert run(bench, program, "unshare", "--pid", "--fork", "--mount-proc") <= 1


def test_no_module_is_taken_from_the_working_directory(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    trap = bench.home / "trap"
    trap.mkdir()
    for name in ("shutil", "tempfile", "volume_core"):
        (trap / f"{name}.py").write_text(f"open({str(bench.home / 'sprung')!r}, 'w')")
    monkeypatch.chdir(trap)

    tried = try_driver("kernel", read_machine(bench.state.work), writable=False)

    assert MOUNTED == tried
    assert not Path(bench.home / "sprung").exists()

"""Many writers of one head, for real: processes of their own, on one machine and as if on two."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from volume_core import Volume
from volume_core.parts.state import State

WRITERS, COMMITS = 8, 50

WRITER = """
import sys
from volume_core import Volume

number, commits, driver, mount_path = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
volume = Volume.from_name_sync("race")
path = volume.mount_sync(mount_path, driver=driver)
for count in range(commits):
    (path / number).mkdir(exist_ok=True)
    (path / number / str(count)).write_text(number)
    (path / "shared").mkdir(exist_ok=True)
    (path / "shared" / f"{number}-{count}").write_text(str(count))
    if count % 10 == 9:
        (path / "shared" / f"{number}-{count - 5}").unlink()
    volume.commit_sync(f"{number}/{count}")
volume.finalize_sync()
"""


def run_writers(tmp_path, driver, writers, commits):
    """Let so many processes commit at once, every other with a state directory of its own kind of machine."""
    store = f"file://{State.default().root}/store"
    started = []
    for number in range(writers):
        state = tmp_path / f"machine-{number % 2}"
        environment = os.environ | {"VOLUME_STATE_DIR": str(state), "VOLUME_BUCKET": store}
        command = [sys.executable, "-c", WRITER, str(number), str(commits), driver, str(tmp_path / f"mount-{number}")]
        started.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    for process in started:
        _, errors = process.communicate(timeout=280)
        assert (0, "") == (process.returncode, errors)


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.fuse
def test_no_file_is_lost_and_the_history_is_a_line(tmp_path, monkeypatch):
    monkeypatch.setenv("VOLUME_MOUNT_ROOT", str(tmp_path / "mounts"))
    Volume.from_name_sync("race", create_if_missing=True).commit_sync()
    run_writers(tmp_path, "kernel", WRITERS, COMMITS)

    head = Volume.from_name_sync("race").committed
    expected = {f"{number}/{count}": str(number) for number in range(WRITERS) for count in range(COMMITS)}
    for number in range(WRITERS):
        kept = [count for count in range(COMMITS) if count % 10 != 4]
        expected |= {f"shared/{number}-{count}": str(count) for count in kept}
    with head.mounted_sync(driver="copy") as path:
        assert expected == {str(p.relative_to(path)): p.read_text() for p in path.rglob("*") if p.is_file()}
    log = head.log_sync()
    assert all(1 == len(entry.parents) for entry in log[:-1])
    assert WRITERS * COMMITS + 1 == len(log)
    manifests = {path.stem for path in (State.default().root / "store" / "versions" / "race").iterdir()}
    assert manifests == {entry.volume.version for entry in log}, "a manifest that lost its swap was left"
    assert [] == head.verify_sync()

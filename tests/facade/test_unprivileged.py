"""A user without any privilege works on what root committed: owners he cannot give stay what they were."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from facade_kit import contents, read, write

from volume_core import Volume
from volume_core.parts.state import State
from volume_core.testing.oracle import describe
from volume_core.testing.users import NOBODY, as_nobody

SCRIPT = """
import json, sys
from volume_core import Volume
driver, locator = sys.argv[1:]
version = Volume.from_locator_sync(locator)
fork = version.fork_sync("mine")
path = fork.mount_sync(driver=driver)
with open(path / "d" / "x", "r+") as file:
    file.read()
same = fork.commit_sync() == version
(path / "d" / "x").write_text("changed")
(path / "new").write_text("new")
print(json.dumps([same, fork.finalize_sync().locator]))
"""


@pytest.fixture
def open_directory():
    """A directory that any user may enter, which pytest's own is not."""
    path = Path(tempfile.mkdtemp(prefix="volume-test-"))
    path.chmod(0o777)
    yield path
    shutil.rmtree(path)


@pytest.mark.fuse
@pytest.mark.parametrize("driver", ["copy", "fuse-overlay"])
def test_what_a_user_did_not_touch_keeps_its_owner(driver, open_directory):
    volume = Volume.new("data", str(open_directory / "store"))
    with volume.mounted_sync(driver="copy") as path:
        write(path, {"d/x": "x", "y": "y"})
        for each, mode in {"": 0o777, "d": 0o777, "d/x": 0o666}.items():
            (path / each).chmod(mode)
        os.chown(path / "y", 1000, 1001)
    version = volume.committed
    subprocess.run(["chmod", "-R", "a+rwX", open_directory / "store"], check=True)
    environment = os.environ | {
        "VOLUME_STATE_DIR": str(open_directory / "state"),
        "VOLUME_MOUNT_ROOT": str(open_directory / "mounts"),
        "HOME": str(open_directory),
    }
    command = as_nobody([sys.executable, "-c", SCRIPT, driver, version.locator])
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert 0 == ran.returncode, ran.stderr
    same, locator = json.loads(ran.stdout)
    made = Volume.from_locator_sync(locator)

    assert same
    assert {"d/x": "changed", "new": "new", "y": "y"} == contents(made)
    with made.mounted_sync(driver="copy") as path:
        found = describe(path)
    assert (1000, 1001) == (found[b"y"].uid, found[b"y"].gid)
    assert (0, 0, NOBODY) == (found[b""].uid, found[b"d"].uid, found[b"new"].uid)
    assert State.default().root != open_directory / "state"


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_a_user_puts_and_gets_files_and_directories_that_may_not_be_written(open_directory):
    write(open_directory / "tree", {"a/b/c": "new", "a/d": "new"})
    write(open_directory / "out" / "tree", {"a/old": "old"})
    for each in [open_directory, *open_directory.rglob("*")]:
        os.chown(each, NOBODY, NOBODY)
    for each in ("tree/a/b", "tree/a"):
        (open_directory / each).chmod(0o555)
    environment = os.environ | {"VOLUME_STATE_DIR": str(open_directory / "state"), "HOME": str(open_directory)}

    def run(*arguments: object) -> str:
        command = as_nobody([sys.executable, "-m", "volume_core.cli", *map(str, arguments)])
        return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()

    locator = run("put", open_directory / "tree", f"{run('new', 'mine')}:/tree")
    run("get", "--force", f"{locator}:/tree", open_directory / "out")
    out = open_directory / "out" / "tree"

    assert {"a/b/c": "new", "a/d": "new", "a/old": "old"} == read(out)
    assert [0o555, 0o555] == [(out / each).stat().st_mode & 0o777 for each in ("a", "a/b")]
    assert {NOBODY} == {entry.uid for entry in Volume.from_locator_sync(locator).iterdir_sync("/")}

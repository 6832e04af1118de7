"""All that a tree can hold, and all that can happen to it, is the same after a commit and a remount elsewhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from facade_kit import objects
from rearranging import STEPS, plant_for_steps
from tree_kit import CHUNK_BYTES, DEEP_PATH, age, judge, noise, plant_everything, remount_and_judge, run_python

from volume_core import Volume
from volume_core.parts.state import State
from volume_core.testing.oracle import assert_same_tree, describe
from volume_core.testing.users import NOBODY

GIBIBYTE_BYTES = 1 << 30
TEBIBYTE_BYTES = 1 << 40
# Each chunk of the large file is this behind a number of its own, so that no two are equal.
PATTERN = noise(CHUNK_BYTES)
BLOCK = 700 << 20


@pytest.fixture
def home():
    """A directory of a few characters: a path of 4,000 must fit behind it."""
    path = Path(tempfile.mkdtemp(prefix="v", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def plain(home):
    (home / "p").mkdir()
    return home / "p"


@pytest.mark.slow
def test_one_of_everything(driver, home, plain):
    plant_everything(plain)
    volume = Volume.new("data")
    path = volume.mount_sync(home / "m", driver=driver)
    plant_everything(path)
    assert len(DEEP_PATH) == 4000
    version = volume.finalize_sync()

    remount_and_judge(plain, version, home / "m", driver=driver)
    remount_and_judge(plain, version, home / "m", driver="copy" if driver == "kernel" else "kernel")


@pytest.mark.slow
@pytest.mark.parametrize("remounts", [False, True], ids=["under one mount", "remounted after each commit"])
def test_each_way_to_change_a_tree(driver, home, plain, remounts):
    """What a commit made of the step before is what the next step works on: in the same upper, or as a base."""
    plant_for_steps(plain)
    volume = Volume.new("data")
    plant_for_steps(volume.mount_sync(home / "m", driver=driver))
    volume.finalize_sync("the base")
    path = volume.mount_sync(home / "m", driver=driver)
    for step in STEPS:
        for root in (plain, path):
            step(root)
        assert_same_tree(plain, path, ignore=["mtime_ns"])
        version = volume.commit_sync(step.__name__)
        remount_and_judge(path, version, home / "r", driver=driver)
        if remounts:
            volume.finalize_sync()
            path = volume.mount_sync(home / "m", driver=driver)
    log = volume.committed.log_sync()
    volume.abandon_sync()

    assert [*(step.__name__ for step in reversed(STEPS)), "the base"] == [entry.volume.message for entry in log]


@pytest.mark.slow
def test_all_changes_at_once_become_one_version(driver, home, plain):
    plant_for_steps(plain)
    volume = Volume.new("data")
    plant_for_steps(volume.mount_sync(home / "m", driver=driver))
    volume.finalize_sync()
    path = volume.mount_sync(home / "m", driver=driver)
    for step in STEPS:
        for root in (plain, path):
            step(root)
    assert_same_tree(plain, path, ignore=["mtime_ns"])
    version = volume.commit_sync()

    remount_and_judge(path, version, home / "r", driver=driver)
    volume.abandon_sync()


def test_attributes_alone_carry_no_data(driver, home):
    volume = Volume.new("data")
    with volume.mounted_sync(home / "m", driver=driver) as path:
        plant_for_steps(path)
    base = volume.committed
    before = objects()
    with volume.mounted_sync(home / "m", driver=driver) as path:
        for name in ("big", "file 01", "a", "a/file 01"):
            os.chmod(path / name, 0o700)
            os.chown(path / name, 3, 4)
            os.utime(path / name, ns=(0, 1))
            os.setxattr(path / name, "user.x", b"y")

    written = objects() - before
    assert volume.committed != base
    assert base.used_bytes == volume.committed.used_bytes
    assert {"layers", "versions"} == {name.split("/")[0] for name in written}


def test_renames_carry_no_data(driver, home):
    volume = Volume.new("data")
    with volume.mounted_sync(home / "m", driver=driver) as path:
        plant_for_steps(path)
    before = objects()
    with volume.mounted_sync(home / "m", driver=driver) as path:
        os.rename(path / "a", path / "moved")
        os.rename(path / "big", path / "moved" / "big too")

    assert {"layers", "versions"} == {name.split("/")[0] for name in objects() - before}


@pytest.mark.slow
def test_one_block_of_a_gibibyte(driver, home):
    volume = Volume.new("data", bucket=f"file://{home}/s")
    path = volume.mount_sync(home / "m", driver=driver)
    with open(path / "big", "wb") as file:
        for number in range(GIBIBYTE_BYTES // len(PATTERN)):
            file.write(number.to_bytes(8, "little") + PATTERN[8:])
    first = volume.commit_sync()
    before = _packs(home / "s")
    _overwrite(path / "big", b"1")
    volume.finalize_sync()
    after_one = _packs(home / "s")
    with volume.mounted_sync(home / "m", driver=driver) as path:
        _overwrite(path / "big", b"2")
    after_two = _packs(home / "s")
    with volume.committed.mounted_sync(home / "m", driver=driver) as path, open(path / "big", "rb") as file:
        found = [os.pread(file.fileno(), 4096, BLOCK + at) for at in (-4096, 0, 4096)]

    assert GIBIBYTE_BYTES == first.used_bytes == volume.committed.used_bytes
    assert [PATTERN[-4096:], b"2" * 4096, PATTERN[4096:8192]] == found
    for older, newer in ((before, after_one), (after_one, after_two)):
        [pack] = newer.keys() - older.keys()
        assert CHUNK_BYTES <= newer[pack] < CHUNK_BYTES + 4096


def _packs(store):
    return {path.name: path.stat().st_size for path in (store / "packs").rglob("*") if path.is_file()}


def _overwrite(path, byte):
    with open(path, "r+b") as file:
        os.pwrite(file.fileno(), byte * 4096, BLOCK)


def test_a_sparse_tebibyte(driver, home):
    """No hole is read, stored or filled: not by a commit, not by a remount, not by copying up to change a block."""
    volume = Volume.new("data")
    with volume.mounted_sync(home / "m", driver=driver) as path:
        with open(path / "huge", "wb") as file:
            for at in (0, TEBIBYTE_BYTES // 2, TEBIBYTE_BYTES - 4096):
                os.pwrite(file.fileno(), b"%4096d" % at, at)
        was = describe(path)
    first = volume.committed
    with volume.mounted_sync(home / "m", driver=driver) as path, open(path / "huge", "r+b") as file:
        os.pwrite(file.fileno(), b"x" * 4096, 1 << 30)
    with first.mounted_sync(home / "m", driver=driver) as path:
        assert_same_tree(was, path)
    with volume.committed.mounted_sync(home / "m", driver=driver) as path:
        segments = describe(path)[b"huge"].data

    # The kernel copies data up in pieces of a MiB (docs/posix.md): that much behind it becomes stored zeros.
    grain = 1 << 20 if driver == "kernel" else 4096
    assert [0, 1 << 30, TEBIBYTE_BYTES // 2, TEBIBYTE_BYTES - 4096] == [start for start, _ in segments]
    assert all(end - start <= grain for start, end in segments)
    assert TEBIBYTE_BYTES == first.used_bytes
    assert sum(_packs(State.default().root / "store").values()) < 5 * grain


@pytest.mark.slow
def test_a_directory_of_100_000_entries(driver, home):
    volume = Volume.new("data")
    path = volume.mount_sync(home / "m", driver=driver)
    directory = os.open(path, os.O_RDONLY)
    for number in range(100_000):
        os.close(os.open(f"{number:x}", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=directory))
    os.close(directory)
    age(path)
    first = volume.commit_sync()
    remount_and_judge(path, first, home / "r", driver=driver)
    for number in range(0, 100_000, 2):
        os.unlink(path / f"{number:x}")
    second = volume.finalize_sync()
    with second.fork_sync("again").mounted_sync(home / "m", driver=driver) as path:
        found = set(os.listdir(path))

    assert (100_001, 50_001) == (first.inode_count, second.inode_count)
    assert {f"{number:x}" for number in range(1, 100_000, 2)} == found


WRITE_AS_USER = """
import sys
from pathlib import Path
from rearranging import STEPS, plant_for_steps
from volume_core import Volume

home, driver = Path(sys.argv[1]), sys.argv[2]
(home / "plain").mkdir()
volume = Volume.new("data")
plant_for_steps(home / "plain")
plant_for_steps(volume.mount_sync(home / "m", driver=driver))
volume.finalize_sync()
path = volume.mount_sync(home / "m", driver=driver)
for step in STEPS:
    if step.__name__ not in sys.argv[3:]:
        step(home / "plain")
        step(path)
        volume.commit_sync()
print(volume.finalize_sync().locator)
"""


@pytest.mark.fuse
@pytest.mark.slow
@pytest.mark.parametrize("driver", ["fuse-overlay", "copy"])
def test_what_a_user_without_privilege_wrote(driver, home):
    """Written by nobody, by each driver that nobody can use, and read by root."""
    home.chmod(0o755)
    (home / "user").mkdir()
    os.chown(home / "user", NOBODY, NOBODY)
    without = ("set_attributes",)  # it gives files away
    locator = run_python(
        WRITE_AS_USER, str(home / "user"), driver, *without, state=home / "user" / "state", nobody=True
    )

    remount_and_judge(
        home / "user" / "plain", Volume.from_locator_sync(locator), home / "m", rsync=False, ignore=["mtime_ns"]
    )


def test_the_judges_notice(plain, home):
    plant_for_steps(plain)
    copy = home / "copy"
    subprocess.run(["cp", "-a", plain, copy], check=True)
    judge(plain, copy)
    os.utime(copy / "big", ns=(0, 1))
    with pytest.raises(AssertionError, match="mtime_ns"):
        judge(plain, copy)
    with pytest.raises(AssertionError, match="rsync would"):
        judge(plain, copy, ignore=["mtime_ns"])
    (copy / "big").write_bytes(b"")
    with pytest.raises(AssertionError, match="diff says"):
        judge(plain, copy, ignore=["mtime_ns", "size", "digest", "data"])

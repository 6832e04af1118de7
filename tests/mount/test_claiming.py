"""No driver puts a tree where it would end up in another volume, and `auto` does not try them all to find out."""

from __future__ import annotations

import logging
import os
import subprocess

import pytest
from mount_kit import Bench

from volume_core.errors import MountError
from volume_core.facade.drivers import mount_with
from volume_core.mount.claiming import PathTakenError, claim, release
from volume_core.mount.copying import CopyDriver
from volume_core.mount.kernel import KernelDriver
from volume_core.mount.mounting import plan_for

pytestmark = pytest.mark.fuse


def test_nothing_is_copied_into_the_empty_tree_of_another_mount(bench: Bench):
    mounted = KernelDriver().mount(bench.new_volume("mnt"))
    for mount in (CopyDriver().mount, lambda request: mount_with("auto", request)):
        with pytest.raises(MountError, match="is mounted there already"):
            mount(bench.reader("mnt"))

    assert [] == os.listdir(mounted.path)
    mounted.unmount()


@pytest.mark.skipif(os.geteuid() != 0, reason="bind mounts need root")
def test_a_tree_that_was_bound_onto_itself_is_taken_down_whole(bench: Bench):
    mounted = KernelDriver().mount(bench.new_volume("mnt"))
    subprocess.run(["mount", "--bind", mounted.path, mounted.path], check=True)

    mounted.unmount()

    assert [] == bench.mounted()
    assert not mounted.path.exists()


def test_a_path_that_is_mounted_again_at_once_is_not_removed_by_who_had_it_before(bench: Bench):
    before, after = (plan_for("kernel", bench.reader("mnt")) for _ in range(2))
    first, *_ = claim(before)
    first._replace(ready=True).save()  # mounted, and unmounted: it is about to remove what it made
    second, *_ = claim(after)
    release(first)
    assert os.path.isdir(after.mount_path)

    release(second)
    assert not os.path.exists(after.mount_path)


def test_a_refusal_that_another_path_would_not_meet_says_so(bench: Bench):
    mounted = KernelDriver().mount(bench.new_volume("mnt"))
    (bench.home / "full" / "precious").mkdir(parents=True)
    for driver in (KernelDriver(), CopyDriver()):
        for name in ("mnt", "full"):
            with pytest.raises(PathTakenError):
                driver.mount(bench.reader(name))
    mounted.unmount()


@pytest.mark.parametrize("kind", ["file", "full"])
def test_a_path_that_no_driver_can_use_is_refused_once(bench: Bench, caplog, kind):
    path = bench.home / "mnt"
    if kind == "file":
        path.write_text("precious")
    else:
        (path / "precious").mkdir(parents=True)
    caplog.set_level(logging.WARNING)

    with pytest.raises(MountError, match=r"not empty|Not a directory"):
        mount_with("auto", bench.reader("mnt"))
    assert [] == caplog.records

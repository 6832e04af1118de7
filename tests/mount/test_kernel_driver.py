"""The overlay of the kernel driver: its options, where a kernel lacks some, and in a user namespace."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from mount_kit import Bench
from server_kit import DEADLINE_S

from volume_core.errors import MountError
from volume_core.mount import attaching, kernel, syscalls
from volume_core.mount.kernel import KernelDriver, attach_overlay
from volume_core.mount.mounting import plan_for
from volume_core.mount.plans import Plan

pytestmark = pytest.mark.fuse


@pytest.fixture
def plan(bench: Bench) -> Plan:
    """A writer's plan, its mount path and a lower directory at hand."""
    made = plan_for("kernel", bench.writer())
    os.mkdir(made.mount_path)
    return made


def overlay_options(path: str) -> list[str]:
    """Return the options that the kernel says the overlay at *path* has."""
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        return next(line for line in file if f" {path} " in line).split()[-1].split(",")


def test_an_overlay_is_volatile_and_follows_renames_without_copying(bench: Bench, plan: Plan):
    dialect = attach_overlay(plan, str(bench.tree))

    try:
        options = overlay_options(plan.mount_path)
        assert "kernel" == dialect
        assert {"redirect_dir=on", "metacopy=on"} <= set(options)
        assert {"volatile", "fsync=volatile"} & set(options)
        os.chmod(f"{plan.mount_path}/big", 0o600)
        assert b"" == os.getxattr(f"{plan.upper}/big", "trusted.overlay.metacopy")
        assert os.stat(f"{plan.mount_path}/hello").st_dev == os.stat(plan.mount_path).st_dev
        os.mknod(f"{plan.mount_path}/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        with pytest.raises(PermissionError):  # nodev
            os.open(f"{plan.mount_path}/null", os.O_RDWR)
    finally:
        syscalls.unmount(plan.mount_path)


@pytest.mark.loud
@pytest.mark.parametrize("unknown", [("xino",), ("xino", "metacopy"), ("volatile",), ("xino", "metacopy", "volatile")])
def test_options_that_a_kernel_does_not_know_are_given_up_one_by_one(
    bench: Bench, plan: Plan, monkeypatch, caplog, unknown
):
    plain = syscalls.mount

    def old_kernel(source: str, path: str, kind: str, flags: int, options: str) -> None:
        if any(each.partition("=")[0] in unknown for each in options.split(",")):
            raise OSError(errno.EINVAL, "Invalid argument", path)
        plain(source, path, kind, flags, options)

    monkeypatch.setattr(syscalls, "mount", old_kernel)

    attach_overlay(plan, str(bench.tree))

    try:
        assert "redirect_dir=on" in overlay_options(plan.mount_path)
        Path(plan.mount_path, "new").write_text("x")
        assert all(f"no overlay option {name}" in caplog.text for name in unknown)
    finally:
        syscalls.unmount(plan.mount_path)


def test_an_upper_that_overlayfs_cannot_use_is_named_with_its_file_system(bench: Bench, plan: Plan):
    below = bench.home / "below"
    for name in ("upper", "work", "on"):
        (below / name).mkdir(parents=True)
    options = f"lowerdir={bench.tree},upperdir={below / 'upper'},workdir={below / 'work'}"
    syscalls.mount("x", str(below / "on"), "overlay", 0, options)
    try:
        for name in ("u", "w"):
            (below / "on" / name).mkdir()
        unfit = plan._replace(upper=str(below / "on" / "u"), work=str(below / "on" / "w"))
        with pytest.raises(MountError, match="lies on overlay: set VOLUME_STATE_DIR"):
            attach_overlay(unfit, str(bench.tree))
    finally:
        syscalls.unmount(str(below / "on"))
        os.rmdir(plan.mount_path)


@pytest.mark.parametrize(
    ("code", "said"),
    [(errno.EPERM, "CAP_SYS_ADMIN"), (errno.EACCES, "apparmor=unconfined"), (errno.ENODEV, "load its module")],
)
def test_what_mount_refuses_is_said_with_how_to_grant_it(bench: Bench, plan: Plan, monkeypatch, code, said):
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(syscalls, "mount", refuse)
    # EPERM with the privilege at hand is about the upper's file system: see the test above.
    monkeypatch.setattr(syscalls, "may_mount", lambda: code != errno.EPERM)

    with pytest.raises(MountError, match=said):
        attach_overlay(plan, str(bench.tree))


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (errno.ENOENT, "--device /dev/fuse"),
        (errno.EACCES, "mode 0666"),
        (errno.EPERM, "device rules"),
        (errno.ENODEV, "load the module"),
    ],
)
def test_a_device_that_cannot_be_opened_is_said_with_how_to_grant_it(tmp_path: Path, monkeypatch, code, said):
    def refuse(*_: object, **__: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(attaching.os, "open", refuse)

    with pytest.raises(MountError, match=said):
        attaching.attach_view(str(tmp_path), "source", allow_other=False)


def test_a_used_work_directory_does_not_refuse_the_next_mount(bench: Bench, plan: Plan):
    """A volatile mount leaves a mark there that overlayfs takes for a crash."""
    for _ in range(2):
        attach_overlay(plan, str(bench.tree))
        assert Path(plan.work, "work", "incompat", "volatile").is_dir()
        syscalls.unmount(plan.mount_path)


def test_a_fresh_uppers_root_is_given_the_bases_attributes_only_once(tmp_path: Path):
    lower, upper, work = tmp_path / "lower", tmp_path / "upper", tmp_path / "work"
    for each in (lower, upper, work):
        each.mkdir(mode=0o755)
    os.chmod(lower, 0o2750)
    os.chown(lower, 12, 34)
    os.setxattr(lower, "user.kept", b"\0\1")
    os.utime(lower, ns=(5, 5))

    kernel.prepare_upper(str(upper), str(work), str(lower))

    found = upper.stat()
    assert (0o42750, 12, 34, 5) == (found.st_mode, found.st_uid, found.st_gid, found.st_mtime_ns)
    assert b"\0\1" == os.getxattr(upper, "user.kept")
    os.chmod(upper, 0o700)
    kernel.prepare_upper(str(upper), str(work), str(lower))
    assert 0o40700 == upper.stat().st_mode


_IN_NAMESPACE = """
import json, os, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from mount_kit import Bench
from volume_core.mount.kernel import KernelDriver
bench = Bench(Path(sys.argv[1]))
request = bench.writer()
mounted = KernelDriver().mount(request)
(mounted.path / "hello").write_text("mine")
(mounted.path / "made").mkdir()
os.unlink(mounted.path / "sub" / "deep" / "leaf")
try:
    os.rename(mounted.path / "sub", mounted.path / "moved")
    renamed = "renamed"
except OSError as error:
    renamed = error.strerror
upper = request.working_copy.upper
mounted.settle()
mounted.unmount()
bench.assert_clean()
print(json.dumps({
    "dialect": mounted.dialect, "renamed": renamed, "hello": (upper / "hello").read_text(),
    "opaque": os.getxattr(upper / "made", "user.overlay.opaque").decode(),
}))
"""


def test_in_a_user_namespace_the_marks_are_user_attributes(tmp_path: Path):
    tests = str(Path(__file__).parent)
    command = ["unshare", "-Urm", sys.executable, "-c", _IN_NAMESPACE, str(tmp_path), tests]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    if "unshare failed" in done.stderr:
        pytest.skip("this machine forbids user namespaces")

    assert 0 == done.returncode, done.stderr
    expected = {"dialect": "userxattr", "renamed": "Invalid cross-device link", "hello": "mine", "opaque": "y"}
    assert expected == json.loads(done.stdout)


def test_the_driver_says_its_name():
    assert "kernel" == KernelDriver().name

"""The fuse-overlay driver, as root and as a user who may do nothing but open /dev/fuse."""

from __future__ import annotations

import errno
import json
import mmap
import os
import shutil
import signal
from pathlib import Path

import pytest
from mount_kit import Bench, Bounded, Owner, kill_and_wait
from server_kit import eventually
from unprivileged import NOBODY, open_home, run_as_nobody

from volume_core.errors import BusyError, MountError, StorageError
from volume_core.mount import syscalls
from volume_core.mount.fuse_overlay import FuseOverlayDriver
from volume_core.mount.mounting import LiveMount

pytestmark = [
    pytest.mark.fuse,
    pytest.mark.skipif(shutil.which("fuse-overlayfs") is None, reason="fuse-overlayfs is not installed"),
]


def mount(request) -> LiveMount:
    return FuseOverlayDriver().mount(request)


def test_a_writer_changes_its_upper(bench: Bench):
    request = bench.writer()
    mounted = mount(request)
    upper = request.working_copy.upper

    try:
        assert "fuse-overlay" == mounted.dialect
        assert b"blue" == os.getxattr(mounted.path, "user.colour")
        (mounted.path / "hello").write_text("mine")
        with (mounted.path / "open").open("w") as file:
            file.write("not closed yet")
            file.flush()
            assert "not closed yet" == (upper / "open").read_text()
        (mounted.path / "sub" / "deep" / "leaf").unlink()
        with pytest.raises(BusyError) as busy, (mounted.path / "big").open():
            mounted.unmount()
        assert ("big",) == busy.value.paths
        (point,) = [each for each in syscalls.mount_points() if each.path == str(mounted.path)]
        assert "fuse.fuse-overlayfs" == point.kind
    finally:
        mounted.unmount()
    assert "mine" == (upper / "hello").read_text()


def test_what_is_stored_to_mapped_files_is_in_the_upper_once_settled(bench: Bench):
    request = bench.new_volume()
    mounted = mount(request)
    program = mounted.record.processes["fuse-overlayfs"].pid
    upper = request.working_copy.upper
    content = os.urandom(1 << 20)
    try:
        with (mounted.path / "a b\nc").open("w+b") as file:
            file.truncate(len(content))
            with mmap.mmap(file.fileno(), 0) as mapped:
                mounted.settle()
                mapped[:] = content
                os.kill(program, signal.SIGSTOP)
                settling = Bounded(mounted.settle)
                try:
                    settling.join(0.1)
                    assert settling.is_waiting()
                finally:
                    os.kill(program, signal.SIGCONT)
                assert settling.outcome() is None
                assert content == (upper / "a b\nc").read_bytes()
    finally:
        mounted.unmount()


def test_a_mapped_file_that_nobody_may_open_any_more_is_named(bench: Bench, monkeypatch):
    mounted = mount(bench.new_volume())
    try:
        with (mounted.path / "file").open("w+b") as file:
            file.truncate(4096)
            with mmap.mmap(file.fileno(), 0):
                monkeypatch.setattr("volume_core.mount.mounting._open_somehow", refuse)
                with pytest.raises(BusyError) as busy:
                    mounted.settle()
        assert ("file",) == busy.value.paths
    finally:
        mounted.unmount()


def refuse(path: str, _: int) -> int:
    raise PermissionError(errno.EACCES, "no", path)


def test_a_new_volume_and_a_reader(bench: Bench):
    made = mount(bench.new_volume("new"))
    read = mount(bench.reader("read"))

    try:
        (made.path / "x").write_text("x")
        assert "hello\n" == (read.path / "hello").read_text()
        assert {"fuse-overlayfs", "mount.server", "mount.supervisor"} == set(bench.processes().values())
    finally:
        made.unmount()
        read.unmount()


def test_setuid_and_devices_have_no_effect(bench: Bench):
    mounted = mount(bench.writer())
    try:
        with open("/proc/self/mountinfo", encoding="utf-8") as file:
            line = next(line for line in file if f" {mounted.path} " in line)
        assert {"nosuid", "nodev"} <= set(line.split()[5].split(","))
    finally:
        mounted.unmount()


def test_a_killed_program_gives_errors_and_keeps_the_upper(bench: Bench):
    request = bench.writer()
    mounted = mount(request)
    (mounted.path / "precious").write_text("work")

    kill_and_wait(mounted.record.processes["fuse-overlayfs"].pid)

    try:
        eventually(lambda: not mounted.is_alive(), "the end to be noticed")
        assert errno.ENOTCONN == Bounded(lambda: os.stat(mounted.path / "precious")).outcome().errno
        with pytest.raises((MountError, StorageError)):
            mounted.settle()
        eventually(lambda: mounted.record.broken, "the reason in the record")
        assert "the upper is kept" in mounted.record.broken
    finally:
        mounted.unmount()
    assert "work" == (request.working_copy.upper / "precious").read_text()


def test_a_killed_server_below_is_replaced(bench: Bench):
    mounted = mount(bench.writer())
    try:
        kill_and_wait(mounted.record.processes["server"].pid)

        assert "leaf\n" == Bounded((mounted.path / "sub" / "deep" / "leaf").read_text).outcome()
    finally:
        mounted.unmount()


def test_a_lazy_unmount_keeps_open_files_working(bench: Bench):
    request = bench.writer()
    mounted = mount(request)

    with (mounted.path / "late").open("w") as file:
        mounted.unmount(lazy=True)
        assert [] == bench.mounted()
        file.write("written after")

    bench.assert_clean()
    assert "written after" == (request.working_copy.upper / "late").read_text()


@pytest.mark.parametrize("order", [("owner",), ("supervisor", "owner"), ("fuse-overlayfs", "supervisor", "owner")])
def test_whatever_is_killed_nothing_stays(bench: Bench, order):
    request = bench.writer()
    owner = Owner(request, "fuse-overlay")
    processes = owner.record().processes
    for name in order:
        if name == "owner":
            owner.kill()
        else:
            kill_and_wait(processes[name].pid)

    mount(bench.new_volume("next")).unmount()

    bench.assert_clean()
    assert not request.mount_path.exists()


def test_a_machine_without_the_program_is_told_so(bench: Bench, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")

    with pytest.raises(MountError, match="install the package fuse-overlayfs"):
        mount(bench.writer())


def test_a_state_whose_path_has_a_colon_is_refused_in_words(tmp_path: Path):
    home = tmp_path / "a:b"
    home.mkdir()
    bench = Bench(home)
    try:
        with pytest.raises(MountError, match="colon"):
            mount(bench.writer())
        bench.assert_clean()
    finally:
        bench.sweep()


def test_any_other_directory_may_hold_the_state(tmp_path: Path):
    home = tmp_path / "a, b\\c 'd'"
    home.mkdir()
    bench = Bench(home)
    try:
        request = bench.writer("m,n:o")
        mounted = mount(request)
        (mounted.path / "hello").write_text("changed")
        mounted.unmount()
        assert "changed" == (request.working_copy.upper / "hello").read_text()
        bench.assert_clean()
    finally:
        bench.sweep()


_WORK = """
import json, os, sys
from pathlib import Path
from mount_kit import Bench
from volume_core.mount.fuse_overlay import FuseOverlayDriver
from volume_core.mount.kernel import KernelDriver

bench = Bench(Path(sys.argv[1]))
if sys.argv[2] == "foreign":  # as if another user had committed it
    from server_kit import write_index
    rows = {path: entry._replace(uid=0, gid=0) for path, entry in bench.version.rows.items()}
    rows[b"hello"] = rows[b"hello"]._replace(mode=0o600)
    bench.version.index = write_index(bench.home, rows)
told = {}
reader = KernelDriver().mount(bench.reader("reader"))
told["read"] = (reader.path / "hello").read_text()
told["owner"] = os.stat(reader.path / "hello").st_uid
try:
    (reader.path / "x").touch()
except OSError as error:
    told["refused"] = error.errno
with (reader.path / "hello").open():
    try:
        reader.unmount()
    except Exception as error:
        told["busy"] = [type(error).__name__, *error.paths]
reader.unmount()
request = bench.writer("writer")
mounted = FuseOverlayDriver().mount(request)
with (mounted.path / "hello").open("a") as file:
    file.write("more")
(mounted.path / "sub" / "deep" / "made").mkdir()
mounted.settle()
told["squashed"] = mounted.squashed_owner
told["upper"] = (request.working_copy.upper / "hello").read_text()
mounted.unmount()
bench.assert_clean()
print(json.dumps(told))
"""


@pytest.mark.parametrize("owners", ["own", "foreign"])
def test_a_user_without_any_privilege_reads_and_writes(owners):
    """fusermount3 mounts for him; files of other owners can be read, changed and copied up all the same."""
    with open_home() as home:
        done = run_as_nobody(home, _WORK, owners)

    assert 0 == done.returncode, done.stderr
    told = json.loads(done.stdout)
    expected = {
        "read": "hello\n",
        "owner": 0 if owners == "foreign" else NOBODY,
        "refused": errno.EROFS,
        "busy": ["BusyError", "hello"],
        "squashed": [NOBODY, NOBODY] if owners == "foreign" else None,
        "upper": "hello\nmore",
    }
    assert expected == told


_KILLS = """
import os, sys
from pathlib import Path
from mount_kit import Bench, Bounded, Owner, kill_and_wait
from volume_core.mount.fuse_overlay import FuseOverlayDriver

bench = Bench(Path(sys.argv[1]))
request = bench.writer()
owner = Owner(request, "fuse-overlay")
processes = owner.record().processes
for name in ("supervisor", "fuse-overlayfs", "server"):
    kill_and_wait(processes[name].pid)
    Bounded(lambda: os.listdir(request.mount_path)).outcome()
owner.kill()
FuseOverlayDriver().mount(bench.new_volume("next")).unmount()
bench.assert_clean()
"""


def test_a_user_without_any_privilege_is_cleaned_up_after(tmp_path: Path):
    with open_home() as home:
        done = run_as_nobody(home, _KILLS)

    assert 0 == done.returncode, done.stderr


_REFUSED = """
import sys
from pathlib import Path
from mount_kit import Bench
from volume_core.errors import MountError
from volume_core.mount.kernel import KernelDriver
bench = Bench(Path(sys.argv[1]))
for name in ("reader", "new_volume"):
    try:
        KernelDriver().mount(getattr(bench, name)(**({"allow_other": True} if sys.argv[2] == "others" else {})))
    except MountError as error:
        print(error)
bench.assert_clean()
"""


def test_what_a_user_lacks_is_said():
    with open_home() as home:
        done = run_as_nobody(home, _REFUSED, "alone", device=False)
    with open_home() as home:
        others = run_as_nobody(home, _REFUSED, "others")

    assert 0 == done.returncode, done.stderr
    assert "/dev/fuse" in done.stdout
    assert "CAP_SYS_ADMIN" in done.stdout
    assert 0 == others.returncode, others.stderr
    assert "user_allow_other" in others.stdout

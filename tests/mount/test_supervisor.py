"""The supervisor, by what a user of the mount sees: it lives, it goes, it is never half there."""

from __future__ import annotations

import errno
import mmap
import os
import signal
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mount_kit import BIG_BYTES, Bench, Bounded, Owner, ended, kill, kill_and_wait
from server_kit import eventually

from volume_core.errors import BusyError, MountError
from volume_core.mount import syscalls
from volume_core.mount.attaching import READAHEAD_KIB
from volume_core.mount.kernel import KernelDriver
from volume_core.mount.mounting import LiveMount, live_mounts

pytestmark = pytest.mark.fuse


def mount(request) -> LiveMount:
    return KernelDriver().mount(request)


def test_a_reader_sees_the_version_and_can_change_nothing(bench: Bench):
    mounted = mount(bench.reader())

    try:
        assert "hello\n" == (mounted.path / "hello").read_text()
        assert ["big", "hello", "sub"] == sorted(os.listdir(mounted.path))
        with pytest.raises(OSError, match="Read-only") as refused:
            (mounted.path / "new").write_text("x")
        assert errno.EROFS == refused.value.errno
        assert mounted.is_alive()
        assert [str(mounted.path)] == bench.mounted()
        assert {"mount.server", "mount.supervisor"} == set(bench.processes().values())
    finally:
        mounted.unmount()
    assert not mounted.path.exists()
    assert not mounted.is_alive()


def test_a_brand_new_volume_has_no_server_and_no_fuse(bench: Bench):
    request = bench.new_volume()

    mounted = mount(request)

    try:
        (mounted.path / "made").write_text("x")
        mounted.settle()
        assert ["mount.supervisor"] == list(bench.processes().values())
        assert ["overlay"] == [each.kind for each in syscalls.mount_points() if each.path in bench.mounted()]
        assert "x" == (request.working_copy.upper / "made").read_text()
    finally:
        mounted.unmount()
    assert ["made"] == os.listdir(request.working_copy.upper)


def test_a_writer_changes_its_upper_and_shows_the_roots_attributes(bench: Bench):
    request = bench.writer()

    mounted = mount(request)

    try:
        shown = os.stat(mounted.path)
        assert 0o751 == stat.S_IMODE(shown.st_mode)
        assert 1_700_000_000_123_456_789 == shown.st_mtime_ns
        assert b"blue" == os.getxattr(mounted.path, "user.colour")
        with (mounted.path / "hello").open("a") as file:
            file.write("more\n")
        os.rename(mounted.path / "sub", mounted.path / "moved")
        assert "hello\nmore\n" == (mounted.path / "hello").read_text()
        assert "leaf\n" == (mounted.path / "moved" / "deep" / "leaf").read_text()
    finally:
        mounted.unmount()
    upper = request.working_copy.upper
    assert "hello\nmore\n" == (upper / "hello").read_text()
    assert [] == os.listdir(upper / "moved")  # renamed without its data


def test_an_upper_is_mounted_again_with_its_work(bench: Bench):
    request = bench.writer()
    first = mount(request)
    (first.path / "kept").write_text("kept")
    os.chmod(first.path, 0o700)
    first.unmount()

    second = mount(request)

    try:
        assert "kept" == (second.path / "kept").read_text()
        assert 0o700 == stat.S_IMODE(os.stat(second.path).st_mode)
    finally:
        second.unmount()


def test_several_mounts_live_side_by_side(bench: Bench):
    mounts = [mount(bench.reader("one")), mount(bench.reader("two")), mount(bench.writer("three"))]

    try:
        (mounts[2].path / "hello").write_text("mine")
        assert ["hello\n", "hello\n", "mine"] == [(each.path / "hello").read_text() for each in mounts]
        assert sorted(each.path for each in mounts) == [each.path for each in live_mounts(bench.state)]
        mounts[0].unmount()
        assert ["hello\n", "mine"] == [(each.path / "hello").read_text() for each in mounts[1:]]
    finally:
        for each in mounts:
            each.unmount()  # also a second time


def test_a_killed_server_is_replaced_and_readers_do_not_notice(bench: Bench):
    mounted = mount(bench.reader())
    server = mounted.record.processes["server"].pid

    try:
        with (mounted.path / "big").open("rb") as file:
            file.read(4096)
            kill_and_wait(server)
            assert bytes(range(256)) == file.read(256)
            assert BIG_BYTES - 4096 - 256 == len(file.read())
        assert "leaf\n" == (mounted.path / "sub" / "deep" / "leaf").read_text()
        eventually(lambda: mounted.record.processes["server"].pid != server, "a new server in the record")
        assert mounted.is_alive()
    finally:
        mounted.unmount()


@pytest.mark.parametrize("resend", [True, False])
def test_what_is_asked_while_no_server_answers_is_answered_by_the_next(bench: Bench, monkeypatch, resend):
    """A request that the dead server had taken: resent by the kernel, or failed at once, but never left waiting."""
    if not resend:
        monkeypatch.setattr("volume_core.mount.mounting.RESEND_SINCE", (99, 0))
    mounted = mount(bench.reader())
    server = mounted.record.processes["server"].pid

    try:
        os.kill(server, signal.SIGSTOP)  # what is asked now is taken by nobody, or left in its hands
        lookups = [Bounded(lambda n=n: os.stat(mounted.path / f"absent{n}")) for n in range(4)]
        read = Bounded((mounted.path / "hello").read_text)
        eventually(lambda: all(each.is_waiting() for each in [*lookups, read]), "requests in flight")
        kill(server)
        expected = {errno.ENOENT} if resend else {errno.ENOENT, errno.ECONNABORTED}
        assert {each.outcome().errno for each in lookups} <= expected
        if resend:
            assert "hello\n" == read.outcome()
        else:
            read.outcome()
        assert "hello\n" == Bounded((mounted.path / "hello").read_text).outcome()
        assert b"\0\1\2\3" == Bounded((mounted.path / "big").read_bytes).outcome()[:4]
    finally:
        mounted.unmount()


def test_a_server_that_dies_with_a_request_in_its_hands_fails_it_on_old_kernels(bench: Bench, monkeypatch):
    monkeypatch.setattr("volume_core.mount.mounting.RESEND_SINCE", (99, 0))
    # Takes whatever it is asked after the first answers, and dies of it once.
    monkeypatch.setattr("volume_core.mount.mounting.SERVER", (sys.executable, "-P", "-c", _DIES_ONCE, str(bench.home)))
    mounted = mount(bench.reader())

    try:
        first = Bounded(lambda: os.stat(mounted.path / "poison")).outcome()
        assert errno.ECONNABORTED == first.errno
        assert errno.ENOENT == Bounded(lambda: os.stat(mounted.path / "poison")).outcome().errno
        assert "hello\n" == (mounted.path / "hello").read_text()
    finally:
        mounted.unmount()


_DIES_ONCE = """
import os, sys
from volume_core.mount import requests, server
home = sys.argv.pop(1)
plain = requests.Requests.lookup
def lookup(self, number, buffer, length):
    if b"poison" in bytes(buffer[:length]) and not os.path.exists(home + "/died"):
        open(home + "/died", "w").close()
        os.kill(os.getpid(), 9)
    return plain(self, number, buffer, length)
requests.Requests.lookup = lookup
sys.exit(server.main())
"""


def test_a_server_that_cannot_live_ends_in_errors_and_never_in_a_hang(bench: Bench):
    mounted = mount(bench.reader())
    try:
        seen = set()

        def killed_often() -> bool:
            server = mounted.record.processes.get("server")
            if server is not None and server.pid not in seen:
                seen.add(server.pid)
                kill(server.pid)
            return mounted.record.broken is not None

        eventually(killed_often, "the supervisor to give up")
        answer = Bounded(lambda: os.stat(mounted.path / "hello2")).outcome()
        assert errno.ENOTCONN == answer.errno
        assert not mounted.is_alive()
        assert "died" in mounted.record.broken
        assert str(mounted.path) in bench.mounted()  # nobody's writes land in the directory below
    finally:
        mounted.unmount()


def test_a_version_that_cannot_be_served_is_refused_with_the_servers_words(bench: Bench):
    damaged = bench.home / "damaged.sqlite"
    damaged.write_bytes(b"no index at all")

    with pytest.raises(MountError, match="damaged"):
        mount(bench.reader(layers=(damaged,)))

    bench.assert_clean()
    assert not (bench.home / "mnt").exists()


def test_a_server_that_never_answers_ends_the_mount_in_time(bench: Bench, monkeypatch):
    monkeypatch.setattr("volume_core.mount.mounting.SERVER", (sys.executable, "-c", "import time; time.sleep(600)"))
    started = time.monotonic()

    with pytest.raises(MountError, match="took longer than"):
        mount(bench.writer(timeout_s=0.5))

    assert time.monotonic() - started < 10
    bench.assert_clean()


def test_a_strict_unmount_names_what_is_open_and_changes_nothing(bench: Bench):
    mounted = mount(bench.reader())
    try:
        with (mounted.path / "sub" / "deep" / "leaf").open(), pytest.raises(BusyError) as busy:
            mounted.unmount()
        assert ("sub/deep/leaf",) == busy.value.paths
        assert "hello\n" == (mounted.path / "hello").read_text()

        elsewhere = subprocess.Popen(["sleep", "60"], cwd=mounted.path / "sub")
        try:
            with pytest.raises(BusyError) as busy:
                mounted.unmount()
        finally:
            elsewhere.kill()
            elsewhere.wait()
        assert ("sub",) == busy.value.paths

        with (mounted.path / "big").open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        try:
            with pytest.raises(BusyError) as busy:
                mounted.unmount()
        finally:
            mapped.close()
        assert ("big",) == busy.value.paths
    finally:
        mounted.unmount()


@pytest.mark.parametrize("kind", ["reader", "writer"])
def test_a_lazy_unmount_frees_the_path_and_open_files_go_on(bench: Bench, kind):
    mounted = mount(getattr(bench, kind)())
    server = mounted.record.processes["server"].pid

    with (mounted.path / "big").open("rb") as file:
        mounted.unmount(lazy=True)

        assert [] == bench.mounted()
        assert not mounted.path.exists()
        assert not mounted.is_alive()
        file.read(8192)
        kill_and_wait(server)  # it is replaced even now
        assert BIG_BYTES - 8192 == len(Bounded(file.read).outcome())


def test_the_tree_goes_with_its_owner_and_the_upper_stays(bench: Bench):
    request = bench.writer()
    owner = Owner(request)
    (request.mount_path / "work").write_text("precious")
    started = time.monotonic()

    owner.kill()
    bench.assert_clean()

    assert time.monotonic() - started < 5
    assert "precious" == (request.working_copy.upper / "work").read_text()
    assert not request.mount_path.exists()


def test_a_forked_worker_keeps_nothing_alive(bench: Bench):
    owner = Owner(bench.reader(), worker="idle")
    try:
        owner.kill()

        bench.assert_clean()
        assert not ended(owner.worker)
    finally:
        kill(owner.worker)


@pytest.mark.slow
def test_files_that_the_owners_children_hold_outlive_him_for_a_while(bench: Bench):
    owner = Owner(bench.reader(), worker="holding")
    try:
        eventually(lambda: str(bench.home / "mnt" / "hello") in held_by(owner.worker), "the worker to hold its file")

        owner.kill()

        eventually(lambda: not (bench.home / "mnt").exists(), "the path to be free")
        assert "mount.server" in bench.processes().values()
        bench.assert_clean()  # and not for ever
        assert not ended(owner.worker)
    finally:
        kill(owner.worker)


def held_by(pid: int) -> list[str]:
    return [os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir()]


def test_a_detached_mount_outlives_whoever_asked_and_is_found(bench: Bench):
    Owner(bench.reader(detach=True))

    (found,) = live_mounts(bench.state)

    assert "hello\n" == (found.path / "hello").read_text()
    assert found.is_alive()
    assert bench.mounted()
    found.unmount()


def test_a_terminated_supervisor_unmounts(bench: Bench):
    request = bench.writer()
    mounted = mount(request)

    kill(mounted.record.processes["supervisor"].pid, signal.SIGTERM)

    bench.assert_clean()
    assert request.working_copy.upper.is_dir()


@pytest.mark.parametrize("kind", ["reader", "writer", "new_volume"])
def test_an_unmount_by_hand_is_noticed(bench: Bench, kind):
    mounted = mount(getattr(bench, kind)())

    syscalls.unmount(str(mounted.path))

    bench.assert_clean()
    assert not mounted.is_alive()
    mounted.unmount()


def test_a_path_that_cannot_be_mounted_on_is_refused_in_words(bench: Bench):
    (bench.home / "full").mkdir()
    (bench.home / "full" / "file").touch()
    mounted = mount(bench.reader("taken"))
    try:
        with pytest.raises(MountError, match="not empty"):
            mount(bench.reader("full"))
        with pytest.raises(MountError, match="Not a directory"):
            mount(bench.reader("full/file"))
        with pytest.raises(MountError, match="mounted there already"):
            mount(bench.reader("taken"))
        assert "hello\n" == (mounted.path / "hello").read_text()
    finally:
        mounted.unmount()


def test_a_working_copy_is_mounted_once(bench: Bench):
    request = bench.writer("one")
    mounted = mount(request)
    try:
        with pytest.raises(MountError, match="is mounted already"):
            mount(request._replace(mount_path=bench.home / "two"))
    finally:
        mounted.unmount()


def test_a_directory_that_was_there_stays(bench: Bench):
    (bench.home / "mnt").mkdir()

    mounted = mount(bench.reader())
    mounted.unmount()

    assert (bench.home / "mnt").is_dir()


def test_processes_of_a_mount_inherit_nothing_and_hold_nothing(bench: Bench):
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    mounted = mount(bench.reader())
    try:
        os.close(writer)
        assert b"" == os.read(reader, 1)  # nobody else has the other end
        for process in mounted.record.processes.values():
            about = Path(f"/proc/{process.pid}")
            assert "/" == os.readlink(about / "cwd")
            assert "/dev/null" == os.readlink(about / "fd" / "0")
            assert str(bench.state.mounts / mounted.id / "log") == os.readlink(about / "fd" / "2")
            assert os.getsid(0) != os.getsid(process.pid)
            parent = int((about / "stat").read_text().rpartition(")")[2].split()[1])
            assert os.getpid() != parent
    finally:
        os.close(reader)
        mounted.unmount()


@pytest.mark.parametrize("name", ["a, b:c\\d 'e'", "x" * 200])
def test_any_directory_may_hold_the_state(tmp_path: Path, name):
    """Overlay's option separators, blanks, quotes; and a socket's address holds 107 bytes."""
    home = tmp_path / name
    home.mkdir()
    bench = Bench(home)
    try:
        request = bench.writer("m,n:o")
        mounted = mount(request)
        (mounted.path / "hello").write_text("changed")
        assert "leaf\n" == (mounted.path / "sub" / "deep" / "leaf").read_text()
        mounted.unmount()
        assert "changed" == (request.working_copy.upper / "hello").read_text()
        bench.assert_clean()
    finally:
        bench.sweep()


def test_df_shows_what_is_mounted_and_how_much(bench: Bench):
    mounted = mount(bench.reader())
    try:
        said = subprocess.run(["df", "--output=source", mounted.path], capture_output=True, text=True, check=True)
        assert f"volume:data@{'ab' * 6}:{mounted.id}" == said.stdout.split()[1]
    finally:
        mounted.unmount()


def test_mounts_that_are_made_and_taken_down_at_once_do_not_meet(bench: Bench):
    requests = [bench.reader(f"r{n}") for n in range(3)] + [bench.new_volume(f"w{n}") for n in range(3)]

    with ThreadPoolExecutor(len(requests)) as pool:
        mounts = list(pool.map(mount, requests))
        assert sorted(str(each.mount_path) for each in requests) == sorted(bench.mounted())
        list(pool.map(LiveMount.unmount, mounts))

    assert [] == bench.mounted()


def test_of_two_that_want_one_path_one_gets_it(bench: Bench):
    def attempt(_: int) -> LiveMount | MountError:
        try:
            return mount(bench.reader())
        except MountError as error:
            return error

    with ThreadPoolExecutor(3) as pool:
        outcomes = list(pool.map(attempt, range(3)))

    (mounted,) = [each for each in outcomes if isinstance(each, LiveMount)]
    try:
        assert 1 == len(bench.mounted())
        assert "hello\n" == (mounted.path / "hello").read_text()
    finally:
        mounted.unmount()


def test_sequential_readers_are_read_ahead_of(bench: Bench):
    mounted = mount(bench.reader())
    try:
        device = os.stat(mounted.path).st_dev
        setting = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
        if not os.access(setting, os.W_OK):
            pytest.skip("/sys is read-only here")
        assert READAHEAD_KIB == int(setting.read_text())
    finally:
        mounted.unmount()


def test_supervisors_end_when_everything_is_closed(bench: Bench):
    mounted = mount(bench.reader())
    pids = [process.pid for process in mounted.record.processes.values()]

    mounted.unmount()

    eventually(lambda: all(map(ended, pids)), "both processes to end")

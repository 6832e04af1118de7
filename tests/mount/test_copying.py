"""What is particular to the copy driver: whole trees or none, in any place, found again after anything."""

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from volume_core.errors import CorruptObjectError, MountError
from volume_core.mount import copies, copying, syscalls
from volume_core.mount.copying import CopyDriver, clean, live_copies
from volume_core.parts import workcopies
from volume_core.parts.packing import Packer
from volume_core.testing.benches import Bench, Owner
from volume_core.testing.oracle import assert_same_tree, describe
from volume_core.testing.planting import change, plant

IS_ROOT = os.geteuid() == 0
needs_mount = pytest.mark.skipif(not syscalls.may_mount(), reason="makes a file system to mount on")


@pytest.fixture
def bench(tmp_path):
    made = Bench(tmp_path)
    yield made
    made.close()


@pytest.fixture
def planted(tmp_path):
    (tmp_path / "planted").mkdir()
    return plant(tmp_path / "planted")


@pytest.fixture
def version(bench, planted):
    return bench.version_of(planted)


@pytest.fixture
def driver():
    return CopyDriver()


def hidden(directory):
    return [name for name in os.listdir(directory) if name.startswith(".volume-")]


@pytest.fixture
def own_disk(tmp_path):
    """A small file system of its own, as an emptyDir is."""
    path = tmp_path / "disk"
    path.mkdir()
    syscalls.mount("tmpfs", str(path), "tmpfs", 0, "size=64m,mode=0755")
    yield path
    while syscalls.mounted_at(str(path)):
        syscalls.unmount(str(path), lazy=True)


# -- where


@needs_mount
def test_a_mount_point_is_filled_in_place_and_stays(bench, version, driver, own_disk, planted):
    mounted = bench.mount(driver, bench.reader(version, "disk"))
    assert_same_tree(planted, own_disk)
    with pytest.raises(OSError, match="Read-only") as refused:
        (own_disk / "x").touch()
    assert errno.EROFS == refused.value.errno

    mounted.unmount()

    assert [] == os.listdir(own_disk)
    assert "tmpfs" == syscalls.mounted_at(str(own_disk)).kind


@needs_mount
def test_a_writer_on_a_mount_point_is_committed_and_put_down(bench, version, driver, own_disk):
    request = bench.writer(version, "disk")
    mounted = bench.mount(driver, request)
    change(own_disk)
    made = bench.commit(request, mounted, version, version)
    was = describe(own_disk)
    mounted.unmount()

    assert_same_tree(was, request.working_copy.upper)
    workcopies.load(bench.state, request.working_copy.id).discard()
    assert [] == os.listdir(own_disk)
    assert_same_tree(was, bench.mount(driver, bench.reader(made)).path)


@needs_mount
def test_a_writers_tree_stays_on_its_file_system_when_it_is_unmounted(bench, version, driver, own_disk):
    request = bench.writer(version, "disk/below")
    mounted = bench.mount(driver, request)
    change(mounted.path)
    was = describe(mounted.path)

    mounted.unmount()

    left = workcopies.load(bench.state, request.working_copy.id)
    assert own_disk == left.upper.parent
    assert [left.upper.name] == os.listdir(own_disk)
    assert_same_tree(was, left.upper)
    again = bench.mount(driver, request._replace(working_copy=left, mount_path=own_disk / "again"))
    assert_same_tree(was, again.path)
    with pytest.raises(MountError, match="there already"):
        driver.mount(bench.reader(version, "disk/again"))


@needs_mount
def test_a_tree_is_not_moved_to_another_file_system(bench, version, driver, own_disk):
    request = bench.writer(version, "disk/below")
    bench.mount(driver, request).unmount()
    left = workcopies.load(bench.state, request.working_copy.id)

    with pytest.raises(MountError, match="file system"):
        driver.mount(request._replace(working_copy=left, mount_path=bench.home / "elsewhere"))

    assert left.upper.is_dir()
    assert not (bench.home / "elsewhere").exists()


@needs_mount
def test_a_full_disk_leaves_nothing_and_says_so(bench, driver, own_disk, tmp_path):
    (tmp_path / "large").mkdir()
    (tmp_path / "large" / "file").write_bytes(os.urandom(80 << 20))
    version = bench.version_of(tmp_path / "large")
    for name in ("disk", "disk/below"):
        with pytest.raises(MountError, match="no space"):
            driver.mount(bench.reader(version, name))

        assert [] == os.listdir(own_disk)
    assert [] == live_copies(bench.state)
    assert ["lock"] == os.listdir(bench.state.copies)


# -- failures


@pytest.mark.loud
def test_a_damaged_store_leaves_nothing(bench, version, driver):
    (bench.home / "mnt").mkdir(mode=0o700)
    for pack in (bench.home / "store" / "packs").glob("*/*"):
        data = bytearray(pack.read_bytes())
        data[len(data) // 2] ^= 1
        pack.chmod(0o644)
        pack.write_bytes(data)

    for request in (bench.reader(version), bench.writer(version)):
        with pytest.raises(CorruptObjectError):
            driver.mount(request)

        assert [] == os.listdir(bench.home / "mnt")
        assert [] == hidden(bench.home)
        assert ["lock"] == os.listdir(bench.state.copies)
        if request.working_copy:
            assert not copying.is_hydrated(request.working_copy)
            assert not request.working_copy.captured_path.exists()


MOUNTER = """
    import os, sys
    from pathlib import Path
    from volume_core.mount import copying
    from volume_core.mount.request import MountRequest
    from volume_core.parts import hydrating, workcopies
    from volume_core.parts.state import State
    root, path, url, locator, copy, step, *layers = sys.argv[1:]
    def stop(*args, **kwargs):
        print("here", flush=True)
        sys.stdin.read()
    if step == "half":
        hydrating._Hydration._make_links = stop
    elif step == "named":
        copying._Mounting._capture = stop
    state = State.at(root)
    copying.CopyDriver().mount(MountRequest(state, Path(path), url, locator=locator, layers=tuple(map(Path, layers)),
        working_copy=workcopies.load(state, copy) if copy else None))
    stop()
"""


def killed_at(step, request):
    copy = request.working_copy
    command = [
        sys.executable, "-c", textwrap.dedent(MOUNTER), str(request.state.root), str(request.mount_path),
        request.store_url, request.locator, copy.id if copy else "", step, *map(str, request.layers),
    ]  # fmt: skip
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert b"here\n" == process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait(20)


@pytest.mark.parametrize("writes", [False, True])
@pytest.mark.parametrize("step", ["half", "named", "mounted"])
def test_a_killed_mount_is_cleaned_up_by_the_next(bench, version, driver, step, writes, planted):
    request = bench.writer(version) if writes else bench.reader(version)
    (bench.home / "mnt").mkdir(mode=0o710)
    killed_at(step, request)
    if step == "half":
        assert [] == os.listdir(bench.home / "mnt"), "nothing that looks complete"

    mounted = bench.mount(driver, bench.reader(version))

    assert_same_tree(planted if IS_ROOT else describe(mounted.path), mounted.path)
    assert 1 == len(live_copies(bench.state))
    mounted.unmount()
    assert [] == hidden(bench.home)
    assert 0o710 == os.stat(bench.home / "mnt").st_mode & 0o7777
    if writes and step == "mounted":
        assert_same_tree(planted, workcopies.load(bench.state, request.working_copy.id).upper)


@needs_mount
@pytest.mark.parametrize("step", ["half", "mounted"])
def test_a_mount_killed_in_place_is_cleaned_up(bench, version, driver, own_disk, step, planted):
    killed_at(step, bench.reader(version, "disk"))
    if step == "half":
        assert any(name.endswith(".unfinished") for name in os.listdir(own_disk)), "it says that it is not whole"

    clean(bench.state)

    assert [] == os.listdir(own_disk)
    assert "tmpfs" == syscalls.mounted_at(str(own_disk)).kind
    assert_same_tree(planted, bench.mount(driver, bench.reader(version, "disk")).path)


def test_a_living_owners_tree_is_left_alone(bench, version, driver):
    owner = Owner(driver, bench.reader(version))
    try:
        clean(bench.state)
        assert [str(bench.home / "mnt")] == [str(copy.path) for copy in live_copies(bench.state)]
        with pytest.raises(MountError, match="there already"):
            driver.mount(bench.reader(version))
    finally:
        owner.kill()

    clean(bench.state)
    assert [] == live_copies(bench.state)
    assert not (bench.home / "mnt").exists()


def test_a_detached_tree_stays_until_it_is_unmounted_by_anyone(bench, version, driver):
    mounted = driver.mount(bench.reader(version)._replace(detach=True))
    clean(bench.state)
    assert mounted.is_alive()

    (found,) = live_copies(bench.state)
    found.unmount()

    assert not mounted.is_alive()
    assert [] == live_copies(bench.state)


def test_a_detached_tree_of_another_boot_is_not_taken_for_protected(bench, version, driver):
    mounted = driver.mount(bench.reader(version)._replace(detach=True))
    record = bench.state.copies / mounted.id / "record.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "boot_id": "another", "bound": False}))
    copies.unbind(mounted.record, lazy=True)

    clean(bench.state)

    assert [] == live_copies(bench.state)
    assert not (bench.home / "mnt").exists()


@pytest.mark.loud
def test_a_record_that_cannot_be_read_is_reported_and_nothing_is_deleted(bench, version, driver, caplog):
    mounted = driver.mount(bench.reader(version)._replace(detach=True))
    record = bench.state.copies / mounted.id / "record.json"
    whole = record.read_bytes()
    record.write_bytes(whole[:40])

    clean(bench.state)

    assert "left alone" in caplog.text
    assert (bench.home / "mnt" / "script").exists()
    record.write_bytes(whole)
    mounted.unmount()


def test_only_the_tree_that_was_made_is_deleted(bench, version, driver):
    mounted = driver.mount(bench.reader(version))
    copies.unbind(mounted.record, lazy=True)
    os.rename(bench.home / "mnt", bench.home / "moved away")
    (bench.home / "mnt").mkdir()
    (bench.home / "mnt" / "another's").touch()

    assert not mounted.is_alive()
    mounted.unmount(lazy=True)

    assert ["another's"] == os.listdir(bench.home / "mnt")


# -- read-only


@pytest.mark.skipif(not IS_ROOT, reason="becomes a root that may not mount")
def test_without_the_right_to_mount_the_write_bits_are_gone(bench, version, driver, planted, monkeypatch):
    monkeypatch.setattr(syscalls, "may_mount", lambda: False)

    path = bench.mount(driver, bench.reader(version)).path

    expected = {p: each._replace(mode=each.mode & ~0o222) for p, each in describe(planted).items()}
    assert_same_tree(expected, path)
    assert syscalls.mounted_at(str(path)) is None


def test_the_first_commit_reads_nothing_that_was_not_changed(bench, version, driver, monkeypatch):
    request = bench.writer(version)
    mounted = bench.mount(driver, request)
    (mounted.path / "script").write_bytes(b"changed")
    for directory, _, files in os.walk(mounted.path / "dir"):
        for name in files:
            os.utime(os.path.join(directory, name), ns=(0, os.lstat(os.path.join(directory, name)).st_mtime_ns))
    read = []
    original = Packer.read

    def remember(self, fd, size):
        read.append(size)
        return original(self, fd, size)

    monkeypatch.setattr(Packer, "read", remember)

    bench.commit(request, mounted, version, version)

    assert 7 in read
    assert 5 << 20 in read, "its ctime has moved: it is read again, and found to be the same"
    assert 1 << 30 not in read, "nobody has touched it"

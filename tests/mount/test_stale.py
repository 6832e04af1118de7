"""kill -9 of every process of a mount, in every order: no access hangs, and the next start leaves nothing stale."""

from __future__ import annotations

import errno
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mount_kit import Bench, Bounded, Owner, kill_and_wait
from server_kit import eventually

from volume_core.errors import MountError
from volume_core.mount import syscalls
from volume_core.mount.kernel import KernelDriver
from volume_core.mount.mounting import LiveMount, clean, live_mounts
from volume_core.mount.plans import Record
from volume_core.mount.stale import Condition

pytestmark = pytest.mark.fuse

PROCESSES = ("server", "supervisor", "owner")
ORDERS = [order for count in (1, 2, 3) for order in itertools.permutations(PROCESSES, count)]


def kill_one(owner: Owner, name: str) -> None:
    """kill -9 the owner, or what a record names."""
    if name == "owner":
        owner.kill()
        return
    try:
        process = owner.record().processes.get(name)
    except FileNotFoundError:
        return  # the supervisor has cleaned up and gone
    if process is not None and process.is_alive():
        kill_and_wait(process.pid)


def next_start(bench: Bench) -> None:
    """Mount something else, as the next task would."""
    KernelDriver().mount(bench.new_volume("next")).unmount()


@pytest.mark.parametrize("kind", ["reader", "writer"])
@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_whatever_is_killed_nothing_hangs_and_nothing_stays(bench: Bench, order, kind):
    request = getattr(bench, kind)()
    owner = Owner(request)
    if kind == "writer":
        (request.mount_path / "precious").write_text("work")
    for name in order:
        kill_one(owner, name)

        # An answer or an error, but no hang; nor once the tree is gone.
        Bounded(lambda: list(os.scandir(request.mount_path / "sub"))).outcome()
        Bounded((request.mount_path / "sub" / "deep" / "leaf").read_text).outcome()
    if "owner" not in order:
        owner.kill()

    next_start(bench)

    bench.assert_clean()
    assert not request.mount_path.exists()
    if kind == "writer":
        assert "work" == (request.working_copy.upper / "precious").read_text()


@pytest.mark.parametrize("order", [("supervisor", "owner"), ("owner", "supervisor")])
def test_a_new_volume_without_its_supervisor_goes_with_the_next_start(bench: Bench, order):
    request = bench.new_volume()
    owner = Owner(request)
    (request.mount_path / "precious").write_text("work")
    for name in order:
        kill_one(owner, name)

    next_start(bench)

    bench.assert_clean()
    assert "work" == (request.working_copy.upper / "precious").read_text()


@pytest.mark.parametrize("kind", ["reader", "writer", "new_volume"])
def test_without_a_supervisor_the_tree_works_on_and_its_owner_unmounts_it(bench: Bench, kind):
    mounted = KernelDriver().mount(getattr(bench, kind)())
    kill_and_wait(mounted.record.processes["supervisor"].pid)

    next_start(bench)

    assert Condition.UNSUPERVISED is mounted.condition()
    assert mounted.is_alive()
    if kind != "new_volume":
        assert "leaf\n" == (mounted.path / "sub" / "deep" / "leaf").read_text()
    with pytest.raises(MountError, match="mounted there already"):
        KernelDriver().mount(bench.reader())
    mounted.unmount()


def test_a_broken_tree_is_not_taken_from_under_a_living_owner(bench: Bench):
    """What he writes would land in the directory below, and nobody would notice."""
    owner = Owner(bench.reader())
    for name in ("supervisor", "server"):
        kill_one(owner, name)

    next_start(bench)

    assert errno.ENOTCONN == Bounded(lambda: os.stat(bench.home / "mnt" / "x")).outcome().errno
    assert [str(bench.home / "mnt")] == bench.mounted()
    (found,) = live_mounts(bench.state)
    assert not found.is_alive()
    owner.kill()
    assert [str(bench.home / "mnt")] == clean(bench.state)


def test_an_owner_that_starts_again_gets_his_path_back(bench: Bench):
    mounted = KernelDriver().mount(bench.reader())
    for name in ("supervisor", "server"):
        kill_and_wait(mounted.record.processes[name].pid)

    again = KernelDriver().mount(bench.reader())

    assert "hello\n" == (again.path / "hello").read_text()
    mounted.unmount()  # the first one is long gone; this one is not touched
    assert "hello\n" == (again.path / "hello").read_text()
    again.unmount()


def test_a_detached_mount_of_another_container_is_left_alone_while_it_is_served(bench: Bench):
    """Its mount table cannot be seen from here; removing the directory under a mount there would detach it."""
    owner = Owner(bench.reader(detach=True))
    record = owner.record()
    kill_one(owner, "supervisor")
    elsewhere = record.plan.asker._replace(namespace="pid:[1]")
    record._replace(plan=record.plan._replace(asker=elsewhere)).save()
    look = (
        "import sys; from volume_core.mount.mounting import clean; from volume_core.parts.state import State;"
        "print(clean(State.at(sys.argv[1])))"
    )
    here = [sys.executable, "-c", look, str(bench.state.root)]
    script = 'umount "$0" && exec "$@"'

    # A mount table of its own, without that mount.
    command = ["unshare", "--mount", "sh", "-c", script, record.plan.mount_path, *here]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)

    assert "[]\n" == done.stdout
    assert "hello\n" == (bench.home / "mnt" / "hello").read_text()
    record.save()
    kill_one(owner, "server")
    next_start(bench)
    assert [] == bench.mounted()


def test_a_detached_mount_is_left_alone_while_it_works(bench: Bench):
    owner = Owner(bench.reader(detach=True))
    kill_one(owner, "supervisor")

    next_start(bench)

    assert "hello\n" == (bench.home / "mnt" / "hello").read_text()
    kill_one(owner, "server")
    next_start(bench)
    assert [] == bench.mounted()


def test_a_living_mount_of_somebody_else_is_left_alone(bench: Bench):
    owner = Owner(bench.reader())

    next_start(bench)

    assert "hello\n" == (bench.home / "mnt" / "hello").read_text()
    assert [Condition.SUPERVISED] == [each.condition() for each in live_mounts(bench.state)]
    owner.kill()


def leave_dead(bench: Bench) -> Record:
    """Leave the record of a reader of which nothing lives any more, its tree unmounted."""
    owner = Owner(bench.reader())
    kill_one(owner, "supervisor")
    kill_one(owner, "server")
    owner.kill()
    record = owner.record()
    syscalls.unmount(record.plan.mount_path, lazy=True)
    return record


def test_a_foreign_mount_at_the_path_of_a_dead_one_is_not_touched(bench: Bench):
    path = leave_dead(bench).plan.mount_path
    syscalls.mount("foreign", path, "tmpfs", 0, "size=64k")
    try:
        Path(path, "theirs").write_text("theirs")

        next_start(bench)

        assert "theirs" == Path(path, "theirs").read_text()
        assert [] == bench.records()
    finally:
        syscalls.unmount(path)


def test_records_of_another_boot_and_torn_ones_are_forgotten(bench: Bench):
    record = Path(leave_dead(bench).plan.directory, "record.json")
    fields = json.loads(record.read_text())
    fields["plan"] |= {"boot_id": "another", "asker": [os.getpid(), 1, "pid:[1]"]}
    record.write_text(json.dumps(fields))
    torn = bench.state.mounts / "torn"
    torn.mkdir()
    (torn / "record.json").write_bytes(b'{"plan": {')
    bare = bench.state.mounts / "bare"
    bare.mkdir()

    next_start(bench)

    bench.assert_clean()


def test_a_mount_that_is_being_made_is_not_taken_for_a_dead_one(bench: Bench):
    """Its maker holds the lock before its record is there."""
    owner = Owner(bench.reader())
    record = bench.state.mounts / owner.id / "record.json"
    aside = record.rename(record.with_name("aside"))

    next_start(bench)

    assert "hello\n" == (bench.home / "mnt" / "hello").read_text()
    aside.rename(record)
    owner.kill()


def test_a_handle_whose_mount_was_cleaned_up_says_so(bench: Bench):
    mounted: LiveMount = KernelDriver().mount(bench.writer())
    for name in ("supervisor", "server"):
        kill_and_wait(mounted.record.processes[name].pid)
    clean(bench.state)

    assert not mounted.is_alive()
    with pytest.raises(MountError, match="not mounted any more"):
        mounted.settle()
    mounted.unmount()
    eventually(lambda: not bench.remains(), "nothing to remain")

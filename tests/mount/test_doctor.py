"""Each thing that a machine may lack is found, said, and comes with how to grant it."""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from volume_core.mount import machine as machine_module
from volume_core.mount.doctor import diagnose, examine
from volume_core.mount.machine import Disk, Machine, program_version, read_machine
from volume_core.mount.syscalls import CAP_SYS_ADMIN
from volume_core.testing.users import as_nobody

ALL = (1 << 41) - 1
WITHOUT_ADMIN = ALL & ~(1 << CAP_SYS_ADMIN)
ROOT = Machine()
USER = Machine(uid=1000, cap_effective=0)


def codes(report, driver):
    return {missing.code for missing in report.driver(driver).missing}


def verdicts(report):
    return {each.name: (each.reads, each.writes) for each in report.drivers}


def test_nothing_is_missing_for_root():
    report = diagnose(ROOT)

    assert {"kernel": (True, True), "fuse-overlay": (True, True), "copy": (True, True)} == verdicts(report)
    assert "kernel" == report.best().name


def test_a_user_mounts_by_fusermount():
    report = diagnose(USER)

    assert {"kernel": (True, False), "fuse-overlay": (True, True), "copy": (True, True)} == verdicts(report)
    assert "fuse-overlay" == report.best().name
    assert "kernel" == report.best(writable=False).name


# what is different, which driver lacks it, what it is called, what must be said, what still works of (reads, writes)
MISSING = {
    "not Linux": (ROOT, {"system": "Darwin"}, "kernel", "not-linux", "copy driver", (False, False)),
    "no device": (ROOT, {"fuse_device": "ENOENT"}, "kernel", "no-fuse-device", "device plugin", (False, False)),
    "no module": (ROOT, {"fuse_device": "ENXIO"}, "kernel", "no-fuse-device", "modprobe fuse", (False, False)),
    "device rules": (ROOT, {"fuse_device": "EPERM"}, "kernel", "fuse-device-forbidden", "--device", (False, False)),
    "device mode": (USER, {"fuse_device": "EACCES"}, "fuse-overlay", "fuse-device-closed", "chmod 666", (False, False)),
    "no privilege": (
        ROOT, {"cap_effective": WITHOUT_ADMIN}, "kernel", "no-cap-sys-admin", "capabilities: {add: [SYS_ADMIN]}",
        (True, False),
    ),
    "AppArmor": (
        ROOT, {"apparmor": "docker-default (enforce)"}, "kernel", "apparmor", "appArmorProfile: {type: Unconfined}",
        (False, False),
    ),
    "AppArmor of containerd": (
        USER, {"apparmor": "cri-containerd.apparmor.d (enforce)"}, "fuse-overlay", "apparmor", "apparmor=unconfined",
        (False, False),
    ),
    "container's files": (ROOT, {"upper_kind": "overlay"}, "kernel", "upper-file-system", "emptyDir", (True, False)),
    "NFS": (ROOT, {"upper_kind": "nfs4"}, "kernel", "upper-file-system", "VOLUME_STATE_DIR", (True, False)),
    "a FUSE upper": (ROOT, {"upper_kind": "fuse.sshfs"}, "kernel", "upper-file-system", "markers", (True, False)),
    "old user namespace": (
        ROOT, {"user_namespace": True, "kernel": (5, 4)}, "kernel", "user-namespace", "hostUsers", (True, False),
    ),
    "no overlay module": (
        USER, {"file_systems": frozenset({"fuse"})}, "kernel", "no-overlay", "modprobe overlay", (True, False),
    ),
    "no fusermount3": (USER, {"fusermount3": None}, "fuse-overlay", "no-fusermount3", "package fuse3", (False, False)),
    "fusermount3 not setuid": (
        USER, {"fusermount3_is_setuid": False}, "fuse-overlay", "fusermount3-not-setuid", "chmod u+s", (False, False),
    ),
    "no fuse-overlayfs": (
        USER, {"fuse_overlayfs": None}, "fuse-overlay", "no-fuse-overlayfs", "package fuse-overlayfs", (True, False),
    ),
    "no_new_privs": (
        USER, {"no_new_privs": True}, "fuse-overlay", "no-new-privs", "allowPrivilegeEscalation: true", (False, False),
    ),
    "bounding set": (
        USER, {"cap_bounding": WITHOUT_ADMIN}, "fuse-overlay", "no-cap-sys-admin-in-bounding-set", "SYS_ADMIN",
        (False, False),
    ),
    "no root in the namespace": (
        USER, {"root_is_mapped": False, "user_namespace": True}, "fuse-overlay", "root-not-mapped", "uid 0",
        (False, False),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISSING)
def test_what_is_missing_is_said(name):
    base, facts, driver, code, said, works = MISSING[name]
    assert code not in codes(diagnose(base), driver)

    report = diagnose(dataclasses.replace(base, **facts))

    found = report.driver(driver)
    assert code in codes(report, driver)
    assert works == (found.reads, found.writes)
    (missing,) = [each for each in found.missing if each.code == code]
    assert said in missing.what + missing.grant
    assert missing.what in report.text()
    assert missing.grant in report.text()
    assert report.driver("copy").writes


def test_a_complaining_apparmor_profile_forbids_nothing():
    for profile in ("docker-default (complain)", "unconfined", "my-own-profile (enforce)", ""):
        assert diagnose(dataclasses.replace(ROOT, apparmor=profile)).best().name == "kernel"


def test_the_disk_to_use_is_named():
    disks = (Disk("/scratch", "xfs", 80_000_000_000),)

    report = diagnose(dataclasses.replace(ROOT, upper_kind="overlay", disks=disks))

    assert "VOLUME_STATE_DIR=/scratch/volumes (xfs, 80.0 GB free here)" in report.text()


NOTES = {
    "no resend": ({"kernel": (6, 8)}, "kernel", "before kernel 6.9"),
    "not tested": ({"kernel": (5, 10)}, "kernel", "not tested"),
    "namespace": ({"user_namespace": True}, "kernel", "EXDEV"),
    "SELinux": ({"selinux": "system_u:system_r:container_t:s0"}, "kernel", "spc_t"),
    "others": ({"uid": 5, "cap_effective": 0}, "fuse-overlay", "user_allow_other"),
    "version": ({"fuse_overlayfs_version": "1.13"}, "fuse-overlay", "fuse-overlayfs 1.13"),
    "space": ({"upper_free_bytes": 5_000_000}, "copy", "only 5 MB"),
    "state": ({"upper_writable": False}, "copy", "set VOLUME_STATE_DIR"),
    "owners": ({"uid": 5}, "copy", "owners are kept in the version"),
}


@pytest.mark.parametrize("name", NOTES)
def test_what_is_worth_knowing_is_noted(name):
    facts, driver, said = NOTES[name]
    assert not any(said in note for note in diagnose(ROOT).driver(driver).notes)

    found = diagnose(dataclasses.replace(ROOT, **facts)).driver(driver)

    assert any(said in note for note in found.notes), found.notes
    assert found.writes, "a note is no obstacle"


def test_a_report_is_plain_values_for_json():
    fields = json.loads(json.dumps(diagnose(dataclasses.replace(USER, upper_kind="overlay")).to_fields()))

    assert "fuse-overlay" == fields["best"]
    assert ["kernel", "fuse-overlay", "copy"] == [driver["name"] for driver in fields["drivers"]]
    assert {"code", "what", "grant", "blocks"} == set(fields["drivers"][0]["missing"][0])
    assert "0000000000000000" == fields["machine"]["cap_effective"]


# -- this machine


def test_the_facts_of_this_machine_are_read(tmp_path):
    found = read_machine(tmp_path / "not" / "yet" / "there")

    lines = Path("/proc/self/status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    asked = subprocess.run(["stat", "-f", "-c", "%T", tmp_path], capture_output=True, text=True, check=True)
    free_bytes = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    assert int(status["CapEff"], 16) == found.cap_effective
    assert os.geteuid() == found.uid
    assert free_bytes == pytest.approx(found.upper_free_bytes, rel=0.1)
    assert asked.stdout.startswith(found.upper_kind[:3])  # "ext2/ext3" is how stat calls ext4
    assert found.upper_writable
    assert not (tmp_path / "not").exists()


def test_the_file_system_under_a_path_is_the_innermost(tmp_path, monkeypatch):
    points = [
        machine_module.syscalls.MountPoint("0:1", "/", "overlay", "overlay"),
        machine_module.syscalls.MountPoint("0:2", "/data", "ext4", "/dev/a"),
        machine_module.syscalls.MountPoint("0:3", "/data/more", "tmpfs", "tmpfs"),
        machine_module.syscalls.MountPoint("0:4", "/data/more", "xfs", "/dev/b"),
    ]
    asked = {path: machine_module._kind_at(path, points) for path in ("/database", "/data/x", "/data/more/x", "/")}

    assert {"/database": "overlay", "/data/x": "ext4", "/data/more/x": "xfs", "/": "overlay"} == asked
    assert "unknown" == machine_module._kind_at("/", [])


@pytest.mark.parametrize("text", ["fusermount3 version: 3.14.0\nfuse-overlayfs: version 1.10\nusing 7.31\n", "nothing"])
def test_a_program_is_asked_for_its_own_version(tmp_path, text):
    program = tmp_path / "fuse-overlayfs"
    program.write_text("#!/bin/sh\ncat <<'EOF'\n" + text + "\nEOF\n")
    program.chmod(0o755)

    assert ("1.10" if "1.10" in text else "") == program_version(str(program))
    assert "" == program_version(str(tmp_path / "nothing"))
    assert "" == program_version(None)


PROGRAM = """
import json, sys
from volume_core.mount.doctor import examine
print(json.dumps(examine(sys.argv[1], try_mounts=True).to_fields()))
"""


def report_of(directory, *wrapper):
    command = [*wrapper, sys.executable, "-c", PROGRAM, str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert 0 == done.returncode, done.stderr
    fields = json.loads(done.stdout)
    return fields["best"], {driver["name"]: driver for driver in fields["drivers"]}


@pytest.mark.fuse
def test_root_is_told_that_all_works_and_it_does(tmp_path):
    report = examine(tmp_path, try_mounts=True)

    assert ["mounted"] * 3 == [each.tried for each in report.drivers]
    assert [] == os.listdir(tmp_path)
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


@pytest.mark.fuse
def test_without_the_capability(tmp_path):
    best, drivers = report_of(tmp_path, "setpriv", "--bounding-set=-sys_admin", "--no-new-privs")

    assert "copy" == best
    assert {"no-cap-sys-admin", "no-new-privs", "no-cap-sys-admin-in-bounding-set"} == {
        missing["code"] for missing in drivers["kernel"]["missing"]
    }
    assert (None, None, "mounted") == tuple(drivers[name]["tried"] for name in ("kernel", "fuse-overlay", "copy"))


@pytest.mark.fuse
def test_as_another_user(tmp_path):
    with tempfile.TemporaryDirectory(prefix="volume-test-") as place:
        os.chmod(place, 0o777)
        command = as_nobody([sys.executable, "-c", PROGRAM, place])
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert 0 == done.returncode, done.stderr
        left = os.listdir(place)
    fields = json.loads(done.stdout)
    drivers = {driver["name"]: driver for driver in fields["drivers"]}

    assert "fuse-overlay" == fields["best"]
    assert {"no-cap-sys-admin"} == {missing["code"] for missing in drivers["kernel"]["missing"]}
    assert ["mounted"] * 3 == [drivers[name]["tried"] for name in ("kernel", "fuse-overlay", "copy")]
    assert [] == left


@pytest.mark.fuse
def test_as_another_user_who_may_gain_nothing(tmp_path):
    with tempfile.TemporaryDirectory(prefix="volume-test-") as place:
        os.chmod(place, 0o777)
        command = as_nobody(["setpriv", "--no-new-privs", sys.executable, "-c", PROGRAM, place])
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    fields = json.loads(done.stdout)

    assert "copy" == fields["best"]
    assert "no-new-privs" in {missing["code"] for missing in fields["drivers"][1]["missing"]}


@pytest.mark.fuse
def test_in_a_user_namespace_of_its_own(tmp_path):
    best, drivers = report_of(tmp_path, "unshare", "--user", "--map-root-user", "--mount")

    assert "kernel" == best
    assert "mounted" == drivers["kernel"]["tried"]
    assert any("EXDEV" in note for note in drivers["kernel"]["notes"])


@pytest.mark.fuse
def test_an_upper_on_an_overlay_is_found_out_for_real(tmp_path):
    script = 'cd "$1" && mkdir l u w m && mount -t overlay -o lowerdir=l,upperdir=u,workdir=w o m && shift && exec "$@"'
    wrapper = ("unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh")
    places = [tmp_path / "one", tmp_path / "two"]
    for place in places:
        place.mkdir()

    best, drivers = report_of(places[0] / "m", *wrapper, str(places[0]))
    command = [*wrapper, str(places[1]), sys.executable, "-m", "volume_core.mount.trying"]
    kernel = subprocess.run(
        [*command, "kernel", str(places[1] / "m"), "writing"], capture_output=True, text=True, timeout=60, check=False
    )

    assert "fuse-overlay" == best
    assert {"upper-file-system"} == {missing["code"] for missing in drivers["kernel"]["missing"]}
    assert (True, False) == (drivers["kernel"]["reads"], drivers["kernel"]["writes"])
    assert ["mounted"] * 3 == [driver["tried"] for driver in drivers.values()]
    assert 1 == kernel.returncode, "the kernel agrees that it cannot write there"
    assert "Invalid argument" in kernel.stdout

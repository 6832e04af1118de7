"""The best driver that works is chosen, one line says why, and a name is taken at its word."""

import dataclasses
import logging

import pytest

from volume_core.errors import MountError
from volume_core.mount.choosing import choose
from volume_core.mount.doctor import Report, diagnose
from volume_core.mount.machine import Machine

ROOT = Machine()
USER = Machine(uid=1000, cap_effective=0)
NOBODY = Machine(uid=1000, cap_effective=0, fuse_device="ENOENT", fusermount3=None)


@pytest.mark.parametrize(
    ("machine", "writable", "chosen", "others"),
    [
        (ROOT, True, "kernel", ("fuse-overlay", "copy")),
        (ROOT, False, "kernel", ("fuse-overlay", "copy")),
        (USER, True, "fuse-overlay", ("copy",)),
        (USER, False, "kernel", ("fuse-overlay", "copy")),
        (NOBODY, True, "copy", ()),
        (NOBODY, False, "copy", ()),
        (dataclasses.replace(ROOT, upper_kind="overlay"), True, "fuse-overlay", ("copy",)),
        (dataclasses.replace(ROOT, upper_kind="overlay"), False, "kernel", ("fuse-overlay", "copy")),
        (dataclasses.replace(ROOT, system="Darwin"), True, "copy", ()),
    ],
)
def test_the_best_that_works(machine, writable, chosen, others):
    choice = choose(diagnose(machine), writable=writable)

    assert (chosen, others) == (choice.driver, choice.others)


def test_one_line_says_which_and_why(caplog):
    caplog.set_level(logging.INFO, "volume_core")

    choice = choose(diagnose(USER))

    assert [f"driver fuse-overlay: {choice.reason}"] == caplog.messages
    assert "no CAP_SYS_ADMIN (uid 1000)" in choice.reason
    assert "volume doctor" in choice.reason
    assert "\n" not in choice.reason


def test_every_better_driver_is_in_the_reason():
    reason = choose(diagnose(NOBODY)).reason

    assert "kernel does not work here: no CAP_SYS_ADMIN (uid 1000) and 2 more" in reason
    assert "fuse-overlay does not work here: no /dev/fuse (ENOENT) and 1 more" in reason


@pytest.mark.parametrize("name", ["kernel", "fuse-overlay", "copy"])
def test_a_name_is_taken_at_its_word(name):
    assert (name, "asked for by name", ()) == choose(diagnose(ROOT), name)


def test_a_name_that_cannot_work_is_refused_with_what_to_grant():
    with pytest.raises(MountError) as refused:
        choose(diagnose(NOBODY), "fuse-overlay")

    assert "install the package fuse3" in str(refused.value)
    assert "device plugin" in str(refused.value)
    assert "driver copy works" in str(refused.value)


def test_what_only_writers_need_is_not_asked_of_readers():
    machine = dataclasses.replace(ROOT, upper_kind="overlay")

    assert "kernel" == choose(diagnose(machine), "kernel", writable=False).driver
    with pytest.raises(MountError, match="emptyDir"):
        choose(diagnose(machine), "kernel")


def test_what_failed_when_it_was_tried_is_not_chosen():
    report = diagnose(ROOT)
    kernel, *others = report.drivers
    tried = (dataclasses.replace(kernel, tried="EPERM: no"), *others)

    choice = choose(Report(ROOT, tried))

    assert "fuse-overlay" == choice.driver
    assert "EPERM: no" in choice.reason
    with pytest.raises(MountError, match="EPERM: no"):
        choose(Report(ROOT, tried), "kernel")


def test_there_are_three_drivers():
    with pytest.raises(ValueError, match="kernel, fuse-overlay, copy"):
        choose(diagnose(ROOT), "nfs")

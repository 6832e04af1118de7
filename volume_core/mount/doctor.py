"""Which drivers work on this machine, what is missing for the better ones, and how to grant it.

    facts (machine.py) ──diagnose──> Report ──text──> a person
                                       └──choosing.py──> a driver

Always true:
  1. The diagnosis is a function of the facts alone; trying for real (trying.py) only adds to it.
  2. Whatever is missing is said with what to change, in the words of those who must change it.
  3. A driver that is said to work lacks nothing that is known to be needed.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from typing import Any

from volume_core.mount.machine import Machine, read_machine
from volume_core.mount.syscalls import CAP_SYS_ADMIN

KERNEL, FUSE_OVERLAY, COPY = "kernel", "fuse-overlay", "copy"
DRIVERS = (KERNEL, FUSE_OVERLAY, COPY)  # best first
RESEND_KERNEL = (6, 9)
USER_NAMESPACE_OVERLAY_KERNEL = (5, 11)
TESTED_KERNEL = (5, 15)
LOW_SPACE_BYTES = 1 << 30

# File systems that cannot hold overlay's whiteouts or its markers.
NO_UPPER = {
    "overlay": "an overlay cannot lie on an overlay, which is what a container's own files are",
    "nfs": "a network file system keeps no markers",
    "nfs4": "a network file system keeps no markers",
    "cifs": "a network file system keeps no markers",
    "smb3": "a network file system keeps no markers",
    "ceph": "a network file system keeps no markers",
    "lustre": "a network file system keeps no markers",
    "9p": "a shared directory of the host keeps no markers",
    "virtiofs": "a shared directory of the host may keep no markers",
    "vfat": "it keeps neither modes nor markers",
    "exfat": "it keeps neither modes nor markers",
    "ntfs3": "it keeps no markers",
    "ecryptfs": "the kernel refuses an overlay there",
    "squashfs": "it is read-only",
    "erofs": "it is read-only",
    "iso9660": "it is read-only",
}
# AppArmor's profiles for containers that deny mount(2), whatever the capabilities.
MOUNT_DENYING_PROFILES = ("docker-default", "cri-containerd.apparmor.d", "crio-default", "containers-default", "lxc-")


@dataclass(frozen=True, slots=True)
class Missing:
    """One thing a driver lacks: `code` for programs, `what` and `grant` for people.

    `blocks` is "both", or "writing" where mounting read-only works without it.
    """

    code: str
    what: str
    grant: str
    blocks: str = "both"


@dataclass(frozen=True, slots=True)
class DriverReport:
    """What is known of one driver.  `tried` is None, "mounted", or why trying for real failed."""

    name: str
    missing: tuple[Missing, ...] = ()
    notes: tuple[str, ...] = ()
    tried: str | None = None

    @property
    def reads(self) -> bool:
        """Whether it can mount a version read-only here."""
        return self.tried in (None, "mounted") and not any(each.blocks == "both" for each in self.missing)

    @property
    def writes(self) -> bool:
        """Whether it can mount a writer here."""
        return self.tried in (None, "mounted") and not self.missing


@dataclass(frozen=True, slots=True)
class Report:
    """The machine, and each driver, best first."""

    machine: Machine
    drivers: tuple[DriverReport, ...]

    def driver(self, name: str) -> DriverReport:
        """Return the report of the driver called *name*; KeyError if there is none."""
        return {each.name: each for each in self.drivers}[name]

    def best(self, *, writable: bool = True) -> DriverReport:
        """Return the best driver that works: the copy driver where no other does."""
        return next((d for d in self.drivers if (d.writes if writable else d.reads)), self.drivers[-1])

    def to_fields(self) -> dict[str, Any]:
        """Return the whole as plain values, for JSON."""
        machine = dataclasses.asdict(self.machine)
        machine["file_systems"] = sorted(self.machine.file_systems)
        machine["cap_effective"] = f"{self.machine.cap_effective:016x}"
        machine["cap_bounding"] = f"{self.machine.cap_bounding:016x}"
        drivers = [{**dataclasses.asdict(each), "reads": each.reads, "writes": each.writes} for each in self.drivers]
        return {"best": self.best().name, "drivers": drivers, "machine": machine}

    def text(self) -> str:
        """Return the whole for a person: what works, what is missing, how to grant it."""
        lines = [f"best driver here: {self.best().name}", ""]
        for each in self.drivers:
            lines.append(f"{each.name:<13} {_verdict(each)}")
            for missing in each.missing:
                lines += [f"    - {missing.what}", f"      {missing.grant}"]
            if each.tried not in (None, "mounted"):
                lines.append(f"    - tried, and it failed: {each.tried}")
            lines += [f"    · {note}" for note in each.notes]
        return "\n".join([*lines, "", _summary(self.machine)])


def _verdict(report: DriverReport) -> str:
    if report.writes:
        return "works" + (" (tried)" if report.tried else "")
    if report.reads:
        return "works for reading only" + (" (tried)" if report.tried else "")
    return "does not work"


def _summary(machine: Machine) -> str:
    parts = [
        f"{machine.system} {machine.kernel[0]}.{machine.kernel[1]}",
        f"uid {machine.uid}" + (" in a user namespace" if machine.user_namespace else ""),
        f"CAP_SYS_ADMIN {'yes' if machine.may(CAP_SYS_ADMIN) else 'no'}",
        f"/dev/fuse {machine.fuse_device}",
        f"{machine.upper_dir} on {machine.upper_kind}, {machine.upper_free_bytes / 1e9:.1f} GB free",
    ]
    if machine.container:
        parts.append(f"in {machine.container}")
    return " · ".join(parts)


def examine(upper_dir: str | os.PathLike[str], *, try_mounts: bool = False, versions: bool = False) -> Report:
    """Return what works here for uppers below *upper_dir* (it need not exist).

    With *try_mounts* every driver that seems to work is tried with a tiny mount, out of everyone's
    sight and gone afterwards; that takes up to some seconds.  *versions* adds those of the programs,
    which are started for it (`try_mounts` does so too); without either, this takes a millisecond.
    """
    machine = read_machine(upper_dir, versions=versions or try_mounts)
    report = diagnose(machine)
    if not try_mounts:
        return report
    from volume_core.mount.trying import try_driver

    tried = {d.name: try_driver(d.name, machine, writable=d.writes) for d in report.drivers if d.reads}
    return Report(machine, tuple(dataclasses.replace(d, tried=tried.get(d.name)) for d in report.drivers))


def diagnose(machine: Machine) -> Report:
    """Return what *machine*'s facts say of each driver."""
    if machine.system != "Linux":
        other = Missing("not-linux", f"{machine.system} has no overlay mounts", "use Linux, or the copy driver")
        kernel, fuse_overlay = (DriverReport(name, (other,)) for name in (KERNEL, FUSE_OVERLAY))
    else:
        kernel = DriverReport(KERNEL, tuple(_kernel_missing(machine)), tuple(_kernel_notes(machine)))
        fuse_overlay = DriverReport(FUSE_OVERLAY, tuple(_fuse_overlay_missing(machine)), _fuse_overlay_notes(machine))
    return Report(machine, (kernel, fuse_overlay, DriverReport(COPY, (), tuple(_copy_notes(machine)))))


# -- kernel


def _kernel_missing(machine: Machine) -> list[Missing]:
    missing = [] if machine.may(CAP_SYS_ADMIN) else [_no_privilege(machine)]
    missing += _view_missing(machine)
    missing += _apparmor_missing(machine)
    if "overlay" not in machine.file_systems and not machine.may(CAP_SYS_ADMIN):
        missing.append(
            Missing(
                "no-overlay", "the kernel's overlay module is not loaded", "on the host: modprobe overlay", "writing"
            )
        )
    if machine.user_namespace and machine.kernel < USER_NAMESPACE_OVERLAY_KERNEL:
        missing.append(
            Missing(
                "user-namespace",
                "this kernel allows no overlay in a user namespace",
                "use a kernel of 5.11 or later, or the host's user namespace (Kubernetes: hostUsers: true)",
                "writing",
            )
        )
    return [*missing, *_upper_missing(machine)]


def _apparmor_missing(machine: Machine) -> list[Missing]:
    profile = machine.apparmor.partition(" ")[0]
    if "enforce" not in machine.apparmor or not profile.startswith(MOUNT_DENYING_PROFILES):
        return []
    grant = (
        "Kubernetes: securityContext.appArmorProfile: {type: Unconfined}; docker: --security-opt apparmor=unconfined"
    )
    return [Missing("apparmor", f"AppArmor's profile {profile} forbids mount(2)", grant)]


def _no_privilege(machine: Machine) -> Missing:
    grant = "run as root, or in a container with CAP_SYS_ADMIN"
    if machine.uid == 0 or machine.container:
        grant = (
            "Kubernetes: securityContext: {runAsUser: 0, capabilities: {add: [SYS_ADMIN]}}, or privileged: true; "
            "docker: --cap-add SYS_ADMIN"
        )
    return Missing("no-cap-sys-admin", f"no CAP_SYS_ADMIN (uid {machine.uid})", grant, "writing")


def _view_missing(machine: Machine) -> list[Missing]:
    """What keeps a FUSE view from being mounted: by mount(2), or by fusermount3 for who may not call it."""
    missing = _fuse_missing(machine)
    if machine.may(CAP_SYS_ADMIN):
        return missing
    if machine.fusermount3 is None:
        missing.append(Missing("no-fusermount3", "no program fusermount3", "install the package fuse3"))
    elif not machine.fusermount3_is_setuid:
        what = f"{machine.fusermount3} is not setuid root"
        grant = f"chmod u+s {machine.fusermount3}, or install the package fuse3 as it is"
        missing.append(Missing("fusermount3-not-setuid", what, grant))
    if machine.no_new_privs:
        what = "no_new_privs is set, so fusermount3 gets no privilege"
        grant = "Kubernetes: securityContext.allowPrivilegeEscalation: true; docker: without no-new-privileges"
        missing.append(Missing("no-new-privs", what, grant))
    if not machine.could(CAP_SYS_ADMIN):
        what = "CAP_SYS_ADMIN is not in the bounding set, so fusermount3 may not mount"
        grant = "Kubernetes: securityContext.capabilities: {add: [SYS_ADMIN]}; docker: --cap-add SYS_ADMIN"
        missing.append(Missing("no-cap-sys-admin-in-bounding-set", what, grant))
    if not machine.root_is_mapped:
        what = "this user namespace has no root, so fusermount3 gets no privilege"
        missing.append(Missing("root-not-mapped", what, "map uid 0 into the namespace, or use the host's"))
    return missing


def _fuse_missing(machine: Machine) -> list[Missing]:
    """What keeps /dev/fuse away."""
    if machine.fuse_device == "ok":
        return []
    if machine.fuse_device == "EACCES":
        what = f"/dev/fuse may not be opened by uid {machine.uid}"
        return [Missing("fuse-device-closed", what, "on the host: chmod 666 /dev/fuse, which is its usual mode")]
    if machine.fuse_device == "EPERM":
        return [
            Missing(
                "fuse-device-forbidden",
                "/dev/fuse is there, but the container's device rules forbid it",
                "give it as a device, not as a file: on Kubernetes by a device plugin, or privileged: true; "
                "docker: --device /dev/fuse",
            )
        ]
    return [
        Missing(
            "no-fuse-device",
            f"no /dev/fuse ({machine.fuse_device})",
            "Kubernetes: a device plugin that hands out /dev/fuse (a resource limit of the container), or "
            "privileged: true; docker: --device /dev/fuse; on a host: modprobe fuse",
        )
    ]


def _upper_missing(machine: Machine) -> list[Missing]:
    """What is wrong with the file system under the upper, for overlays of the kernel."""
    kind = machine.upper_kind
    reason = NO_UPPER.get(kind) or ("a FUSE file system keeps no markers" if kind.startswith("fuse") else "")
    if reason:
        what = f"{machine.upper_dir} lies on {kind}: {reason}"
        return [Missing("upper-file-system", what, _elsewhere(machine), "writing")]
    return []


def _elsewhere(machine: Machine) -> str:
    if machine.disks:
        disk = machine.disks[0]
        path = os.path.join(disk.path, "volumes")
        return f"set VOLUME_STATE_DIR={path} ({disk.kind}, {disk.free_bytes / 1e9:.1f} GB free here)"
    return (
        f"Kubernetes: mount an emptyDir at {machine.upper_dir} (volumes: [{{name: volumes, emptyDir: {{}}}}]), or set "
        f"VOLUME_STATE_DIR to a directory on one; docker: -v volumes:{machine.upper_dir}"
    )


def _kernel_notes(machine: Machine) -> list[str]:
    notes = []
    if machine.kernel < RESEND_KERNEL:
        notes.append("before kernel 6.9, reads that wait while a dead server is replaced fail; later ones succeed")
    if machine.kernel < TESTED_KERNEL:
        notes.append("kernels before 5.15 are not tested")
    if machine.user_namespace:
        notes.append("in a user namespace a directory of the base cannot be renamed (EXDEV; programs copy instead)")
    if machine.selinux and "unconfined" not in machine.selinux:
        notes.append(
            f"SELinux confines this process ({machine.selinux}): if mounting is denied, "
            "Kubernetes: seLinuxOptions: {type: spc_t}; docker: --security-opt label=disable"
        )
    return notes


# -- fuse-overlay


def _fuse_overlay_missing(machine: Machine) -> list[Missing]:
    missing = _view_missing(machine)
    if machine.fuse_overlayfs is None:
        missing.append(
            Missing("no-fuse-overlayfs", "no program fuse-overlayfs", "install the package fuse-overlayfs", "writing")
        )
    return [*missing, *_apparmor_missing(machine)]


def _fuse_overlay_notes(machine: Machine) -> tuple[str, ...]:
    notes = []
    if machine.fuse_overlayfs is not None:
        notes.append(f"{machine.fuse_overlayfs} {machine.fuse_overlayfs_version}".strip())
    if machine.uid != 0 and not machine.user_allow_other:
        notes.append("other users see nothing of the mount unless /etc/fuse.conf says user_allow_other")
    return tuple(notes)


# -- copy


def _copy_notes(machine: Machine) -> list[str]:
    notes = ["mounting takes the time and the space of a copy"]
    if not machine.upper_writable:
        notes.append(f"{machine.upper_dir} cannot be written by uid {machine.uid}: set VOLUME_STATE_DIR")
    if machine.upper_free_bytes < LOW_SPACE_BYTES:
        notes.append(f"only {machine.upper_free_bytes / 1e6:.0f} MB are free at {machine.upper_dir}")
    if machine.uid != 0:
        notes.append("files of other owners appear as this user's; their owners are kept in the version")
    return notes

"""The fuse-overlay driver: the kernel driver's stack without its privilege, by the program `fuse-overlayfs`.

Below lies the same FUSE view; on top, the program that rootless containers use.  Every write passes
through it, so it is slower than the kernel's overlay by a round trip for each operation.

Always true:
  1. A write is in the upper before it returns (`writeback=0`); only what is stored to a mapped file waits.
  2. The program runs as a child of the supervisor.  It is not replaced when it dies, since open files die with
     it: the tree gives errors until it is unmounted, and the upper is kept.
  3. A user who may not give files away sees every file as his own where some of the base are not, since copying
     up another user's file would be refused; an owner found in such an upper says nothing.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from volume_core.errors import MountError
from volume_core.format.entries import Kind, join
from volume_core.mount import syscalls
from volume_core.mount.kernel import prepare_upper
from volume_core.mount.plans import Plan
from volume_core.parts.dialects import WHITEOUT_PREFIX

if TYPE_CHECKING:
    from volume_core.mount.request import Mounted, MountRequest

NAME = "fuse-overlay"
DIALECT = "fuse-overlay"
PROGRAM = "fuse-overlayfs"
KIND = "fuse.fuse-overlayfs"
LOOK_AGAIN_S = 0.25  # mountinfo tells of changes at once; this is for kernels where it does not


class FuseOverlayDriver:
    """FUSE and fuse-overlayfs, for users who are not root."""

    name = NAME

    def mount(self, request: MountRequest) -> Mounted:
        """Mount *request*; see volume_core.mount.request.Driver."""
        from volume_core.mount.mounting import mount_with

        if request.writable:
            refuse_marker_names(request.layers)
        return mount_with(self.name, request)


def refuse_marker_names(layers: Sequence[Path]) -> None:
    """Raise MountError if a version holds a name that the program would take for one of its own markers."""
    from volume_core.parts.indexes import open_layer

    for path in layers:
        with contextlib.closing(open_layer(path)) as layer:
            for directory in layer.directories():
                number = layer.directory(directory)
                for row in layer.rows(number) if number is not None else ():
                    if row.name.startswith(WHITEOUT_PREFIX) and row.kind != Kind.WHITEOUT:
                        shown = os.fsdecode(join(directory, row.name))
                        raise MountError(
                            f"{PROGRAM} would take {shown!r}, a name that begins with .wh., for a deletion: use "
                            "driver='copy', or rename it in a version that another driver writes"
                        )


def squashed_owner(layers: Sequence[Path]) -> tuple[int, int] | None:
    """Return the (uid, gid) that every file must seem to have, or None if this user may keep all owners as they are."""
    if os.geteuid() == 0:
        return None
    from volume_core.parts.indexes import open_layer

    groups = {os.getegid(), *os.getgroups()}
    for path in layers:
        with contextlib.closing(open_layer(path)) as layer:
            if any(uid != os.geteuid() or gid not in groups for uid, gid in layer.owners()):
                return os.geteuid(), os.getegid()
    return None


def attach_fuse_overlay(plan: Plan, lower: str) -> subprocess.Popen[bytes]:
    """Start fuse-overlayfs over the directory *lower*; return its process once the tree is mounted.

    Raises MountError, and then leaves neither process nor mount.
    """
    assert plan.upper is not None
    assert plan.work is not None
    if ":" in lower:
        raise MountError(f"{PROGRAM} cannot read below a path with a colon: set VOLUME_STATE_DIR; it is now {lower}")
    prepare_upper(plan.upper, plan.work, lower)
    # How it takes commas and backslashes is not to be relied on: short links stand for all paths.
    for name, target in {"lower": lower, "upper": plan.upper, "scratch": plan.work}.items():
        os.symlink(target, os.path.join(plan.directory, name))
    log_size_bytes = os.fstat(sys.stderr.fileno()).st_size
    try:
        process = subprocess.Popen(
            [PROGRAM, "-f", "-o", _options(plan), plan.mount_path],
            cwd=plan.directory, stdin=subprocess.DEVNULL, stdout=sys.stderr,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise MountError(
            f"there is no {PROGRAM}: install the package fuse-overlayfs; driver='copy' works without it"
        ) from error
    try:
        _wait_until_mounted(plan, process, log_size_bytes)
    except BaseException:
        process.kill()
        process.wait()
        raise
    return process


def _options(plan: Plan) -> str:
    options = ["lowerdir=lower", "upperdir=upper", "workdir=scratch", "volatile", "writeback=0", "nosuid", "nodev"]
    if plan.squash is not None:
        options += [f"squash_to_uid={plan.squash[0]}", f"squash_to_gid={plan.squash[1]}"]
    if plan.allow_other:
        options.append("allow_other")
    return ",".join(options)


def _wait_until_mounted(plan: Plan, process: subprocess.Popen[bytes], log_size_bytes: int) -> None:
    deadline = time.monotonic() + plan.timeout_s
    with open("/proc/self/mountinfo", "rb") as changes:
        poll = select.poll()
        poll.register(changes, select.POLLPRI)
        while process.poll() is None:
            mounted = syscalls.mounted_at(plan.mount_path)
            if mounted is not None and mounted.kind == KIND:
                os.stat(plan.mount_path)  # it answers
                return
            if time.monotonic() > deadline:
                raise MountError(f"{plan.mount_path}: {PROGRAM} did not mount within {plan.timeout_s:g} s")
            poll.poll(LOOK_AGAIN_S * 1000 if mounted is None else 5)
    raise MountError(f"{plan.mount_path}: {PROGRAM} ended with status {process.returncode}: {_said(log_size_bytes)}")


def _said(log_size_bytes: int) -> str:
    """Return what was written to the log since it had that size."""
    with open(sys.stderr.fileno(), "rb", closefd=False) as file:
        file.seek(log_size_bytes)
        return " / ".join(file.read(2048).decode("utf-8", "replace").split("\n")).strip(" /") or "it says nothing"

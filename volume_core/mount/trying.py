"""Trying a driver for real: a tiny mount that nobody sees and that is gone afterwards.

Why in a process of its own: with the privilege to mount, it moves into a mount namespace that ends with
it, whatever goes wrong inside; and a kernel that hangs hangs a child that can be given up.

Always true: the answer is "mounted", or what stood in the way as the kernel or the program said it.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from volume_core.errors import MountError
from volume_core.mount import syscalls
from volume_core.mount.attaching import attach_view, detach
from volume_core.mount.children import environment
from volume_core.mount.machine import Machine, nearest_existing

MOUNTED = "mounted"
READING, WRITING = "reading", "writing"
TRY_TIMEOUT_S = 20.0
_CLONE_NEWNS = 0x20000
_MS_PRIVATE_REC = 0x40000 | 0x4000


def try_driver(name: str, machine: Machine, *, writable: bool) -> str:
    """Return "mounted" if the driver called *name* can mount here, a writer or only a reader, else why not."""
    what = WRITING if writable else READING
    where = nearest_existing(machine.upper_dir)
    command = [sys.executable, "-P", "-m", "volume_core.mount.trying", name, os.path.abspath(where), what]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd="/", env=environment(),
            timeout=TRY_TIMEOUT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"no answer within {TRY_TIMEOUT_S:g} s"
    if done.returncode == 0:
        return MOUNTED
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[-1] if lines else f"exit status {done.returncode}"


def main(name: str, directory: str, what: str) -> None:
    """Try the driver called *name* with an upper below *directory*; raises MountError or OSError.

    *what* is "writing" or "reading".
    """
    private = syscalls.may_mount()
    if private:
        _unshare_mounts()
    place = Path(tempfile.mkdtemp(prefix=".volume-doctor-", dir=directory))
    try:
        for part in ("view", "lower", "upper", "work", "tree"):
            (place / part).mkdir()
        if name != "copy":
            _try_view(place)
        if what == WRITING:
            WRITERS[name](place)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _unshare_mounts() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "no mount namespace of our own")
    syscalls.mount("none", "/", "none", _MS_PRIVATE_REC, "")


def _try_view(place: Path) -> None:
    """Mount a view without a server: as long as nobody looks at it, nobody waits."""
    view = str(place / "view")
    os.close(attach_view(view, "volume:doctor", allow_other=False))
    detach(view, lazy=True)


def _try_kernel(place: Path) -> None:
    userxattr = ",userxattr" if syscalls.in_user_namespace() else ""
    (place / "lower" / "file").write_bytes(b"below")
    places = f"lowerdir={place}/lower,upperdir={place}/upper,workdir={place}/work"
    syscalls.mount("volume:doctor", str(place / "tree"), "overlay", 0, places + userxattr)
    try:
        _write_through(place)
    finally:
        syscalls.unmount(str(place / "tree"), lazy=True)


def _try_fuse_overlay(place: Path) -> None:
    (place / "lower" / "file").write_bytes(b"below")
    places = f"lowerdir={place}/lower,upperdir={place}/upper,workdir={place}/work"
    tree = str(place / "tree")
    command = ["fuse-overlayfs", "-f", "-o", places, tree]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            while syscalls.mounted_at(tree) is None:
                if process.poll() is not None:
                    raise MountError(
                        " / ".join(process.communicate()[1].strip().splitlines()) or "fuse-overlayfs failed"
                    )
                time.sleep(0.01)
            _write_through(place)
        finally:
            if syscalls.mounted_at(tree) is not None:
                detach(tree, lazy=True)
            process.kill()


def _write_through(place: Path) -> None:
    """Change and remove something in the tree, and see it in the upper."""
    (place / "tree" / "new").write_bytes(b"above")
    (place / "tree" / "file").unlink()
    if (place / "upper" / "new").read_bytes() != b"above" or len(os.listdir(place / "upper")) < 2:
        raise MountError("what was written did not arrive in the upper")


def _try_copy(place: Path) -> None:
    (place / "tree" / "file").write_bytes(b"content")
    os.rename(place / "tree", place / "renamed")


WRITERS: dict[str, Callable[[Path], None]] = {
    "kernel": _try_kernel,
    "fuse-overlay": _try_fuse_overlay,
    "copy": _try_copy,
}

if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (MountError, OSError) as failure:
        print(failure)
        sys.exit(1)

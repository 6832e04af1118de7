"""Running a program of a test as a user without any privilege, from a test that runs as root.

Always true: the program sees the interpreter and the packages of the test, even where they lie below a
home directory that is closed to others: in a mount namespace of its own, each such home is replaced by
an open directory that holds only what the interpreter needs.  /dev/fuse is open to it.
"""

from __future__ import annotations

import os
import shlex
import site
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

NOBODY = 65534

_SCRIPT = """
set -e
{fuse}
{opening}
cd {cwd}
exec setpriv --reuid {uid} --regid {uid} --clear-groups -- "$@"
"""
# The usual mode of the device is 0666; some machines keep it closed.
_FUSE = """
devices=$(mktemp -d)
mount -t tmpfs -o mode=0755 tmpfs "$devices"
mknod -m 0666 "$devices"/fuse c 10 229
mount --bind "$devices"/fuse /dev/fuse
umount -l "$devices"
rmdir "$devices"
"""
_OPENING = """
staging=$(mktemp -d)
mount -t tmpfs -o mode=0755 tmpfs "$staging"
{binds}
mount --rbind "$staging" {home}
umount -l "$staging"
rmdir "$staging"
"""


def as_nobody(argv: Sequence[str], *, uid: int = NOBODY) -> list[str]:
    """Return the command that runs *argv* as the user and group *uid*, with no other group.

    Needs root, and `unshare` and `setpriv` (util-linux).
    """
    opening = "".join(_open_up(home, wanted) for home, wanted in _closed_homes().items())
    script = _SCRIPT.format(
        fuse=_FUSE if Path("/dev/fuse").exists() else "", opening=opening, uid=uid, cwd=shlex.quote(_visible_cwd())
    )
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *argv]


def _needed() -> list[Path]:
    """The directories without which the interpreter and this package cannot run."""
    package = Path(__file__).resolve().parents[2]
    prefixes = [sys.prefix, sys.base_prefix, os.path.dirname(os.path.realpath(sys.executable)), *site.getsitepackages()]
    # A virtual environment's interpreter may be a link to a link: each of them must be reachable.
    hops: list[Path] = []
    link = Path(sys.executable)
    while link.is_symlink():
        hops.append(link.parent)
        link = link.parent / os.readlink(link)
    return sorted({path for path in (*map(Path, prefixes), *hops, package) if path.is_dir()})


def _closed_homes() -> dict[Path, list[Path]]:
    """Closed directory -> what is needed below it, outermost only."""
    closed: dict[Path, list[Path]] = {}
    for path in _needed():
        for above in reversed(path.parents):
            if not above.stat().st_mode & stat.S_IXOTH:
                closed.setdefault(above, []).append(path)
                break
    return closed


def _open_up(home: Path, wanted: list[Path]) -> str:
    outermost = [path for path in wanted if not any(other in path.parents for other in wanted)]
    binds = "\n".join(
        f'mkdir -p "$staging"/{below} && mount --rbind {path} "$staging"/{below}'
        for path, below in ((shlex.quote(str(p)), shlex.quote(str(p.relative_to(home)))) for p in outermost)
    )
    return _OPENING.format(binds=binds, home=shlex.quote(str(home)))


def _visible_cwd() -> str:
    cwd = Path.cwd()
    visible = all(above.stat().st_mode & stat.S_IXOTH for above in (cwd, *cwd.parents))
    return str(cwd) if visible else "/"

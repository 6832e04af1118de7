"""Running a script as a user who is not root, as in a pod that grants no privilege but /dev/fuse.

In a mount namespace of its own, where /dev/fuse is for everybody and the Python that runs the tests can be
reached; so nothing changes for the rest of the machine.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534
_ROOT = Path(__file__).parents[2]

_SETUP = """
set -e
home=$1 base=$2 packages=$3 tests=$4 device=$5; shift 5
mkdir -p $home/python $home/packages $home/tests $home/user
cp -a /dev/fuse $home/fuse; mount --bind $home/fuse /dev/fuse
if test $device = yes; then chmod 666 $home/fuse; else chmod 600 $home/fuse; fi
mount --bind "$base" $home/python
mount --bind "$packages" $home/packages
mount --bind "$tests" $home/tests
chown 65534:65534 $home/user
exec setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all -- $home/python/bin/python3 -c "$@"
"""


@contextmanager
def open_home() -> Iterator[Path]:
    """Make a directory that every user can reach, and remove it."""
    home = Path(tempfile.mkdtemp(prefix="volume-test-"))
    home.chmod(0o755)
    try:
        yield home
    finally:
        shutil.rmtree(home)


def run_as_nobody(
    home: Path, script: str, *arguments: str, device: bool = True, timeout_s: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run *script* (Python; sys.argv[1] is a directory of its own) as user 65534, and return what came of it.

    `device`: whether /dev/fuse is for everybody, or for root alone.
    """
    command = [
        "unshare", "-m", "sh", "-c", _SETUP, "sh", str(home), sys.base_prefix, sysconfig.get_path("purelib"),
        str(Path(__file__).parent), "yes" if device else "no", script, str(home / "user"), *arguments,
    ]  # fmt: skip
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(home / "user"),
        "VOLUME_STATE_DIR": str(home / "user" / "state"),
        "PYTHONPATH": f"{_ROOT}:{home / 'tests'}:{home / 'packages'}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False, cwd="/"
    )

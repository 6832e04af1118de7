"""Trees for the tests of what a version can hold, and the judges that look at them from another process.

Always true: whether two trees are equal is said by three who share no code: the oracle, `diff` and `rsync`.
"""

from __future__ import annotations

import os
import random
import shutil
import stat
import subprocess
import sys
from pathlib import Path

from volume_core.testing.oracle import assert_same_tree
from volume_core.testing.users import as_nobody

CHUNK_BYTES = 4 << 20
OLD_NS = 1_500_000_000_000_000_001
DEEP_PARTS = [b"%02d" % number + b"d" * 198 for number in range(19)]
DEEP_PATH = b"/".join([*DEEP_PARTS, b"e" * (4000 - 19 * 201)])

JUDGE = """
import sys
from volume_core import Volume
from tree_kit import judge
with Volume.from_locator_sync(sys.argv[1]).mounted_sync(sys.argv[4], driver=sys.argv[3]) as path:
    judge(sys.argv[2], path, rsync=sys.argv[5] == "rsync", ignore=sys.argv[6:])
"""


def remount_and_judge(expected, version, at, *, driver="kernel", rsync=True, ignore=()):
    """Mount *version* in another process, at *at*, and fail unless it shows what the directory *expected* does."""
    arguments = [version.locator, expected, driver, at, "rsync" if rsync else "", *ignore]
    run_python(JUDGE, *map(str, arguments))


def run_python(code, *arguments, state=None, nobody=False, timeout_s=120):
    """Run *code* in another process, with this directory's modules; return what it printed.

    *state* is its state directory, if not this process's; *nobody*: as a user without any privilege.
    """
    command = [sys.executable, "-c", code, *arguments]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])}
    if state is not None:
        environment["VOLUME_STATE_DIR"] = str(state)
    done = subprocess.run(
        as_nobody(command) if nobody else command,
        capture_output=True, text=True, check=False, timeout=timeout_s, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def judge(expected, actual, *, rsync=True, ignore=()):
    """Fail unless the oracle, diff and rsync find nothing that differs between two directories."""
    assert_same_tree(expected, actual, ignore=ignore)
    # diff calls two FIFOs, and two devices, different from each other.
    told = _run("diff", "-r", "--no-dereference", "--exclude=*.special", str(expected), str(actual))
    assert "" == told, f"diff says: {told}"
    if rsync and shutil.which("rsync"):
        told = _run("rsync", "-aHXn", "--checksum", "--delete", "-i", f"{expected}/", f"{actual}/")
        assert "" == told, f"rsync would: {told}"


def _run(*command):
    done = subprocess.run(command, capture_output=True, check=False, timeout=120)
    return (done.stdout + done.stderr).decode("utf-8", "backslashreplace")[:4000]


def noise(size, seed=0):
    """Return *size* bytes that do not compress and are the same for the same *seed*."""
    return random.Random(seed).randbytes(size)


def plant_everything(root: Path) -> None:
    """Fill *root* with one of everything that root can make; two such trees are equal."""
    root.chmod(0o755)
    for part in (_sizes, _holes, _links, _modes_and_owners, _times, _xattrs, _names, _deep):
        directory = root / part.__name__.strip("_")
        directory.mkdir()
        part(directory)
    age(root)


def age(root: Path) -> None:
    """Give everything below *root* an old time of its own, but for what already has a chosen one."""
    number = 0
    for directory, below, files, fd in os.fwalk(os.fsencode(root), topdown=False):
        for name in sorted(below + files):
            if (
                os.stat(name, dir_fd=fd, follow_symlinks=False).st_mtime_ns > OLD_NS + 10**9
                and directory[-6:] != b"/times"
            ):
                number += 1
                os.utime(name, ns=(0, OLD_NS + number), dir_fd=fd, follow_symlinks=False)
    os.utime(root, ns=(0, OLD_NS))


def _sizes(root):
    edges = [size + edge for size in (4096, CHUNK_BYTES, 2 * CHUNK_BYTES) for edge in (-1, 0, 1)]
    for size in (0, 1, *edges):
        (root / f"{size}").write_bytes(noise(size, size))
    (root / "same as another").write_bytes(noise(CHUNK_BYTES, CHUNK_BYTES))


def _holes(root):
    cells = {"at the start": [900], "at the end": [0], "between": [0, 3, 1500, 3000], "whole": [], "none": range(16)}
    for name, blocks in cells.items():
        with open(root / name, "wb") as file:
            for block in blocks:
                os.pwrite(file.fileno(), noise(4096, block), block * 4096)
            file.truncate(12 << 20 if name != "none" else 16 * 4096)
    (root / "stored zeros").write_bytes(bytes(3 * 4096))
    (root / "zeros among data").write_bytes(noise(4096, 1) + bytes(8 * 4096) + noise(100, 2))


def _links(root):
    os.symlink("no/such", root / "dangling")
    os.symlink("/etc/hostname", root / "absolute")
    os.symlink("../sizes", root / "to a directory")
    os.symlink("x" * 4095, root / "long")
    os.symlink(b"\xff\xfe\n", root / "not text")
    os.symlink("loop", root / "loop")
    os.lchown(root / "dangling", 77, 88)
    (root / "below").mkdir()
    (root / "first").write_bytes(b"one inode")
    for name in ("second", "below/third"):
        os.link(root / "first", root / name)
    os.link(root / "dangling", root / "below" / "dangling too", follow_symlinks=False)
    os.mkfifo(root / "pipe.special", 0o604)
    os.link(root / "pipe.special", root / "below" / "pipe.special")
    os.mknod(root / "null.special", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(root / "disk.special", stat.S_IFBLK | 0o600, os.makedev(7, 1000))


def _modes_and_owners(root):
    for mode in (0o000, 0o400, 0o644, 0o777, 0o4755, 0o2755, 0o6711, 0o1777, 0o7777):
        (root / f"file {mode:o}").write_bytes(b"%o" % mode)
        (root / f"dir {mode:o}").mkdir()
        for kind in ("file", "dir"):
            os.chmod(root / f"{kind} {mode:o}", mode)
    for uid, gid in ((0, 1), (1, 0), (12345, 54321), (2**31, 2**32 - 2)):
        (root / f"{uid} {gid}").touch()
        os.mkdir(root / f"dir {uid} {gid}")
        for each in (root / f"{uid} {gid}", root / f"dir {uid} {gid}"):
            os.chown(each, uid, gid)
    (root / "set-id of another").touch()
    os.chown(root / "set-id of another", 5, 6)
    os.chmod(root / "set-id of another", 0o6755)


def _times(root):
    for ns in (0, 1, 999_999_999, -1, -1_500_000_000, 2**31 * 10**9 + 1, 2**33 * 10**9 + 7, OLD_NS):
        (root / f"file {ns}").touch()
        (root / f"dir {ns}").mkdir()
        os.symlink("x", root / f"link {ns}")
        os.mkfifo(root / f"{ns}.special")
        for name in (f"file {ns}", f"dir {ns}", f"link {ns}", f"{ns}.special"):
            os.utime(root / name, ns=(0, ns), follow_symlinks=False)


def _xattrs(root):
    (root / "file").touch()
    (root / "dir").mkdir()
    for each in (root / "file", root / "dir"):
        os.setxattr(each, "user.empty", b"")
        os.setxattr(each, "user.bytes", bytes(range(256)))
        os.setxattr(each, b"user.\xff not text", b"x")
        os.setxattr(each, "user.long", noise(2000))
    for number in range(30):
        os.setxattr(root / "file", f"user.number {number}", b"%d" % number)


def _names(root):
    here = os.fsencode(root)
    single = [bytes([number]) for number in range(1, 256) if number != ord("/") and number != ord(".")]
    odd = [
        b"n" * 255,
        "ü".encode() * 127,
        b"\xff" * 255,
        b"-rf",
        b" ",
        b"  x  ",
        b"...",
        b".wh.name",
        b"..x",
        b"a\nb",
        b"%s",
    ]
    for name in {*single, *odd, b"caf\xe9", "café".encode(), "café".encode(), b"a\\b", b"CASE", b"case"}:
        with open(os.path.join(here, name), "wb") as file:
            file.write(name)
    os.makedirs(os.path.join(here, b"\xfe\xff", b"x" * 255, b"\n"))


def _deep(root):
    fd = os.open(root.parent, os.O_RDONLY)
    try:
        for part in DEEP_PARTS:
            os.mkdir(part, dir_fd=fd)
            below = os.open(part, os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = below
        end = os.open(os.path.basename(DEEP_PATH), os.O_WRONLY | os.O_CREAT, 0o640, dir_fd=fd)
        os.write(end, b"deep down")
        os.close(end)
    finally:
        os.close(fd)

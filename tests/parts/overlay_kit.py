"""Real overlays over a plain lower directory, and what must come out of their upper directories.

The judge is the mount itself: what a program sees in it, told by the oracle, must be what the captured
upper says, laid over the lower.  `shown` lays it over in the simplest way there is, and shares no
code with domain/changes.

Run as a program it does all of it as the user that runs it, and tells what the mount showed:

    python overlay_kit.py PLACE DIALECT OPERATION -> PLACE/seen.pickle
"""

import contextlib
import mmap
import os
import pickle
import shutil
import stat
import subprocess
import sys
import tempfile
import textwrap
import time
from hashlib import sha256
from pathlib import Path

from overlay_operations import OPERATIONS, make_lower

from volume_core.format.entries import ChunkRef, Extent, Kind
from volume_core.mount import syscalls
from volume_core.parts.capturing import capture
from volume_core.testing.oracle import CELL_BYTES, Described, data_segments, describe

XATTRS = (b"user.", b"trusted.", b"security.capability", b"system.posix_acl")
OVERLAY_OPTIONS = {
    "kernel": "redirect_dir=on,metacopy=on,index=off,volatile",
    "userxattr": "userxattr,index=off,volatile",
}
KINDS = {
    Kind.FILE: "file", Kind.DIRECTORY: "directory", Kind.SYMLINK: "symlink", Kind.FIFO: "fifo", Kind.CHAR: "char",
    Kind.BLOCK: "block",
}  # fmt: skip


class Chunks:
    """Stands in for a Packer: keeps what it is given, and counts."""

    def __init__(self):
        self.data = {}
        self.sizes = []  # of every read, in order

    def read(self, fd, size):
        self.sizes.append(size)
        extents, position = [], 0
        for begin, end in data_segments(fd, size):
            if begin > position:
                extents.append(Extent(begin - position, None))
            data = os.pread(fd, end - begin, begin)
            name = sha256(data).digest()
            self.data[name] = data
            extents.append(Extent(len(data), ChunkRef(name, b"p" * 32, 8, len(data), len(data))))
            position = begin + len(data)
        if position < size:
            extents.append(Extent(size - position, None))
        return tuple(extents)

    def bytes_of(self, content):
        return b"".join(
            self.data[e.chunk.digest][e.chunk_offset : e.chunk_offset + e.length] if e.chunk else bytes(e.length)
            for e in content
        )


class Tree:
    """A directory that is captured.  Over a *lower* one if there is any."""

    def __init__(self, root, dialect, lower=None, mount_path=None):
        self.root, self.dialect, self.lower, self.mount_path = Path(root), dialect, lower, mount_path
        self.chunks = Chunks()
        self.asked = []  # paths of the base whose content was asked for

    def capture(self, previous=None, read=None, **options):
        return capture(
            self.root, self.dialect, read or self.chunks.read, self.base_content, previous,
            mount_path=self.mount_path, **options,
        )  # fmt: skip

    def base_content(self, path):
        self.asked.append(path)
        with open(os.path.join(os.fsencode(self.lower), path), "rb") as file:
            return self.chunks.read(file.fileno(), os.fstat(file.fileno()).st_size)

    def content(self, captured, path):
        return self.chunks.bytes_of(captured.upper[path].entry.content)

    def reads(self, previous=None, **options):
        """How many files a capture opens, and the capture."""
        self.chunks.sizes.clear()
        captured = self.capture(previous, **options)
        return len(self.chunks.sizes), captured


# -- the judge


def shown(captured, chunks, lower):
    """What *captured*, laid over the tree that *lower* describes, looks like to a program."""
    return _Shown(captured, chunks, lower).tree()


class _Shown:
    def __init__(self, captured, chunks, lower):
        self.upper, self.chunks, self.lower = captured.upper, chunks, lower
        self.names = _by_directory(self.upper)
        self.lower_names = _by_directory(lower)
        self.found, self.groups = {}, {}

    def tree(self):
        self._upper(b"", self.upper[b""])
        for paths in self.groups.values():
            if len(paths) > 1:
                for path in paths:
                    self.found[path] = self.found[path]._replace(links=tuple(sorted(paths)))
        return self.found

    def _upper(self, path, held):
        entry = held.entry
        assert held.base is None or entry.kind is Kind.DIRECTORY
        content = self.chunks.bytes_of(entry.content)
        assert len(content) == entry.size
        self.found[path] = Described(
            KINDS[entry.kind], 0 if entry.kind is Kind.SYMLINK else entry.mode, entry.uid, entry.gid, entry.mtime_ns,
            entry.size, entry.target, entry.rdev, entry.xattrs,
            _digest(content) if entry.kind is Kind.FILE else "", _data(entry),
        )  # fmt: skip
        if entry.hardlink:
            self.groups.setdefault(("upper", entry.hardlink), []).append(path)
        if entry.kind is not Kind.DIRECTORY:
            return
        held_names = self.names.get(path, set())
        for name in held_names:
            child = path + b"/" + name if path else name
            if self.upper[child].entry.kind is not Kind.WHITEOUT:
                self._upper(child, self.upper[child])
        if held.base is not None and self.lower.get(held.base, entry).kind == "directory":
            for name in self.lower_names.get(held.base, set()) - held_names:
                self._lower(path + b"/" + name if path else name, held.base + b"/" + name if held.base else name)

    def _lower(self, path, base):
        below = self.lower[base]
        self.found[path] = below._replace(links=())
        if below.links:
            self.groups.setdefault(("lower", below.links), []).append(path)
        for name in self.lower_names.get(base, ()):
            self._lower(path + b"/" + name, base + b"/" + name)


def _by_directory(paths):
    names = {}
    for path in paths:
        if path:
            directory, _, name = path.rpartition(b"/")
            names.setdefault(directory, set()).add(name)
    return names


def _data(entry):
    """The (start, end) of what is no hole, joined."""
    segments, position = [], 0
    for extent in entry.content:
        if extent.chunk is not None:
            if segments and segments[-1][1] == position:
                segments[-1] = (segments[-1][0], position + extent.length)
            else:
                segments.append((position, position + extent.length))
        position += extent.length
    return tuple(segments)


def _digest(content):
    """As the oracle digests content: cells of zeros left out."""
    found = sha256(len(content).to_bytes(8, "little"))
    for position in range(0, len(content), CELL_BYTES):
        cell = content[position : position + CELL_BYTES]
        if cell.strip(b"\0"):
            found.update(position.to_bytes(8, "little") + cell)
    return found.hexdigest()


# -- mounts


@contextlib.contextmanager
def kernel_overlay(place, options):
    """Mount place/lower below place/upper at place/merged."""
    for name in ("lower", "upper", "work", "merged"):
        (place / name).mkdir(exist_ok=True)
    merged = place / "merged"
    places = f"lowerdir={place}/lower,upperdir={place}/upper,workdir={place}/work"
    syscalls.mount("overlay", str(merged), "overlay", syscalls.MS_NOSUID, f"{places},{options}")
    try:
        yield merged
    finally:
        syscalls.unmount(str(merged))


@contextlib.contextmanager
def fuse_overlay(place):
    """The same with fuse-overlayfs, by whoever runs this."""
    for name in ("upper", "work", "merged"):
        (place / name).mkdir(exist_ok=True)
    merged = place / "merged"
    places = f"lowerdir={place}/lower,upperdir={place}/upper,workdir={place}/work"
    subprocess.run(["fuse-overlayfs", "-o", f"{places},volatile,writeback=0", merged], check=True, timeout=20)
    try:
        yield merged
    finally:
        subprocess.run(["fusermount3", "-u", "-z", merged], check=True, timeout=20)


@contextlib.contextmanager
def public_place():
    """A directory on the disk that any user may reach."""
    place = Path(tempfile.mkdtemp(prefix="volume-test-", dir="/tmp"))
    place.chmod(0o777)
    try:
        yield place
    finally:
        shutil.rmtree(place)


# -- in the middle of a capture, and beside the test


@contextlib.contextmanager
def mapped(path, size=None):
    with open(path, "r+b") as file, contextlib.closing(mmap.mmap(file.fileno(), size or 0)) as memory:
        yield memory


def after(tree, number, action):
    """A read() that calls *action* right after the *number*th file was read."""
    count = 0

    def read(fd, size):
        nonlocal count
        assert stat.S_ISREG(os.fstat(fd).st_mode)  # reading a pipe or a device would take something from it
        content = tree.chunks.read(fd, size)
        count += 1
        if count == number:
            action()
        return content

    return read


def forget_recent_times(tree, since_ns):
    """fuse-overlayfs shows times of its own for directories just written to, some milliseconds off its upper's."""
    return {
        path: each._replace(mtime_ns=min(each.mtime_ns, since_ns)) if each.kind == "directory" else each
        for path, each in tree.items()
    }


@contextlib.contextmanager
def beside(program, *arguments):
    """Run a Python program, which says "ready" first, beside the test; it is killed at the end."""
    command = [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert "ready" == process.stdout.readline().strip()
            yield process
        finally:
            process.kill()


def wait_until(condition, timeout_s=10):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def overlay(place, dialect):
    """Mount the overlay whose upper is of that *dialect*."""
    return fuse_overlay(place) if dialect == "fuse-overlay" else kernel_overlay(place, OVERLAY_OPTIONS[dialect])


def main(place, dialect, operation):
    place = Path(place)
    (place / "lower").mkdir()
    make_lower(place / "lower")
    with overlay(place, dialect) as merged:
        OPERATIONS[operation](merged)
        fd = os.open(merged, os.O_RDONLY)
        syscalls.syncfs(fd, str(merged))
        os.close(fd)
        with open(place / "seen.pickle", "wb") as file:
            pickle.dump(describe(merged, xattr_prefixes=XATTRS), file)


if __name__ == "__main__":
    main(*sys.argv[1:])

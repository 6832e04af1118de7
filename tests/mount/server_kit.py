"""Real versions and real mounts for the server's tests, without supervisor or commit.

A version is made of a directory tree by the real packer and the real layer writer; a mount is mount(2) with a
/dev/fuse descriptor that the test holds, as a supervisor would, and a server process that inherits it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from volume_core.format.digests import hex_digest
from volume_core.format.entries import Entry, Kind, join
from volume_core.mount import syscalls
from volume_core.parts.indexes import build_index
from volume_core.parts.packing import Packer
from volume_core.storage.local import LocalStore

DEADLINE_S = 20.0
_XATTRS = ("user.", "system.posix_acl_")
_KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFIFO: Kind.FIFO,
    stat.S_IFCHR: Kind.CHAR,
    stat.S_IFBLK: Kind.BLOCK,
}


def eventually(condition: Callable[[], object], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Wait until *condition* holds, or fail saying *what* did not happen."""
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, f"not within {deadline_s} s: {what}"
        time.sleep(0.005)


def write_index(directory: Path, rows: Mapping[bytes, Entry]) -> Path:
    """Write a layer that holds *rows* (path -> entry; b"" is the root) and return its index."""

    def key(path: bytes) -> tuple[bytes, bytes]:
        above, _, name = path.rpartition(b"/")
        return above, name

    data = build_index((*key(path), entry) for path, entry in sorted(rows.items(), key=lambda row: key(row[0])))
    path = directory / f"{hex_digest(data)}.sqlite"
    path.write_bytes(data)
    return path


def rows_of(tree: Path, packer: Packer) -> dict[bytes, Entry]:
    """Return everything below *tree*, its content packed, as rows of a layer."""
    rows = {b"": _entry(os.fsencode(tree), packer)}
    pending = [b""]
    for directory in pending:
        for name in sorted(os.listdir(os.path.join(os.fsencode(tree), directory))):
            path = join(directory, name)
            rows[path] = _entry(os.path.join(os.fsencode(tree), path), packer)
            if rows[path].is_directory:
                pending.append(path)
    return rows


def _entry(path: bytes, packer: Packer) -> Entry:
    status = os.lstat(path)
    kind = _KINDS[stat.S_IFMT(status.st_mode)]
    entry = Entry(
        kind, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns,
        xattrs=tuple(sorted((os.fsencode(name), os.getxattr(path, name, follow_symlinks=False))
                            for name in os.listxattr(path, follow_symlinks=False) if name.startswith(_XATTRS))),
        hardlink=status.st_ino if kind is Kind.FILE and status.st_nlink > 1 else 0,
    )  # fmt: skip
    if kind is Kind.FILE:
        fd = os.open(path, os.O_RDONLY)
        try:
            return entry._replace(size=status.st_size, content=packer.read(fd, status.st_size))
        finally:
            os.close(fd)
    if kind is Kind.SYMLINK:
        return entry._replace(target=os.readlink(path))
    return entry._replace(rdev=status.st_rdev)


class Version:
    """A store, the index of one layer in it, and the totals."""

    def __init__(self, home: Path, tree: Path) -> None:
        self.root = home / "store"
        store = LocalStore(self.root)
        self.url = store.url
        with Packer(store) as packer:
            rows = rows_of(tree, packer)
            packer.finish()
            rows = {path: packer.seal(entry) for path, entry in rows.items()}
        self.rows = rows
        self.index = write_index(home, rows)
        self.used_bytes = sum(entry.size for entry in rows.values())
        self.inode_count = len(rows)

    def packs(self) -> list[Path]:
        return [path for path in (self.root / "packs").rglob("*") if path.is_file()]


class Server:
    """One server process of a mount."""

    def __init__(self, fd: int, config: Mapping[str, object], log: Path, environ: Mapping[str, str]) -> None:
        read, write = os.pipe()
        os.write(write, json.dumps({"fuse_fd": fd, **config}).encode())
        os.close(write)
        command = [sys.executable, "-m", "volume_core.mount.server", str(read)]
        with log.open("ab") as stderr:
            self.process = subprocess.Popen(command, pass_fds=(fd, read), stderr=stderr, env={**os.environ, **environ})
        os.close(read)

    @property
    def pid(self) -> int:
        return self.process.pid

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(DEADLINE_S)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


class Mount:
    """A mount whose /dev/fuse descriptor the test keeps, so that its server can be replaced.

    The test is both the user of the mount and the parent of its servers, which a supervisor never is: the child that
    is to become the next server closes what files the test has open, and would wait for an answer to FLUSH.  A test
    that reads while it replaces therefore lets the kernel learn, from the first server, that FLUSH is not known.
    """

    def __init__(self, path: Path, config: Mapping[str, object], log: Path, environ: Mapping[str, str]) -> None:
        self.path = path
        self.log = log
        self.config = dict(config)
        self._environ = environ
        path.mkdir(exist_ok=True)
        self.fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self.fd},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions"
        flags = syscalls.MS_RDONLY | syscalls.MS_NOSUID | syscalls.MS_NODEV
        syscalls.mount("test", os.fspath(path), "fuse.volume", flags, options)
        self.server = self.serve()

    def learn_flush(self, path: str) -> None:
        (self.path / path).open("rb").close()

    def serve(self, **more: object) -> Server:
        """Start a server, the first or one more."""
        self.server = Server(self.fd, {**self.config, **more}, self.log, self._environ)
        return self.server

    def replace(self) -> Server:
        """Start a server in the place of one that died."""
        return self.serve(resend=True)

    def text(self) -> str:
        return self.log.read_text()

    def close(self) -> None:
        """Unmount and see the server go by itself."""
        with contextlib.suppress(OSError):
            syscalls.unmount(os.fspath(self.path), lazy=True)
        os.close(self.fd)
        self.server.signal(signal.SIGCONT)
        try:
            status = self.server.process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.server.kill()
            raise
        assert status == 0, f"the server ended with {status}: {self.text()}"


@contextlib.contextmanager
def mounted(
    home: Path, version: Version, *, environ: Mapping[str, str] | None = None, **config: object
) -> Iterator[Mount]:
    """Mount *version* below *home*; *config* goes before what follows from the version."""
    full: dict[str, object] = {
        "layers": [os.fspath(version.index)],
        "store": version.url,
        "used_bytes": version.used_bytes,
        "inode_count": version.inode_count,
        **config,
    }
    mount = Mount(home / "mounted", full, home / "log", environ or {})
    try:
        yield mount
    finally:
        mount.close()


# A store of another scheme, brought by an installed plugin, whose answers the test holds back or refuses.
_GATED = '''
import os
import time

from volume_core import hookimpl
from volume_core.errors import StorageError
from volume_core.storage.local import LocalStore


class Gated:
    """A LocalStore that is far away: `shut` in its control directory makes reads wait, `dead` makes them fail."""

    local_root = None
    honours_conditions = True

    def __init__(self, url):
        self.url = url
        root = url.removeprefix("gated://")
        self._inner = LocalStore(root)
        self._control = os.path.join(root, "..", "control")

    def get_range(self, name, offset, length):
        with open(os.path.join(self._control, "calls"), "a") as calls:
            calls.write(f"{name} {offset} {length}\\n")
        while os.path.exists(os.path.join(self._control, "shut")):
            time.sleep(0.005)
        if os.path.exists(os.path.join(self._control, "dead")):
            raise StorageError(f"{self.url}: no route to host")
        return self._inner.get_range(name, offset, length)


@hookimpl
def volume_open_store(url, options):
    return Gated(url) if url.startswith("gated://") else None
'''


class Gate:
    """The control of the store that `gated://` opens."""

    def __init__(self, home: Path) -> None:
        self._control = home / "control"
        self._control.mkdir()
        site = home / "site"
        information = site / "gated-1.dist-info"
        information.mkdir(parents=True)
        (site / "gated_store.py").write_text(_GATED)
        (information / "METADATA").write_text("Metadata-Version: 2.1\nName: gated\nVersion: 1\n")
        (information / "entry_points.txt").write_text("[volume_core]\ngated = gated_store\n")
        self.environ = {"PYTHONPATH": os.fspath(site)}

    def url(self, version: Version) -> str:
        return f"gated://{version.root}"

    def shut(self) -> None:
        (self._control / "shut").touch()

    def open(self) -> None:
        (self._control / "shut").unlink()

    def kill(self) -> None:
        (self._control / "dead").touch()

    def revive(self) -> None:
        (self._control / "dead").unlink()

    def calls(self) -> list[str]:
        calls = self._control / "calls"
        return calls.read_text().splitlines() if calls.exists() else []

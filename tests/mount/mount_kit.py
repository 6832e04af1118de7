"""Real mounts by real supervisors, and what is left of them.

`Bench` is one test's state directory, a version to mount, and the requests over it; `Owner` is another
process that mounts and then lives until it is killed; `remains` looks at the machine itself (mountinfo,
/proc, directories), not at what the code under test says of it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from server_kit import DEADLINE_S, Version, eventually

from volume_core.mount import syscalls
from volume_core.mount.plans import Record
from volume_core.mount.request import MountRequest
from volume_core.parts import workcopies
from volume_core.parts.state import State
from volume_core.parts.workcopies import WorkingCopy

BIG_BYTES = 3 << 20
LOCATOR = f"file:///store/versions/data/{'ab' * 32}.json"


def plant(tree: Path) -> Path:
    """Fill a directory that has something of everything that a mount test looks at."""
    (tree / "sub" / "deep").mkdir(parents=True)
    (tree / "hello").write_text("hello\n")
    (tree / "sub" / "deep" / "leaf").write_text("leaf\n")
    (tree / "big").write_bytes(bytes(range(256)) * (BIG_BYTES // 256))
    os.setxattr(tree, "user.colour", b"blue")
    os.chmod(tree, 0o751)
    os.utime(tree, ns=(1_700_000_000_123_456_789, 1_700_000_000_123_456_789))
    return tree


class Bench:
    """One test's state, version and requests."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.state = State.at(home / "state").prepare()
        home.joinpath("tree").mkdir()
        self.tree = plant(home / "tree")
        self.version = Version(home, self.tree)

    def reader(self, name: str = "mnt", **more: object) -> MountRequest:
        """Return a request for the version, read-only, at *name*."""
        full = {
            "state": self.state,
            "mount_path": self.home / name,
            "store_url": self.version.url,
            "locator": LOCATOR,
            "layers": (self.version.index,),
            "volume": "data",
            "used_bytes": self.version.used_bytes,
            "inode_count": self.version.inode_count,
            **more,
        }
        return MountRequest(**full)

    def copy(self) -> WorkingCopy:
        """Return a fresh working copy."""
        return workcopies.create(self.state, volume="data", store_url=self.version.url, base=LOCATOR)

    def writer(self, name: str = "mnt", **more: object) -> MountRequest:
        """Return a request for a writer over the version."""
        return self.reader(name, **{"working_copy": self.copy(), **more})

    def new_volume(self, name: str = "mnt", **more: object) -> MountRequest:
        """Return a request for a writer of a brand-new volume."""
        return self.writer(name, **{"layers": (), "locator": None, "used_bytes": 0, "inode_count": 0, **more})

    def mounted(self) -> list[str]:
        """Return what the kernel has mounted below this bench."""
        return [
            each.path for each in syscalls.mount_points() if each.path.startswith(f"{os.path.realpath(self.home)}/")
        ]

    def processes(self) -> dict[int, str]:
        """Return the supervisors, servers and fuse-overlayfs that belong to this bench: pid -> what its command is."""
        found = {}
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                kinds = [kind for kind in ("mount.supervisor", "mount.server", "fuse-overlayfs") if kind in command]
                if kinds and self._is_ours(pid, command):
                    found[int(pid)] = kinds[0]
        return found

    def _is_ours(self, pid: str, command: str) -> bool:
        # Its standard error is a log below our state, even when that is unlinked.
        return os.readlink(f"/proc/{pid}/fd/2").startswith(f"{os.path.realpath(self.state.mounts)}/") or (
            f"{self.home}/" in command
        )

    def records(self) -> list[Record]:
        """Return the records of all mounts of this bench."""
        return [Record.load(str(each.parent)) for each in sorted(self.state.mounts.glob("*/record.json"))]

    def remains(self) -> list[str]:
        """Return everything that a mount left: mounts, processes, directories."""
        left = [f"mounted: {path}" for path in self.mounted()]
        left += [f"process {pid}: {kind}" for pid, kind in self.processes().items()]
        return left + [f"state: {each.name}" for each in self.state.mounts.iterdir() if each.name != "lock"]

    def assert_clean(self) -> None:
        """Wait until nothing is left."""
        eventually(lambda: not self.remains(), f"{self.remains()} to go")

    def sweep(self) -> None:
        """After a failed test: take down by force what is left."""
        for path in reversed(self.mounted()):
            with contextlib.suppress(OSError):
                syscalls.unmount(path, lazy=True)
        for pid in self.processes():
            kill(pid)


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to a process that may have gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def ended(pid: int) -> bool:
    """Whether a process runs no more."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def kill_and_wait(pid: int) -> None:
    """kill -9, and wait until it and its helpers have ended."""
    helpers = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended by itself
        helpers = children(pid) if "server" in Path(f"/proc/{pid}/cmdline").read_text() else []
    kill(pid)
    eventually(lambda: all(map(ended, [pid, *helpers])), f"process {pid} to end")


def children(pid: int) -> list[int]:
    """Return the children of a process."""
    found = []
    for each in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if int(Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(each))
    return found


class Bounded:
    """Something done in a thread, so that a test that would hang fails instead."""

    def __init__(self, action: Callable[[], object]) -> None:
        self.result: object = None
        self.error: BaseException | None = None
        self._action = action
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.result = self._action()
        except BaseException as error:
            self.error = error

    def is_waiting(self) -> bool:
        return self._thread.is_alive()

    def join(self, within_s: float) -> None:
        """Wait so long at most."""
        self._thread.join(within_s)

    def outcome(self, within_s: float = DEADLINE_S) -> object:
        """Return what came out; an OSError is a result too."""
        self._thread.join(within_s)
        assert not self._thread.is_alive(), f"it hangs: no outcome within {within_s} s"
        if self.error is not None and not isinstance(self.error, OSError):
            raise self.error
        return self.result if self.error is None else self.error


_OWNER = """
import os, sys, time
from pathlib import Path
from volume_core.mount.fuse_overlay import FuseOverlayDriver
from volume_core.mount.kernel import KernelDriver
from volume_core.mount.request import MountRequest
from volume_core.parts import workcopies
from volume_core.parts.state import State

root, path, url, layer, copy, driver, detach, worker = sys.argv[1:]
state = State.at(root)
request = MountRequest(
    state, Path(path), url, volume="data", locator={locator!r} if layer else None,
    layers=(Path(layer),) if layer else (),
    working_copy=workcopies.load(state, copy) if copy else None, detach=bool(detach),
)
mounted = {{"kernel": KernelDriver, "fuse-overlay": FuseOverlayDriver}}[driver]().mount(request)
child = os.fork() if worker else -1
if child == 0:
    held = os.open(path + "/hello", os.O_RDONLY) if worker == "holding" else -1
    os.closerange(0, 3)
    time.sleep(60)
    os._exit(0)
print(mounted.id, child, flush=True)
if not detach:
    sys.stdin.read()
"""


class Owner:
    """Another process, that mounts *request* and then waits to be killed.

    `worker`: it forks one, that lives on: "idle", or "holding" a file open.
    """

    def __init__(self, request: MountRequest, driver: str = "kernel", *, worker: str = "") -> None:
        copy = request.working_copy
        command = [
            sys.executable, "-c", _OWNER.format(locator=LOCATOR), str(request.state.root), str(request.mount_path),
            request.store_url, str(request.layers[0]) if request.layers else "", copy.id if copy else "", driver,
            "yes" if request.detach else "", worker,
        ]  # fmt: skip
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        told = self._process.stdout.readline().split()
        assert told, "the owner could not mount"
        self.id, self.worker = told[0], int(told[1])
        self.directory = request.state.mounts / self.id
        self.pid = self._process.pid
        if request.detach:
            self.close()

    def record(self) -> Record:
        """Return what its supervisor last wrote down."""
        return Record.load(str(self.directory))

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        self.close()

    def close(self) -> None:
        """Wait for its end, which comes with its input's."""
        self._process.communicate(timeout=DEADLINE_S)

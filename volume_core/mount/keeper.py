"""The server of one view, and its replacement when it dies.

A copy of the connection's descriptor is held here, so that the file system outlives its server: what was
asked waits in the kernel until the next server answers it.

      serving --server dies--> replacing --> serving
         |                         |  RESTARTS_MAX within RESTARTS_WINDOW_S
         | unmounted               v
         +------> ended <------ aborted: every access fails (ENOTCONN), nothing waits

What the dead server had taken and not answered: the kernel hands it out again (FUSE_NOTIFY_RESEND, from
Linux 6.9).  Older kernels cannot; there each server gets a queue of its own, which fails those requests
with ECONNABORTED when it dies, and a reader's next try is answered.

Always true: no request waits for a server that does not come.
"""

from __future__ import annotations

import collections
import contextlib
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from volume_core.errors import MountError
from volume_core.mount import syscalls
from volume_core.mount.fuse_overlay import NAME as FUSE_OVERLAY
from volume_core.mount.plans import Plan

log = logging.getLogger(__name__)

EXIT_NO_RESEND = 3  # a server's exit status: what was asked of the one before it can only be failed
RESTARTS_MAX = 5
RESTARTS_WINDOW_S = 60.0
BACKOFF_S = 0.1  # doubled with each restart within the window, but for the first, which is at once
END_PATIENCE_S = 5.0  # a server that was told the file system is gone and does not end is killed


def server_config(plan: Plan, fuse_fd: int, resend: bool) -> dict[str, Any]:
    """Return what a server is started with."""
    return {
        "fuse_fd": fuse_fd,
        "layers": plan.layers,
        "store": plan.store_url,
        "region": plan.region,
        "cache_dir": plan.cache_dir,
        "cache_limit_bytes": plan.cache_limit_bytes,
        "used_bytes": plan.used_bytes,
        "inode_count": plan.inode_count,
        "resend": resend,
        # Where the mount does not check modes, it must not check access lists either (attaching.py).
        "acls": plan.allow_other or syscalls.may_mount(),
        # fuse-overlayfs knows a file by its number and copies it up under one of its names, whichever was written to.
        "links": plan.driver != FUSE_OVERLAY or plan.upper is None,
    }


class ServerKeeper:
    """Keeps one server running on *fuse_fd*, which belongs to it from now on.

    `changed` is called from a thread of its own after a server was started or has ended for good.
    `inherited` are descriptors whose copies the server keeps open.
    """

    def __init__(self, plan: Plan, fuse_fd: int, inherited: tuple[int, ...], changed: Callable[[], None]) -> None:
        self._plan = plan
        self._fuse_fd = fuse_fd
        self._inherited = inherited
        self._changed = changed
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._starts: collections.deque[float] = collections.deque(maxlen=RESTARTS_MAX + 1)
        self._closing = threading.Event()
        self._ended = threading.Event()
        self._settled = False
        self.broken: str | None = None
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        """The server's pid; None once there is none."""
        process = self._process
        return process.pid if process is not None and not self._ended.is_set() else None

    def start(self) -> None:
        """Start the first server and the thread that waits for its end."""
        try:
            self._spawn(first=True)
        except OSError as error:
            os.close(self._fuse_fd)
            self._ended.set()
            raise MountError(f"{self._plan.mount_path}: no server can be started: {error}") from error
        threading.Thread(target=self._keep, name="keeper", daemon=True).start()

    def settled(self) -> None:
        """The view has answered: from now on a server that ends by itself is replaced too."""
        self._settled = True

    def has_ended(self) -> bool:
        """Whether no server runs and none will."""
        return self._ended.is_set()

    def wait(self, timeout_s: float) -> bool:
        """Wait until the server has ended for good; False if it has not."""
        return self._ended.wait(timeout_s)

    def abort(self, reason: str) -> None:
        """Break the connection: whatever waits fails at once, and so does every later access."""
        with self._lock:
            if self._ended.is_set() or self.broken is not None:
                return
            self.broken = reason
            self._closing.set()
            if self._process is not None:
                self._process.kill()

    def close(self) -> None:
        """After the file system was unmounted: see that the server ends."""
        if not self._ended.wait(END_PATIENCE_S):
            self.abort("the server did not end with its file system")
            self._ended.wait(END_PATIENCE_S)

    def _spawn(self, *, first: bool) -> None:
        """Start a server, unless the connection was aborted meanwhile."""
        with contextlib.ExitStack() as opened:
            queue = self._fuse_fd
            if not self._plan.resend:
                queue = syscalls.clone_fuse(self._fuse_fd)
                opened.callback(os.close, queue)
            # In memory: the directory may be gone while files of a detached mount are still read.
            config = os.memfd_create("volume-server")
            opened.callback(os.close, config)
            os.write(config, json.dumps(server_config(self._plan, queue, self._plan.resend and not first)).encode())
            os.lseek(config, 0, os.SEEK_SET)
            with self._lock:
                if self._closing.is_set():
                    return
                self._starts.append(time.monotonic())
                self._process = subprocess.Popen(
                    [*self._plan.server, str(config)], pass_fds=(queue, config, *self._inherited),
                    stdin=subprocess.DEVNULL, stdout=sys.stderr, cwd="/",
                )  # fmt: skip
        self._changed()

    def _keep(self) -> None:
        try:
            while self._serve_once():
                pass
        except OSError as error:
            self.broken = self.broken or f"the server cannot be replaced: {error}"
            log.error("%s: %s", self._plan.mount_path, self.broken)
        with self._lock:
            self._closing.set()
            # The last descriptor: the kernel now fails whatever waits.
            os.close(self._fuse_fd)
            self._ended.set()
        self._changed()

    def _serve_once(self) -> bool:
        """Wait for the end of the server that runs; True if another was started in its place."""
        assert self._process is not None
        code = self._process.wait()
        if self._closing.is_set() or not syscalls.is_connected(self._fuse_fd):
            return False
        now = time.monotonic()
        recent = sum(1 for start in self._starts if start > now - RESTARTS_WINDOW_S)
        if code == EXIT_NO_RESEND:
            self.broken = "this kernel cannot send again what the dead server had taken"
            log.error("%s: %s: every access fails from now on", self._plan.mount_path, self.broken)
            return False
        if not self._settled and code > 0:
            self.broken = f"the server ended with exit status {code} as it started"
            return False
        if recent > RESTARTS_MAX:
            self.broken = f"the server died {recent} times within {RESTARTS_WINDOW_S:g} s (last: {_cause(code)})"
            log.error("%s: %s: every access fails from now on", self._plan.mount_path, self.broken)
            return False
        log.warning("%s: the server ended by %s and is replaced", self._plan.mount_path, _cause(code))
        if recent > 1 and self._closing.wait(BACKOFF_S * 2 ** (recent - 2)):
            return False
        self.restarts += 1
        self._spawn(first=False)
        return True


def _cause(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit status {code}"

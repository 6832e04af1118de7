"""The process that keeps one mount alive and takes it down: `python -m volume_core.mount.supervisor FD`.

FD is a socket to the process that asked: it sends a plan, and is told "ready" or what went wrong.

    claim -> attach the view, start its server -> attach the overlay -> ready
                                                                          |
        asked to unmount | owner gone | SIGTERM | unmounted by others     v
    gone <- lingering: files of a lazily detached tree are still open <- taken down

Always true:
  1. It is nobody's child and in a session of its own: what kills a task's processes does not reach it, and it
     outlives the owner to clean up.  The owner is watched by pidfd.
  2. Each step of mounting is undone if a later one fails, or if nobody is left to be told "ready".
  3. The main thread may wait inside the kernel for the server; the keeper's thread, which replaces servers, never
     touches the mount.  Mounting ends in time since its end aborts the connection.
  4. A writer's upper is never removed here.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from volume_core.errors import MountError, VolumeError
from volume_core.mount import attaching, claiming, control, stale, syscalls
from volume_core.mount.keeper import ServerKeeper
from volume_core.mount.plans import LOG, Plan, Process, Record

log = logging.getLogger(__name__)

EMPTY = "empty"
ORPHANS_GRACE_S = 10.0  # how long files that the owner's children still have open outlive the owner
PROGRAM_PATIENCE_S = 60.0  # fuse-overlayfs writes back what it has in memory before it ends
OWNER_POLL_S = 1.0  # where the kernel has no pidfds


class Supervisor:
    """One mount, from its plan to its end."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._record = Record(plan)
        self._keeper: ServerKeeper | None = None
        self._program: subprocess.Popen[bytes] | None = None
        self._door: socket.socket | None = None
        self._wake_reader, self._wake_writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._ending: str | None = None
        self._gone = False

    # Mounting.

    def start(self) -> Record:
        """Mount.  Raises MountError, and then nothing is left of it."""
        self._catch_signals()
        with contextlib.ExitStack() as undo:
            self._record, _, serving = claiming.claim(self._plan)
            undo.callback(lambda: claiming.release(self._record))
            self._write_log()
            overdue = threading.Timer(self._plan.timeout_s, self._give_up)
            overdue.daemon = True
            overdue.start()
            undo.callback(overdue.cancel)
            try:
                self._attach(undo, serving)
                os.stat(self._plan.mount_path)  # it answers
            except OSError as error:
                raise self._failure(error) from error
            self._door = control.listen(self._plan.directory)
            undo.callback(self._door.close)
            self._record = self._record._replace(ready=True)
            self._note()
            undo.pop_all()
            overdue.cancel()
        return self._record

    def _attach(self, undo: contextlib.ExitStack, serving: int) -> None:
        plan, lower = self._plan, self._plan.view_path
        if lower is not None:
            self._attach_view(undo, lower, serving)
        if plan.upper is None:
            return
        if lower is None:
            lower = os.path.join(plan.directory, EMPTY)
            os.mkdir(lower)
        undo.callback(functools.partial(attaching.detach, plan.mount_path, lazy=True))
        if plan.driver == "kernel":
            from volume_core.mount.kernel import attach_overlay

            self._record = self._record._replace(dialect=attach_overlay(plan, lower))
        else:
            from volume_core.mount.fuse_overlay import DIALECT, attach_fuse_overlay

            self._record = self._record._replace(dialect=DIALECT)
            self._program = attach_fuse_overlay(plan, lower)
            threading.Thread(target=self._await_program, name="program", daemon=True).start()

    def _attach_view(self, undo: contextlib.ExitStack, path: str, serving: int) -> None:
        plan = self._plan
        if path != plan.mount_path:
            os.mkdir(path, 0o700)
        fuse_fd = attaching.attach_view(path, plan.source, allow_other=plan.allow_other)
        self._keeper = keeper = ServerKeeper(plan, fuse_fd, (serving,), self._wake)
        undo.callback(keeper.close)
        undo.callback(functools.partial(attaching.detach, path, lazy=True))
        keeper.start()
        seen = os.stat(path)  # waits for the server's first answers
        keeper.settled()
        attaching.raise_readahead(seen.st_dev)

    def _give_up(self) -> None:
        if self._keeper is not None:
            self._keeper.abort(f"mounting took longer than {self._plan.timeout_s:g} s")

    def _failure(self, error: OSError) -> MountError:
        broken = self._keeper.broken if self._keeper is not None else None
        with open(os.path.join(self._plan.directory, LOG), "rb") as file:
            file.seek(max(os.fstat(file.fileno()).st_size - 2000, 0))
            said = file.read().decode("utf-8", "replace").strip()
        return MountError(
            f"{self._plan.mount_path}: {broken or error}" + (f"; its log ends with:\n{said}" if said else "")
        )

    def _write_log(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        fd = os.open(os.path.join(self._plan.directory, LOG), flags, 0o600)
        os.dup2(fd, sys.stdout.fileno())
        os.dup2(fd, sys.stderr.fileno())
        os.close(fd)

    def _catch_signals(self) -> None:
        signal.set_wakeup_fd(self._wake_writer, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.end("a signal"))
        # Handled, not ignored: children would inherit that.
        signal.signal(signal.SIGHUP, lambda *_: None)

    def end(self, reason: str) -> None:
        """Have run() take the mount down."""
        self._ending = self._ending or reason

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # it is awake
            os.write(self._wake_writer, b"\0")

    def _await_program(self) -> None:
        assert self._program is not None
        self._program.wait()
        self._wake()

    # Keeping.

    def run(self) -> None:
        """Keep the mount until it is to end, take it down, and return when nobody uses it any more."""
        assert self._door is not None
        door = self._door
        with contextlib.ExitStack() as opened:
            opened.enter_context(door)
            changes = opened.enter_context(open("/proc/self/mountinfo", "rb"))
            loop = _Loop()
            loop.add(self._wake_reader, select.POLLIN, self._woken)
            loop.add(door.fileno(), select.POLLIN, lambda: control.serve(door, self._respond))
            loop.add(changes.fileno(), select.POLLPRI, self._look)
            owner = self._watch_owner(opened, loop)
            self._look()
            while not self._gone and self._ending is None:
                loop.once(OWNER_POLL_S if owner else None)
                if owner and not owner.is_alive():
                    self.end("the end of its owner")
        if not self._gone:
            log.info("%s is unmounted because of %s", self._plan.mount_path, self._ending)
            try:
                self._take_down(lazy=True)
            except VolumeError as error:
                log.error("%s is left to the next start: %s", self._plan.mount_path, error)
                return
        self._linger()

    def _watch_owner(self, opened: contextlib.ExitStack, loop: _Loop) -> Process | None:
        """Have the loop told of the owner's end; return the owner if that cannot be and it must be polled."""
        owner = self._plan.owner
        if owner is None:
            return None
        try:
            fd = owner.open()
        except OSError:
            return owner
        if fd is None:
            self.end("the end of its owner")
            return None
        opened.callback(os.close, fd)
        loop.add(fd, select.POLLIN, lambda: self.end("the end of its owner"))
        return None

    def _woken(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_reader, 4096)
        self._note()

    def _note(self) -> None:
        """Bring the record up to date."""
        keeper, program = self._keeper, self._program
        broken, processes = self._record.broken, {"supervisor": Process.of(os.getpid())}
        if keeper is not None:
            broken = broken or keeper.broken
            if keeper.pid is not None:
                processes["server"] = Process.of(keeper.pid)
        if program is not None:
            processes["fuse-overlayfs"] = self._record.processes.get("fuse-overlayfs") or Process.of(program.pid)
            if program.poll() is not None and not broken and self._is_mounted():
                broken = f"fuse-overlayfs ended with status {program.returncode}; the upper is kept"
                log.error("%s: %s", self._plan.mount_path, broken)
        self._record = self._record._replace(broken=broken, processes=processes)
        self._record.save()

    def _is_mounted(self) -> bool:
        path = self._plan.mount_path
        return any(
            each.path == path and self._record.is_ours(each.source, each.kind) for each in syscalls.mount_points()
        )

    def _look(self) -> None:
        """Notice that somebody else has unmounted the tree."""
        if not self._is_mounted():
            self.end("an unmount by somebody else")

    def _respond(self, question: dict[str, Any]) -> dict[str, Any]:
        if question.get("command") == "unmount":
            self._take_down(lazy=bool(question.get("lazy")))
            return {}
        if question.get("command") == "status":
            keeper = self._keeper
            return {
                "restarts": keeper.restarts if keeper else 0,
                "broken": self._record.broken,
                "server": keeper.pid if keeper else None,
            }
        raise MountError(f"a supervisor cannot {question.get('command')!r}")

    # Taking down.

    def _take_down(self, *, lazy: bool) -> None:
        """Unmount and forget.  Strict: raises BusyError, and the mount stays as it is."""
        stale.take_down(self._record, lazy=lazy)
        self._gone = True
        if self._program is not None and not lazy:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._program.wait(PROGRAM_PATIENCE_S)
        claiming.release(self._record)

    def _linger(self) -> None:
        """Wait until nobody has a file of the detached tree open; not much longer than the owner lives."""
        owner, deadline = self._plan.owner, None
        while self._is_used() and (deadline is None or time.monotonic() < deadline):
            select.select([self._wake_reader], [], [], OWNER_POLL_S)
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_reader, 4096)
            if deadline is None and (self._ending is not None or (owner is not None and not owner.is_alive())):
                deadline = time.monotonic() + ORPHANS_GRACE_S
        if self._keeper is not None and not self._keeper.has_ended():
            self._keeper.abort("its owner is gone")
            self._keeper.wait(PROGRAM_PATIENCE_S)
        if self._program is not None and self._program.poll() is None:
            self._program.kill()

    def _is_used(self) -> bool:
        keeper, program = self._keeper, self._program
        return (keeper is not None and not keeper.has_ended()) or (program is not None and program.poll() is None)


class _Loop:
    """Descriptors and what is done when they have something to say."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._actions: dict[int, Callable[[], None]] = {}

    def add(self, fd: int, events: int, action: Callable[[], None]) -> None:
        self._poll.register(fd, events)
        self._actions[fd] = action

    def once(self, timeout_s: float | None) -> None:
        for fd, _ in self._poll.poll(None if timeout_s is None else timeout_s * 1000):
            self._actions[fd]()


def main(arguments: list[str]) -> int:
    """Mount what the socket says, keep it, and end with it."""
    channel = socket.socket(fileno=int(arguments[0]))
    if os.fork():
        os._exit(0)  # whoever asked waits for this one, and has no other child
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    with channel:
        try:
            plan = Plan.from_fields(control.receive(channel))
        except ConnectionError:
            return 1
        supervisor = Supervisor(plan)
        try:
            record = supervisor.start()
        except (VolumeError, OSError) as error:
            with contextlib.suppress(OSError):
                control.send(channel, control.error_fields(error))
            return 1
        try:
            control.send(channel, {"dialect": record.dialect})
        except OSError:
            supervisor.end("nobody left to be told of it")
    supervisor.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

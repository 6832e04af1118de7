"""Processes of ours that this one starts: what they are given, and that none stays a zombie.

Always true: a program of ours is started with `-P`, so that no file in the working directory is taken for a
module of its own; a pid is waited for only while it is still the process that was started.
"""

from __future__ import annotations

import os

import volume_core
from volume_core.mount.plans import Process

_SITES = ("site-packages", "dist-packages")
_adoptable: list[Process] = []  # only appended to and popped: safe from any thread


def environment() -> dict[str, str]:
    """Return this process's environment, credentials and all, in which a fresh Python finds this package."""
    found = dict(os.environ)
    root = os.path.dirname(os.path.dirname(os.path.abspath(volume_core.__file__)))
    if os.path.basename(root) not in _SITES:
        # A checkout.  An installation is found anyway, and must not come before the standard library.
        found["PYTHONPATH"] = os.pathsep.join(filter(None, [root, found.get("PYTHONPATH")]))
    return found


def adopted_later(process: Process) -> None:
    """Have *process*, which is nobody's child, reaped after its end in case it becomes this one's.

    That is so where this process is a container's first: whoever has no parent is then its child, and in most
    containers nobody else would ever wait for it.
    """
    reap()
    _adoptable.append(process)


def reap() -> None:
    """Wait for those that have ended; never blocks."""
    for _ in range(len(_adoptable)):
        try:
            process = _adoptable.pop(0)
        except IndexError:  # another thread reaps, too
            return
        if process == Process.of(process.pid) and _still_runs(process.pid):
            _adoptable.append(process)


def _still_runs(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == 0
    except ChildProcessError:
        # Of another parent, or not adopted yet: only the first process of all adopts it at once.
        return os.getpid() == 1

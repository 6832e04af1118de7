"""A process that commits twice by a handle, and stops behind a local step of the second until it is killed.

    handle_committer.py <store URL> <mount path> save|update

It says {"working_copy": id} before the second commit and {"stopped": step} when it stops.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from committer import change, prepare, say

from volume_core import Volume
from volume_core.facade import worktrees
from volume_core.parts.workcopies import WorkingCopy


def stopping(step: str, call: Callable[..., Any]) -> Callable[..., Any]:
    def stop(*args: Any, **options: Any) -> None:
        call(*args, **options)
        say(stopped=step)
        sys.stdin.read()  # whoever started this process kills it now
        raise SystemExit("nobody killed this process")

    return stop


def main(url: str, mount_path: str, step: str) -> None:
    volume = Volume.new("volume", url)
    tree = volume.mount_sync(mount_path, driver="copy")
    prepare(tree)
    volume.commit_sync()
    change(tree)
    say(working_copy=volume.status_sync().working_copy)
    if step == "save":
        worktrees.save = stopping(step, worktrees.save)
    else:
        WorkingCopy.update = stopping(step, WorkingCopy.update)  # type: ignore[method-assign]
    volume.commit_sync()


if __name__ == "__main__":
    main(*sys.argv[1:])

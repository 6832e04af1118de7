"""A process that commits to a named volume, and stops behind a step of its second commit until it is killed.

    named_committer.py <store URL> <mount path> <step>

It says {"working_copy": id} before the second commit, waits for a line, and says {"stopped": step} when it stops.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from committer import say

from volume_core import Volume
from volume_core.facade import worktrees
from volume_core.parts import landing
from volume_core.parts.workcopies import WorkingCopy


def stopping(step: str, call: Callable[..., Any]) -> Callable[..., Any]:
    def stop(*args: Any, **options: Any) -> None:
        call(*args, **options)
        say(stopped=step)
        sys.stdin.read()  # whoever started this process kills it now
        raise SystemExit("nobody killed this process")

    return stop


STEPS: dict[str, tuple[object, str]] = {
    "the manifest was written": (landing, "publish_changes"),
    "what was captured was kept": (worktrees, "save"),
    "the head was moved": (landing, "move_head"),
    "what was captured was noted": (os, "replace"),
    "the record was replaced": (WorkingCopy, "update"),
}


def main(url: str, mount_path: str, step: str) -> None:
    volume = Volume.from_name_sync("shared", url)
    path = volume.mount_sync(mount_path, driver="copy")
    (path / "mine").write_text("1")
    volume.commit_sync("first")
    say(working_copy=volume.status_sync().working_copy)
    sys.stdin.readline()  # another commits meanwhile
    (path / "mine").write_text("2")
    (path / "base").unlink()
    where, name = STEPS[step]
    call = getattr(where, name)
    if name == "replace":  # of the file that keeps what was captured, not of every other

        def replace(source: Any, target: Any, **options: Any) -> None:
            last = str(target).endswith("captured.sqlite") and str(source).endswith("landing.sqlite")
            (stopping(step, call) if last else call)(source, target, **options)

        os.replace = replace
    else:
        setattr(where, name, stopping(step, call))
    volume.commit_sync("second")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""A process that reloads a mounted named volume, and stops in the middle until it is killed.

    reloader.py <store URL> <mount path> replay|discard

It says {"working_copy": id} before it reloads, waits for a line, and says {"stopped": step} when it stops: before the
changes are replayed over the newer version, or after that, before the older working copy goes.
"""

from __future__ import annotations

import sys
from typing import Any

from committer import say

from volume_core import Volume
from volume_core.facade import reloading
from volume_core.facade.writers import Writer


def main(url: str, mount_path: str, step: str) -> None:
    volume = Volume.from_name_sync("shared", url)
    path = volume.mount_sync(mount_path, driver="copy")
    (path / "mine").write_text("1")
    (path / "base").unlink()
    say(working_copy=volume.status_sync().working_copy)
    sys.stdin.readline()  # another commits meanwhile

    def stop(*_: Any, **__: Any) -> None:
        say(stopped=step)
        sys.stdin.read()  # whoever started this process kills it now
        raise SystemExit("nobody killed this process")

    if step == "replay":
        reloading.replay = stop
    else:
        Writer.discard = stop  # type: ignore[method-assign]
    volume.reload_sync()


if __name__ == "__main__":
    main(*sys.argv[1:])

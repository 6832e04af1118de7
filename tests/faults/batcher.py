"""A process that uploads a directory in one batch, and stops after so many packs until it is killed.

    batcher.py <store URL> <directory> <packs>

It says {"packs": n} when it stops, {"locator": ...} at the end.
"""

from __future__ import annotations

import sys

from committer import PACK_BYTES, say

from volume_core import Volume
from volume_core.parts import packing
from volume_core.storage.local import LocalStore


def main(url: str, directory: str, packs: str) -> None:
    packing.PACK_BYTES = PACK_BYTES
    put_new, left = LocalStore.put_new, [int(packs)]

    def stopping(self: LocalStore, name: str, data: bytes | memoryview) -> None:
        if name.startswith("packs/"):
            if not left[0]:
                say(packs=int(packs))
                sys.stdin.read()  # whoever started this process kills it now
                raise SystemExit("nobody killed this process")
            left[0] -= 1
        put_new(self, name, data)

    LocalStore.put_new = stopping  # type: ignore[method-assign]
    volume = Volume.new("volume", url)
    with volume.batch_upload_sync(max_uploads=1) as batch:
        batch.put_directory(directory, "/")
    say(locator=batch.version.locator)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Small things that several tests of the fsspec door ask for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from volume_core import ROVolume, Volume

BIG = bytes(range(256)) * 4096 * 9  # 9 MiB: three chunks
TREE = {"a.txt": b"a", "d/b.txt": b"bb", "d/e/c.bin": b"\0\1\2", "big.bin": BIG, "empty/": b""}
ODD_NAMES = (b"not \xff utf-8", b"two\nlines", b"per%20cent", b"a#b?c", b"colon::colon", b"x" * 255, b"-", b"a~b+c")


def write(root: Path, files: Mapping[str | bytes, bytes]) -> None:
    """Write *files* below *root*; a name that ends in a slash is a directory."""
    for name, data in files.items():
        path = os.path.join(os.fsencode(root), os.fsencode(name))
        if path.endswith(b"/"):
            os.makedirs(path, exist_ok=True)
            continue
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)


def committed(name: str, files: Mapping[str | bytes, bytes], bucket: str | None = None) -> ROVolume:
    """The head of the volume *name* after *files* were written to it."""
    volume = Volume.from_name_sync(name, bucket, create_if_missing=True)
    with volume.mounted_sync(driver="copy") as path:
        write(path, files)
    assert volume.committed is not None
    return volume.committed

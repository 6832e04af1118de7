"""What the tests of commits share: trees, and judges of what became of them."""

from __future__ import annotations

import os
import random
from contextlib import closing
from pathlib import Path

from volume_core.domain.view import View
from volume_core.format.entries import CHUNK_BYTES
from volume_core.format.names import Locator
from volume_core.parts.checking import check_version
from volume_core.parts.committing import CommitResult
from volume_core.parts.indexes import IndexCache, open_view
from volume_core.storage.protocol import Store
from volume_core.testing.lines import checkout
from volume_core.testing.oracle import assert_same_tree


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def fill(tree: Path) -> None:
    """A bit of everything that an unprivileged user can make."""
    (tree / "directory" / "below").mkdir(parents=True)
    (tree / "directory" / "file").write_bytes(b"content")
    (tree / "directory" / "below" / "empty").touch()
    (tree / "large").write_bytes(noise(CHUNK_BYTES + 1))
    with (tree / "sparse").open("wb") as file:
        file.seek(3 * CHUNK_BYTES)
        file.write(b"end")
    os.link(tree / "directory" / "file", tree / "another name")
    os.symlink("nowhere", tree / "symlink")
    os.mkfifo(tree / "fifo")
    (tree / os.fsdecode(b"no text \xff")).write_bytes(b"bytes")
    (tree / "directory" / "file").chmod(0o4750)
    os.utime(tree / "large", ns=(1, -1_000_000_001))
    os.setxattr(tree / "large", "user.name", b"value")


def check(store: Store, result: CommitResult) -> None:
    _, volume, version = Locator.parse(result.locator)
    assert [] == check_version(store, volume, version)


def reads_as(store: Store, result: CommitResult, tree: Path, aside: Path) -> None:
    """The version holds *tree*, by a reader that has nothing but the store, and is whole."""
    check(store, result)
    checkout(store, result.locator, aside)
    assert_same_tree(tree, aside)


def names(store: Store, prefix: str = "") -> set[str]:
    return {found.name for found in store.names(prefix)}


def view_of(store: Store, result: CommitResult, aside: Path) -> closing[View]:
    return closing(open_view(IndexCache(aside).fetch(store, result.manifest.stack)))

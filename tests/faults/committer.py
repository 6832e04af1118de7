"""A process that commits, and stops at a chosen call to its store until it is killed.

    committer.py <store URL> <place> <start locator or ""> <options as JSON>

It answers in lines of JSON on its standard output: {"call": [operation, name]} for each call that
writes, {"stopped": ...} when it stops, {"locator": ...} at the end.  A test imports `prepare` and
`change`, so that both speak of the same trees.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path

from volume_core.parts import packing
from volume_core.storage.local import LocalStore
from volume_core.testing.faulty import WRITES, FaultyStore
from volume_core.testing.lines import Line

PACK_BYTES = 64 << 10


def prepare(tree: Path, seed: int = 0) -> None:
    """Some files, of two packs."""
    for number in range(12):
        directory = tree / f"directory{number % 3}"
        directory.mkdir(exist_ok=True)
        (directory / f"file{number}").write_bytes(random.Random(f"{seed}/{number}").randbytes(9000))


def change(tree: Path, seed: int = 1) -> None:
    """Rewrite many files, of two packs again: so much that the stack is compacted."""
    (tree / "directory0" / "file0").unlink()
    (tree / "directory1" / "file1").chmod(0o600)
    for number in range(2, 12):
        path = tree / f"directory{number % 3}" / f"file{number}"
        path.write_bytes(random.Random(f"{seed}/{number}").randbytes(9000))


def touch(tree: Path, seed: int = 2) -> None:
    """A small change."""
    (tree / "directory0" / "small").write_bytes(random.Random(seed).randbytes(100))


CHANGES = {"prepare": prepare, "change": change, "touch": touch}


def say(**words: object) -> None:
    print(json.dumps(words), flush=True)


class Stopping(FaultyStore):
    """Says each call that writes, and stops after, or before, the *at*-th of them."""

    def __init__(self, inner: LocalStore, at: int, before: bool) -> None:
        super().__init__(inner, operations=WRITES)
        self.at = at
        self.before = before

    def _call(self, operation: str, name: str, call: Callable[[], object]) -> object:
        if operation in WRITES:
            self.calls.append((operation, name))
            say(call=[operation, name])
            if self.before and len(self.calls) == self.at:
                self.stop()
        result = call()
        if operation in WRITES and len(self.calls) == self.at:
            self.stop()
        return result

    def stop(self) -> None:
        say(stopped=self.at)
        sys.stdin.read()  # whoever started this process kills it now
        raise SystemExit("nobody killed this process")


def main(url: str, place: str, start: str, options: str) -> None:
    wanted = json.loads(options)
    packing.PACK_BYTES = PACK_BYTES
    store = LocalStore(url.removeprefix("file://"))
    line = Line(store, Path(place), start=start or None)
    CHANGES[wanted["first"]](line.tree, wanted.get("seed", 0))
    if wanted.get("then"):
        line.commit()
        CHANGES[wanted["then"]](line.tree)
    say(tree=str(line.tree), parent=line.parent)
    sys.stdin.readline()  # several may start together
    stopping = Stopping(store, wanted.get("at", 0), wanted.get("before", False))
    result = line.commit(store=stopping, max_uploads=1)
    say(locator=result.locator)


if __name__ == "__main__":
    main(*sys.argv[1:])

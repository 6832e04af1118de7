"""Writes a golden store: a small volume with everything that the format can say, and what it should read as.

    sudo python tests/format/make_golden.py tests/format/golden/<release>

Run once for each release that changes the format, by the code of that release, and never again: what
it makes is committed and only read (tests/format/test_golden.py).  Root, for it makes devices and gives
files away.

    <release>/store/            the store, as it lies in a file:// directory
    <release>/expected.json     {"objects": {name: digest}, "versions": {locator: {path: what is there}}}

Paths in expected.json are bytes, each as the character of that number (latin-1).
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from blake3 import blake3

from volume_core.format.entries import CHUNK_BYTES
from volume_core.format.intent import Intent
from volume_core.format.manifest import Action
from volume_core.format.names import intent_name
from volume_core.parts.committing import CommitResult
from volume_core.storage.local import OWN, LocalStore
from volume_core.testing.faulty import FaultyStore
from volume_core.testing.lines import Line
from volume_core.testing.oracle import Described, describe

URL = "file:///golden/store"  # not where it lies: a golden store is no machine's
BEGAN_NS = 1_767_225_600_000_000_000
SHOWN_XATTRS = (b"user.", b"security.capability")
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
BLOCK = 4096


class Anywhere(FaultyStore):
    """A directory under a URL that means nothing to this machine."""

    url = URL


def noise(size: int, seed: object) -> bytes:
    return random.Random(str(seed)).randbytes(size)


def first_tree(tree: Path) -> None:
    """Every kind of file, and every way in which content can lie."""
    for name in ("docs/deep/er", "replaced", "emptied/below", "renamed/inside", "sticky"):
        (tree / name).mkdir(parents=True)
    (tree / "docs" / "text").write_bytes(b"It was a bright cold day in April. " * 50)
    (tree / "docs" / "noise").write_bytes(noise(3000, "noise"))
    (tree / "docs" / "deep" / "er" / "small").write_bytes(b"small")
    (tree / "empty").touch()
    (tree / "large").write_bytes(b"ab" * (CHUNK_BYTES // 2) + b"the end of the second chunk")
    sparse(tree / "sparse")
    with (tree / "hole").open("wb") as file:
        file.truncate(1 << 40)
    (tree / "link one").write_bytes(b"an inode with three names")
    os.link(tree / "link one", tree / "link two")
    os.link(tree / "link one", tree / "docs" / "link three")
    (tree / os.fsdecode(b"bytes \xff\xfe\n")).write_bytes(b"a name that is no text")
    (tree / ("n" * 255)).write_bytes(b"the longest name")
    (tree / "replaced" / "file").write_bytes(b"in a directory that becomes a file")
    (tree / "emptied" / "below" / "file").write_bytes(b"hidden by an opaque directory")
    (tree / "renamed" / "inside" / "file").write_bytes(b"moves without a byte being sent")
    for name in ("removed", "moded", "changed"):
        (tree / name).write_bytes(name.encode())
    specials(tree)
    attributes(tree)


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        for at in (BLOCK, 7 * BLOCK, 2 * CHUNK_BYTES - BLOCK):
            file.seek(at)
            file.write(b"%d" % at + b" is where this block lies. " * 40)
        file.truncate(3 * CHUNK_BYTES + 5)


def specials(tree: Path) -> None:
    os.symlink("docs/text", tree / "symlink")
    os.symlink("/nowhere/at/all", tree / "dangling")
    os.symlink(b"x" * 4000, os.fsencode(tree / "long symlink"))
    os.mkfifo(tree / "fifo", 0o640)
    os.mknod(tree / "character device", 0o660 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(tree / "block device", 0o660 | stat.S_IFBLK, os.makedev(4095, 1_048_575))


def attributes(tree: Path) -> None:
    os.chown(tree / "docs" / "text", 4_294_967_294, 65_534)
    (tree / "docs" / "text").chmod(0o6755)
    (tree / "sticky").chmod(0o1777)
    os.setxattr(tree / "docs" / "noise", "user.colour", b"\0\xff binary")
    os.setxattr(tree / "docs" / "noise", "user.empty", b"")
    os.setxattr(tree / "docs", "user.on a directory", b"yes")
    os.setxattr(tree / "changed", "security.capability", CAPABILITY)
    set_times(tree)


def set_times(tree: Path) -> None:
    """Times that do not depend on the day, some of them before 1970; nanoseconds count."""
    for number, path in enumerate(sorted(describe(tree), key=lambda p: (-p.count(b"/"), p))):
        at = os.path.join(os.fsencode(tree), path) if path else os.fsencode(tree)
        moment_ns = -1_000_000_001 if path == b"empty" else 1_000_000_000_123_456_789 + number
        os.utime(at, ns=(moment_ns, moment_ns), follow_symlinks=False)


def second_tree(tree: Path) -> None:
    """Every way in which a layer can change the one below."""
    (tree / "removed").unlink()
    (tree / "moded").chmod(0o400)
    (tree / "changed").write_bytes(b"changed indeed")
    shutil.rmtree(tree / "replaced")
    (tree / "replaced").write_bytes(b"a file for a directory")
    shutil.rmtree(tree / "emptied" / "below")
    (tree / "emptied" / "other").write_bytes(b"nothing is left of what was here")
    (tree / "renamed").rename(tree / "new name")
    (tree / "empty").unlink()
    (tree / "empty").mkdir()
    (tree / "link two").unlink()
    with (tree / "large").open("r+b") as file:
        file.seek(CHUNK_BYTES + 4)
        file.write(b"END")
    set_times(tree)


def third_tree(tree: Path) -> None:
    """So much that the stack is compacted."""
    for number in range(30):
        (tree / f"more{number:02}").write_bytes(noise(20, number))
    set_times(tree)


def last_tree(tree: Path) -> None:
    (tree / "restless").write_bytes(b"0")
    set_times(tree)


def writes_to(path: Path) -> Callable[[], None]:
    def write() -> None:
        with path.open("ab") as file:
            file.write(b" one more")

    return write


def seen(tree: Path) -> dict[str, dict[str, object]]:
    """What a version of *tree* should read as."""
    found = describe(tree, xattr_prefixes=SHOWN_XATTRS)
    return {latin(path): as_json(described, sha256(tree, path, described)) for path, described in found.items()}


def sha256(tree: Path, path: bytes, described: Described) -> str:
    if described.kind != "file" or not described.data:
        return ""  # a tebibyte of hole says enough by its size
    with open(os.path.join(os.fsencode(tree), path), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def as_json(described: Described, content: str) -> dict[str, object]:
    fields = described._asdict()
    del fields["digest"]
    return {
        **fields,
        "target": latin(described.target),
        "xattrs": [[latin(name), latin(value)] for name, value in described.xattrs],
        "data": [list(each) for each in described.data],
        "links": [latin(path) for path in described.links],
        "sha256": content,
    }


def latin(data: bytes) -> str:
    return data.decode("latin-1")


def versions(store: Anywhere, place: Path) -> dict[str, dict[str, dict[str, object]]]:
    clock = iter(range(BEGAN_NS, BEGAN_NS + 10**12, 1_001_001_001))
    expected: dict[str, dict[str, dict[str, object]]] = {}
    line = Line(store, place / "line", volume="golden")

    def commit(made_by: Line, **options: object) -> CommitResult:
        result = made_by.commit(clock=lambda: next(clock), **options)
        expected[result.locator] = seen(made_by.tree)
        return result

    first_tree(line.tree)
    action = Action("engine", "org", "project", "domain", "run", "action", "1", "https://example.org/run")
    commit(line, compression="zstd", message="the first\nof several", produced_by=action, region="eu-central-1")
    second_tree(line.tree)
    second = commit(line, compression="none", message="grüße \U0001f40b", labels={"stage": "test", "ключ": "значение"})
    fork = Line(store, place / "fork", volume="golden-fork", start=second.locator)
    (fork.tree / "docs" / "mine").write_bytes(b"only in the fork")
    commit(fork, produced_by=action)
    third_tree(line.tree)
    assert 1 == len(commit(line, compression="auto").manifest.stack)
    last_tree(line.tree)
    torn = commit(line, settle=writes_to(line.tree / "restless"), allow_torn=True)
    # What was captured is what was there before the last write.
    expected[torn.locator]["restless"] = {"kind": "file", "torn": True}
    return expected


def main(place: str) -> None:
    golden = Path(place)
    golden.mkdir(parents=True)
    store = Anywhere(LocalStore(golden / "store"))
    with tempfile.TemporaryDirectory() as scratch:
        expected = versions(store, Path(scratch))
    intent = Intent(
        "0" * 32, "golden", 1800, "2026-01-01T00:00:00.000000Z", "2026-01-01T00:05:00.000000Z", (*expected,), 1
    )
    store.put_new(intent_name(intent.id), intent.to_bytes())
    shutil.rmtree(golden / "store" / OWN)
    objects = {found.name: blake3(store.get(found.name)).hexdigest() for found in store.names("")}
    text = json.dumps({"objects": objects, "versions": expected}, indent=1, sort_keys=True)
    (golden / "expected.json").write_text(text + "\n")


if __name__ == "__main__":
    main(sys.argv[1])

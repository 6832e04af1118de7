"""Flipped and cut bytes in every kind of object: CorruptObjectError, never a wrong byte.

Through a whole commit and a whole reading; the parts' own tests damage caches and single calls.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from volume_core.errors import CorruptObjectError, NotFoundError
from volume_core.format.names import Locator
from volume_core.format.pack import HEADER_BYTES
from volume_core.parts import packing
from volume_core.parts.checking import check_version
from volume_core.parts.trees import remove_tree
from volume_core.storage.local import LocalStore
from volume_core.storage.memory import MemoryStore
from volume_core.storage.protocol import Store
from volume_core.testing.lines import Line, checkout
from volume_core.testing.oracle import Described, assert_same_tree, describe

pytestmark = [pytest.mark.faults, pytest.mark.loud]  # what cannot be read is logged before it is raised

KINDS = ("versions/", "layers/", "packs/")


class Subject(NamedTuple):
    """A store, a version of it, and the tree that it holds."""

    store: Store
    locator: str
    tree: dict[bytes, Described]
    place: Path

    def names(self, kind: str) -> list[str]:
        return sorted(found.name for found in self.store.names(kind))

    def read(self) -> str:
        """Read the whole version as another machine would; return "right" or "corrupt", or fail."""
        aside = self.place / "read"
        aside.mkdir()
        try:
            checkout(self.store, self.locator, aside / "tree")
        except CorruptObjectError:
            return "corrupt"
        else:
            assert_same_tree(self.tree, aside / "tree")
            return "right"
        finally:
            remove_tree(aside)

    def problems(self) -> int:
        found = Locator.parse(self.locator)
        return len(check_version(self.store, found.volume, found.version))


def fill(tree: Path) -> None:
    (tree / "directory").mkdir()
    (tree / "directory" / "text").write_bytes(b"all work and no play " * 100)
    (tree / "directory" / "noise").write_bytes(random.Random(1).randbytes(700))
    (tree / "gone").write_bytes(b"small")  # no chunk of its own, for none may lie unread
    (tree / "small").write_bytes(b"small")
    os.symlink("small", tree / "symlink")


@pytest.fixture(params=["file", "memory"])
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Subject:
    """Two versions: the second is mounted as two layers, with chunks of two packs."""
    store = LocalStore(tmp_path / "store") if request.param == "file" else MemoryStore(request.node.nodeid)
    line = Line(store, tmp_path / "line")
    fill(line.tree)
    for number in range(9):
        (line.tree / f"more{number}").touch()
    line.commit(compression="zstd")
    (line.tree / "gone").unlink()
    (line.tree / "new").write_bytes(b"new")
    result = line.commit(compression="zstd")
    assert 2 == len(result.manifest.stack)
    return Subject(store, result.locator, describe(line.tree), tmp_path)


def damages(data: bytes, step: int) -> Iterator[tuple[str, bytes]]:
    """(what was done, the result): flips, not overwrites, for a constant may be what was there."""
    bits = random.Random(len(data))
    for position in range(bits.randrange(step), len(data), step):
        flipped = data[position] ^ 1 << bits.randrange(8)
        yield f"flip {position}", data[:position] + bytes([flipped]) + data[position + 1 :]
    for length in sorted({0, 1, len(data) // 3, len(data) // 2, len(data) - 1}):
        yield f"cut {length}", data[:length]


def replace(store: Store, name: str, data: bytes) -> None:
    store.delete(name)  # no store of ours would overwrite it by put_new, and a local reader keeps it open
    store.put(name, data)


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_never_a_wrong_byte(subject, kind):
    names = [name for name in subject.names(kind) if kind != "versions/" or name in subject.locator]
    assert names
    for name in names:
        whole = subject.store.get(name)
        for what, damaged in damages(whole, step=max(5, len(whole) // 60)):
            replace(subject.store, name, damaged)
            # A pack's header is of no use to a reader that knows where each chunk lies; `verify` reads it.
            harmless = kind == "packs/" and what.startswith("flip") and int(what.split()[1]) < HEADER_BYTES
            assert ("right" if harmless else "corrupt") == subject.read(), f"{name}: {what}"
            assert subject.problems(), f"{name}: {what}"
        replace(subject.store, name, whole)
    assert ("right", 0) == (subject.read(), subject.problems())


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_behind_the_end_are_noticed(subject, kind):
    for name in subject.names(kind):
        if kind == "versions/" and name not in subject.locator:
            continue
        whole = subject.store.get(name)
        replace(subject.store, name, whole + b"\0")
        assert ("right" if kind == "packs/" else "corrupt") == subject.read()
        assert subject.problems()
        replace(subject.store, name, whole)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sound_object_under_the_name_of_another_is_noticed(subject, kind):
    one, other = subject.names(kind)[:2]
    first, second = subject.store.get(one), subject.store.get(other)
    replace(subject.store, one, second)
    replace(subject.store, other, first)

    assert "corrupt" == subject.read()
    assert subject.problems()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_missing_is_an_error(subject, kind):
    for name in subject.names(kind):
        if kind == "versions/" and name not in subject.locator:
            continue
        whole = subject.store.get(name)
        subject.store.delete(name)
        with pytest.raises((NotFoundError, CorruptObjectError)):
            checkout(subject.store, subject.locator, subject.place / "out")
        assert subject.problems()
        assert not (subject.place / "out").exists()
        subject.store.put(name, whole)


def test_a_damaged_format_stops_every_writer_and_nothing_is_written(subject):
    before = {name: subject.store.get(name) for name in subject.names("")}
    line = Line(subject.store, subject.place / "other")
    (line.tree / "file").write_bytes(b"content")
    for what, damaged in damages(before["format.json"], step=1):
        replace(subject.store, "format.json", damaged)
        with pytest.raises(CorruptObjectError, match=r"format\.json"):
            line.commit()
        assert set(before) == set(subject.names("")), what
    replace(subject.store, "format.json", before["format.json"])

    assert line.commit().changed


def test_a_damaged_parent_stops_the_commit_and_not_the_store(subject):
    """A commit reads its parent's layers; what it cannot verify it does not build on."""
    for name in subject.names("layers/"):
        whole = subject.store.get(name)
        replace(subject.store, name, whole[:-1])
        with pytest.raises(CorruptObjectError):
            Line(subject.store, subject.place / name.replace("/", "-"), start=subject.locator)
        replace(subject.store, name, whole)


@pytest.mark.parametrize("chunk_bytes", [1024])
def test_every_byte_of_a_chunk_counts(tmp_path, monkeypatch, chunk_bytes):
    """Each byte in turn, of chunks stored as they are and of compressed ones."""
    monkeypatch.setattr(packing, "CHUNK_BYTES", chunk_bytes)
    store = LocalStore(tmp_path / "store")
    line = Line(store, tmp_path / "line")
    (line.tree / "file").write_bytes(random.Random(0).randbytes(80) + b"a" * 3000)
    result = line.commit(compression="zstd")
    subject = Subject(store, result.locator, describe(line.tree), tmp_path)
    (name,) = subject.names("packs/")
    whole = store.get(name)
    for position in range(HEADER_BYTES, len(whole)):
        replace(store, name, whole[:position] + bytes([whole[position] ^ 255]) + whole[position + 1 :])

        assert "corrupt" == subject.read(), position

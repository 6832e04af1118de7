"""Committing: what a tree is becomes a version, whole, once, and in the one order that is safe."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commit_kit import check, fill, names, noise, reads_as, view_of

from volume_core.errors import BusyError, NotFoundError, StorageError
from volume_core.format.entries import CHUNK_BYTES, Entry, Kind
from volume_core.format.manifest import Action, Manifest
from volume_core.format.names import Locator, version_name
from volume_core.parts import committing, packing, publishing
from volume_core.parts.checking import check_version
from volume_core.parts.dialects import FUSE_OVERLAY
from volume_core.parts.intents import LIFETIME_S
from volume_core.storage.local import LocalStore
from volume_core.storage.memory import MemoryStore
from volume_core.storage.protocol import Store
from volume_core.testing.faulty import WRITES, FaultyStore
from volume_core.testing.lines import Line
from volume_core.testing.strict import StrictStore

MOMENT_NS = 1_700_000_000_123_456_000


@pytest.fixture
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    memory = MemoryStore(request.node.nodeid)
    yield StrictStore(memory)
    memory.clear()


@pytest.fixture
def line(store: Store, tmp_path: Path) -> Line:
    return Line(store, tmp_path / "line")


# -- the first version


def test_a_first_version_is_the_whole_tree(store, line, tmp_path):
    fill(line.tree)

    result = line.commit()

    assert result.manifest.stack == (result.manifest.delta,)
    assert result.manifest.parents == ()
    assert result.rows == result.manifest.delta.rows == 11
    assert result.manifest.inode_count == 10  # a file has two names
    assert result.manifest.used_bytes == sum(len(data) for data in (b"content", b"bytes")) + 4 * CHUNK_BYTES + 4
    reads_as(store, result, line.tree, tmp_path / "out")


def test_an_empty_tree_is_a_version_too(store, line, tmp_path):
    result = line.commit()

    assert (0, 1) == (result.manifest.used_bytes, result.manifest.inode_count)
    reads_as(store, result, line.tree, tmp_path / "out")


def test_a_version_says_what_it_was_told(store, line):
    first, second = Action("engine", "org", run="1"), Action("engine", "org", run="2", url="https://host/2")
    told = {"message": "grüße", "labels": {"b": "2", "a": "1"}, "region": "eu-central-1", "clock": lambda: MOMENT_NS}
    line.commit(produced_by=first)
    before = line.parent
    (line.tree / "new").touch()

    manifest = line.commit(produced_by=second, **told).manifest

    assert manifest.created_at == "2023-11-14T22:13:20.123456Z"
    assert (manifest.message, manifest.labels, manifest.region) == ("grüße", {"a": "1", "b": "2"}, "eu-central-1")
    assert (manifest.produced_by, manifest.parent_produced_by) == (second, first)
    assert (manifest.volume, manifest.parents, manifest.torn) == ("volume", (before,), ())
    assert manifest.metadata_store_type == "sqlite"


def test_the_locator_is_where_the_manifest_is(store, line):
    result = line.commit()

    found = Locator.parse(result.locator)
    data = store.get(version_name(found.volume, found.version))
    assert result.manifest == Manifest.from_bytes(found.version, data)
    assert found.store == store.url
    assert data == result.manifest.to_bytes()


def test_text_that_is_none_cannot_break_the_manifest(store, line):
    broken = os.fsdecode(b"caf\xe9")
    result = line.commit(message=broken, labels={broken: broken})

    data = store.get(version_name("volume", result.manifest.version))
    json.dumps(json.loads(data), ensure_ascii=False).encode("utf-8", "strict")
    assert result.manifest.message == "caf\\udce9"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (b"", "."),
        (b"a/plain", "a/plain"),
        ("grüße".encode(), "grüße"),
        (b"\xff", "\\xff"),
        (b"\\xff", "\\\\xff"),
        (b"\\", "\\\\"),
    ],
)
def test_torn_paths_are_text_that_tells_them_apart(path, text):
    assert text == publishing.path_text(path)


# -- the order


def test_the_order_is_the_guarantee(store, line, monkeypatch):
    monkeypatch.setattr(packing, "PACK_BYTES", 1 << 20)
    for seed in range(3):
        (line.tree / f"file{seed}").write_bytes(noise(1 << 20, seed))
    recording = FaultyStore(store)

    result = line.commit(store=recording, max_uploads=1)

    calls = [(operation, name.split("/")[0]) for operation, name in recording.calls]
    assert calls == [
        ("get", "format.json"),
        ("put_new", "format.json"),
        ("put_new", "intents"),
        *[("put_new", "packs")] * 3,
        ("put_new", "layers"),
        ("info", "intents"),
        ("put_new", "versions"),
        ("delete", "intents"),
    ]
    assert (3, 5) == (result.packs_written, result.objects_written)
    assert set() == names(store, "intents/")


def test_a_commit_whose_intent_is_gone_publishes_nothing(store, line):
    (line.tree / "file").write_bytes(b"content")

    class Pruned(FaultyStore):
        def put_new(self, name: str, data: bytes | memoryview) -> None:
            super().put_new(name, data)
            if name.startswith("layers/"):
                for intent in names(store, "intents/"):
                    store.delete(intent)

    with pytest.raises(StorageError, match="nothing was published") as caught:
        line.commit(store=Pruned(store))

    assert caught.value.transient
    assert set() == names(store, "versions/")
    check(store, line.commit())


@pytest.mark.parametrize("gone", ["base", "parent"])
def test_a_commit_does_not_build_on_what_was_deleted(store, line, tmp_path, gone):
    """Its chunks may be pruned, and no intent of ours was there in time to protect them."""
    base = line.commit()
    over = Line(store, tmp_path / "over", start=base.locator, dialect=FUSE_OVERLAY)
    (over.tree / "file").write_bytes(b"content")
    parent = over.commit()
    (over.tree / "file").write_bytes(b"other content")

    class Deleting(FaultyStore):
        def put_new(self, name: str, data: bytes | memoryview) -> None:
            super().put_new(name, data)
            if name.startswith("layers/"):
                store.delete(version_name("volume", (base if gone == "base" else parent).manifest.version))

    with pytest.raises(NotFoundError, match="was deleted"):
        over.commit(store=Deleting(store))

    assert 1 == len(names(store, "versions/"))
    assert set() == names(store, "intents/")


def test_a_machine_that_sleeps_at_the_wrong_moment_takes_the_version_back(store, line, monkeypatch):
    """Between the check of the intent and the manifest hours pass."""
    asleep_s = [0.0]
    real = committing.HeldIntent

    class Sleepy(FaultyStore):
        def put_new(self, name: str, data: bytes | memoryview) -> None:
            if name.startswith("versions/"):
                asleep_s[0] += LIFETIME_S
            super().put_new(name, data)

    def held(*args: object, **options: object) -> object:
        return real(*args, **options, elapsed_s=lambda: asleep_s[0])

    monkeypatch.setattr(committing, "HeldIntent", held)

    with pytest.raises(StorageError, match="taken back"):
        line.commit(store=Sleepy(store))

    assert set() == names(store, "versions/")


def test_what_the_parent_is_made_of_must_be_in_this_store(store, line, tmp_path):
    line.commit()
    other = MemoryStore("other")

    with pytest.raises(ValueError, match="memory://other"):
        line.commit(store=other)

    assert set() == names(other)


def test_a_program_may_commit_on_its_way_out(tmp_path):
    """When the interpreter ends no thread can be started any more."""
    program = """
import atexit, pathlib, sys
from volume_core.storage.local import LocalStore
from volume_core.testing.lines import Line
line = Line(LocalStore(sys.argv[1] + "/store"), pathlib.Path(sys.argv[1] + "/line"))
(line.tree / "file").write_bytes(b"content")
atexit.register(lambda: print(line.commit().locator))
"""
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)

    store, found = LocalStore(tmp_path / "store"), Locator.parse(done.stdout.strip())
    assert "" == done.stderr
    assert [] == check_version(store, found.volume, found.version)


# -- a tree in use


def test_a_tree_that_never_rests_is_busy_and_nothing_is_published(store, line):
    (line.tree / "restless").write_bytes(b"0")

    with pytest.raises(BusyError) as caught:
        line.commit(settle=toucher(line.tree / "restless"))

    assert ("restless",) == caught.value.paths
    assert set() == names(store, "versions/") | names(store, "intents/")


def test_a_torn_version_says_which_paths(store, line):
    (line.tree / "restless").write_bytes(b"0")

    result = line.commit(settle=toucher(line.tree / "restless"), allow_torn=True)

    assert ("restless",) == result.manifest.torn
    check(store, result)


def test_what_was_torn_before_it_was_read_is_said_too(store, line):
    """As of an upper that a crash of the machine left behind."""
    assert (".", "\\xff") == line.commit(torn=(b"", b"\xff")).manifest.torn


def toucher(path: Path) -> Callable[[], None]:
    def touch() -> None:
        with path.open("ab") as file:
            file.write(b"x" * 5000)

    return touch


def test_a_failure_to_settle_stops_the_commit(store, line):
    def fail() -> None:
        raise StorageError("a write-back was lost")

    with pytest.raises(StorageError, match="write-back"):
        line.commit(settle=fail)

    assert set() == names(store)


def test_a_scan_is_taken_in_the_versions_terms(store, line):
    """As the copy driver needs it, which cannot give files to other users."""
    (line.tree / "file").write_bytes(b"content")

    def owned(upper: dict) -> dict:
        return {path: each._replace(entry=each.entry._replace(uid=4242)) for path, each in upper.items()}

    result = line.commit(as_version=owned)

    with view_of(store, result, line.tree.parent / "view") as view:
        assert [4242, 4242] == [view.entry(node).uid for node in view.walk()]
    counting = FaultyStore(store, operations=WRITES)
    assert not line.commit(store=counting, as_version=owned).changed


def test_every_kind_is_committed_as_itself(store, line, tmp_path):
    fill(line.tree)
    with view_of(store, line.commit(), tmp_path / "view") as view:
        found: dict[bytes, Entry] = {node.path: view.entry(node) for node in view.walk()}

    assert {
        b"": Kind.DIRECTORY,
        b"directory": Kind.DIRECTORY,
        b"directory/below": Kind.DIRECTORY,
        b"directory/below/empty": Kind.FILE,
        b"directory/file": Kind.FILE,
        b"another name": Kind.FILE,
        b"large": Kind.FILE,
        b"sparse": Kind.FILE,
        b"symlink": Kind.SYMLINK,
        b"fifo": Kind.FIFO,
        b"no text \xff": Kind.FILE,
    } == {path: entry.kind for path, entry in found.items()}

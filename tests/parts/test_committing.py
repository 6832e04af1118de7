"""Committing: what a tree is becomes a version, whole, once, and nothing else is written."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from volume_core.domain.view import View
from volume_core.errors import BusyError, StorageError
from volume_core.format.entries import CHUNK_BYTES, Entry, Kind
from volume_core.format.manifest import Action, Manifest
from volume_core.format.names import Locator, version_name
from volume_core.parts import committing, packing
from volume_core.parts.checking import check_version
from volume_core.parts.committing import CommitResult
from volume_core.parts.compacting import LAYERS_MAX
from volume_core.parts.dialects import FUSE_OVERLAY
from volume_core.parts.indexes import IndexCache, open_view
from volume_core.parts.intents import LIFETIME_S
from volume_core.storage.local import LocalStore
from volume_core.storage.memory import MemoryStore
from volume_core.storage.protocol import Store
from volume_core.testing.faulty import WRITES, FaultyStore
from volume_core.testing.lines import Line, checkout, manifest_of
from volume_core.testing.oracle import assert_same_tree
from volume_core.testing.strict import StrictStore

MOMENT_NS = 1_700_000_000_123_456_000


@pytest.fixture
def store(request: pytest.FixtureRequest) -> Store:
    return StrictStore(MemoryStore(request.node.nodeid))


@pytest.fixture
def line(store: Store, tmp_path: Path) -> Line:
    return Line(store, tmp_path / "line")


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
    assert text == committing._path_text(path)


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


# -- nothing changed


def unchanged(store: Store, line: Line) -> None:
    """Committing returns the parent, and the store is not even asked."""
    before, locator = manifest_of(store, line.parent), line.parent
    counting = FaultyStore(store)
    result = line.commit(store=counting)

    assert (result.manifest, result.locator, result.changed) == (before, locator, False)
    assert [] == counting.calls


def test_nothing_changed_is_the_same_version(store, line):
    fill(line.tree)
    line.commit()

    unchanged(store, line)


def test_a_file_opened_for_writing_and_not_changed_is_no_change(store, line):
    fill(line.tree)
    before = os.stat(line.tree / "large")
    line.commit()
    with (line.tree / "large").open("r+b") as file:
        file.write(noise(CHUNK_BYTES + 1)[:100])
    os.utime(line.tree / "large", ns=(before.st_atime_ns, before.st_mtime_ns))

    unchanged(store, line)


def test_copied_up_without_change_is_no_change(store, line, tmp_path):
    fill(line.tree)
    first = line.commit()
    over = Line(store, tmp_path / "over", start=first.locator, dialect=FUSE_OVERLAY)
    (over.tree / "directory").mkdir()
    for path in ("large", "sparse"):
        os.system(f"cp --preserve=all --sparse=always {line.tree / path} {over.tree / path}")
    for path in ("directory", "."):
        os.system(f"cp --preserve=all --attributes-only --no-target-directory -d {line.tree / path} {over.tree / path}")
        status = os.stat(line.tree / path)
        os.utime(over.tree / path, ns=(status.st_atime_ns, status.st_mtime_ns))

    unchanged(store, over)


# -- what changed


def test_only_what_changed_is_stored(store, line, tmp_path):
    fill(line.tree)
    line.commit()
    with (line.tree / "large").open("r+b") as file:
        file.seek(CHUNK_BYTES)
        file.write(b"!")
    (line.tree / "directory" / "below" / "new").write_bytes(b"new")

    result = line.commit()

    assert 3 == result.rows  # two files, and the directory's time
    assert 1 == result.packs_written
    assert result.bytes_written < 10_000
    reads_as(store, result, line.tree, tmp_path / "out")


def test_one_block_of_a_large_file_costs_one_chunk(tmp_path):
    store = LocalStore(tmp_path / "store")
    line = Line(store, tmp_path / "line")
    (line.tree / "large").write_bytes(noise(16 * CHUNK_BYTES))
    line.commit()
    with (line.tree / "large").open("r+b") as file:
        file.seek(7 * CHUNK_BYTES + 12345)
        file.write(b"overwritten")

    result = line.commit()

    assert CHUNK_BYTES < result.bytes_written < CHUNK_BYTES + 10_000
    check(store, result)


def test_a_chmod_moves_no_data(store, line):
    fill(line.tree)
    line.commit()
    (line.tree / "large").chmod(0o600)

    result = line.commit()

    assert (1, 0) == (result.rows, result.packs_written)
    check(store, result)


def test_forks_share_what_they_have_in_common(store, line, tmp_path):
    fill(line.tree)
    base = line.commit()
    forks = [Line(store, tmp_path / f"fork{n}", start=base.locator) for n in range(2)]
    for number, fork in enumerate(forks):
        (fork.tree / "mine").write_bytes(noise(1000, number))
        (fork.tree / "directory" / "file").unlink()

    results = [fork.commit() for fork in forks]

    for number, (fork, result) in enumerate(zip(forks, results, strict=True)):
        assert (base.locator,) == result.manifest.parents
        assert result.bytes_written < 10_000
        reads_as(store, result, fork.tree, tmp_path / f"out{number}")
    reads_as(store, base, line.tree, tmp_path / "out")


def test_what_only_another_line_holds_is_not_relied_upon(store, tmp_path):
    """It may be about to be deleted, and no intent of ours protects it."""
    results = []
    for name in ("one", "other"):
        line = Line(store, tmp_path / name, volume=name)
        (line.tree / "file").write_bytes(noise(1000))
        results.append(line.commit())

    assert [1, 1] == [result.packs_written for result in results]
    assert 2 == len(names(store, "packs/"))


def test_a_file_that_was_committed_and_is_gone_from_the_upper_is_gone_from_the_version(store, line, tmp_path):
    """A mount is kept alive: the upper holds a file at one commit and not at the next."""
    fill(line.tree)
    first = line.commit()
    over = Line(store, tmp_path / "over", start=first.locator, dialect=FUSE_OVERLAY)
    (over.tree / "new").write_bytes(b"new")
    with_new = over.commit()
    (over.tree / "new").unlink()
    (over.tree / ".wh.large").touch()

    without = over.commit()

    with view_of(store, with_new, tmp_path / "a") as before, view_of(store, without, tmp_path / "b") as after:
        assert before.resolve(b"new")
        assert before.resolve(b"large")
        assert after.resolve(b"new") is None
        assert after.resolve(b"large") is None
        assert after.resolve(b"sparse")
    assert (with_new.locator,) == without.manifest.parents
    check(store, without)


def test_a_lost_table_of_what_was_captured_costs_only_time(store, line, tmp_path):
    fill(line.tree)
    over = Line(store, tmp_path / "over", start=line.commit().locator, dialect=FUSE_OVERLAY)
    (over.tree / "new").write_bytes(b"new")
    (over.tree / "gone").write_bytes(b"gone")
    over.commit()
    over.captured = None
    unchanged(store, over)
    (over.tree / "gone").unlink()
    over.captured = None

    result = over.commit()

    with view_of(store, result, tmp_path / "view") as view:
        assert view.resolve(b"gone") is None
        assert view.resolve(b"new")
        assert view.resolve(b"large")
    check(store, result)


def test_history_of_any_length_mounts_as_a_short_stack(store, line, tmp_path):
    for number in range(40):
        (line.tree / f"base{number}").write_bytes(noise(10, number))
    line.commit()
    stacks = []
    for number in range(3 * LAYERS_MAX):
        (line.tree / f"file{number}").write_bytes(noise(10, number))
        if number % 3:
            (line.tree / f"file{number - 1}").unlink()
        result = line.commit()
        stacks.append(len(result.manifest.stack))
        assert result.manifest.delta.rows == 2 + bool(number % 3)

    assert LAYERS_MAX >= max(stacks) > 1
    assert 1 in stacks
    reads_as(store, result, line.tree, tmp_path / "out")
    for locator in history(store, line.parent):
        _, volume, version = Locator.parse(locator)
        assert [] == check_version(store, volume, version)


def history(store: Store, locator: str | None) -> list[str]:
    found = []
    while locator is not None:
        found.append(locator)
        locator = next(iter(manifest_of(store, locator).parents), None)
    return found


def test_a_compaction_writes_no_pack(store, line):
    for name in ("file", "other"):
        (line.tree / name).write_bytes(noise(1000))
    line.commit()
    (line.tree / "file").chmod(0o600)
    line.tree.chmod(0o700)
    result = line.commit()  # two rows over three: more than half

    assert (1, 0, 3) == (len(result.manifest.stack), result.packs_written, result.objects_written)
    assert result.manifest.stack[0] != result.manifest.delta
    assert 2 == len(result.indexes)
    check(store, result)


def test_a_merged_layer_equal_to_the_delta_is_one_object(store, line):
    (line.tree / "file").write_bytes(noise(1000))
    line.commit()
    (line.tree / "file").chmod(0o600)
    line.tree.chmod(0o700)
    result = line.commit()  # all there is

    assert (result.manifest.delta,) == result.manifest.stack
    assert 2 == result.objects_written
    check(store, result)


def test_the_caller_is_handed_the_indexes_it_would_have_to_fetch(store, line, tmp_path):
    fill(line.tree)
    result = line.commit()
    cache = IndexCache(tmp_path / "cache")
    for ref, index in result.indexes:
        cache.add(ref, index)
    counting = FaultyStore(store)

    cache.fetch(counting, result.manifest.stack)

    assert [] == counting.calls


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

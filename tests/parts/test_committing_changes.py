"""What a commit after the first one stores: nothing where nothing changed, else what changed and no more."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from commit_kit import check, fill, names, noise, reads_as, view_of

from volume_core.format.entries import CHUNK_BYTES
from volume_core.format.names import Locator
from volume_core.parts.captured import load, save
from volume_core.parts.checking import check_version
from volume_core.parts.compacting import LAYERS_MAX
from volume_core.parts.dialects import FUSE_OVERLAY
from volume_core.parts.indexes import IndexCache
from volume_core.storage.local import LocalStore
from volume_core.storage.memory import MemoryStore
from volume_core.storage.protocol import Store
from volume_core.testing.faulty import FaultyStore
from volume_core.testing.lines import Line, manifest_of
from volume_core.testing.strict import StrictStore


@pytest.fixture
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    memory = MemoryStore(request.node.nodeid)
    yield StrictStore(memory)
    memory.clear()


@pytest.fixture
def line(store: Store, tmp_path: Path) -> Line:
    return Line(store, tmp_path / "line")


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


def test_times_that_no_version_can_hold_become_the_nearest_and_are_no_change(store, line, tmp_path):
    fill(line.tree)
    beyond_ns = 10_413_792_000 * 10**9  # the year 2300; some file systems go on to 2446 and further
    for path in (line.tree / "large", line.tree / "symlink", line.tree / "fifo", line.tree / "directory"):
        os.utime(path, ns=(beyond_ns, beyond_ns), follow_symlinks=False)
    held_ns = min(os.stat(line.tree / "large").st_mtime_ns, (1 << 63) - 1)
    first = line.commit()
    save(tmp_path / "captured", first.captured)
    line.captured = load(tmp_path / "captured")
    second = line.commit()

    with view_of(store, first, tmp_path / "cache") as view:
        assert {held_ns} == {view.resolve(path).row.mtime_ns for path in (b"large", b"symlink", b"fifo", b"directory")}
    assert (first.locator, False) == (second.locator, second.changed)


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

"""Replaying: what a delta says is done to a tree by ordinary operations, and the tree is then the other version's."""

from __future__ import annotations

import os
from contextlib import closing

import pytest
from commit_kit import noise
from hypothesis import given, settings
from hypothesis import strategies as st

from volume_core.parts.indexes import IndexCache, open_view
from volume_core.parts.reading import Reader
from volume_core.parts.replaying import replay
from volume_core.storage.memory import MemoryStore
from volume_core.testing.lines import Line, checkout, manifest_of
from volume_core.testing.oracle import assert_same_tree
from volume_core.testing.strict import StrictStore


@pytest.fixture
def line(tmp_path, request):
    memory = MemoryStore(request.node.nodeid)
    yield Line(StrictStore(memory), tmp_path / "line")
    memory.clear()


def delta_rows(line: Line, scratch):
    """The rows of the last commit's delta, as they lie in its layer."""
    delta = manifest_of(line.store, line.parent).delta
    with closing(open_view(IndexCache(scratch).fetch(line.store, [delta]))) as view:
        [layer] = view.layers
        rows = []
        for directory in [None, *layer.directories()]:
            found = [layer.root()] if directory is None else layer.rows(layer.directory(directory))
            rows += [(directory or b"", row.name, layer.entry(row)) for row in found if row is not None]
        return sorted(rows, key=lambda row: row[:2])


def replayed(line: Line, change, place, content=None):
    """Commit, change, commit; then do the delta to a checkout of the first version."""
    before = line.commit().locator
    change(line.tree)
    line.commit()
    tree = place / "replayed"
    checkout(line.store, before, tree)
    indexes = IndexCache(place / "indexes")
    with (
        closing(open_view(indexes.fetch(line.store, manifest_of(line.store, before).stack))) as view,
        Reader(line.store) as reader,
    ):
        assert [] == replay(delta_rows(line, place / "delta"), view, content or reader, tree)
    assert_same_tree(line.tree, tree)


def fill(tree):
    (tree / "kept").write_bytes(b"kept")
    (tree / "dir" / "below").mkdir(parents=True)
    (tree / "dir" / "below" / "file").write_bytes(noise(100_000, 1))
    (tree / "dir" / "link").symlink_to("below/file")
    (tree / "one").write_bytes(b"linked")
    os.link(tree / "one", tree / "two")


def removed(tree):
    (tree / "dir" / "below" / "file").unlink()
    (tree / "dir" / "below").rmdir()


def directory_becomes_file(tree):
    removed(tree)
    (tree / "dir" / "below").write_text("a file")


def file_becomes_directory(tree):
    (tree / "kept").unlink()
    (tree / "kept").mkdir()
    (tree / "kept" / "inside").write_text("x")


def emptied_and_filled(tree):
    (tree / "dir" / "below" / "file").unlink()
    (tree / "dir" / "below" / "other").write_text("x")


def attributes(tree):
    os.chmod(tree / "kept", 0o4751)
    os.setxattr(tree / "dir" / "below" / "file", "user.k", b"v")
    os.utime(tree / "dir", ns=(5, 1_000_000_007))
    os.chown(tree / "kept", 7, 8)


def specials(tree):
    os.mkfifo(tree / "fifo", 0o640)
    with open(tree / "sparse", "wb") as file:
        file.seek(10 << 20)
        file.write(b"end")
    os.link(tree / "one", os.fsencode(tree) + b"/\xff\n" + b"n" * 250)
    (tree / "dir" / "link").unlink()
    (tree / "dir" / "link").symlink_to("/nowhere")


def renamed(tree):
    (tree / "dir").rename(tree / "moved")
    (tree / "moved" / "added").touch(0o600)


def closed(tree):
    os.chmod(tree / "dir", 0o500)
    os.chmod(tree / "dir" / "below", 0)


CHANGES = [
    removed, directory_becomes_file, file_becomes_directory, emptied_and_filled, attributes, specials, renamed, closed,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_delta_is_done_again(line, tmp_path, change):
    fill(line.tree)

    replayed(line, change, tmp_path)


def test_a_changed_mode_moves_no_data(line, tmp_path):
    fill(line.tree)

    replayed(line, attributes, tmp_path, content=Untouchable())


class Untouchable:
    """No byte of it may be asked for."""


NAMES = st.sampled_from(["a", "b", "a/a", "a/b", "b/a", "a/a/a"])
OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["write", "mkdir", "remove", "chmod", "link"]), NAMES, NAMES), max_size=8
)


def operate(tree, operations):
    for what, name, other in operations:
        path = tree / name
        try:
            if what == "write":
                path.write_text(other)
            elif what == "mkdir":
                path.mkdir()
            elif what == "link":
                os.link(path, tree / other)
            elif what == "chmod":
                path.chmod(0o700)
            elif path.is_dir():
                path.rmdir()
            else:
                path.unlink()
        except OSError:
            continue


@settings(max_examples=60)
@given(first=OPERATIONS, second=OPERATIONS)
def test_any_delta_is_done_again(tmp_path_factory, first, second):
    place = tmp_path_factory.mktemp("replay")
    memory = MemoryStore(str(place))
    line = Line(StrictStore(memory), place / "line")
    operate(line.tree, first)
    replayed(line, lambda tree: operate(tree, second), place)
    memory.clear()

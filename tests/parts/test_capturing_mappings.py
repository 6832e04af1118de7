"""Stores through shared mappings move no time stamp after the first: they are captured all the same."""

import os
import tempfile
from pathlib import Path

import pytest
from overlay_kit import OVERLAY_OPTIONS, Tree, after, beside, kernel_overlay, mapped
from overlay_operations import PAGE, write

from volume_core.errors import BusyError
from volume_core.parts import capturing
from volume_core.parts.dialects import FUSE_OVERLAY, KERNEL, PLAIN
from volume_core.parts.mappings import Mapped
from volume_core.parts.trees import remove_tree


@pytest.fixture
def tree(tmp_path):
    """A plain directory with ten files in two directories, on a disk."""
    root = tmp_path / "tree"
    for directory in ("one", "two"):
        (root / directory).mkdir(parents=True)
        for number in range(5):
            write(root / directory / f"file{number}", f"{directory} {number}".encode())
    yield Tree(root, PLAIN)
    remove_tree(root)


@pytest.fixture
def in_memory():
    """A plain directory on tmpfs."""
    root = Path(tempfile.mkdtemp(prefix="volume-test-", dir="/dev/shm"))
    yield Tree(root, PLAIN)
    remove_tree(root)


@pytest.mark.fuse
def test_a_store_to_a_mapped_page_after_a_capture_is_in_the_next_one(tmp_path):
    with kernel_overlay(tmp_path, OVERLAY_OPTIONS["kernel"]) as merged:
        tree = Tree(tmp_path / "upper", KERNEL, tmp_path / "lower", merged)
        write(merged / "mapped", b"a" * PAGE)
        with mapped(merged / "mapped") as memory:
            memory[:5] = b"first"
            first = tree.capture()
            memory[:5] = b"again"  # the page was written before: nothing but the write-back makes this show
            second = tree.capture(first)
            memory[:5] = b"third"
            third = tree.capture(second)

        assert [b"first", b"again", b"third"] == [tree.content(each, b"mapped")[:5] for each in (first, second, third)]
        assert 0 == tree.reads(third)[0]


def test_another_programs_stores_are_seen_too(tree):
    program = """
        import mmap, sys
        file = open(sys.argv[1], "r+b")
        memory = mmap.mmap(file.fileno(), 0)
        memory[0] = 48
        print("ready", flush=True)
        for line in sys.stdin:
            memory[0] = ord(line[0])
            print("stored", flush=True)
    """
    write(tree.root / "mapped", b"a" * PAGE)
    captured, seen = None, []
    with beside(program, tree.root / "mapped") as process:
        for character in "1234":
            process.stdin.write(f"{character}\n")
            process.stdin.flush()
            process.stdout.readline()
            captured = tree.capture(captured)
            seen.append(tree.content(captured, b"mapped")[:1])

    assert [b"1", b"2", b"3", b"4"] == seen


@pytest.mark.parametrize("files", [3, 40])
def test_where_a_process_hides_its_mappings_every_file_is_taken_for_mapped(tree, monkeypatch, files):
    monkeypatch.setattr(capturing, "mapped_files", lambda *args: Mapped(frozenset(), complete=False))
    for number in range(files):
        write(tree.root / f"more{number}", b"x")
    write(tree.root / "mapped", b"a" * PAGE)
    with mapped(tree.root / "mapped") as memory:
        memory[0] = 49
        first = tree.capture()
        memory[0] = 50
        second = tree.capture(first)

    assert (b"1", b"2") == (tree.content(first, b"mapped")[:1], tree.content(second, b"mapped")[:1])


def test_a_store_while_files_are_read_is_seen(tree):
    write(tree.root / "mapped", b"a" * PAGE)  # read first
    with mapped(tree.root / "mapped") as memory:
        memory[0] = 49
        captured = tree.capture(read=after(tree, 5, lambda: memory.__setitem__(0, 50)))

    assert b"2" == tree.content(captured, b"mapped")[:1]


def test_in_memory_what_is_mapped_is_compared_by_content(in_memory):
    write(in_memory.root / "mapped", b"a" * PAGE)
    write(in_memory.root / "other", b"b")
    with mapped(in_memory.root / "mapped") as memory:
        memory[0] = 49
        first = in_memory.capture()
        before = os.stat(in_memory.root / "mapped")
        memory[0] = 50
        assert before == os.stat(in_memory.root / "mapped")  # no time stamp tells
        second = in_memory.capture(first)
        third = in_memory.capture(second, read=after(in_memory, 1, lambda: memory.__setitem__(0, 51)))

    seen = [in_memory.content(each, b"mapped")[:1] for each in (first, second, third)]
    assert [b"1", b"2", b"3"] == seen
    assert -1 == third.signatures[b"mapped"].ctime_ns


def test_in_memory_a_mapping_that_keeps_changing_is_busy(in_memory):
    write(in_memory.root / "mapped", b"a" * PAGE)
    with mapped(in_memory.root / "mapped") as memory:

        def read(fd, size):
            content = in_memory.chunks.read(fd, size)
            memory[0] = (memory[0] + 1) % 256
            return content

        with pytest.raises(BusyError) as caught:
            in_memory.capture(read=read, rounds=3)
        torn = in_memory.capture(read=read, rounds=3, allow_torn=True)

    assert ("mapped",) == caught.value.paths
    assert (b"mapped",) == torn.torn


def test_in_memory_a_store_to_a_mapping_that_is_gone_again_is_in_the_next_capture(in_memory, monkeypatch):
    monkeypatch.setattr(capturing, "mapped_files", lambda *args: Mapped(frozenset(), complete=True))
    write(in_memory.root / "file", b"a" * PAGE)
    first = in_memory.capture()
    before = os.stat(in_memory.root / "file")
    with mapped(in_memory.root / "file") as memory:
        assert b"a"[0] == memory[0]  # the page is there now, and the store to it faults no more
        memory[0] = 49
    assert before == os.stat(in_memory.root / "file")  # no time stamp tells
    second = in_memory.capture(first)

    assert b"1" == in_memory.content(second, b"file")[:1]


def test_pages_of_a_driver_are_settled_and_not_looked_for(tree, monkeypatch):
    monkeypatch.delattr(capturing, "mapped_files")
    calls = []
    Tree(tree.root, FUSE_OVERLAY, tree.root).capture(settle=lambda: calls.append(1))

    assert [1, 1] == calls

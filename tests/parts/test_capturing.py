"""What is committed is one instant, whatever is written meanwhile.

Everything that capture() calls back (settle, read) happens in the middle of it: what a test does there
is a concurrent writer whose timing is known.
"""

import contextlib
import errno
import os
import socket
import tempfile
import time
from pathlib import Path

import pytest
from overlay_kit import OVERLAY_OPTIONS, Tree, after, beside, kernel_overlay, mapped, wait_until
from overlay_operations import PAGE, make_lower, write

from volume_core.errors import BusyError, CorruptObjectError, VolumeError
from volume_core.format.entries import ChunkRef, Extent, Kind
from volume_core.parts import capturing
from volume_core.parts.captured import Captured
from volume_core.parts.dialects import KERNEL, PLAIN, USERXATTR
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


def contents(tree, captured):
    return {path: tree.content(captured, path) for path in captured if captured.upper[path].entry.kind is Kind.FILE}


# -- what is read, and what is not


def test_what_did_not_change_is_not_opened(tree):
    assert 10 == tree.reads()[0]
    first = tree.capture()
    count, second = tree.reads(first)

    assert (0, first) == (count, second)
    assert all(second.upper[path].entry is first.upper[path].entry for path in second if b"file" in path)


@pytest.mark.parametrize(
    ("change", "count"),
    [
        (lambda root: write(root / "one/file1", b"changed"), 1),
        (lambda root: write(root / "one/file1", b"ONE 1"), 1),  # of the same size
        (lambda root: (root / "one/new").write_bytes(b"new"), 1),
        (lambda root: os.chmod(root / "one/file1", 0o600), 1),
        (lambda root: (root / "one/file1").unlink(), 0),
        (lambda root: (root / "one").rename(root / "three"), 0),  # all signatures go along
        (lambda root: os.setxattr(root / "one", "user.x", b"1"), 0),
        (lambda root: (root / "one/empty").touch(), 0),
    ],
)
def test_only_what_changed_is_read(tree, change, count):
    first = tree.capture()
    change(tree.root)
    read, second = tree.reads(first)

    assert count == read
    assert second.upper == tree.capture().upper
    assert first.upper != second.upper


def test_a_change_that_puts_size_and_mtime_back_is_seen(tree):
    path = tree.root / "one/file1"
    before = os.stat(path)
    first = tree.capture()
    write(path, b"ONE 1")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert before.st_size == os.stat(path).st_size
    assert b"ONE 1" == tree.content(tree.capture(first), b"one/file1")


def test_the_names_of_one_inode_are_read_once_and_belong_together(tree):
    os.link(tree.root / "one/file0", tree.root / "two/linked")
    os.link(tree.root / "one/file1", tree.root.parent / "outside")
    count, captured = tree.reads()
    links = {path: upper.entry.hardlink for path, upper in captured.upper.items() if upper.entry.hardlink}

    assert 10 == count
    assert {b"one/file0", b"two/linked"} == set(links)  # the other name of file1 is not in the tree
    assert 1 == len(set(links.values()))
    (tree.root / "two/linked").unlink()
    assert {0} == {upper.entry.hardlink for upper in tree.capture(captured).upper.values()}


def test_data_of_files_that_are_still_open_is_there(tree):
    with open(tree.root / "open", "wb") as file:
        file.write(b"x" * 100_000)
        file.flush()
        captured = tree.capture()

        assert b"x" * 100_000 == tree.content(captured, b"open")
        file.write(b"y")
        file.flush()
        assert b"x" * 100_000 + b"y" == tree.content(tree.capture(captured), b"open")


def test_holes_stay_holes_and_nothing_is_read_of_an_empty_file(tree):
    with open(tree.root / "sparse", "wb") as file:
        file.truncate(100 * PAGE)
        os.pwrite(file.fileno(), b"x" * PAGE, 50 * PAGE)
    (tree.root / "empty").touch()
    captured = tree.capture()
    content = captured.upper[b"sparse"].entry.content

    assert [(50 * PAGE, False), (PAGE, True), (49 * PAGE, False)] == [(e.length, e.chunk is not None) for e in content]
    assert () == captured.upper[b"empty"].entry.content


def test_reading_leaves_the_access_time_alone(tree):
    os.utime(tree.root / "one/file0", ns=(1_000_000_001, 2_000_000_002))
    tree.capture()

    assert 1_000_000_001 == os.stat(tree.root / "one/file0").st_atime_ns


@pytest.mark.loud
def test_sockets_are_left_out_and_named(tree, caplog):
    with socket.socket(socket.AF_UNIX) as server:
        here = os.open(tree.root / "one", os.O_RDONLY)
        server.bind(f"/proc/self/fd/{here}/socket")
        os.close(here)
        captured = tree.capture()

    assert b"one/socket" not in captured
    assert [f"{tree.root}: 1 sockets and null devices are not kept: 'one/socket'"] == caplog.messages


def test_the_order_of_reading_is_the_order_of_directories(tree):
    names = []

    def read(fd, size):
        names.append(os.path.relpath(os.readlink(f"/proc/self/fd/{fd}"), tree.root))
        return tree.chunks.read(fd, size)

    write(tree.root / "last", b"but in the first directory")
    tree.capture(read=read)

    assert ["last", *(f"one/file{n}" for n in range(5)), *(f"two/file{n}" for n in range(5))] == names


# -- the base


def test_content_of_the_base_that_cannot_be_is_refused(tmp_path):
    (tmp_path / "kept").write_bytes(b"1234")
    os.setxattr(tmp_path / "kept", "user.overlay.metacopy", b"")
    tree = Tree(tmp_path, USERXATTR)
    tree.base_content = lambda path: (Extent(5, None),)
    with pytest.raises(CorruptObjectError, match=r"'kept'.* has another size in the base"):
        tree.capture()
    os.setxattr(tmp_path, "user.overlay.opaque", b"y")
    with pytest.raises(CorruptObjectError, match=r"'kept'.* nothing says of which file"):
        tree.capture()


@pytest.mark.fuse
def test_a_keep_alive_capture_of_an_overlay_reads_only_what_changed(tmp_path):
    (tmp_path / "lower").mkdir()
    make_lower(tmp_path / "lower")
    with kernel_overlay(tmp_path, OVERLAY_OPTIONS["kernel"]) as merged:
        tree = Tree(tmp_path / "upper", KERNEL, tmp_path / "lower", merged)
        write(merged / "d/new", b"new")
        os.chmod(merged / "meta", 0o600)
        os.unlink(merged / "doomed")
        first = tree.capture()
        assert [b"meta"] == tree.asked

        write(merged / "d/newer", b"newer")
        write(merged / "meta", b"data now", "ab")
        count, second = tree.reads(first)

        assert (2, [b"meta"]) == (count, tree.asked)
        assert (tmp_path / "lower/meta").read_bytes() + b"data now" == tree.content(second, b"meta")
        assert Kind.WHITEOUT is second.upper[b"doomed"].entry.kind
        assert (0, second) == tree.reads(second)


# -- one instant


def test_a_write_between_two_reads_is_seen_and_all_is_of_one_instant(tree):
    """The writer keeps: what two/file4 says is never ahead of one/file0."""

    def step():
        write(tree.root / "one/file0", b"step 2")
        write(tree.root / "two/file4", b"step 2")

    captured = tree.capture(read=after(tree, 5, step))

    assert (b"step 2", b"step 2") == (tree.content(captured, b"one/file0"), tree.content(captured, b"two/file4"))


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "one/file0").unlink(),
        lambda root: (root / "two/file4").unlink(),
        lambda root: (root / "two/file4").rename(root / "one/file0"),
        lambda root: remove_tree(root / "two"),
        lambda root: (remove_tree(root / "two"), write(root / "two", b"a file now")),
        lambda root: ((root / "two/file4").unlink(), (root / "two/file4").mkdir()),
        lambda root: ((root / "two/file4").unlink(), os.mkfifo(root / "two/file4")),
        lambda root: ((root / "two/file4").unlink(), os.symlink("/etc/passwd", root / "two/file4")),
        lambda root: ((root / "two").rename(root / "away"), os.symlink("one", root / "two")),
        lambda root: os.truncate(root / "two/file4", 2),
        lambda root: os.chmod(root / "one", 0o711),
        lambda root: os.setxattr(root / "two/file4", "user.x", b"y"),
        lambda root: write(root / "one/.new", b"new"),
        lambda root: os.utime(root / "one/file0", ns=(1, 1)),
    ],
)
def test_whatever_moves_while_files_are_read_is_captured_as_it_then_is(tree, change):
    captured = tree.capture(read=after(tree, 6, lambda: change(tree.root)))
    again = tree.capture()

    assert again.upper == captured.upper
    assert contents(tree, again) == contents(tree, captured)
    assert {path: os.fsdecode(path) for path in again} == {path: os.fsdecode(path) for path in captured}


def test_what_moves_between_reading_and_the_second_scan_is_seen(tree):
    calls = []

    def settle():
        calls.append(1)
        if len(calls) == 2:  # before the scans are compared
            write(tree.root / "one/file0", b"written back late")

    captured = tree.capture(settle=settle)

    assert b"written back late" == tree.content(captured, b"one/file0")
    assert 3 == len(calls)


def test_what_never_stands_still_is_named(tree):
    number = 0

    def settle():
        nonlocal number
        number += 1
        write(tree.root / "one/file0", b"%d" % number)
        write(tree.root / os.fsdecode(b"one/\xff"), b"%d" % number)

    with pytest.raises(BusyError, match=r"kept changing while they were read \(4 times\): 'one/file0'") as caught:
        tree.capture(settle=settle, rounds=4)

    assert (("one/file0", "one/\udcff"), 5) == (caught.value.paths, number)
    assert sorted(caught.value.paths) == sorted({*caught.value.paths})


def test_what_never_stands_still_can_be_captured_torn(tree):
    number = 0

    def settle():
        nonlocal number
        number += 1
        write(tree.root / "one/file0", b"%05d" % number)
        if number > 1:
            write(tree.root / f"two/new{number}", b"x")
            if number > 2:
                (tree.root / f"two/new{number - 1}").unlink()

    captured = tree.capture(settle=settle, rounds=3, allow_torn=True)

    assert {b"one/file0", b"two", b"two/new3", b"two/new4"} == set(captured.torn)
    assert b"00004" == tree.content(captured, b"one/file0")
    assert b"x" == tree.content(captured, b"two/new4")
    assert {-1} == {captured.signatures[path].ctime_ns for path in captured.torn if path in captured}
    count, whole = tree.reads(captured)
    assert (2, ()) == (count, whole.torn)  # what was torn is not trusted


def test_two_files_that_a_program_keeps_in_step(tree):
    """A program counts in one file and then in another; no capture may see the second one ahead, or two behind."""
    program = """
        import os, sys, time
        os.chdir(sys.argv[1])
        one, two = (os.open(name, os.O_RDWR | os.O_CREAT) for name in ("A", "B"))
        os.pwrite(one, b"%09d" % 0, 0), os.pwrite(two, b"%09d" % 0, 0)
        print("ready", flush=True)
        number = 0
        while True:
            number += 1
            os.pwrite(one, b"%09d" % number, 0)
            os.pwrite(two, b"%09d" % number, 0)
            if number % 50 == 0:
                time.sleep(0.05)
    """
    seen, previous = set(), None

    def look():
        nonlocal previous
        with contextlib.suppress(BusyError):
            previous = tree.capture(previous)
        if previous is None:
            return False
        one, two = (int(tree.content(previous, name)) for name in (b"A", b"B"))
        assert one - 1 <= two <= one
        seen.add(one)
        return len(seen) > 5

    with beside(program, tree.root):
        wait_until(look, timeout_s=120)


def test_a_write_that_is_still_being_copied_is_waited_for(in_memory, monkeypatch):
    """write(2) moves the time stamps first.  A large one is copying its data for long after that."""
    # Looking for mappings would take time in which the write ends.
    monkeypatch.setattr(capturing, "mapped_files", lambda *args: Mapped(frozenset(), complete=True))
    size = 96 << 20
    program = """
        import os, sys, time
        file = os.open(sys.argv[1], os.O_RDWR)
        data = [bytes([65 + n]) * int(sys.argv[2]) for n in range(2)]
        print("ready", flush=True)
        while True:
            for each in data:
                os.pwrite(file, each, 0)
                time.sleep(0.02)
    """
    write(in_memory.root / "big", b"@" * size)
    found = []

    def read(fd, size):
        samples = {os.pread(fd, 1, offset) for offset in range(0, size, size // 97)}
        return (Extent(size, ChunkRef(b"".join(sorted(samples)), b"p", 0, size, size)),)

    def look():
        with contextlib.suppress(BusyError):
            captured = in_memory.capture(read=read, rounds=1)
            found.append(captured.upper[b"big"].entry.content[0].chunk.digest)
        return len(found) > 40

    with beside(program, in_memory.root / "big", size):
        wait_until(look, timeout_s=30)

    assert set(found) <= {b"@", b"A", b"B"}  # never two at once


# -- clocks


def test_nothing_is_read_before_the_clock_has_moved_on(tree, monkeypatch):
    newest_ns = max(os.stat(path, follow_symlinks=False).st_ctime_ns for path in [tree.root, *tree.root.rglob("*")])
    readings = [newest_ns] * 5 + [newest_ns + 1]
    told = []

    def clock():
        told.append(readings[min(len(told), 5)])
        return told[-1]

    monkeypatch.setattr(capturing, "now_ns", clock)
    monkeypatch.setattr(capturing.scan.__globals__["time"], "sleep", lambda seconds: None)
    monkeypatch.setitem(capturing.scan.__globals__, "now_ns", lambda: newest_ns)
    captured = tree.capture(read=lambda fd, size: told.append("read") or tree.chunks.read(fd, size))

    assert newest_ns + 1 == told[told.index("read") - 1]
    assert -1 not in {signature.ctime_ns for signature in captured.signatures.values()}


def test_what_was_scanned_too_early_to_be_sure_is_looked_at_again(tree, monkeypatch):
    """As where a clock stood still: an xattr was set right after the first scan, and no signature tells."""
    inside, looked = capturing.scan.__globals__, []
    real_list, real_get = inside["_list_xattrs"], inside["_get_xattr"]
    path = tree.root / "one/file0"
    monkeypatch.setitem(inside, "now_ns", lambda: os.stat(path).st_ctime_ns)

    def list_xattrs(target):
        if isinstance(target, int) or os.stat(target, follow_symlinks=False).st_ino != os.stat(path).st_ino:
            return real_list(target)
        looked.append(target)
        return [] if len(looked) == 1 else ["user.late"]

    monkeypatch.setitem(inside, "_list_xattrs", list_xattrs)
    monkeypatch.setitem(
        inside, "_get_xattr", lambda target, name: b"v" if name == "user.late" else real_get(target, name)
    )
    captured = tree.capture()

    assert ((b"user.late", b"v"),) == captured.upper[b"one/file0"].entry.xattrs


def test_a_time_stamp_ahead_of_the_clock_is_neither_waited_for_nor_trusted(tree, monkeypatch):
    ahead_ns = 3600 * 10**9
    real = capturing.now_ns
    monkeypatch.setattr(capturing, "now_ns", lambda: real() - ahead_ns)
    monkeypatch.setitem(capturing.scan.__globals__, "now_ns", lambda: real() - ahead_ns)
    started = time.monotonic()
    first = tree.capture()

    assert time.monotonic() - started < 2
    assert {-1} == {signature.ctime_ns for signature in first.signatures.values()}
    assert 10 == tree.reads(first)[0]


def test_another_machines_clock_is_not_trusted_at_once(tree, monkeypatch):
    monkeypatch.setattr(capturing, "file_system", lambda path: "nfs4")
    assert 10 == tree.reads(tree.capture())[0]

    real = capturing.now_ns
    monkeypatch.setattr(capturing, "now_ns", lambda: real() + 61 * 10**9)
    assert 0 == tree.reads(tree.capture())[0]


# -- errors


def test_an_error_of_the_disk_names_the_path(tree):
    def read(fd, size):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.raises(VolumeError, match="'one/file0' cannot be read: Input/output error"):
        tree.capture(read=read)


def test_an_error_of_the_store_comes_through(tree):
    def read(fd, size):
        raise KeyError("the store's own")

    with pytest.raises(KeyError):
        tree.capture(read=read)


def test_a_write_back_that_fails_names_the_path(tree, monkeypatch):
    def fdatasync(fd):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    with mapped(tree.root / "one/file0"), pytest.raises(VolumeError, match="'one/file0' cannot be written back"):
        tree.capture()


def test_nothing_is_opened_through_a_symlink(tree, monkeypatch):
    real, flags = os.open, []

    def recording(path, how, *args, **kwargs):
        flags.append((path, how & os.O_NOFOLLOW))
        return real(path, how, *args, **kwargs)

    monkeypatch.setattr(os, "open", recording)
    with mapped(tree.root / "one/file0"):
        flags.clear()
        tree.capture()

    assert {tree.root} == {path for path, refused in flags if not refused}  # which the caller named
    assert b"file4" in [path for path, _ in flags]


def test_no_descriptor_stays_open(tree):
    def descriptors():
        return len(os.listdir("/proc/self/fd"))

    before = descriptors()
    tree.capture(tree.capture())
    with pytest.raises(KeyError):
        tree.capture(read=after(tree, 3, lambda: {}["x"]))

    assert before == descriptors()


def test_what_is_kept_of_a_previous_capture_is_its_content_by_signature(tree):
    """A hydrated tree brings its own: only the signatures must be those of the tree."""
    scanned = tree.capture()
    mine = {p: u._replace(entry=u.entry._replace(uid=1234)) for p, u in scanned.upper.items()}
    count, captured = tree.reads(Captured(scanned.signatures, mine))

    assert 0 == count
    assert contents(tree, scanned) == contents(tree, captured)
    assert 1234 == captured.upper[b"one/file0"].entry.uid

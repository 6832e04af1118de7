"""A view becomes a plain directory: everything a version can hold arrives, or is known to be missing."""

import errno
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from hashlib import sha256
from pathlib import Path

import pytest

from volume_core.domain.changes import Upper, changes
from volume_core.domain.view import View
from volume_core.errors import CorruptObjectError, StorageError
from volume_core.format.entries import CHUNK_BYTES, ChunkRef, Entry, Extent, Kind
from volume_core.format.layer import LayerReader, write_layer
from volume_core.parts.achieved import Achieved
from volume_core.parts.dialects import PLAIN
from volume_core.parts.hydrating import hydrate
from volume_core.parts.scanning import scan
from volume_core.testing.oracle import describe
from volume_core.testing.users import as_nobody

MTIME_NS = 1_600_000_000_987_654_321
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away and make devices")


class Chunks:
    """Content held in memory: what a Reader is, without a store."""

    def __init__(self):
        self.data = {}
        self.reads = 0

    def add(self, data):
        name = sha256(data).digest()
        self.data[name] = data
        return ChunkRef(name, b"p" * 32, len(self.data), len(data), len(data))

    def file(self, data):
        """Extents of *data*, cut as a commit cuts."""
        return tuple(
            Extent(len(data[at : at + CHUNK_BYTES]), self.add(data[at : at + CHUNK_BYTES]))
            for at in range(0, len(data), CHUNK_BYTES)
        )

    def read(self, extents, offset, size):
        self.reads += 1
        whole = b"".join(
            self.data[e.chunk.digest][e.chunk_offset : e.chunk_offset + e.length] if e.chunk else bytes(e.length)
            for e in extents
        )
        return whole[offset : offset + size]

    def stream(self, extents, block_bytes):
        size = sum(extent.length for extent in extents)
        for offset in range(0, size, block_bytes):
            yield self.read(extents, offset, block_bytes)


def view_of(rows):
    """The view of one layer with *rows*: path -> Entry."""
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    split = {path: path.rpartition(b"/")[::2] if path else (b"", b"") for path in rows}
    ordered = sorted((directory, name[-len(name) :], path) for path, (directory, name) in split.items())
    write_layer(connection, ((d.removesuffix(b"/"), n, rows[p]) for d, n, p in ordered))
    return View([LayerReader(connection)])


def mine(kind, **fields):
    """An entry that this user can restore in full."""
    fields = {"uid": os.geteuid(), "gid": os.getegid(), "mtime_ns": MTIME_NS, "mode": 0o644} | fields
    return Entry(kind, **fields)


def sample(chunks):
    big = os.urandom(CHUNK_BYTES) + b"tail"
    return {
        b"": mine(Kind.DIRECTORY, mode=0o755),
        b"dir": mine(Kind.DIRECTORY, mode=0o550, xattrs=((b"user.of", b"dir"),)),
        b"dir/empty": mine(Kind.FILE, mode=0o400),
        b"dir/deep": mine(Kind.DIRECTORY, mode=0o2711),
        b"dir/deep/\xff\xfe": mine(Kind.FILE, size=3, content=chunks.file(b"abc"), mode=0o4711),
        b"big": mine(Kind.FILE, size=len(big), content=chunks.file(big)),
        b"fifo": mine(Kind.FIFO, mode=0o622),
        b"link": mine(Kind.SYMLINK, mode=0o777, target=b"/no/such\xff" * 20),
        b"one": mine(Kind.FILE, size=5, content=chunks.file(b"named"), hardlink=1, xattrs=((b"user.a", b"\0\1"),)),
        b"dir/two": mine(Kind.FILE, size=5, content=chunks.file(b"named"), hardlink=1, xattrs=((b"user.a", b"\0\1"),)),
        b"n" * 255: mine(Kind.FILE),
    }


def assert_is(rows, chunks, root, ignore=()):
    found = describe(root, xattr_prefixes=(b"user.",))

    assert set(rows) == set(found)
    for path, entry in rows.items():
        got = found[path]
        assert (entry.kind.name.lower(), entry.size, entry.target) == (got.kind, got.size, got.target)
        mode = 0 if entry.kind is Kind.SYMLINK else entry.mode
        expected = {"mode": mode, "uid": entry.uid, "gid": entry.gid, "mtime_ns": entry.mtime_ns}
        for name in expected.keys() - set(ignore):
            assert expected[name] == getattr(got, name), (path, name)
        assert entry.xattrs == got.xattrs
        if entry.kind is Kind.FILE:
            with open(os.fsencode(root) + b"/" + path, "rb") as file:
                assert chunks.read(entry.content, 0, entry.size) == file.read()


def test_everything_a_tree_can_hold_arrives(tmp_path):
    chunks = Chunks()
    rows = sample(chunks)

    tree = hydrate(view_of(rows), chunks, tmp_path / "out")

    assert_is(rows, chunks, tmp_path / "out")
    assert (b"dir/two", b"one") == describe(tmp_path / "out")[b"one"].links
    assert {} == tree.achieved.shortfalls
    assert ["out"] == os.listdir(tmp_path)


def test_what_it_returns_is_what_a_scan_would_find(tmp_path):
    chunks = Chunks()
    rows = sample(chunks)

    tree = hydrate(view_of(rows), chunks, tmp_path / "out")

    found = scan(tmp_path / "out", PLAIN).items
    assert set(rows) == set(found) == set(tree.items)
    for path, item in tree.items.items():
        assert rows[path].content == item.entry.content
        if path:  # the rename that ends the work moves the root's own ctime
            assert found[path] == item._replace(entry=item.entry._replace(content=()))


def test_no_change_is_found_in_an_untouched_tree(tmp_path):
    chunks = Chunks()
    view = view_of(sample(chunks))

    tree = hydrate(view, chunks, tmp_path / "out")
    upper = {path: Upper(i.entry._replace(hardlink=i.key and i.key % 9973 + 1)) for path, i in tree.items.items()}

    assert [] == changes(upper, view, view, None, (0, 0)).rows
    assert [] == changes(upper, view, view, upper, (0, 0)).rows


def test_a_change_right_after_it_has_a_later_time_stamp(tmp_path):
    chunks = Chunks()
    rows = {b"": mine(Kind.DIRECTORY, mode=0o755)} | {b"%d" % n: mine(Kind.FILE) for n in range(50)}

    tree = hydrate(view_of(rows), chunks, tmp_path / "out")
    os.chmod(tmp_path / "out" / "0", 0o600)

    newest = max(item.signature.ctime_ns for item in tree.items.values())
    assert os.stat(tmp_path / "out" / "0").st_ctime_ns > newest


def test_holes_stay_holes_and_stored_zeros_stay_stored(tmp_path):
    chunks = Chunks()
    zeros = chunks.add(bytes(65536))
    data = chunks.add(b"d" * 65536)
    content = (
        Extent(1 << 20, None), Extent(65536, data), Extent(65536, zeros), Extent(1 << 30, None),
        Extent(32768, data, 32768), Extent(100, None),
    )  # fmt: skip
    size = sum(extent.length for extent in content)
    rows = {b"": mine(Kind.DIRECTORY, mode=0o755), b"sparse": mine(Kind.FILE, size=size, content=content)}

    hydrate(view_of(rows), chunks, tmp_path / "out")

    found = describe(tmp_path / "out")[b"sparse"]
    start = (1 << 20) + 131072 + (1 << 30)
    assert size == found.size
    assert ((1 << 20, (1 << 20) + 131072), (start, start + 32768)) == found.data
    with open(tmp_path / "out" / "sparse", "rb") as file:
        file.seek(start - 1)
        assert b"\0" + b"d" * 32768 + bytes(100) == file.read()


def test_paths_of_twenty_thousand_bytes(tmp_path):
    chunks = Chunks()
    rows = {b"": mine(Kind.DIRECTORY, mode=0o755)}
    path = b""
    for level in range(90):
        path = path + b"/" + bytes([97 + level % 26]) * 220 if path else b"a" * 220
        rows[path] = mine(Kind.DIRECTORY, mode=0o700)
    rows[path + b"/file"] = mine(Kind.FILE, size=3, content=chunks.file(b"abc"), hardlink=1)
    rows[path + b"/linked"] = mine(Kind.FILE, size=3, content=chunks.file(b"abc"), hardlink=1)
    rows[path + b"/fifo"] = mine(Kind.FIFO)

    hydrate(view_of(rows), chunks, tmp_path / "out")

    found = describe(tmp_path / "out")
    assert set(rows) == set(found)
    assert {MTIME_NS} == {each.mtime_ns for each in found.values()}
    assert 2 == len(found[path + b"/file"].links)


def test_many_small_files_by_many_threads(tmp_path):
    chunks = Chunks()
    rows = {b"": mine(Kind.DIRECTORY, mode=0o755)}
    for number in range(3000):
        rows[b"d%d" % (number % 7)] = mine(Kind.DIRECTORY, mode=0o555)
        content = b"%d" % number
        rows[b"d%d/%d" % (number % 7, number)] = mine(Kind.FILE, size=len(content), content=chunks.file(content))
    seen = []

    hydrate(view_of(rows), chunks, tmp_path / "out", threads=8, progress=lambda *done: seen.append(done))

    assert_is(rows, chunks, tmp_path / "out")
    assert (3000, sum(entry.size for entry in rows.values())) == tuple(map(sum, zip(*seen, strict=True)))


def test_protected_trees_have_no_write_bits_and_all_else(tmp_path):
    chunks = Chunks()
    rows = sample(chunks)

    hydrate(view_of(rows), chunks, tmp_path / "out", protect=True)

    assert_is(
        {p: e if e.kind is Kind.SYMLINK else e._replace(mode=e.mode & ~0o222) for p, e in rows.items()},
        chunks,
        tmp_path / "out",
    )


@needs_root
def test_owners_and_devices(tmp_path):
    rows = {
        b"": mine(Kind.DIRECTORY, mode=0o755, uid=12, gid=13),
        b"file": mine(Kind.FILE, uid=1234, gid=2345, mode=0o6755),
        b"null": mine(Kind.CHAR, rdev=os.makedev(1, 3), uid=7),
        b"link": mine(Kind.SYMLINK, mode=0o777, target=b"x", uid=99, gid=98),
    }

    hydrate(view_of(rows), Chunks(), tmp_path / "out")

    found = describe(tmp_path / "out")
    for path, entry in rows.items():
        assert (entry.uid, entry.gid) == (found[path].uid, found[path].gid)
    assert 0o6755 == found[b"file"].mode
    assert os.makedev(1, 3) == found[b"null"].rdev


@needs_root
def test_xattrs_of_what_is_no_file_arrive_and_an_untouched_tree_has_no_change(tmp_path):
    rows = {
        b"": mine(Kind.DIRECTORY, mode=0o755),
        b"fifo": mine(Kind.FIFO, xattrs=((b"trusted.of", b"fifo"),)),
        b"link": mine(Kind.SYMLINK, mode=0o777, target=b"x", xattrs=((b"trusted.of", b"link"),)),
        b"null": mine(Kind.CHAR, rdev=os.makedev(1, 3), xattrs=((b"trusted.of", b"device"),)),
    }
    view = view_of(rows)

    tree = hydrate(view, Chunks(), tmp_path / "out")

    found = {path: item.entry.xattrs for path, item in scan(tmp_path / "out", PLAIN).items.items()}
    assert {path: entry.xattrs for path, entry in rows.items()} == found
    scanned = {path: Upper(item.entry) for path, item in scan(tmp_path / "out", PLAIN).items.items()}
    assert [] == changes(tree.achieved.as_version(scanned), view, view).rows


@pytest.mark.parametrize("name", [b"..", b".", b"a/../../b", b"\0", b"/etc/passwd"])
def test_a_layer_cannot_lead_out_of_the_tree(tmp_path, name):
    rows = {b"": mine(Kind.DIRECTORY, mode=0o755)}
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    write_layer(connection, [(b"", b"", rows[b""]), (b"", name, mine(Kind.FILE))])

    with pytest.raises(CorruptObjectError, match="impossible name"):
        hydrate(View([LayerReader(connection)]), Chunks(), tmp_path / "out")

    assert [] == os.listdir(tmp_path)


class Failing(Chunks):
    def read(self, extents, offset, size):
        if self.reads >= 700:
            raise StorageError("the network is gone")
        return super().read(extents, offset, size)


def test_a_failure_leaves_nothing(tmp_path):
    chunks = Failing()
    rows = {b"": mine(Kind.DIRECTORY, mode=0o755)}
    rows |= {b"%d" % n: mine(Kind.FILE, size=4, content=chunks.file(b"%04d" % n)) for n in range(2000)}

    with pytest.raises(StorageError, match="network"):
        hydrate(view_of(rows), chunks, tmp_path / "out")

    assert [] == os.listdir(tmp_path)
    assert not [t for t in threading.enumerate() if t.name.startswith("hydrate")]


def test_a_name_the_file_system_cannot_hold_is_an_error(tmp_path):
    rows = {b"": mine(Kind.DIRECTORY, mode=0o755), b"n" * 256: mine(Kind.FILE)}

    with pytest.raises(OSError, match="too long") as caught:
        hydrate(view_of(rows), Chunks(), tmp_path / "out")

    assert errno.ENAMETOOLONG == caught.value.errno
    assert [] == os.listdir(tmp_path)


KILLED = """
    import os, sys
    sys.path[:0] = [{tests!r}]
    import test_hydrating as t
    class Stopping(t.Chunks):
        def read(self, *args):
            if self.reads >= 600:
                os.write(1, b"ready" + bytes([10]))
                t.threading.Event().wait(60)
            return super().read(*args)
    chunks = Stopping()
    rows = {{b"": t.mine(t.Kind.DIRECTORY, mode=0o755)}}
    rows |= {{b"%d" % n: t.mine(t.Kind.FILE, size=4, content=chunks.file(b"%04d" % n)) for n in range(2000)}}
    t.hydrate(t.view_of(rows), chunks, t.Path({out!r}))
"""


def test_a_killed_hydrate_leaves_nothing_that_looks_complete(tmp_path):
    program = textwrap.dedent(KILLED.format(tests=str(Path(__file__).parent), out=str(tmp_path / "out")))
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert b"ready\n" == process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait(10)

    assert not (tmp_path / "out").exists()
    assert all(name.startswith(".out.") and name.endswith(".hydrating") for name in os.listdir(tmp_path))


# -- what could not be achieved


def test_what_was_not_achieved_is_no_change():
    version = Entry(Kind.FILE, 0o2755, 0, 5, 1_000_000_001, xattrs=((b"trusted.t", b"1"), (b"user.u", b"2")), size=1)
    scanned = version._replace(mode=0o755, uid=1000, gid=1000, mtime_ns=1_000_000_000, xattrs=((b"user.u", b"2"),))
    achieved = Achieved()
    achieved.note(b"f", version, scanned)

    assert version == achieved.restore(b"f", scanned)
    assert version == achieved.restore(b"f", version)
    assert version._replace(mode=0o700) == achieved.restore(b"f", scanned._replace(mode=0o700))
    assert version._replace(mtime_ns=7, size=9) == achieved.restore(b"f", scanned._replace(mtime_ns=7, size=9))
    changed = scanned._replace(xattrs=((b"user.v", b"3"),))
    assert ((b"trusted.t", b"1"), (b"user.v", b"3")) == achieved.restore(b"f", changed).xattrs
    assert scanned == achieved.restore(b"other", scanned)


def test_what_was_inherited_and_never_asked_for_is_no_change():
    version = Entry(Kind.FILE, 0o644, 1, 1, 5)
    achieved = Achieved()
    got = version._replace(xattrs=((b"system.acl", b"inherited"),))
    achieved.note(b"f", version, got)

    assert version == achieved.restore(b"f", got)
    other = version._replace(xattrs=((b"system.acl", b"set by hand"),))
    assert other == achieved.restore(b"f", other)


def test_what_could_not_be_made_is_put_back_unless_its_place_is_taken_or_gone():
    device = Entry(Kind.CHAR, 0o600, rdev=259)
    achieved = Achieved()
    achieved.missing = {b"null": device, b"dev/zero": device, b"taken": device}
    upper = {b"": Upper(Entry(Kind.DIRECTORY)), b"taken": Upper(Entry(Kind.FILE))}

    whole = achieved.as_version(upper)

    assert {**upper, b"null": Upper(device)} == whole


def test_what_was_achieved_survives_a_save(tmp_path):
    achieved = Achieved()
    for number in range(100):
        version = Entry(Kind.FILE, 0o644, number % 2, 0, 5, xattrs=((b"trusted.x", b"\0\xff"),))
        achieved.note(b"\xff/%d" % number, version, version._replace(uid=7, gid=7, xattrs=((b"user.y", b""),)))
    achieved.missing[b"\xfe"] = Entry(Kind.BLOCK, 0o660, 1, 2, 3, rdev=5, xattrs=((b"user.z", b"z"),))

    achieved.save(tmp_path / "achieved.sqlite")
    achieved.save(tmp_path / "achieved.sqlite")
    loaded = Achieved.load(tmp_path / "achieved.sqlite")

    assert achieved.shortfalls == loaded.shortfalls
    assert achieved.missing == loaded.missing
    assert ["achieved.sqlite"] == os.listdir(tmp_path)


@pytest.mark.parametrize("damage", [b"", b"no database at all, not even nearly", b"SQLite format 3\0" + bytes(200)])
def test_a_damaged_record_of_it_is_refused(tmp_path, damage):
    (tmp_path / "achieved.sqlite").write_bytes(damage)

    with pytest.raises(CorruptObjectError, match="achieved"):
        Achieved.load(tmp_path / "achieved.sqlite")
    with pytest.raises(FileNotFoundError):
        Achieved.load(tmp_path / "nothing")


UNPRIVILEGED = """
    import os, sys
    sys.path[:0] = [{tests!r}]
    import test_hydrating as t
    chunks = t.Chunks()
    rows = t.foreign(chunks)
    tree = t.hydrate(t.view_of(rows), chunks, t.Path({out!r}))
    tree.achieved.save(t.Path({out!r} + ".sqlite"))
    assert set(rows) - set(tree.items) == {{b"null"}}, set(rows) ^ set(tree.items)
    from volume_core.domain.changes import Upper, changes
    raw = {{path: Upper(item.entry._replace(content=rows[path].content))
           for path, item in t.scan(t.Path({out!r}), t.PLAIN).items.items()}}
    view = t.view_of(rows)
    achieved = t.Achieved.load(t.Path({out!r} + ".sqlite"))
    found = changes(achieved.as_version(raw), view, view, None, (0, 0)).rows
    assert found == [], found
    raw[b"suid"] = Upper(raw[b"suid"].entry._replace(mode=0o700))
    found = changes(achieved.as_version(raw), view, view, None, (0, 0)).rows
    assert [(b"", b"suid", rows[b"suid"]._replace(mode=0o700))] == found, found
"""


def foreign(chunks):
    """A version as root may have made it."""
    return {
        b"": mine(Kind.DIRECTORY, mode=0o755, uid=0, gid=0),
        b"suid": mine(Kind.FILE, mode=0o6755, uid=0, gid=3),
        b"closed": mine(Kind.DIRECTORY, mode=0o000, uid=5, gid=5),
        b"closed/file": mine(
            Kind.FILE, mode=0, uid=5, size=3, content=chunks.file(b"abc"), xattrs=((b"user.a", b"b"),)
        ),
        b"null": mine(Kind.CHAR, rdev=os.makedev(1, 3), uid=0),
        b"shared": mine(Kind.DIRECTORY, mode=0o3777, uid=0, gid=4),
        b"trusted": mine(Kind.FILE, uid=0, xattrs=((b"trusted.t", b"x"),)),
    }


@needs_root
def test_a_user_without_privilege_gets_what_he_may_and_nothing_becomes_a_change(tmp_path_factory):
    place = tmp_path_factory.mktemp("shared")
    base = tmp_path_factory.getbasetemp()
    for directory in (place, base, base.parent, base.parent.parent):
        os.chmod(directory, os.stat(directory).st_mode | 0o011)
    os.chown(place, 65534, 65534)
    program = textwrap.dedent(UNPRIVILEGED.format(tests=str(Path(__file__).parent), out=str(place / "out")))

    done = subprocess.run(
        as_nobody([sys.executable, "-c", program]), capture_output=True, text=True, timeout=60, check=False
    )

    assert 0 == done.returncode, done.stderr
    assert {65534} == {each.uid for each in describe(place / "out").values()}

"""What a commit captured comes back as it was, or not at all."""

import os
import sqlite3

import pytest

from volume_core.domain.changes import Upper
from volume_core.format.entries import WHITEOUT, ChunkRef, Codec, Entry, Extent, Kind
from volume_core.parts import captured as module
from volume_core.parts.captured import Captured, load, save
from volume_core.parts.scanning import WHITEOUT_ITEM, Signature


def chunk(name, pack=b"P" * 32, raw=10):
    return ChunkRef(bytes([name]) * 32, pack, 8 + name, 7, raw, Codec.ZSTD)


@pytest.fixture
def sample():
    """One path of everything."""
    content = (Extent(5, chunk(1), 2), Extent(1 << 40, None), Extent(3, chunk(2, b"Q" * 32)))
    file = Entry(
        Kind.FILE, 0o4755, 1, 2**32 - 2, -5, (1 << 40) + 8, hardlink=7, xattrs=((b"user.\xff", b""),), content=content
    )
    entries = {
        b"": Upper(Entry(Kind.DIRECTORY, 0o755, mtime_ns=2**62), b""),
        b"\xff\n": Upper(Entry(Kind.SYMLINK, 0o777, target=b"\xfe"), None),
        b"d": Upper(Entry(Kind.DIRECTORY, 0o1777), b"was/d"),
        b"d/file": Upper(file),
        b"d/empty": Upper(Entry(Kind.FILE)),
        b"d/hole": Upper(Entry(Kind.FILE, size=9, content=(Extent(9, None),))),
        b"device": Upper(Entry(Kind.BLOCK, 0o600, rdev=os.makedev(4095, 2**20 - 1))),
        b"gone": Upper(WHITEOUT),
        b"opaque": Upper(Entry(Kind.DIRECTORY), None),
        b"x" * 10_000: Upper(Entry(Kind.FIFO)),
    }
    signatures = {
        path: Signature(upper.entry.kind, 2**64 - 1 - number, number, -number, 2**62 + number)
        for number, (path, upper) in enumerate(entries.items())
    }
    signatures[b"gone"] = WHITEOUT_ITEM.signature
    return Captured(signatures, entries, (b"d/file", b"torn \xff"))


def test_everything_comes_back(tmp_path, sample):
    save(tmp_path / "captured.sqlite", sample, "file:///s/versions/v/1.json")
    again = load(tmp_path / "captured.sqlite")

    assert (sample, list(sample)) == (again, list(again))
    assert all(type(one) is type(two) for path in sample for one, two in zip(sample[path], again[path], strict=True))
    assert Kind.BLOCK is again.upper[b"device"].entry.kind
    assert ["captured.sqlite"] == os.listdir(tmp_path)


def test_it_is_a_mapping(sample):
    assert (sample.signatures[b"d"], sample.upper[b"d"]) == sample[b"d"]
    assert (len(sample.upper), True, False) == (len(sample), b"d" in sample, b"no" in sample)


def test_nothing_comes_back_as_nothing(tmp_path):
    empty = Captured({}, {})
    save(tmp_path / "c", empty)

    assert empty == load(tmp_path / "c")


def test_absent_is_no_news(tmp_path):
    assert None is load(tmp_path / "captured.sqlite")  # an unannounced warning would fail this test


@pytest.mark.loud
@pytest.mark.parametrize("where", [0, 20, 97, 4000, 0.5, 0.9, -40, -1])
def test_a_flipped_bit_makes_it_absent(tmp_path, sample, where, caplog):
    save(tmp_path / "c", sample)
    data = bytearray((tmp_path / "c").read_bytes())
    data[int(where * len(data)) if isinstance(where, float) else where] ^= 0x10
    (tmp_path / "c").write_bytes(data)

    assert None is load(tmp_path / "c")
    assert [
        f"{tmp_path}/c is damaged (its digest is another): the next commit reads every file again"
    ] == caplog.messages


@pytest.mark.loud
@pytest.mark.parametrize("size", [0, 1, 31, 32, 33, 5000, -1, -33])
def test_cut_short_is_absent(tmp_path, sample, size, caplog):
    save(tmp_path / "c", sample)
    data = (tmp_path / "c").read_bytes()
    (tmp_path / "c").write_bytes(data[:size])

    assert None is load(tmp_path / "c")
    assert 1 == len(caplog.messages)


@pytest.mark.loud
def test_what_is_whole_but_no_table_is_absent(tmp_path):
    for content in (b"not a database", b"SQLite format 3\0" + bytes(4080)):
        (tmp_path / "c").write_bytes(content + module.digest(content))

        assert None is load(tmp_path / "c")


def test_another_release_is_absent(tmp_path, sample, monkeypatch):
    monkeypatch.setattr(module, "USER_VERSION", 2)
    save(tmp_path / "c", sample)
    monkeypatch.undo()

    assert None is load(tmp_path / "c")


def test_of_another_version_is_absent(tmp_path, sample):
    save(tmp_path / "c", sample, "one")

    assert (None, sample, sample) == (load(tmp_path / "c", "two"), load(tmp_path / "c", "one"), load(tmp_path / "c"))


def test_a_chunk_without_a_pack_cannot_be_kept_and_the_old_file_stays(tmp_path, sample):
    save(tmp_path / "c", sample)
    entry = Entry(Kind.FILE, size=10, content=(Extent(10, chunk(1, b"")),))
    unsealed = Captured({b"f": WHITEOUT_ITEM.signature}, {b"f": Upper(entry)})
    with pytest.raises(ValueError, match="pack is not known"):
        save(tmp_path / "c", unsealed)

    assert (["c"], sample) == (os.listdir(tmp_path), load(tmp_path / "c"))
    sealed = unsealed.sealed(lambda each: each._replace(content=(Extent(10, chunk(1)),)))
    save(tmp_path / "c", sealed)
    assert chunk(1) == load(tmp_path / "c").upper[b"f"].entry.content[0].chunk


def test_sealing_leaves_alone_what_is_sealed(sample):
    asked = []
    sealed = sample.sealed(lambda entry: asked.append(entry) or entry)

    assert sample == sealed
    assert {b"d/file", b"d/hole"} == {path for path in sample if sample.upper[path].entry in asked}


def test_a_full_disk_leaves_the_old_file(tmp_path, sample, monkeypatch):
    save(tmp_path / "c", sample)

    def fsync(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path / "c", Captured({}, {}))

    assert (["c"], sample) == (os.listdir(tmp_path), load(tmp_path / "c"))


def test_any_sqlite_reads_it(tmp_path, sample):
    save(tmp_path / "c", sample)
    db = sqlite3.connect(f"file:{tmp_path}/c?mode=ro&immutable=1", uri=True)

    assert (len(sample),) == db.execute("SELECT count(*) FROM path").fetchone()
    assert ("ok",) == db.execute("PRAGMA integrity_check").fetchone()
    db.close()

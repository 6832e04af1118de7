"""Verifying: whatever is wrong below a manifest is named, and nothing else is."""

from __future__ import annotations

import dataclasses
import sqlite3

import pytest
from packed import put_pack, whole

from volume_core.errors import StorageError
from volume_core.format.digests import hex_digest
from volume_core.format.entries import WHITEOUT, Codec, Entry, Extent, Kind
from volume_core.format.manifest import LayerRef, Manifest
from volume_core.format.names import layer_name, pack_name, version_name
from volume_core.parts.checking import Problem, check_version
from volume_core.parts.indexes import build_index, pack_index
from volume_core.storage.memory import MemoryStore
from volume_core.testing.faulty import FaultyStore
from volume_core.testing.strict import StrictStore


def put_layer(store, rows) -> LayerRef:
    stored, ref = pack_index(build_index(rows))
    store.put(layer_name(ref.digest), stored)
    return ref


class Version:
    """Two layers over two packs, by hand."""

    def __init__(self, name: str) -> None:
        self.store = StrictStore(MemoryStore(name))
        self.plain = put_pack(self.store, [b"one", b"two" * 1000])
        self.packed = put_pack(self.store, [bytes(5000), b"text" * 500], Codec.ZSTD)
        one, two = self.plain
        three, four = self.packed
        self.old = put_layer(
            self.store,
            [
                (b"", b"", Entry(Kind.DIRECTORY, 0o755)),
                (b"", b"a", Entry(Kind.FILE, size=3, content=whole(one), hardlink=1)),
                (b"", b"b", Entry(Kind.FILE, size=3, content=whole(one), hardlink=1)),
                (b"", b"gone", Entry(Kind.FILE, size=3000, content=whole(two))),
                (b"", b"z", Entry(Kind.FILE, size=5100, content=(*whole(three), Extent(100, None)))),
            ],
        )
        self.new = put_layer(
            self.store,
            [(b"", b"gone", WHITEOUT), (b"", b"new", Entry(Kind.FILE, size=2000, content=whole(four)))],
        )
        self.manifest = Manifest(
            "data", "2030", (self.old, self.new), self.new, used_bytes=3 + 5100 + 2000, inode_count=4
        )
        self.put_manifest(self.manifest)

    def put_manifest(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.name = version_name(manifest.volume, manifest.version)
        self.store.put(self.name, manifest.to_bytes())

    def check(self, **options) -> list[Problem]:
        return check_version(self.store, self.manifest.volume, self.manifest.version, **options)

    def damage(self, name: str, place: int = -1) -> None:
        data = bytearray(self.store.get(name))
        data[place] ^= 1
        self.store.put(name, bytes(data))

    def cut(self, name: str) -> None:
        self.store.put(name, self.store.get(name)[:-1])


@pytest.fixture
def version(tmp_path):
    return Version(str(tmp_path))


PACKS = pytest.mark.parametrize("read_packs", [True, False])


@PACKS
def test_a_whole_version_has_no_problem_and_everything_is_looked_at(version, read_packs):
    seen = []

    found = version.check(read_packs=read_packs, progress=lambda name, size: seen.append((name, size)))

    assert [] == found
    wanted = {version.name, layer_name(version.old.digest), layer_name(version.new.digest)}
    if read_packs:
        wanted |= {pack_name(chunk.pack.hex()) for chunk in version.plain + version.packed}
    assert {(name, version.store.info(name).size_bytes) for name in wanted} == set(seen)
    assert len(wanted) == len(seen)


def test_an_empty_version_has_no_problem(version):
    version.put_manifest(Manifest("data", "2030", inode_count=1))

    assert [] == version.check()


def test_every_object_that_is_flipped_cut_or_lost_is_named(version):
    names = [info.name for info in version.store.names("")]
    assert 5 == len(names)
    for name in names:
        right = version.store.get(name)
        for harm in (version.damage, version.cut, version.store.delete):
            harm(name)

            assert {name} == {problem.name for problem in version.check()}
        version.store.put(name, right)
    assert [] == version.check()


def test_any_byte_of_a_pack_is_looked_at(version):
    name = pack_name(version.plain[0].pack.hex())
    for place in (0, 10, version.plain[0].offset, version.plain[1].offset, version.plain[1].offset + 2999):
        version.damage(name, place)

        assert {name} == {problem.name for problem in version.check()}
        version.damage(name, place)


def test_a_damaged_chunk_is_named_beside_its_pack(version):
    name = pack_name(version.packed[0].pack.hex())
    version.damage(name, version.packed[1].offset + 8)

    texts = [problem.text for problem in version.check()]

    assert 2 == len(texts)
    assert any(f"offset {version.packed[1].offset}" in text for text in texts)


def test_packs_that_are_only_looked_up_must_be_there_and_long_enough(version):
    flipped, cut = (pack_name(chunks[0].pack.hex()) for chunks in (version.plain, version.packed))
    version.damage(flipped)
    version.cut(cut)

    assert {cut} == {problem.name for problem in version.check(read_packs=False)}

    version.store.delete(cut)

    assert {cut} == {problem.name for problem in version.check(read_packs=False)}


@pytest.mark.parametrize(
    ("changes", "text"),
    [({"used_bytes": 1}, "used_bytes is 1, and its tree has 7103"), ({"inode_count": 9}, "inode_count is 9")],
)
def test_totals_that_are_wrong_are_told(version, changes, text):
    version.put_manifest(dataclasses.replace(version.manifest, **changes))

    (problem,) = version.check()

    assert text in problem.text
    assert version.name == problem.name


def test_a_manifest_that_counts_rows_wrong_is_told(version):
    wrong = dataclasses.replace(version.old, rows=99)
    version.put_manifest(dataclasses.replace(version.manifest, stack=(wrong, version.new)))

    assert any("5 rows, and its manifest says 99" in problem.text for problem in version.check())


def test_an_unsound_layer_is_told(version):
    connection = sqlite3.connect(":memory:")
    connection.deserialize(build_index([(b"", b"f", Entry(Kind.FIFO))]))
    connection.execute("UPDATE entry SET name = x'2e2e'")
    connection.commit()
    stored, ref = pack_index(connection.serialize())
    connection.close()
    version.store.put(layer_name(ref.digest), stored)
    version.put_manifest(dataclasses.replace(version.manifest, delta=ref))

    assert [layer_name(ref.digest)] == [problem.name for problem in version.check()]


def test_a_layer_that_holds_nothing_is_told(version):
    empty = b"\x28\xb5\x2f\xfd\x20\x00\x01\x00\x00"  # a frame of no bytes
    wrong = LayerRef(hex_digest(empty), len(empty), hex_digest(b""), 0, 0)
    version.store.put(layer_name(wrong.digest), empty)
    version.put_manifest(dataclasses.replace(version.manifest, delta=wrong))

    assert [layer_name(wrong.digest)] == [problem.name for problem in version.check()]


def test_a_manifest_under_another_volume_is_told(version):
    version.store.put(version_name("other", version.manifest.version), version.manifest.to_bytes())

    (problem,) = check_version(version.store, "other", version.manifest.version)

    assert "'data'" in problem.text


def test_a_version_that_is_not_there_is_told(version):
    (problem,) = check_version(version.store, "data", "0" * 64)

    assert version_name("data", "0" * 64) == problem.name


def test_a_store_that_cannot_be_asked_is_an_error_where_nothing_is_known_yet(version):
    with pytest.raises(StorageError):
        check_version(FaultyStore(version.store, 1), "data", version.manifest.version)


@pytest.mark.parametrize("fail_at", range(2, 6))
def test_a_store_that_fails_on_the_way_is_told_and_the_rest_is_checked(version, fail_at):
    store = FaultyStore(version.store, fail_at)

    problems = check_version(store, "data", version.manifest.version)

    assert 1 == len(problems)
    assert problems[0].name == store.calls[fail_at - 1].name

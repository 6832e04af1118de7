"""The golden stores: what a release wrote, every later one reads.  Nothing here writes to them."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from pathlib import Path

import pytest
from blake3 import blake3
from make_golden import as_json, latin

from volume_core.domain.view import Node, View
from volume_core.format.entries import Codec, Entry, Extent, Kind
from volume_core.format.intent import Intent
from volume_core.format.manifest import Manifest
from volume_core.format.names import Locator, layer_name, pack_name, version_name
from volume_core.format.storeinfo import StoreFormat
from volume_core.parts.checking import check_version
from volume_core.parts.dialects import FUSE_OVERLAY
from volume_core.parts.indexes import IndexCache, open_view
from volume_core.parts.reading import Reader
from volume_core.storage.local import LocalStore
from volume_core.testing.lines import Line, manifest_of
from volume_core.testing.oracle import Described

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

GOLDEN = Path(__file__).parent / "golden"
RELEASES = sorted(path.name for path in GOLDEN.iterdir())
BLOCK = 4096
KINDS = {kind: kind.name.lower() for kind in Kind}


@cache
def expected(release: str) -> dict[str, dict[str, dict]]:
    return json.loads((GOLDEN / release / "expected.json").read_text())


VERSIONS = [
    pytest.param(release, locator, id=f"{release}-{manifest_number}")
    for release in RELEASES
    for manifest_number, locator in enumerate(expected(release)["versions"])
]


@cache
def golden_store(release: str) -> LocalStore:
    return LocalStore(GOLDEN / release / "store")


def test_there_is_a_golden_store():
    assert "0.1" in RELEASES


@pytest.mark.parametrize("release", RELEASES)
def test_it_is_as_it_was_written(release):
    store = golden_store(release)

    assert expected(release)["objects"] == {
        found.name: blake3(store.get(found.name)).hexdigest() for found in store.names("")
    }


@pytest.mark.parametrize(("release", "locator"), VERSIONS)
def test_a_golden_version_verifies(release, locator):
    found = Locator.parse(locator)

    assert [] == check_version(golden_store(release), found.volume, found.version)


@pytest.mark.parametrize("release", RELEASES)
def test_the_other_objects_decode(release):
    store = golden_store(release)
    (intent,) = store.names("intents/")

    assert StoreFormat() == StoreFormat.from_bytes(store.get("format.json"))
    assert set(expected(release)["versions"]) == set(Intent.from_bytes(intent.name, store.get(intent.name)).versions)


# -- read by this release


def data_of(extents: Iterator[tuple[int, bool]]) -> list[list[int]]:
    """Where a file has data, rounded out to blocks and joined, as the oracle says it."""
    segments: list[list[int]] = []
    position = 0
    for length, is_data in extents:
        if is_data:
            start = position // BLOCK * BLOCK
            if segments and segments[-1][1] >= start:
                start = segments.pop()[0]
            segments.append([start, position + length])
        position += length
    return segments


def shown(view: View, reader: Reader, node: Node) -> dict[str, object]:
    entry = view.entry(node)
    content = ""
    data: list[list[int]] = []
    if entry.kind is Kind.FILE:
        data = data_of((extent.length, extent.chunk is not None) for extent in entry.content)
        content = hashlib.sha256(reader.read(entry.content, 0, entry.size)).hexdigest() if data else ""
    links = view.links(node) if view.link_count(node) > 1 else ()
    described = Described(
        KINDS[entry.kind],
        0 if entry.kind is Kind.SYMLINK else entry.mode,
        entry.uid,
        entry.gid,
        entry.mtime_ns,
        entry.size,
        entry.target,
        entry.rdev,
        entry.xattrs,
        "",
        tuple((a, b) for a, b in data),
        tuple(links),
    )
    return as_json(described, content)


def same_tree(release: str, locator: str, found: dict[str, dict]) -> None:
    wanted = expected(release)["versions"][locator]
    assert sorted(wanted) == sorted(found)
    for path, what in wanted.items():
        if what.get("torn"):
            assert "file" == found[path]["kind"]
        else:
            assert what == found[path], path


@pytest.mark.parametrize(("release", "locator"), VERSIONS)
def test_a_golden_tree_reads_as_it_was(release, locator, tmp_path):
    store = golden_store(release)
    manifest = manifest_of(store, locator)
    with (
        closing(open_view(IndexCache(tmp_path).fetch(store, manifest.stack))) as view,
        Reader(store) as reader,
    ):
        same_tree(release, locator, {latin(node.path): shown(view, reader, node) for node in view.walk()})


# -- read by nothing but docs/format


class Page:
    """A reader made from the pages alone: zstd, BLAKE3, JSON and SQLite, none of our code."""

    def __init__(self, root: Path, locator: str) -> None:
        self.root = root
        volume, _, leaf = locator.rpartition("/versions/")[2].partition("/")
        data = (root / "versions" / volume / leaf).read_bytes()
        assert leaf == f"{blake3(data).hexdigest()}.json"
        self.manifest = json.loads(data)
        assert "volume-manifest/1" == self.manifest["format"]
        self.layers = [self.open(layer) for layer in self.manifest["stack"]]

    def open(self, layer: dict) -> sqlite3.Connection:
        stored = (self.root / "layers" / layer["digest"]).read_bytes()
        assert layer["digest"] == blake3(stored).hexdigest()
        index = zstd.decompress(stored)
        assert (layer["index_digest"], layer["index_bytes"]) == (blake3(index).hexdigest(), len(index))
        connection = sqlite3.connect(":memory:")
        connection.deserialize(index)
        assert (0x564F4C31, 1) == tuple(
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
        )
        return connection

    def close(self) -> None:
        for layer in self.layers:
            layer.close()

    def tree(self) -> dict[bytes, tuple[int, tuple]]:
        """Path -> (layer, row): oldest layer first, each hiding what its kinds say."""
        found: dict[bytes, tuple[int, tuple]] = {}
        query = "SELECT dir.path, entry.* FROM entry LEFT JOIN dir ON dir.id = entry.dir ORDER BY entry.id"
        for number, layer in enumerate(self.layers):
            rows = [(directory, row) for directory, *row in layer.execute(query)]
            paths = {(d + b"/" if d else b"") + row[2]: tuple(row) for d, row in rows}
            for path, row in paths.items():
                kind, before = row[3], found.get(path)
                keeps = kind == 2 and before is not None and before[1][3] in (2, 3)
                if not keeps:
                    for hidden in [p for p in found if p.startswith(path + b"/") or (not path and p)]:
                        if found[hidden][0] < number:
                            del found[hidden]
                if kind == 8:
                    found.pop(path, None)
                else:
                    found[path] = (number, row)
        return found

    def extents(self, number: int, size: int, content: object) -> Iterator[tuple[int, int, int]]:
        """(length, chunk id or 0, offset in the chunk)"""
        if content is None:
            if size:
                yield size, 0, 0
        elif isinstance(content, int):
            yield size, content, 0
        else:
            for at in range(0, len(content), 16):
                field = content[at : at + 16]
                yield tuple(int.from_bytes(field[a:b], "little") for a, b in ((0, 8), (8, 12), (12, 16)))

    def chunk(self, number: int, ident: int) -> bytes:
        query = "SELECT chunk.*, pack.digest FROM chunk JOIN pack ON pack.id = chunk.pack WHERE chunk.id = ?"
        _, digest, _, offset, length, raw_length, codec, pack = self.layers[number].execute(query, (ident,)).fetchone()
        data = (self.root / "packs" / pack.hex()[:2] / pack.hex()).read_bytes()
        assert (b"VOLPACK1", pack.hex()) == (data[:8], blake3(data).hexdigest())
        raw = data[offset : offset + length]
        raw = {0: bytes, 1: zstd.decompress}[codec](raw)
        assert (raw_length, digest) == (len(raw), blake3(raw).digest())
        return raw

    def show(self) -> dict[str, dict]:
        tree = self.tree()
        groups: dict[tuple[int, int], list[bytes]] = defaultdict(list)
        for path, (number, row) in tree.items():
            if row[11]:
                groups[number, row[11]].append(path)
        return {latin(path): self.entry(number, row, groups) for path, (number, row) in tree.items()}

    def entry(self, number: int, row: tuple, groups: dict[tuple[int, int], list[bytes]]) -> dict[str, object]:
        _, _, _, kind, mode, uid, gid, mtime_ns, size, target, rdev, hardlink, xattrs, content = row
        names = ["", "file", "directory", "directory", "symlink", "fifo", "char", "block"]
        extents = list(self.extents(number, size, content)) if kind == 1 else []
        data = data_of((length, bool(chunk)) for length, chunk, _ in extents)
        digest = hashlib.sha256()
        for length, chunk, offset in extents if data else ():
            digest.update(self.chunk(number, chunk)[offset : offset + length] if chunk else bytes(length))
        links = sorted(groups.get((number, hardlink), ()))
        return {
            "kind": names[kind],
            "mode": 0 if kind == 4 else mode,
            "uid": uid,
            "gid": gid,
            "mtime_ns": mtime_ns,
            "size": size,
            "target": latin(target or b""),
            "rdev": rdev,
            "xattrs": [[latin(name), latin(value)] for name, value in unpack(xattrs or b"")],
            "data": data,
            "links": [latin(path) for path in links] if len(links) > 1 else [],
            "sha256": digest.hexdigest() if data else "",
        }


def unpack(xattrs: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at < len(xattrs):
        name, value = (int.from_bytes(xattrs[at + a : at + b], "little") for a, b in ((0, 2), (2, 6)))
        yield xattrs[at + 6 : at + 6 + name], xattrs[at + 6 + name : at + 6 + name + value]
        at += 6 + name + value


@pytest.mark.parametrize(("release", "locator"), VERSIONS)
def test_the_pages_are_enough_to_read_it(release, locator):
    with closing(Page(GOLDEN / release / "store", locator)) as page:
        same_tree(release, locator, page.show())


# -- what the golden store must hold to be worth its name


@pytest.mark.parametrize("release", RELEASES)
def test_it_holds_everything_that_the_format_can_say(release, tmp_path):
    store = golden_store(release)
    manifests = [manifest_of(store, locator) for locator in expected(release)["versions"]]
    kinds, codecs, contents, entries = set[int](), set[int](), set[type](), list[Entry]()
    for ref in {layer for manifest in manifests for layer in (*manifest.stack, manifest.delta)}:
        with closing(open_view(IndexCache(tmp_path).fetch(store, [ref]))) as view:
            (layer,) = view.layers
            codecs |= {chunk.codec for chunk in layer.chunks()}
            rows = [layer.root(), *(row for d in layer.directories() for row in layer.rows(layer.directory(d)))]
            kinds |= {row.kind for row in filter(None, rows)}
            contents |= {type(row.content) for row in filter(None, rows)}
            entries += [layer.entry(row) for row in filter(None, rows)]

    assert set(map(int, Kind)) == kinds
    assert set(map(int, Codec)) == codecs
    assert {type(None), int, bytes} == contents
    assert any(entry.hardlink for entry in entries)
    assert any(len(entry.xattrs) > 1 for entry in entries)
    assert any(entry.mtime_ns < 0 for entry in entries)
    assert any(extent.chunk_offset for entry in entries for extent in entry.content)
    assert any(Extent(1 << 40, None) in entry.content for entry in entries)
    assert {1, 2} <= {len(manifest.stack) for manifest in manifests}
    assert any(manifest.stack[0] != manifest.delta for manifest in manifests)
    for name in ("torn", "labels", "message", "region", "produced_by", "parent_produced_by", "parents"):
        assert any(getattr(manifest, name) for manifest in manifests), name


@pytest.mark.parametrize(("release", "locator"), VERSIONS)
def test_a_volume_of_an_old_release_is_carried_on(release, locator, tmp_path):
    """Its store is copied, for a golden one is never written to."""
    shutil.copytree(GOLDEN / release / "store", tmp_path / "store")
    store = LocalStore(tmp_path / "store")
    _, volume, version = Locator.parse(locator)
    line = Line(
        store, tmp_path / "line", volume=volume, start=str(Locator(store.url, volume, version)), dialect=FUSE_OVERLAY
    )
    (line.tree / "new").write_bytes(b"by this release")

    result = line.commit()

    assert [] == check_version(store, volume, result.manifest.version)
    before = Manifest.from_bytes(version, store.get(version_name(volume, version)))
    assert before.inode_count + 1 == result.manifest.inode_count
    assert before.used_bytes + 15 == result.manifest.used_bytes


@pytest.mark.parametrize("release", RELEASES)
def test_nothing_in_it_is_named_by_nothing(release, tmp_path):
    store = golden_store(release)
    needed = {"format.json", *(found.name for found in store.names("intents/"))}
    for locator in expected(release)["versions"]:
        _, volume, version = Locator.parse(locator)
        manifest = manifest_of(store, locator)
        refs = [*manifest.stack, manifest.delta]
        needed |= {version_name(volume, version), *(layer_name(ref.digest) for ref in refs)}
        with closing(open_view(IndexCache(tmp_path).fetch(store, refs))) as view:
            needed |= {pack_name(pack.hex()) for layer in view.layers for pack in layer.packs()}

    assert needed == set(expected(release)["objects"])

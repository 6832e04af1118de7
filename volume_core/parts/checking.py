"""Verifying a version: everything below its manifest, down to each chunk.

Always true: nothing is believed.  Every object is read from the store and hashed; no cache is asked;
what cannot be read is a problem to report, never the end of the check.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from volume_core.domain.view import View
from volume_core.errors import CorruptObjectError, NotFoundError, VolumeError
from volume_core.format import zstd
from volume_core.format.digests import digest, verify
from volume_core.format.entries import ChunkRef, Codec, Kind
from volume_core.format.layer import LayerReader
from volume_core.format.manifest import LayerRef, Manifest
from volume_core.format.names import layer_name, pack_name, version_name
from volume_core.format.pack import check_header
from volume_core.format.soundness import check_layer
from volume_core.parts.indexes import unpack_index
from volume_core.storage.protocol import Store

# A pack is some 16 MiB: four at once are 80 MiB of memory, and enough to keep a connection busy.
_PACKS_AT_ONCE = 4


class Problem(NamedTuple):
    """One thing that is wrong: the object's name in the store, and what it is."""

    name: str
    text: str


Progress = Callable[[str, int], None]  # (name of an object that was checked, its size in bytes)


def check_version(
    store: Store,
    volume: str,
    version: str,
    *,
    read_packs: bool = True,
    progress: Progress = lambda _name, _size: None,
) -> list[Problem]:
    """Return everything that is wrong with *version* of *volume*; an empty list is a whole version.

    With *read_packs* every pack is read and every chunk verified; without it packs are only looked
    up, and their sizes compared with what the indexes need.  Raises StorageError only if the store
    cannot be asked at all.
    """
    name = version_name(volume, version)
    try:
        data = store.get(name)
        manifest = Manifest.from_bytes(version, data)
    except (NotFoundError, CorruptObjectError) as error:
        return [Problem(name, str(error))]
    progress(name, len(data))
    problems = [] if manifest.volume == volume else [Problem(name, f"it says it is of volume {manifest.volume!r}")]
    return problems + check_manifest(store, manifest, name, read_packs=read_packs, progress=progress)


def check_manifest(
    store: Store,
    manifest: Manifest,
    name: str,
    *,
    read_packs: bool = True,
    progress: Progress = lambda _name, _size: None,
) -> list[Problem]:
    """Return everything that is wrong below *manifest*, whose object is *name*.  See check_version."""
    with contextlib.ExitStack() as opened:
        problems: list[Problem] = []
        readers: dict[LayerRef, LayerReader] = {}
        for ref in dict.fromkeys([*manifest.stack, *filter(None, [manifest.delta])]):
            try:
                readers[ref] = reader = _open(store, ref)
                opened.callback(reader.close)
                progress(layer_name(ref.digest), ref.size_bytes)
            except VolumeError as error:
                problems.append(Problem(layer_name(ref.digest), str(error)))
        if all(ref in readers for ref in manifest.stack):
            problems.extend(_check_totals(manifest, name, View([readers[ref] for ref in manifest.stack])))
        problems.extend(_check_packs(store, readers.values(), read_packs, progress))
    return problems


def _open(store: Store, ref: LayerRef) -> LayerReader:
    """Return a reader of the whole, sound index that *ref* names; the store's copy is hashed."""
    name = f"layer {ref.digest}"
    index = b"".join(unpack_index(ref, store.get_range(layer_name(ref.digest), 0, ref.size_bytes + 1)))
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    try:
        connection.deserialize(index or b"\0")  # of nothing at all it would raise MemoryError
        check_layer(connection, name)
        reader = LayerReader(connection, name)
        rows = reader.counts()[0]
        if rows != ref.rows:
            raise CorruptObjectError(f"{name}: has {rows} rows, and its manifest says {ref.rows}")
    except BaseException:
        connection.close()
        raise
    return reader


def _check_totals(manifest: Manifest, name: str, view: View) -> Iterator[Problem]:
    used_bytes = inode_count = 0
    seen: set[int] = set()
    for node in view.walk():
        if node.row.hardlink:
            if node.number in seen:
                continue
            seen.add(node.number)
        inode_count += 1
        used_bytes += node.row.size if node.row.kind == Kind.FILE else 0
    for what, said, found in (
        ("used_bytes", manifest.used_bytes, used_bytes),
        ("inode_count", manifest.inode_count, inode_count),
    ):
        if said != found:
            yield Problem(name, f"it says {what} is {said}, and its tree has {found}")


def _check_packs(
    store: Store, readers: Iterable[LayerReader], read_packs: bool, progress: Progress
) -> Iterator[Problem]:
    chunks: dict[bytes, set[ChunkRef]] = defaultdict(set)
    for reader in readers:
        for chunk in reader.chunks():
            chunks[chunk.pack].add(chunk)

    def check(pack: bytes) -> list[Problem]:
        name = pack_name(pack.hex())
        wanted = sorted(chunks[pack], key=lambda chunk: chunk.offset)
        try:
            return _check_pack(store, name, pack, wanted, progress) if read_packs else _look_up(store, name, wanted)
        except VolumeError as error:
            return [Problem(name, str(error))]

    with ThreadPoolExecutor(_PACKS_AT_ONCE, "verify") as pool:
        for found in pool.map(check, sorted(chunks)):
            yield from found


def _look_up(store: Store, name: str, chunks: list[ChunkRef]) -> list[Problem]:
    needed = max(chunk.offset + chunk.length for chunk in chunks)
    found = store.info(name).size_bytes
    return [] if found >= needed else [Problem(name, f"has {found} bytes, and its chunks reach to {needed}")]


def _check_pack(store: Store, name: str, pack: bytes, chunks: list[ChunkRef], progress: Progress) -> list[Problem]:
    data = memoryview(store.get(name))
    problems = []
    try:
        check_header(pack.hex(), bytes(data[:64]))
        verify(f"pack {pack.hex()}", data, pack)
    except CorruptObjectError as error:
        problems.append(Problem(name, str(error)))
    for chunk in chunks:
        what = f"the chunk at offset {chunk.offset}"
        raw: bytes | memoryview = data[chunk.offset : chunk.offset + chunk.length]
        try:
            if chunk.codec == Codec.ZSTD:
                raw = zstd.decompress(raw, chunk.raw_length, what)
            if len(raw) != chunk.raw_length or digest(raw) != chunk.digest:
                raise CorruptObjectError(f"{what} does not match its digest")
        except CorruptObjectError as error:
            problems.append(Problem(name, str(error)))
    progress(name, len(data))
    return problems

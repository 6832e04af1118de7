"""Packs for tests of reading: made by hand, so that a fault of packing cannot hide one of reading."""

from __future__ import annotations

import os
from collections.abc import Sequence

from volume_core.format import zstd
from volume_core.format.digests import digest
from volume_core.format.entries import ChunkRef, Codec, Extent
from volume_core.format.names import pack_name
from volume_core.format.pack import header
from volume_core.storage.protocol import Store


def put_pack(store: Store, chunks: Sequence[bytes], codec: Codec = Codec.NONE) -> list[ChunkRef]:
    """Store *chunks* end to end in one pack; return where each lies."""
    data = bytearray(header(os.urandom(24)))
    places = []
    for raw in chunks:
        stored = raw if codec is Codec.NONE else zstd.compress(raw, 1)
        places.append((digest(raw), len(data), len(stored), len(raw)))
        data += stored
    pack = digest(data)
    store.put_new(pack_name(pack.hex()), bytes(data))
    return [ChunkRef(name, pack, offset, length, raw, codec) for name, offset, length, raw in places]


def whole(*chunks: ChunkRef) -> tuple[Extent, ...]:
    """A file of these chunks, each of them whole."""
    return tuple(Extent(chunk.raw_length, chunk) for chunk in chunks)

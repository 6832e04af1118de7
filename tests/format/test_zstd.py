"""zstd: all of one frame or an error, in no more memory than was promised."""

from __future__ import annotations

import random
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volume_core.errors import CorruptObjectError
from volume_core.format import zstd


def in_blocks(data, max_bytes, what="it"):
    return b"".join(zstd.decompress_blocks(data, max_bytes, what))


UNPACK = pytest.mark.parametrize("unpack", [zstd.decompress, in_blocks])
SIZES = pytest.mark.parametrize(
    "size", [0, 1, 4096, zstd.BLOCK_BYTES - 1, zstd.BLOCK_BYTES, zstd.BLOCK_BYTES + 1, 3 << 20]
)


@UNPACK
@SIZES
@pytest.mark.parametrize("make", [bytes, lambda size: random.Random(size).randbytes(size)], ids=["zeros", "random"])
def test_what_was_packed_comes_back(unpack, size, make):
    data = make(size)

    assert data == unpack(zstd.compress(data, 1), size)
    assert data == unpack(memoryview(zstd.compress(memoryview(data))), size + 10)


@UNPACK
@SIZES
def test_a_byte_more_than_was_promised_is_refused(unpack, size):
    packed = zstd.compress(bytes(size + 1))

    with pytest.raises(CorruptObjectError, match="it"):
        unpack(packed, size, "it")


@UNPACK
def test_a_bomb_takes_no_more_memory_than_was_promised(unpack):
    bomb = zstd.compress(bytes(256 << 20), 1)
    tracemalloc.start()
    try:
        with pytest.raises(CorruptObjectError):
            unpack(bomb, 1 << 20)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 4 << 20


@UNPACK
@given(data=st.binary(max_size=2000), cut=st.integers(1, 2000))
def test_a_cut_frame_is_refused(unpack, data, cut):
    packed = zstd.compress(data)

    with pytest.raises(CorruptObjectError):
        unpack(packed[: max(0, len(packed) - cut)], len(data))


@UNPACK
@given(st.binary(max_size=2000), st.binary(min_size=1, max_size=20))
def test_what_follows_the_frame_is_refused(unpack, data, rest):
    with pytest.raises(CorruptObjectError):
        unpack(zstd.compress(data) + rest, len(data) + 100)
    with pytest.raises(CorruptObjectError):
        unpack(zstd.compress(data) + zstd.compress(rest), len(data) + len(rest))


@UNPACK
@given(st.binary(min_size=1, max_size=500), st.integers(0, 4000))
def test_a_flipped_bit_gives_an_error_or_bytes_within_the_bound(unpack, data, bit):
    packed = bytearray(zstd.compress(data))
    bit %= len(packed) * 8
    packed[bit // 8] ^= 1 << bit % 8
    try:
        found = unpack(bytes(packed), len(data))
    except CorruptObjectError:
        return

    assert len(found) <= len(data)

"""Reading what is damaged: an error that names it, or the right bytes from the store; never a wrong byte."""

from __future__ import annotations

import random

import pytest
from packed import (
    SIZES,
    flip,
    noise,
    put_pack,
    whole,
)

from volume_core.errors import CorruptObjectError
from volume_core.format.entries import CHUNK_BYTES, Codec, Extent
from volume_core.format.names import pack_name
from volume_core.parts.reading import SMALL_BYTES
from volume_core.testing.faulty import FaultyStore


@pytest.mark.loud
@pytest.mark.parametrize("codec", Codec)
@pytest.mark.parametrize("size", SIZES)
def test_a_flipped_byte_in_the_store_is_named_and_never_read(place, size, codec):
    before, ref, after = put_pack(place.store, [noise(50), noise(size, 1), noise(50)], codec)
    place.damage(ref, flip(ref, random.Random(size).randrange(ref.length)))
    reader = place.reader()
    for offset in (0, size // 2, size - 1):
        with pytest.raises(CorruptObjectError, match=f"{ref.pack.hex()}.*offset {ref.offset}"):
            reader.read(whole(ref), offset, 1)
        assert reader.read_local(whole(ref), offset, 1) is None
    assert noise(50) == reader.read(whole(before), 0, 50) == reader.read(whole(after), 0, 50)


@pytest.mark.loud
@pytest.mark.parametrize("size", SIZES)
def test_a_cut_pack_is_named_and_never_read(place, size):
    before, ref = put_pack(place.store, [noise(50), noise(size, 1)])

    def cut(data: bytearray) -> None:
        del data[-1:]

    place.damage(ref, cut)
    reader = place.reader()

    with pytest.raises(CorruptObjectError, match=ref.pack.hex()):
        reader.read(whole(ref), 0, size)
    assert noise(50) == reader.read(whole(before), 0, 50)


@pytest.mark.loud
def test_a_pack_that_ends_windows_before_is_named(far):
    refs = put_pack(far.store, [noise(CHUNK_BYTES, seed) for seed in range(3)])

    def cut(data: bytearray) -> None:
        del data[1000:]

    far.damage(refs[2], cut)
    with pytest.raises(CorruptObjectError, match=refs[2].pack.hex()):
        far.reader().read(whole(refs[2]), 0, 10)


def test_a_missing_pack_is_named(place):
    (ref,) = put_pack(place.store, [b"content"])
    place.lose(ref)

    with pytest.raises(CorruptObjectError, match=f"pack {ref.pack.hex()} is missing"):
        place.reader().read(whole(ref), 0, 7)
    assert place.reader().read_local(whole(ref), 0, 7) is None


@pytest.mark.loud
@pytest.mark.parametrize("codec", Codec)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("how", ["flip", "cut", "empty"])
def test_a_damaged_cache_heals_from_the_store(make_place, size, codec, how):
    place = make_place("cached")
    _, ref = put_pack(place.store, [noise(50), noise(size, 1)], codec)
    place.reader().read(whole(ref), 0, size)
    path = place.cache_dir / "packs" / ref.pack.hex() / "0"
    data = bytearray(path.read_bytes())
    if how == "flip":
        data[ref.offset + ref.length // 2] ^= 1
    elif how == "cut":
        del data[-1:]
    else:
        data.clear()
    path.unlink()
    path.write_bytes(data)
    reader = place.reader()

    assert reader.read_local(whole(ref), 0, size) is None
    assert noise(size, 1) == reader.read(whole(ref), 0, size)
    assert 2 == place.gets()
    assert noise(size, 1) == place.reader().read_local(whole(ref), 0, size)


@pytest.mark.loud
def test_a_wrong_answer_of_the_store_is_asked_for_once_more(far):
    (ref,) = put_pack(far.store, [noise(1000)])
    right = far.store.get(pack_name(ref.pack.hex()))
    far.damage(ref, flip(ref))

    class Mended(FaultyStore):
        def get_range(self, name: str, offset: int, length: int) -> bytes:
            answer = super().get_range(name, offset, length)
            far.store.put(name, right)
            return answer

    far.faulty = Mended(far.store)

    assert noise(1000) == far.reader().read(whole(ref), 0, 1000)
    assert 2 == far.gets()


@pytest.mark.loud
def test_a_chunk_that_unpacks_to_more_than_it_says_is_refused(place):
    (ref,) = put_pack(place.store, [bytes(CHUNK_BYTES)], Codec.ZSTD)
    bomb = ref._replace(raw_length=SMALL_BYTES)

    with pytest.raises(CorruptObjectError):
        place.reader().read(whole(bomb), 0, SMALL_BYTES)


@pytest.mark.parametrize(
    "wrong",
    [{"length": 1 << 60}, {"raw_length": 1 << 60}, {"length": 0}, {"raw_length": 0}, {"offset": -1}, {"length": -5}],
    ids=str,
)
def test_a_chunk_that_none_can_be_is_refused_before_anything_is_read(place, wrong):
    (ref,) = put_pack(place.store, [b"content"])
    reader = place.reader()
    extents = (Extent(7, ref._replace(**wrong)),)

    assert reader.read_local(extents, 0, 7) is None
    with pytest.raises(CorruptObjectError):
        reader.read(extents, 0, 7)
    assert 0 == place.gets()


@pytest.mark.loud
@pytest.mark.parametrize("size", SIZES)
def test_an_extent_beyond_its_chunk_gives_no_byte_of_the_next(place, size):
    ref, _ = put_pack(place.store, [noise(size, 1), noise(size, 2)])
    reader = place.reader()
    reader.read(whole(ref), 0, size)

    with pytest.raises(CorruptObjectError):
        reader.read((Extent(size, ref, 1),), 0, size)


@pytest.mark.loud
def test_an_unknown_codec_is_refused(place):
    (ref,) = put_pack(place.store, [b"content"], Codec.ZSTD)

    with pytest.raises(CorruptObjectError):
        place.reader().read(whole(ref._replace(codec=7)), 0, 7)

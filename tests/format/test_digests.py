"""Digests: the same 32 bytes in memory, in names and in JSON; nothing else is believed."""

from __future__ import annotations

import os
import signal
import warnings

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from volume_core.errors import CorruptObjectError
from volume_core.format.digests import DIGEST_BYTES, digest, hex_digest, is_hex_digest, verify


@pytest.mark.parametrize("size", [0, 1, 1 << 10, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_a_digest_is_blake3_of_any_kind_of_bytes(size):
    data = bytes(range(256)) * (size // 256 + 1)

    assert blake3(data[:size]).digest() == digest(data[:size])
    assert digest(data[:size]) == digest(memoryview(data)[:size]) == digest(bytearray(data[:size]))


def test_the_empty_digest_is_blake3s():
    assert hex_digest(b"") == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    assert DIGEST_BYTES == len(digest(b""))


@given(st.binary(max_size=100))
def test_a_digest_in_a_name_is_spelled_in_one_way(data):
    text = hex_digest(data)

    assert digest(data).hex() == text
    assert is_hex_digest(text)
    for other in (text[:-1], text + "0", text[:-1] + "g", text + "\n", "", " " + text[1:]):
        assert not is_hex_digest(other)


def test_upper_case_is_no_spelling_of_a_digest():
    assert not is_hex_digest("AF" * 32)


@given(st.binary(min_size=1, max_size=100), st.integers(0, 799))
def test_verify_sees_any_flipped_bit(data, bit):
    bit %= len(data) * 8
    flipped = bytearray(data)
    flipped[bit // 8] ^= 1 << bit % 8

    verify("it", data, digest(data))
    verify("it", data, hex_digest(data))
    with pytest.raises(CorruptObjectError, match="it"):
        verify("it", flipped, digest(data))
    with pytest.raises(CorruptObjectError):
        verify("it", data[:-1], hex_digest(data))


def test_a_forked_child_can_hash_what_its_parent_hashed():
    """BLAKE3's own threads are not there in a child: asking for them would hang it."""
    data = bytes(8 << 20)
    expected = digest(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside threads, as engines do it
        child = os.fork()
    if not child:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(20)
        os._exit(0 if digest(data) == expected else 1)
    _, status = os.waitpid(child, 0)

    assert 0 == os.waitstatus_to_exitcode(status)

"""Packs: a header, and a name that no other pack ever has."""

from __future__ import annotations

import pytest

from volume_core.errors import CorruptObjectError
from volume_core.format.pack import HEADER_BYTES, MAGIC, NONCE_BYTES, check_header, header


def test_a_header_is_the_magic_and_the_nonce():
    nonce = bytes(range(NONCE_BYTES))

    assert b"VOLPACK1" + nonce == header(nonce)
    assert HEADER_BYTES == len(header(nonce)) == 32
    check_header("it", header(nonce) + b"chunks")


@pytest.mark.parametrize("nonce", [b"", b"x" * (NONCE_BYTES - 1), b"x" * (NONCE_BYTES + 1)])
def test_a_nonce_has_its_length(nonce):
    with pytest.raises(ValueError):
        header(nonce)


@pytest.mark.parametrize("data", [b"", MAGIC, MAGIC + b"x" * (NONCE_BYTES - 1), b"VOLPACK2" + b"x" * 100])
def test_what_begins_otherwise_is_no_pack(data):
    with pytest.raises(CorruptObjectError, match="pack it"):
        check_header("it", data)

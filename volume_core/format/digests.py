"""BLAKE3, the only hash in the store: it names packs, layers, versions and chunks.

Why BLAKE3: it is several times faster than SHA-256 on a core without SHA extensions, and verifying at
first use must not cost more than reading.  Why on one thread: the library's own threads do not survive
fork(2), and a forked worker that asked for them would wait for ever; one core hashes 3 to 10 GB/s, and
who has much to hash does so from several threads.

Always true: a digest in memory and in a layer index is 32 bytes; in object names and in JSON it
is the same 32 bytes as 64 lower-case hexadecimal digits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from blake3 import blake3

from volume_core.errors import CorruptObjectError

DIGEST_BYTES = 32
_HEX = re.compile(r"[0-9a-f]{64}")


def digest(data: bytes | bytearray | memoryview) -> bytes:
    """Return the 32-byte BLAKE3 digest of *data*."""
    return blake3(data).digest()


def hex_digest(data: bytes | bytearray | memoryview) -> str:
    """Return the BLAKE3 digest of *data* as 64 lower-case hexadecimal digits."""
    return digest(data).hex()


def digest_of(parts: Iterable[bytes]) -> bytes:
    """Return the digest of *parts* end to end, of which only one is held at a time."""
    hasher = blake3()
    for part in parts:
        hasher.update(part)
    return hasher.digest()


def is_hex_digest(text: str) -> bool:
    """Whether *text* is spelled as a digest in object names is."""
    return _HEX.fullmatch(text) is not None


def verify(what: str, data: bytes | bytearray | memoryview, expected: bytes | str) -> None:
    """Raise CorruptObjectError naming *what* unless *data* hashes to *expected*."""
    wanted = expected if isinstance(expected, str) else expected.hex()
    found = hex_digest(data)
    if found != wanted:
        raise CorruptObjectError(
            f"{what}: its {len(data)} bytes hash to {found[:12]}…, not to {wanted[:12]}…; "
            "the object is damaged or was cut short"
        )

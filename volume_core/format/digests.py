"""BLAKE3, the only hash in the store: it names packs, layers, versions and chunks.

Why BLAKE3: it is several times faster than SHA-256 on a core without SHA extensions, spreads
over cores for large inputs, and verifying at first use must not cost more than reading.

Always true: a digest in memory and in a layer index is 32 bytes; in object names and in JSON it
is the same 32 bytes as 64 lower-case hexadecimal digits.
"""

from __future__ import annotations

import re

from blake3 import blake3

from volume_core.errors import CorruptObjectError

DIGEST_BYTES = 32
_HEX = re.compile(r"[0-9a-f]{64}")
# Below this size threads cost more than they bring (BLAKE3's own advice is 128 KiB or more).
_PARALLEL_BYTES = 1 << 20


def digest(data: bytes | bytearray | memoryview) -> bytes:
    """Return the 32-byte BLAKE3 digest of *data*."""
    if len(data) < _PARALLEL_BYTES:
        return blake3(data).digest()
    return blake3(data, max_threads=blake3.AUTO).digest()


def hex_digest(data: bytes | bytearray | memoryview) -> str:
    """Return the BLAKE3 digest of *data* as 64 lower-case hexadecimal digits."""
    return digest(data).hex()


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

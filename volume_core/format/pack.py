"""A pack: chunks laid end to end in one immutable object.

    offset  size  field
    0       8     b"VOLPACK1"
    8       24    a random nonce
    32      ...   chunks, without any separator; the layer index knows where each begins

Why a nonce: a pack is named by the hash of all its bytes.  With the nonce no new pack can ever
have the name of an old one, so a commit can never count on an object that prune is about to delete.
"""

from __future__ import annotations

from volume_core.errors import CorruptObjectError

MAGIC = b"VOLPACK1"  # DO NOT CHANGE: on disk
NONCE_BYTES = 24
HEADER_BYTES = len(MAGIC) + NONCE_BYTES
# One range read of an object store costs about 30 ms before the first byte: at 500 MB/s, 16 MiB take
# as long again.  Smaller packs pay more for waiting, larger ones make repacking move more live bytes.
PACK_BYTES = 16 << 20


def header(nonce: bytes) -> bytes:
    """Return the first HEADER_BYTES of a pack; *nonce* is NONCE_BYTES random bytes."""
    if len(nonce) != NONCE_BYTES:
        raise ValueError(f"a pack's nonce is {NONCE_BYTES} bytes, not {len(nonce)}")
    return MAGIC + nonce


def check_header(name: str, data: bytes) -> None:
    """Raise CorruptObjectError unless *data*, the beginning of pack *name*, is a pack's header."""
    if len(data) < HEADER_BYTES or not data.startswith(MAGIC):
        raise CorruptObjectError(f"pack {name}: does not begin with {MAGIC!r} and a nonce")

"""Zstandard as the format uses it: one frame per layer object, one per compressed chunk.

Why a module of its own: the standard library has it from Python 3.14, a backport before; and what
comes out of a store must never unpack to more than was promised, however small it looks.

Always true: unpacking takes no more memory than the bound it is given (and zstd's window, 128 MiB at
most), and gives either all bytes of exactly one whole frame or CorruptObjectError.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from volume_core.errors import CorruptObjectError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

BLOCK_BYTES = 1 << 20


def compress(data: bytes | bytearray | memoryview, level: int = 3) -> bytes:
    """Return *data* as one frame that says how long it unpacks to."""
    return zstd.compress(data, level)


def decompress(data: bytes | memoryview, max_bytes: int, what: str = "a compressed object") -> bytes:
    """Return what the one frame *data* holds, at most *max_bytes* of it.

    Raises CorruptObjectError naming *what* if *data* is not one whole frame or would be longer.
    """
    frame = zstd.ZstdDecompressor()
    try:
        raw = frame.decompress(data, max_length=max_bytes + 1)
    except zstd.ZstdError as error:
        raise CorruptObjectError(f"{what}: cannot be unpacked ({error})") from error
    _check_length(what, len(raw), max_bytes)
    _check_end(frame, what)
    return raw


def decompress_blocks(data: bytes | memoryview, max_bytes: int, what: str = "a compressed object") -> Iterator[bytes]:
    """Yield what the one frame *data* holds in blocks of up to BLOCK_BYTES, at most *max_bytes* in all.

    Raises CorruptObjectError as decompress does; the blocks before it are then worth nothing.
    """
    frame = zstd.ZstdDecompressor()
    total = 0
    feed: bytes | memoryview = data
    while not frame.eof:
        try:
            block = frame.decompress(feed, max_length=BLOCK_BYTES)
        except zstd.ZstdError as error:
            raise CorruptObjectError(f"{what}: cannot be unpacked ({error})") from error
        feed = b""
        total += len(block)
        _check_length(what, total, max_bytes)
        if not block and not frame.eof:
            break  # the input ended before the frame did
        yield block
    _check_end(frame, what)


def _check_length(what: str, length: int, max_bytes: int) -> None:
    if length > max_bytes:
        raise CorruptObjectError(f"{what}: unpacks to more than the {max_bytes} bytes it was said to hold")


def _check_end(frame: zstd.ZstdDecompressor, what: str) -> None:
    if not frame.eof:
        raise CorruptObjectError(f"{what}: was cut short")
    if frame.unused_data:
        raise CorruptObjectError(f"{what}: {len(frame.unused_data)} bytes follow its end")

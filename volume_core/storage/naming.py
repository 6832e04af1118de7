"""Which names an object may have, decided once for every kind of store.

Why one rule for all: a volume moves between a directory and a bucket, so a name that one of them
cannot hold is refused by each of them, at the call that gives it.
"""

from __future__ import annotations

import re

from volume_core.errors import InvalidNameError

# The limits are those of the narrowest store: an S3 key is at most 1,024 bytes of UTF-8 (some are left
# for the store's own prefix), a file's name at most 255.
NAME_BYTES_MAX = 800
PART_BYTES_MAX = 255
# Azure takes a backslash for a slash; no client can send control characters to every store.
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f\\]")


def check_name(name: str) -> str:
    """Return *name*, or raise InvalidNameError saying why no store can hold an object so named."""
    _check_text(name, name)
    for part in name.split("/"):
        if part in {"", ".", ".."}:
            raise InvalidNameError(f"{name!r} cannot name an object: no part between slashes may be empty, '.' or '..'")
        if len(part.encode()) > PART_BYTES_MAX:
            raise InvalidNameError(f"{name!r} cannot name an object: no part may exceed {PART_BYTES_MAX} bytes")
    return name


def check_prefix(prefix: str) -> str:
    """Return *prefix*, or raise InvalidNameError when no object's name can begin so."""
    _check_text(prefix, prefix)
    whole = prefix.split("/")[:-1]
    if any(part in {"", ".", ".."} for part in whole):
        raise InvalidNameError(
            f"{prefix!r} begins no object's name: parts between slashes are never empty, '.' or '..'"
        )
    return prefix


def check_range(name: str, offset: int, length: int) -> None:
    """Raise ValueError unless *offset* and *length* are what a range may be."""
    if offset < 0 or length < 0:
        raise ValueError(f"{name}: a range has no negative offset ({offset}) or length ({length})")


def _check_text(name: str, shown: str) -> None:
    try:
        size_bytes = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidNameError(f"{shown!r} cannot name an object: it is not valid Unicode text") from None
    if size_bytes > NAME_BYTES_MAX:
        raise InvalidNameError(f"{shown!r} cannot name an object: it is longer than {NAME_BYTES_MAX} bytes")
    if _FORBIDDEN.search(name):
        raise InvalidNameError(f"{shown!r} cannot name an object: it holds a backslash or a control character")

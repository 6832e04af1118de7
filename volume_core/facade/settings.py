"""The environment variables that the facade reads.  docs/configuration.md has them all.

Always true: a variable that is set to something unusable is an error that names it, never ignored.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from volume_core.errors import VolumeError
from volume_core.mount.request import CACHE_LIMIT_BYTES
from volume_core.parts.state import absolute

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def mount_root() -> Path:
    """`$VOLUME_MOUNT_ROOT`: where mounts without a path of their own go; `~/volumes`."""
    return absolute(os.environ.get("VOLUME_MOUNT_ROOT") or "~/volumes", "VOLUME_MOUNT_ROOT")


def mount_root_is_chosen() -> bool:
    """Whether `$VOLUME_MOUNT_ROOT` is set: then a volume's path there is its name, where that is free."""
    return bool(os.environ.get("VOLUME_MOUNT_ROOT"))


def default_driver() -> str:
    """`$VOLUME_DRIVER`: the driver of mounts that name none; `auto`."""
    return os.environ.get("VOLUME_DRIVER") or "auto"


def cache_limit_bytes() -> int:
    """`$VOLUME_CACHE_LIMIT`: how much of remote stores' content is kept on this machine."""
    return _size_bytes("VOLUME_CACHE_LIMIT", CACHE_LIMIT_BYTES)


def upper_limit_bytes() -> int | None:
    """`$VOLUME_UPPER_LIMIT`: from which size on a writer's uncommitted files are warned of."""
    return _size_bytes("VOLUME_UPPER_LIMIT", 0) or None


def _size_bytes(variable: str, default: int) -> int:
    text = os.environ.get(variable, "").strip()
    if not text:
        return default
    match = _SIZE.fullmatch(text)
    if not match:
        raise VolumeError(f"${variable} is {text!r}: give a size in bytes, or with a unit, like 500M or 20G")
    return int(float(match[1]) * _UNITS[match[2].upper()])

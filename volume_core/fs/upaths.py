"""`vol://` for universal_pathlib, which warns of every scheme that has no class of its own.

Always true: whatever a path does is done by the file system; only universal_pathlib imports this.
"""

from __future__ import annotations

from upath import UPath


class VolumeUPath(UPath):
    """A path in a volume: `UPath("vol://data/a")`."""

    __slots__ = ()

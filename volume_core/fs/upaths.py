"""`vol://` for universal_pathlib, which warns of every scheme that has no class of its own.

Always true: whatever a path does is done by the file system; only universal_pathlib imports this.
"""

from __future__ import annotations

import fsspec
from upath import UPath

from volume_core.facade.addresses import PROTOCOL

# What universal_pathlib knows of a scheme it asks of the classes that fsspec has loaded.
fsspec.get_filesystem_class(PROTOCOL)


class VolumeUPath(UPath):
    """A path in a volume: `UPath("vol://data/a")`."""

    __slots__ = ()

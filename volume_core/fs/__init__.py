"""The door for fsspec: `vol://...` opens files of volumes, without a mount.

Why: pandas, pyarrow, zarr, and whatever else speaks fsspec, then reads and writes volumes by URL.  docs/fsspec.md
has the URLs.  Always true: no rule of a volume is decided here; this package only translates.
"""

from volume_core.facade.addresses import url_of
from volume_core.fs.filesystem import VolumeFileSystem

__all__ = ["VolumeFileSystem", "url_of"]

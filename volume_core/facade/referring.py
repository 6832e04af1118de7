"""A version as the running engine's own kind of file or directory.

Why: a program that takes the engine's directories gets a volume's without knowing volumes.

Always true: what is returned names one version, which does not change, and means the same in another process.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from volume_core.errors import InvalidNameError, VolumeError
from volume_core.facade.addresses import PROTOCOL, parse, strip, url_of
from volume_core.facade.handles import HandledRecord
from volume_core.facade.mounts import StrPath
from volume_core.plugins.manager import plugins

if TYPE_CHECKING:
    from volume_core.volumes import ROVolume


class Refers(HandledRecord):
    """The methods that return what an engine's tasks hand on; a mixin of both classes."""

    def as_directory(self, path: StrPath = "/") -> Any:
        """Return the directory *path* of this version as the running engine has directories.

        Of a writer it is the version that its changes are committed as, now; a version answers without waiting.
        Whether there is such a directory is found out by who opens it.  Raises VolumeError where no engine runs a
        task, InvalidNameError if *path* cannot be one.
        """
        return self._refer(path, is_directory=True)

    def as_file(self, path: StrPath) -> Any:
        """Return the file *path* of this version as the running engine has files.  See as_directory()."""
        return self._refer(path, is_directory=False)

    def _refer(self, path: StrPath, *, is_directory: bool) -> Any:
        url = url_in(self, path, is_file=not is_directory)
        found = plugins().reference(url, is_directory=is_directory)
        if found is None:
            what = "directory" if is_directory else "file"
            raise VolumeError(
                f"no engine's task runs here that could have volume {self.name!r} as a {what} of its own: call this in "
                f"a task, or hand on the URL, {url}, which whatever speaks fsspec opens ({PROTOCOL}://)"
            )
        return found

    def _to_refer(self) -> ROVolume:
        """Return the version that is referred to.  Only the public classes know which, and they say so."""
        raise TypeError(f"{self.name}: a record alone refers to nothing")


def url_in(volume: Refers, path: StrPath, *, is_file: bool = False) -> str:
    """Return the `vol://` URL of *path* in a version of *volume*, which a writer commits first.

    Raises InvalidNameError if *path* cannot be one.
    """
    within = os.fsdecode(path)
    if is_file and not strip(within):
        raise InvalidNameError(f"{within!r} is the volume itself, no file in it: as_directory() refers to that")
    url = url_of(volume._to_refer().locator, within)
    parse(strip(url))
    return url

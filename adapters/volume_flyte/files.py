"""`as_directory` and `as_file` of whichever SDK a program uses.

Within a task `volume.as_directory()` does the same.  These are for the program around it: one that starts a workflow.

Always true: they import no SDK that the program has not imported.
"""

from __future__ import annotations

import sys
from typing import Any

from volume_core import Volume, VolumeError
from volume_core.facade.mounts import StrPath
from volume_flyte.sdks import has_flyte_2


def as_directory(volume: Volume, path: StrPath = "/") -> Any:
    """Return the directory *path* of *volume* as a FlyteDirectory or, of flyte 2, a Dir; a writer is committed first.

    It is of the SDK that runs a task here, or else of the one that is imported.  Raises VolumeError where it cannot be
    known which SDK is meant.
    """
    return _sdk("as_directory").as_directory(volume, path)


def as_file(volume: Volume, path: StrPath) -> Any:
    """Return the file *path* of *volume* as a FlyteFile or, of flyte 2, a File.  See as_directory()."""
    return _sdk("as_file").as_file(volume, path)


def running_sdk() -> Any:
    """Return the module of files of the SDK that runs a task in this process; None where none does."""
    if "flytekit" in sys.modules:
        from volume_flyte.v1 import running

        if running.current_task() is not None:
            from volume_flyte.v1 import files

            return files
    if has_flyte_2():
        from volume_flyte.v2 import running as running_two

        if running_two.current_task() is not None:
            from volume_flyte.v2 import files as files_two

            return files_two
    return None


def _sdk(wanted: str) -> Any:
    if (found := running_sdk()) is not None:
        return found
    match [name for name in ("flytekit", "flyte") if name in sys.modules]:
        case ["flytekit"]:
            from volume_flyte.v1 import files

            return files
        case ["flyte"]:
            from volume_flyte.v2 import files as files_two

            return files_two
        case imported:
            which = "both flytekit and flyte are imported" if imported else "neither flytekit nor flyte is imported"
            raise VolumeError(
                f"{which}: use {wanted} of volume_flyte.v1.files (flytekit) or volume_flyte.v2.files (flyte)"
            )

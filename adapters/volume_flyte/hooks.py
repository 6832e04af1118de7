"""What Flyte answers to the hooks of volume_core: which task runs here, and where its volumes lie.

Always true: nothing here imports an SDK.  An SDK that is not imported runs no task in this process, so only one that
is imported is asked.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from volume_core.plugins.hookspecs import hookimpl
from volume_flyte.sdks import has_flyte_2

if TYPE_CHECKING:
    from volume_core import ActionRef, ROVolume


@hookimpl
def volume_current_task() -> ActionRef | None:
    """The task of the SDK that is running one in this process."""
    if "flytekit" in sys.modules:
        from volume_flyte.v1 import running

        if (found := running.current_task()) is not None:
            return found
    if has_flyte_2():
        from volume_flyte.v2 import running as running_two

        return running_two.current_task()
    return None


@hookimpl
def volume_default_bucket() -> str | None:
    """The store in the bucket of the running task; None in a local run."""
    if "flytekit" in sys.modules:
        from volume_flyte.v1 import running

        if (found := running.default_bucket()) is not None:
            return found
    if has_flyte_2():
        from volume_flyte.v2 import running as running_two

        return running_two.default_bucket()
    return None


@hookimpl
def volume_reference(url: str, is_directory: bool) -> Any:
    """A directory or file of the SDK that is running a task in this process."""
    from volume_flyte.files import running_sdk

    sdk = running_sdk()
    if sdk is None:
        return None
    return sdk.directory_at(url) if is_directory else sdk.file_at(url)


@hookimpl
def volume_open_store(url: str, options: Mapping[str, str]) -> None:
    """Before a bucket is opened: Flyte's own settings for it, if there are no others.  It is opened by others."""
    if url.startswith("s3://"):
        from volume_flyte import s3

        s3.lend()


@hookimpl
def volume_mounted(name: str, locator: str | None, writable: bool, action: ActionRef | None) -> None:
    """Into the report of the running task of flyte 2."""
    if has_flyte_2() and action is not None and action.engine == "flyte":
        from volume_flyte.v2 import reporting

        reporting.note_mounted(name, locator, action, writable=writable)


@hookimpl
def volume_committed(version: ROVolume, action: ActionRef | None) -> None:
    """Into the report of the running task of flyte 2, and into the checkpoint of a task that resumes."""
    if "volume_flyte.resuming" in sys.modules:
        from volume_flyte import resuming

        resuming.note(version)
    if has_flyte_2() and action is not None and action.engine == "flyte":
        from volume_flyte.v2 import reporting

        reporting.note_committed(version, action)

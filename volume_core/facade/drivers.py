"""Which driver mounts: the best that works here, one by name, or one that a plugin brings.

Always true: a driver named by the caller is taken or refused, never replaced; with `auto` the next
best is tried when the best, against the report, cannot mount after all.
"""

from __future__ import annotations

import logging
import os
from typing import cast

from volume_core.errors import InvalidNameError, MountError
from volume_core.mount.choosing import AUTO, choose
from volume_core.mount.claiming import PathTakenError, refuse_occupied
from volume_core.mount.doctor import COPY, DRIVERS, FUSE_OVERLAY, KERNEL, examine
from volume_core.mount.request import Driver, Mounted, MountRequest
from volume_core.plugins.manager import plugins

log = logging.getLogger(__name__)


def mount_with(wanted: str, request: MountRequest) -> Mounted:
    """Mount *request* by the driver *wanted*, or by the best one if that is `auto`.

    Raises PathTakenError if something is at the path, MountError saying what the machine lacks, InvalidNameError if
    there is no such driver.
    """
    if wanted not in {AUTO, *DRIVERS}:
        return _from_plugin(wanted).mount(request)
    if wanted == AUTO:
        # What is wrong with the path is not put right by another driver.
        refuse_occupied(os.path.realpath(request.mount_path))
    choice = choose(examine(request.state.work), wanted, writable=request.writable)
    for name, after in zip((choice.driver, *choice.others), (*choice.others, None), strict=True):
        try:
            return _built_in(name).mount(request)
        except PathTakenError:
            raise
        except MountError as error:
            if after is None or wanted != AUTO:
                raise
            log.warning("driver %s failed (%s): trying %s", name, error, after)
    raise AssertionError(choice)


def _built_in(name: str) -> Driver:
    # Each is loaded when it is used: a mount by one need not wait for the others' modules.
    if name == KERNEL:
        from volume_core.mount.kernel import KernelDriver

        return KernelDriver()
    if name == FUSE_OVERLAY:
        from volume_core.mount.fuse_overlay import FuseOverlayDriver

        return FuseOverlayDriver()
    assert name == COPY
    from volume_core.mount.copying import CopyDriver

    return CopyDriver()


def _from_plugin(name: str) -> Driver:
    brought = plugins().mount_drivers()
    if name not in brought:
        raise InvalidNameError(
            f"there is no driver {name!r}; there are {', '.join((AUTO, *DRIVERS, *sorted(brought)))}"
        )
    return cast("Driver", brought[name])

"""Who waits for the public classes: an engine's plugin that makes them types of the engine.

Why: an engine loads its plugins when it is imported, in every process, and most of these have nothing to do with
volumes.  To load the classes there would cost each of them a third of a second.

Always true: a callback is called once, in the thread that loaded the classes, or at once where they are loaded
already; one that fails is logged with its module and takes nothing down; nothing is imported here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

log = logging.getLogger(__name__)

_waiting: list[Callable[[], None]] = []
_loaded = False


def when_volumes_load(callback: Callable[[], None]) -> None:
    """Call *callback* as soon as `volume_core.volumes` is loaded: at once, if it is.

    What imports that module may still be half loaded then: *callback* imports nothing above it.
    """
    if _loaded:
        _call(callback)
    else:
        _waiting.append(callback)


def volumes_loaded() -> None:
    """Be told, by volume_core.volumes alone, that it is loaded."""
    global _loaded
    _loaded = True
    while _waiting:
        _call(_waiting.pop(0))


def _call(callback: Callable[[], None]) -> None:
    try:
        callback()
    except Exception as error:  # an import of this package must not fail for an engine's sake
        log.warning(
            "%s could not make volumes a type of its engine, tasks cannot take or return them: %s: %s",
            callback.__module__, type(error).__name__, error,
        )  # fmt: skip

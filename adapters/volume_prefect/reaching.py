"""Getting into a store that a run meets: the block that is about its URL says who we are there.

A version that one flow hands to another is an address; whoever gets it may never have heard of the block that the
store was written with.  So the block is looked for by the store's URL, when the store is opened.

Always true: only within a run is anything asked; each store is asked for once a minute at most; an API that does not
answer is one line in the log, and the machine's own credentials count.
"""

from __future__ import annotations

import logging
import threading
import time

from prefect.context import FlowRunContext, TaskRunContext

from volume_core import VolumeError
from volume_prefect.blocks import store_for

log = logging.getLogger(__name__)

_FRESH_S = 60.0
_lock = threading.Lock()
_asked: dict[str, float] = {}


def reach(url: str) -> None:
    """Put the credentials for the store at *url* into the environment, where a block has them.

    Raises VolumeError where there is such a block and it cannot be used.
    """
    if (FlowRunContext.get() is None and TaskRunContext.get() is None) or _is_fresh(url):
        return
    try:
        if (store := store_for(url)) is not None:
            store.use()
    except VolumeError:
        _forget(url)
        raise
    except Exception as error:  # whatever the client's libraries raise: the store may well open without
        _forget(url)
        log.warning("the credentials block of %s could not be looked up: %s: %s", url, type(error).__name__, error)


def _is_fresh(url: str) -> bool:
    """Whether *url* was asked for a moment ago; from now on it was."""
    with _lock:
        now = time.monotonic()
        if now - _asked.get(url, -_FRESH_S) < _FRESH_S:
            return True
        _asked[url] = now
        return False


def _forget(url: str) -> None:
    with _lock:
        _asked.pop(url, None)

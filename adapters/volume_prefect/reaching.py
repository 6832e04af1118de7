"""Getting into a store that a run meets: the block that is about its URL says who we are there.

A version that one flow hands to another is an address; whoever gets it may never have heard of the block that the
store was written with.  So the block is looked for by the store's URL, when the store is opened.

Always true: only within a run is anything asked, and who opens a store meanwhile waits for the answer; each store is
asked for once a minute at most; an API that does not answer is one line in the log, and the machine's own credentials
count.
"""

from __future__ import annotations

import logging
import os
import threading
import time

from prefect.context import FlowRunContext, TaskRunContext

from volume_core import VolumeError
from volume_prefect.blocks import store_for

log = logging.getLogger(__name__)

_FRESH_S = 60.0
_lock = threading.RLock()
_asked: dict[str, float] = {}


def _renew_lock() -> None:
    # The thread that asked while another one forked does not exist in the child.
    global _lock
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_renew_lock)


def reach(url: str) -> None:
    """Put the credentials for the store at *url* into the environment, where a block has them.

    Raises VolumeError where there is such a block and it cannot be used.
    """
    if FlowRunContext.get() is None and TaskRunContext.get() is None:
        return
    with _lock:
        if time.monotonic() - _asked.get(url, float("-inf")) >= _FRESH_S:
            _ask(url)


def _ask(url: str) -> None:
    try:
        if (store := store_for(url)) is not None:
            store.use()
        _asked[url] = time.monotonic()
    except VolumeError:
        raise
    except Exception as error:  # whatever the client's libraries raise: the store may well open without
        log.warning("the credentials block of %s could not be looked up: %s: %s", url, type(error).__name__, error)

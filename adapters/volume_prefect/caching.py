"""Cached results that are volumes: one whose version is gone is no result.

A record of a result outlives the version it names: the version can be pruned, or its volume deleted.  Prefect decides
whether there is a result to be had before it reads it, by `ResultStore.exists`; there it is asked of the volumes too:
a task whose version is gone runs again, whatever serializer wrote the record.

Always true: a result without volumes costs nothing but being looked through, and what was read for that is what Prefect
reads next, unless the task keeps no result in memory (then it is read twice); a store that does not answer is no reason
to run again.
"""

from __future__ import annotations

import functools
import logging
from typing import Any

from prefect.results import ResultStore

from volume_core import ROVolume, StorageError
from volume_core.facade.twins import in_thread
from volume_core.passing import is_there, replaced

log = logging.getLogger(__name__)

_MARK = "__volumes__"


def watch_caches() -> None:
    """See to it that a cached result of this process is one only while its versions are there."""
    if hasattr(ResultStore.exists, _MARK):
        return
    exists, aexists = ResultStore.exists, ResultStore.aexists

    @functools.wraps(exists)
    def exists_whole(self: ResultStore, key: str) -> bool:
        return bool(exists(self, key)) and _is_whole(_record(self, key))

    @functools.wraps(aexists)
    async def aexists_whole(self: ResultStore, key: str) -> bool:
        if not await aexists(self, key):
            return False
        record = await _without_locks(self).aread(key)
        return await in_thread(functools.partial(_is_whole, record.result))

    setattr(exists_whole, _MARK, True)
    ResultStore.exists = exists_whole  # type: ignore[method-assign]
    ResultStore.aexists = aexists_whole  # type: ignore[method-assign]


def _without_locks(store: ResultStore) -> ResultStore:
    # Who asks may hold the record's lock, and to read it as somebody else would be to wait for oneself.
    return store.model_copy(update={"lock_manager": None})


def _record(store: ResultStore, key: str) -> Any:
    return _without_locks(store).read(key).result


def _is_whole(result: Any) -> bool:
    """Whether every version in *result* is there."""
    versions: list[ROVolume] = []

    def note(each: Any) -> Any:
        if isinstance(each, ROVolume):
            versions.append(each)
        return each

    replaced(result, note)
    for version in versions:
        try:
            if not is_there(version):
                log.info(
                    "%s is gone: the cached result that names it is none, and its task runs again", version.locator
                )
                return False
        except StorageError as error:
            log.info("whether %s is there could not be asked: %s", version.locator, error)
    return True

"""The trigger: an event for each new version that the head of a volume names.

    Asset(uri="vol://...", watchers=[AssetWatcher(name="commits", trigger=VolumeCommitTrigger("my-dataset"))])
    VolumeSensor(..., deferrable=True)         waits by the first event

Always true: between two looks at the head it sleeps, and no look holds up the event loop; a store that fails for a
while is waited for, one that says that it will not do is an error at once; what crosses to the triggerer is JSON.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from typing import Any

from volume_airflow import stores
from volume_airflow.compat import BaseEventTrigger, TriggerEvent
from volume_airflow.stores import VolumeStore
from volume_airflow.turns import turns
from volume_core import NotFoundError, RWVolume, StorageError, Volume
from volume_core.facade.addresses import url_of
from volume_core.facade.twins import in_thread
from volume_core.format.names import Locator, validate_name

log = logging.getLogger(__name__)

_LONGEST_WAIT_S = 600.0


class VolumeCommitTrigger(BaseEventTrigger):
    """
    An event for each version that a volume's head comes to name.

    The payload of an event is a mapping of text: `volume`, `version` (the id), `locator`, and `url`, the `vol://` URL
    of that very version.

    :param name: the volume
    :param newer_than: the id or locator of the version that is known already. Without one the first event is of the
        version that the head names, if there is one (`first=True`), or of the next one
    :param first: see `newer_than`
    :param volume_conn_id: the connection of type `volume` that says where it lies; without one where volumes lie by
        default
    :param bucket: the store's URL; goes before that of the connection
    :param poll_interval_s: seconds between two looks at the head
    :param patience: so many looks in a row may fail by errors that may pass, each after a longer wait
    """

    def __init__(
        self,
        name: str,
        newer_than: str | None = None,
        first: bool = False,
        volume_conn_id: str | None = None,
        bucket: str | None = None,
        poll_interval_s: float = 60.0,
        patience: int = 10,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        if not poll_interval_s > 0:
            raise ValueError(f"poll_interval_s is {poll_interval_s!r}: give a number of seconds above 0")
        self.name = validate_name(name)
        self.newer_than = id_of(newer_than) if newer_than else None
        self.first = first
        self.volume_conn_id = volume_conn_id
        self.bucket = bucket
        self.poll_interval_s = poll_interval_s
        self.patience = patience

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class's name, and its arguments."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {
            "name": self.name,
            "newer_than": self.newer_than,
            "first": self.first,
            "volume_conn_id": self.volume_conn_id,
            "bucket": self.bucket,
            "poll_interval_s": self.poll_interval_s,
            "patience": self.patience,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield an event for each new version.  Raises VolumeError where looking can be of no use."""
        told = await self._recalled()
        known = told or self.newer_than
        is_known, failures = known is not None or self.first, 0
        while True:
            try:
                locator = await in_thread(self._head)
            except StorageError as error:
                failures += 1
                if not error.transient or failures > self.patience:
                    raise
                wait_s = min(self.poll_interval_s * 2 ** (failures - 1), _LONGEST_WAIT_S)
                log.warning("the head of %s could not be read, trying again in %.0f s: %s", self.name, wait_s, error)
                await asyncio.sleep(wait_s)
                continue
            failures = 0
            version = id_of(locator) if locator is not None else None
            if locator is not None and version != known and is_known:
                yield TriggerEvent(payload(locator))  # type: ignore[no-untyped-call]
            known, is_known = version, True
            if version is not None and version != told:
                told = version
                await self._remember(version)
            # Many triggers that were made at once do not look at once for ever.
            await asyncio.sleep(self.poll_interval_s * random.uniform(0.9, 1.1))

    async def _recalled(self) -> str | None:
        """Return the id of the version that was told of last, by a triggerer before; None where nobody has kept it."""
        if (state := self._state()) is None:
            return None
        try:
            kept = await state.aget(self._key)
        except Exception as error:  # whatever the line to Airflow raises: then it is as at the very beginning
            log.warning("which version of %s was told last could not be asked: %s", self.name, error)
            return None
        return kept if isinstance(kept, str) else None

    async def _remember(self, version: str) -> None:
        if (state := self._state()) is None:
            return
        try:
            await state.aset(self._key, version)
        except Exception as error:  # whatever the line to Airflow raises: an event is told twice rather than never
            log.warning("that version %s of %s was told could not be kept: %s", version, self.name, error)

    def _state(self) -> Any:
        """What keeps values for the asset that this watches for, from Airflow 3.3 on; a sensor's watches for none."""
        return getattr(self, "asset_state_store", None)

    @property
    def _key(self) -> str:
        return f"volume/{self.name}/told"

    def _head(self) -> str | None:
        """Return the locator of the version that the head names; None where there is no volume of the name."""
        return head_of(self.name, self.volume_conn_id, self.bucket)


def payload(locator: str) -> dict[str, str]:
    """Return what an event says of the version at *locator*."""
    parsed = Locator.parse(locator)
    return {"volume": parsed.volume, "version": parsed.version, "locator": locator, "url": url_of(locator)}


def id_of(version: str) -> str:
    """Return the id of *version*, which is one or a locator.  Raises InvalidNameError if it cannot be either."""
    return Locator.parse(version).version if "://" in version else validate_name(version, "version")


def store_for(conn_id: str | None, bucket: str | None) -> VolumeStore | None:
    """Return the store whose credentials count: of a *bucket* without a connection those that there are already."""
    return stores.located(conn_id) if conn_id is not None or bucket is None else None


def head_of(name: str, conn_id: str | None, bucket: str | None) -> str | None:
    """Return the locator of the version that the head of *name* names, None where there is none."""
    store = store_for(conn_id, bucket)
    with turns.taken_by(store):
        try:
            url, region = bucket or (store.url if store else None), store.region if store else None
            found = Volume.from_name_sync(name, url, region=region)
        except NotFoundError:
            return None
    assert isinstance(found, RWVolume)
    return found.index

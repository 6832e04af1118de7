"""The sensor: a task that waits for a new version of a volume, and returns it.

Always true: it holds no worker's slot between two looks where it is deferrable or is rescheduled; what it returns is
the version that it has seen, whatever the head names by then.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

from volume_airflow.compat import BaseSensorOperator, PokeReturnValue, conf
from volume_airflow.operators.volume import LINKS
from volume_airflow.triggers.volume import VolumeCommitTrigger, head_of, id_of, store_for
from volume_core import InvalidNameError, ROVolume, StorageError, Volume
from volume_core.passing.environment import Lease


class VolumeSensor(BaseSensorOperator):
    """
    Waits until the head of a volume names another version than the one that is known already, and returns it.

    :param name: the volume (templated)
    :param newer_than: the version that is known: a version, its id or its locator (templated); without it any version
        will do
    :param volume_conn_id: the connection of type `volume` that says where it lies; without one where volumes lie by
        default (templated)
    :param bucket: the store's URL; goes before that of the connection (templated)
    :param deferrable: wait in the triggerer, without a worker's slot

    It keeps what is said of any sensor: `poke_interval`, `timeout`, `mode`, `soft_fail` and so on. While the store
    fails by errors that may pass, it waits on.
    """

    template_fields: Sequence[str] = ("name", "newer_than", "volume_conn_id", "bucket")
    ui_color = "#e3ecf7"
    operator_extra_links = LINKS
    mounts_volumes = False
    returns_volumes = True

    def __init__(
        self,
        *,
        name: str,
        newer_than: Any = None,
        volume_conn_id: str | None = None,
        bucket: str | None = None,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.name = name
        self.newer_than = newer_than
        self.volume_conn_id = volume_conn_id
        self.bucket = bucket
        if deferrable is None:
            deferrable = conf.getboolean("operators", "default_deferrable", fallback=False)
        self.deferrable = deferrable

    def poke(self, context: Any) -> PokeReturnValue:
        """Look once; where there is nothing new a deferrable sensor leaves the worker, by TaskDeferred."""
        looked = self._look()
        if self.deferrable and not looked:
            self.defer(
                timeout=datetime.timedelta(seconds=self.timeout),
                trigger=VolumeCommitTrigger(
                    self.name,
                    newer_than=self._known(),
                    first=True,
                    volume_conn_id=self.volume_conn_id,
                    bucket=self.bucket,
                    poll_interval_s=self.poke_interval or 1.0,
                ),
                method_name="execute_complete",
            )
        return looked

    def _look(self) -> PokeReturnValue:
        try:
            locator = head_of(self.name, self.volume_conn_id, self.bucket)
        except StorageError as error:
            if not error.transient:
                raise
            self.log.warning("the head of %s could not be read, so it is looked at again later: %s", self.name, error)
            return PokeReturnValue(is_done=False)
        if locator is None or id_of(locator) == self._known():
            return PokeReturnValue(is_done=False)
        return PokeReturnValue(is_done=True, xcom_value=self._version(locator))

    def execute_complete(self, context: Any, event: dict[str, str]) -> ROVolume:
        """Return the version that the trigger has told of."""
        return self._version(event["locator"])

    def _known(self) -> str | None:
        given = self.newer_than
        if given is None or given in {"", "None"}:  # what a template makes of nothing
            return None
        if isinstance(given, ROVolume):
            return given.version
        if isinstance(given, str):
            return id_of(given)
        raise InvalidNameError(f"newer_than is {given!r}: give a version, its id or its locator")

    def _version(self, locator: str) -> ROVolume:
        store = store_for(self.volume_conn_id, self.bucket)
        with store.use() if store is not None else Lease("a sensor", {}):
            return Volume.from_locator_sync(locator)

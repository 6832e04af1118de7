"""Where the releases of Airflow differ: the one place that knows.

    from volume_airflow.compat import BaseOperator, IS_3        # whichever Airflow there is

Always true: a name is imported when it is asked for first, so that a process pays for what it uses; whatever is
imported from Airflow elsewhere in this package is at that place in 2.11 and in 3.
"""

# ruff: noqa: PLC0414 - that is how type checkers are told that a name is for others

from __future__ import annotations

import importlib
import importlib.util
import logging
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.providers.standard.operators.bash import BashOperator as BashOperator
    from airflow.providers.standard.operators.python import PythonOperator as PythonOperator
    from airflow.sdk import DAG as DAG
    from airflow.sdk import Asset as Asset
    from airflow.sdk import AssetAlias as AssetAlias
    from airflow.sdk import BaseHook as BaseHook
    from airflow.sdk import BaseOperator as BaseOperator
    from airflow.sdk import BaseOperatorLink as BaseOperatorLink
    from airflow.sdk import BaseSensorOperator as BaseSensorOperator
    from airflow.sdk import BaseXCom as BaseXCom
    from airflow.sdk import Connection as Connection
    from airflow.sdk import Context as Context
    from airflow.sdk import Metadata as Metadata
    from airflow.sdk import ObjectStoragePath as ObjectStoragePath
    from airflow.sdk import PokeReturnValue as PokeReturnValue
    from airflow.sdk import TriggerRule as TriggerRule
    from airflow.sdk import dag as dag
    from airflow.sdk import get_current_context as get_current_context
    from airflow.sdk import setup as setup
    from airflow.sdk import task as task
    from airflow.sdk import task_group as task_group
    from airflow.sdk import teardown as teardown
    from airflow.sdk.bases.decorator import DecoratedOperator as DecoratedOperator
    from airflow.sdk.bases.decorator import TaskDecorator as TaskDecorator
    from airflow.sdk.bases.decorator import task_decorator_factory as task_decorator_factory
    from airflow.sdk.bases.operator import BaseOperatorMeta as BaseOperatorMeta
    from airflow.sdk.configuration import conf as conf
    from airflow.sdk.exceptions import AirflowException as AirflowException
    from airflow.sdk.exceptions import AirflowFailException as AirflowFailException
    from airflow.sdk.exceptions import AirflowNotFoundException as AirflowNotFoundException
    from airflow.sdk.exceptions import AirflowSkipException as AirflowSkipException
    from airflow.sdk.exceptions import AirflowTaskTimeout as AirflowTaskTimeout
    from airflow.sdk.exceptions import TaskDeferred as TaskDeferred
    from airflow.sdk.lineage import get_hook_lineage_collector as get_hook_lineage_collector
    from airflow.sdk.serde import deserialize as deserialize
    from airflow.sdk.serde import serialize as serialize
    from airflow.triggers.base import BaseEventTrigger as BaseEventTrigger
    from airflow.triggers.base import TriggerEvent as TriggerEvent

    IS_3: bool  # whether this is Airflow 3

log = logging.getLogger(__name__)

_SDK = "airflow.sdk"
_STANDARD = "airflow.providers.standard.operators"
# Where each name is from 3 on, and before.  What 2.11 calls otherwise has that name behind a colon.
_PLACES: dict[str, tuple[str, str]] = {
    "AirflowException": (f"{_SDK}.exceptions", "airflow.exceptions"),
    "AirflowFailException": (f"{_SDK}.exceptions", "airflow.exceptions"),
    "AirflowNotFoundException": (f"{_SDK}.exceptions", "airflow.exceptions"),
    "AirflowSkipException": (f"{_SDK}.exceptions", "airflow.exceptions"),
    "AirflowTaskTimeout": (f"{_SDK}.exceptions", "airflow.exceptions"),
    "Asset": (_SDK, "airflow.datasets:Dataset"),
    "AssetAlias": (_SDK, "airflow.datasets:DatasetAlias"),
    "BaseEventTrigger": ("airflow.triggers.base", "airflow.triggers.base:BaseTrigger"),
    "BaseHook": (_SDK, "airflow.hooks.base"),
    "BaseOperator": (_SDK, "airflow.models.baseoperator"),
    "BaseOperatorLink": (_SDK, "airflow.models.baseoperatorlink"),
    "BaseOperatorMeta": (f"{_SDK}.bases.operator", "airflow.models.baseoperator"),
    "BaseSensorOperator": (_SDK, "airflow.sensors.base"),
    "BaseXCom": (_SDK, "airflow.models.xcom"),
    "BashOperator": (f"{_STANDARD}.bash", "airflow.operators.bash"),
    "Connection": (_SDK, "airflow.models.connection"),
    "Context": (_SDK, "airflow.utils.context"),
    "DAG": (_SDK, "airflow.models.dag"),
    "DecoratedOperator": (f"{_SDK}.bases.decorator", "airflow.decorators.base"),
    "Metadata": (_SDK, "airflow.datasets.metadata"),
    "ObjectStoragePath": (_SDK, "airflow.io.path"),
    "PokeReturnValue": (_SDK, "airflow.sensors.base"),
    "PythonOperator": (f"{_STANDARD}.python", "airflow.operators.python"),
    "TaskDecorator": (f"{_SDK}.bases.decorator", "airflow.decorators.base"),
    "TaskDeferred": (f"{_SDK}.exceptions", "airflow.exceptions"),
    "TriggerEvent": ("airflow.triggers.base", "airflow.triggers.base"),
    "TriggerRule": (_SDK, "airflow.utils.trigger_rule"),
    "conf": (f"{_SDK}.configuration", "airflow.configuration"),
    "dag": (_SDK, "airflow.decorators"),
    "deserialize": (f"{_SDK}.serde", "airflow.serialization.serde"),
    "get_current_context": (_SDK, "airflow.operators.python"),
    "get_hook_lineage_collector": (f"{_SDK}.lineage", "airflow.lineage.hook"),
    "serialize": (f"{_SDK}.serde", "airflow.serialization.serde"),
    "setup": (_SDK, "airflow.decorators"),
    "task": (_SDK, "airflow.decorators"),
    "task_decorator_factory": (f"{_SDK}.bases.decorator", "airflow.decorators.base"),
    "task_group": (_SDK, "airflow.decorators"),
    "teardown": (_SDK, "airflow.decorators"),
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "IS_3":
        found = globals()["IS_3"] = importlib.util.find_spec("airflow.sdk") is not None
        return found
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    for place in _PLACES[name]:
        module, _, other = place.partition(":")
        try:
            found = getattr(importlib.import_module(module), other or name)
        except (ImportError, AttributeError):  # of 3.0 to 3.2 some are still where they were in 2
            continue
        globals()[name] = found
        return found
    raise ImportError(f"no {name} in this Airflow: looked in {' and '.join(_PLACES[name])}")


def first_try_of_these(ti: Any) -> int | None:
    """Return the first try of *ti* after which none has ended well, from 1 on; None where that cannot be found out.

    For 2.11, in which a task's process has the database.
    """
    try:
        from airflow import settings
        from airflow.models.taskinstancehistory import TaskInstanceHistory as History
        from sqlalchemy import func, select
        from sqlalchemy.orm import Session

        with Session(settings.engine) as session:  # of its own: that of the task is not committed for this
            last = session.scalar(
                select(func.max(History.try_number)).where(
                    History.dag_id == ti.dag_id, History.run_id == ti.run_id, History.task_id == ti.task_id,
                    History.map_index == ti.map_index, History.state.in_(("success", "skipped")),
                )
            )  # fmt: skip
    except Exception as error:  # whatever a database raises
        log.warning("how the tries before have ended is not known: %s: %s", type(error).__name__, error)
        return None
    return 1 if last is None else int(last) + 1


def lineage_collector() -> Any:
    """Return Airflow's collector of lineage, as 3 has it: `add_input_asset`, `add_output_asset`, `collected_assets`."""
    collector = __getattr__("get_hook_lineage_collector")()
    return collector if hasattr(collector, "add_output_asset") else _Collector(collector)


class _Collector:
    """A collector of 2.11, which calls assets datasets."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def add_input_asset(self, *, context: Any, uri: str, asset_extra: dict[str, Any]) -> None:
        self._inner.add_input_dataset(context=context, uri=uri, dataset_extra=asset_extra)

    def add_output_asset(self, *, context: Any, uri: str, asset_extra: dict[str, Any]) -> None:
        self._inner.add_output_dataset(context=context, uri=uri, dataset_extra=asset_extra)

    @property
    def collected_assets(self) -> Any:
        # One that collects nothing warns of that whenever it is asked, and has not got anything.
        nothing = type(self._inner).__name__ == "NoOpCollector"
        found = None if nothing else self._inner.collected_datasets
        return SimpleNamespace(
            **{
                name: [SimpleNamespace(asset=each.dataset, context=each.context) for each in getattr(found, name, ())]
                for name in ("inputs", "outputs")
            }
        )

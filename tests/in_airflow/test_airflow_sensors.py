"""The sensor, in its three ways to wait, and its trigger."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import threading
import time

import pytest
from airflow_kit import Supervisor, made, returned, run_task, written

from volume_airflow.compat import DAG, IS_3
from volume_airflow.sensors.volume import VolumeSensor
from volume_airflow.stores import VolumeStore
from volume_airflow.triggers import volume as triggers
from volume_airflow.triggers.volume import VolumeCommitTrigger
from volume_airflow.turns import Turns
from volume_core import InvalidNameError, StorageError, Volume


def sensed(supervisor=None, **fields):
    """How a sensor's task ended."""
    with DAG("sensors", schedule=None) as dag:
        VolumeSensor(task_id="it", **{"poke_interval": 0.01, "timeout": 0.05} | fields)
    return run_task(dag.get_task("it"), supervisor or Supervisor())


def committed(name="data", **files):
    return written(Volume.from_name_sync(name, create_if_missing=True), files).finalize_sync()


# -- poke and reschedule


def test_a_volume_that_is_there_is_returned_as_the_version_that_was_seen():
    version, supervisor = made(a="1"), Supervisor()
    assert "success" == sensed(supervisor, name="data").state
    assert version == returned(supervisor, "it")


@pytest.mark.loud
def test_a_volume_that_is_not_there_is_waited_for_until_the_timeout():
    ended = sensed(name="data")
    assert "AirflowSensorTimeout" == type(ended.error).__name__


@pytest.mark.parametrize("known", [lambda version: version, lambda version: version.version, lambda v: v.locator])
@pytest.mark.loud
def test_a_version_that_is_known_is_no_news(known):
    first, supervisor = made(a="1"), Supervisor()
    assert "success" != sensed(name="data", newer_than=known(first)).state
    second = committed(b="2")
    assert "success" == sensed(supervisor, name="data", newer_than=known(first)).state
    assert second == returned(supervisor, "it")


def test_a_rescheduled_sensor_gives_its_slot_back():
    ended = sensed(name="data", mode="reschedule", timeout=60)
    assert "up_for_reschedule" == ended.state


@pytest.mark.loud
def test_a_store_that_fails_for_a_while_is_waited_for(monkeypatch):
    version, answers = made(a="1"), [StorageError("503", transient=True)] * 2
    monkeypatch.setattr(triggers, "head_of", _answering(answers, version.locator))
    monkeypatch.setattr("volume_airflow.sensors.volume.head_of", triggers.head_of)
    supervisor = Supervisor()
    assert "success" == sensed(supervisor, name="data", timeout=20).state
    assert version == returned(supervisor, "it")


def _answering(answers, then):
    left = iter(answers)

    def answer(*_):
        each = next(left, then)
        if isinstance(each, Exception):
            raise each
        return each

    return answer


@pytest.mark.loud
def test_a_store_that_says_no_fails_the_sensor(monkeypatch):
    monkeypatch.setattr("volume_airflow.sensors.volume.head_of", _answering([StorageError("no such key")], None))
    assert "no such key" in str(sensed(name="data").error)


@pytest.mark.loud
def test_what_is_no_version_is_refused():
    ended = sensed(name="data", newer_than=3)
    made(a="1")
    ended = sensed(name="data", newer_than=3)
    assert isinstance(ended.error, InvalidNameError)


@pytest.mark.skipif(not IS_3, reason="the kit's supervisor answers as that of Airflow 3 does")
def test_a_sensor_that_is_given_a_bucket_has_nothing_to_do_with_the_default_connection(tmp_path):
    store = f"file://{tmp_path}/other"
    version = written(Volume.new("data", store), {"a": "1"}).finalize_sync()
    version.promote_sync()
    supervisor = Supervisor({"volume_default": {"conn_type": "aws"}})  # a store's cannot be of this type

    ended = sensed(supervisor, name="data", bucket=store)

    assert ended.error is None
    assert version == returned(supervisor, "it")


# -- deferred


def test_a_deferred_sensor_waits_in_the_triggerer_and_returns_the_version():
    supervisor = Supervisor()
    ended = sensed(supervisor, name="data", deferrable=True, timeout=60)
    assert "deferred" == ended.state
    version = committed(a="1")
    (event,) = _events(_trigger_of(ended.message), 1)
    with DAG("sensors", schedule=None) as dag:
        VolumeSensor(task_id="it", name="data", deferrable=True)
    ended = run_task(
        dag.get_task("it"), supervisor, next_method="execute_complete", next_kwargs={"event": event.payload}
    )
    assert "success" == ended.state
    assert version == returned(supervisor, "it")


def _trigger_of(message):
    """The trigger of a task that was deferred, as the triggerer makes it."""
    from volume_airflow.compat import deserialize

    if not hasattr(message, "classpath"):  # Airflow 2 has the trigger itself there
        return VolumeCommitTrigger(**message.trigger.serialize()[1] | {"poll_interval_s": 0.02})
    module, _, name = message.classpath.rpartition(".")
    arguments = message.trigger_kwargs
    if isinstance(arguments, str):
        arguments = json.loads(arguments)
    try:
        arguments = deserialize(arguments)
    except Exception:
        from airflow.serialization.serialized_objects import BaseSerialization

        arguments = BaseSerialization.deserialize(arguments)
    return getattr(importlib.import_module(module), name)(**arguments | {"poll_interval_s": 0.02})


def test_a_deferrable_sensor_does_not_wait_for_what_is_there():
    version, supervisor = made(a="1"), Supervisor()
    assert "success" == sensed(supervisor, name="data", deferrable=True).state
    assert version == returned(supervisor, "it")


# -- the trigger


def _events(trigger, many, meanwhile=None):
    """The first *many* events; *meanwhile* is called once the trigger has looked for the first time."""

    async def collect():
        found = []
        looked = asyncio.get_running_loop().run_in_executor
        events = trigger.run()
        pending = asyncio.ensure_future(anext(events))
        if meanwhile is not None:
            while trigger.looks == 0:
                await asyncio.sleep(0.01)
            await looked(None, meanwhile)
        while len(found) < many:
            found.append(await asyncio.wait_for(pending, 20))
            if len(found) < many:
                pending = asyncio.ensure_future(anext(events))
        await events.aclose()
        return found

    return asyncio.run(collect())


class Counting(VolumeCommitTrigger):
    """One that counts its looks."""

    looks = 0

    def _head(self):
        try:
            return super()._head()
        finally:
            self.looks += 1


def test_each_new_version_is_an_event_and_what_was_there_is_none():
    made(a="1")
    known = []
    events = _events(Counting("data", poll_interval_s=0.02), 1, lambda: known.append(committed(b="2")))
    assert [known[0].version] == [each.payload["version"] for each in events]
    assert known[0].locator == events[0].payload["locator"]
    assert str(known[0]) == events[0].payload["url"]
    json.dumps(events[0].payload)


def test_what_is_there_is_the_first_event_if_that_is_said_or_if_another_one_is_known():
    first = made(a="1")
    (event,) = _events(VolumeCommitTrigger("data", first=True, poll_interval_s=0.02), 1)
    assert first.version == event.payload["version"]
    second = committed(b="2")
    (event,) = _events(VolumeCommitTrigger("data", newer_than=first.locator, poll_interval_s=0.02), 1)
    assert second.version == event.payload["version"]


class Kept:
    """What Airflow keeps for an asset, or cannot."""

    def __init__(self, *, is_away=False):
        self.values = {}
        self.is_away = is_away

    async def aget(self, key):
        if self.is_away:
            raise RuntimeError("the API is away")
        return self.values.get(key)

    async def aset(self, key, value):
        if self.is_away:
            raise RuntimeError("the API is away")
        self.values[key] = value


def test_what_is_committed_while_the_triggerer_is_away_is_told_when_it_is_back():
    made(a="1")
    kept, first = Kept(), Counting("data", poll_interval_s=0.02)
    first.asset_state_store = kept
    _events(first, 1, lambda: committed(b="2"))
    assert first.looks
    missed = committed(c="3")
    back = VolumeCommitTrigger("data", poll_interval_s=0.02)
    back.asset_state_store = kept
    (event,) = _events(back, 1)
    assert missed.version == event.payload["version"]


@pytest.mark.loud
def test_a_trigger_whose_memory_is_away_goes_on_without():
    made(a="1")
    trigger = Counting("data", poll_interval_s=0.02)
    trigger.asset_state_store = Kept(is_away=True)
    (event,) = _events(trigger, 1, lambda: committed(b="2"))
    assert "data" == event.payload["volume"]


@pytest.mark.skipif(not IS_3, reason="assets have states from 3.3 on")
def test_airflow_keeps_values_for_a_watchers_asset_under_the_name_that_the_trigger_asks():
    from airflow.sdk.execution_time.context import AssetStateStoreAccessors

    assert hasattr(AssetStateStoreAccessors, "aget") and hasattr(AssetStateStoreAccessors, "aset")
    assert hasattr(VolumeCommitTrigger("data"), "asset_state_store")


def test_a_trigger_is_made_again_from_what_it_serializes_to():
    trigger = VolumeCommitTrigger("data", "a" * 64, True, "team", "s3://team", 3.0, 4)
    path, arguments = trigger.serialize()
    module, _, name = path.rpartition(".")
    again = getattr(importlib.import_module(module), name)(**json.loads(json.dumps(arguments)))
    assert trigger.serialize() == again.serialize()


@pytest.mark.loud
def test_a_trigger_waits_for_a_store_that_fails_and_gives_up_in_the_end(monkeypatch):
    version, passing = made(a="1"), StorageError("503", transient=True)
    monkeypatch.setattr(triggers, "head_of", _answering([passing] * 2, version.locator))
    (event,) = _events(VolumeCommitTrigger("data", first=True, poll_interval_s=0.01, patience=2), 1)
    assert version.version == event.payload["version"]
    monkeypatch.setattr(triggers, "head_of", _answering([passing] * 3, version.locator))
    with pytest.raises(StorageError, match="503"):
        _events(VolumeCommitTrigger("data", first=True, poll_interval_s=0.01, patience=2), 1)
    monkeypatch.setattr(triggers, "head_of", _answering([StorageError("no")], version.locator))
    with pytest.raises(StorageError, match="no"):
        _events(VolumeCommitTrigger("data", first=True, poll_interval_s=0.01), 1)


def test_between_two_looks_the_event_loop_is_free(monkeypatch):
    trigger = Counting("data", poll_interval_s=0.05)

    async def looks():
        events = trigger.run()
        pending = asyncio.ensure_future(anext(events))
        turns = 0
        while trigger.looks < 3:
            await asyncio.sleep(0)
            turns += 1
        pending.cancel()
        await asyncio.gather(pending, return_exceptions=True)
        return turns

    assert asyncio.run(looks()) > 3


def test_triggers_of_stores_with_other_keys_take_turns(monkeypatch):
    turns, seen = Turns(), []
    stores = [VolumeStore(f"s3://{each}", None, each, {"VOLUME_S3_ACCESS_KEY_ID": each}) for each in ("one", "two")]
    both = threading.Barrier(4)

    def look(store):
        both.wait(10)
        for _ in range(50):
            with turns.taken_by(store):
                seen.append(os.environ["VOLUME_S3_ACCESS_KEY_ID"] == store.conn_id)

    threads = [threading.Thread(target=look, args=[each]) for each in stores * 2]
    for each in threads:
        each.start()
    for each in threads:
        each.join(20)
    assert 200 == len(seen)
    assert all(seen)
    assert "VOLUME_S3_ACCESS_KEY_ID" not in os.environ


def test_a_store_gets_its_turn_however_many_come_for_another_one_meanwhile(monkeypatch):
    turns, order = Turns(), []
    one, two = (VolumeStore(f"s3://{each}", None, each, {"VOLUME_S3_ACCESS_KEY_ID": each}) for each in ("one", "two"))

    def look(store):
        with turns.taken_by(store):
            order.append(store.conn_id)

    threads = []
    with turns.taken_by(one):
        for store in (two, one, one):
            before = len(turns._waiting)
            threads.append(threading.Thread(target=look, args=[store]))
            threads[-1].start()
            end = time.monotonic() + 10
            while len(turns._waiting) == before and time.monotonic() < end:
                time.sleep(0.001)
        assert [] == order
    for each in threads:
        each.join(10)

    assert ["two", "one", "one"] == order


@pytest.mark.skipif(not IS_3, reason="watchers came with Airflow 3")
def test_a_trigger_watches_for_an_asset():
    from airflow.sdk import Asset, AssetWatcher
    from airflow.serialization.serialized_objects import DagSerialization

    watcher = AssetWatcher(name="commits", trigger=VolumeCommitTrigger("data"))
    with DAG("watching", schedule=[Asset(name="data", uri="vol://data", watchers=[watcher])]) as dag:
        pass
    assert "VolumeCommitTrigger" in json.dumps(DagSerialization.to_dict(dag), default=str)


def test_a_sensor_is_deferred_and_goes_on_with_a_database(run_dag, monkeypatch):
    first, looks = made(a="1"), []
    look = VolumeCommitTrigger._head

    def committed_meanwhile(self):
        looks.append(1)
        if len(looks) == 2:
            committed(b="2")
        return look(self)

    monkeypatch.setattr(VolumeCommitTrigger, "_head", committed_meanwhile)
    with DAG("deferring", schedule=None) as dag:
        VolumeSensor(task_id="it", name="data", newer_than=first.version, deferrable=True, poke_interval=0.02)

    run, xcoms = run_dag(dag)

    assert run.state == "success"
    assert xcoms["it", -1, "return_value"] == Volume.from_name_sync("data").committed != first

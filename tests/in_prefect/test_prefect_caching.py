"""Cached results: keyed on versions, and worth nothing once a version is gone."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from typing import Any

import pytest
from prefect import flow, task
from prefect.cache_policies import INPUTS, NO_CACHE
from prefect.context import FlowRunContext
from prefect.filesystems import LocalFileSystem
from prefect.locking.memory import MemoryLockManager
from prefect.results import ResultStore
from prefect.serializers import JSONSerializer, PickleSerializer
from prefect.transactions import IsolationLevel
from prefect.utilities.hashing import hash_objects
from prefect_kit import made, written
from pydantic_core import PydanticSerializationError

from volume_core import ROVolume, RWVolume, StorageError, Volume
from volume_prefect import caching, volumes


def delete(version: ROVolume) -> None:
    """Take a version away, as pruning does."""
    version._place().store().delete(f"versions/{version.name}/{version.version}.json")


def states_of(cached: Any, *calls: Any) -> list[str]:
    """The names of the states that these calls of the task end in, in one flow."""
    names: list[str] = []

    @flow
    def around() -> None:
        for each in calls:
            each() if callable(each) else names.append(cached(each, return_state=True).name)

    around()
    return names


# -- keys, without a server


def test_equal_versions_hash_alike_and_others_do_not():
    one, other = made(a="1"), made("other", a="1")
    again = Volume.from_locator_sync(one.locator)
    again.listdir_sync()

    assert hash_objects({"data": one}) == hash_objects({"data": again}) != hash_objects({"data": other})
    assert hash_objects([one]) == hash_objects([again])


def test_a_mount_is_no_part_of_the_key():
    version = made(a="1")
    before = hash_objects(version)
    with version.mounted_sync(driver="copy"):
        assert before == hash_objects(version)


@pytest.mark.parametrize("serializer", [JSONSerializer(), PickleSerializer()], ids=["json", "pickle"])
def test_a_result_survives_the_serializers_of_prefect(serializer):
    version = made(a="1")

    found = serializer.loads(serializer.dumps({"data": [version]}))

    assert {"data": [version]} == found
    assert isinstance(found["data"][0], ROVolume)


def test_a_writer_with_changes_is_no_key_outside_a_run():
    volume = written(Volume.new("dirty"), {"a": "1"})

    with pytest.raises(PydanticSerializationError, match="not committed"):
        JSONSerializer().dumps(volume)

    volume.abandon_sync()


# -- a version that is gone, without a server


def stored(tmp_path: Path, result: Any, **options: Any) -> ResultStore:
    store = ResultStore(result_storage=LocalFileSystem(basepath=str(tmp_path / "results")), **options)
    store.write(key="key", obj=result)
    return store


@pytest.mark.parametrize("serializer", [JSONSerializer(), PickleSerializer()], ids=["json", "pickle"])
@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("with_metadata", [True, False])
def test_a_record_is_one_only_while_its_versions_are_there(tmp_path, serializer, in_memory, with_metadata):
    caching.watch_caches()
    options = {"serializer": serializer, "cache_result_in_memory": in_memory}
    if with_metadata:  # of a policy with key_storage: only metadata is read then
        options["metadata_storage"] = LocalFileSystem(basepath=str(tmp_path / "keys"))
    version = made(a="1")
    store = stored(tmp_path, {"x": [version]}, **options)
    assert store.exists("key")
    assert asyncio.run(store.aexists("key"))

    delete(version)

    assert not store.exists("key")
    assert not asyncio.run(store.aexists("key"))
    assert not store.exists("another")


def test_who_holds_a_records_lock_does_not_wait_for_himself(tmp_path):
    caching.watch_caches()
    store = stored(tmp_path, made(a="1"), lock_manager=MemoryLockManager())
    store.acquire_lock("key", holder="me")

    assert store.exists("key")
    assert asyncio.run(store.aexists("key"))


def test_a_store_that_does_not_answer_is_no_reason_to_run_again(tmp_path, monkeypatch):
    caching.watch_caches()
    version = made(a="1")
    store = stored(tmp_path, version)

    def fails(_: Any) -> bool:
        raise StorageError("away", transient=True)

    monkeypatch.setattr(caching, "is_there", fails)

    assert store.exists("key")


# -- in real runs


def cached_task(**options: Any) -> tuple[Any, list[str]]:
    ran: list[str] = []
    salt = uuid.uuid4().hex

    @volumes
    @task(name=salt, cache_policy=INPUTS, **options)
    def cached(data: Any, salt: str = salt) -> RWVolume:
        ran.append(salt)
        return written(Volume.new(f"cached-{salt[:8]}"), {"a": str(len(ran))})

    return cached, ran


@pytest.mark.usefixtures("server")
def test_the_same_version_is_cached_and_another_runs():
    cached, ran = cached_task(result_serializer="json")
    one, other = made(a="1"), made(a="2")

    names = states_of(cached, one, Volume.from_locator_sync(one.locator), other, [one], [one])

    assert ["Completed", "Cached", "Completed", "Completed", "Cached"] == names
    assert 3 == len(ran)


@pytest.mark.usefixtures("server")
def test_a_cached_result_is_the_version_itself():
    cached, _ = cached_task()
    found: list[Any] = []

    @flow
    def twice() -> None:
        version = made(a="1")
        found.extend([cached(version), cached.submit(version).result()])

    twice()

    assert found[0] == found[1]
    assert {ROVolume} == {type(each) for each in found}


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("isolated", [False, True])
def test_a_version_that_is_gone_is_a_miss_and_no_error(isolated):
    policy = INPUTS
    if isolated:
        policy = INPUTS.configure(isolation_level=IsolationLevel.SERIALIZABLE, lock_manager=MemoryLockManager())
    cached, ran = cached_task()
    cached = cached.with_options(cache_policy=policy)
    results: list[ROVolume] = []
    version = made(a="1")

    def note() -> None:
        results.append(cached(version))

    names = states_of(cached, version, note, lambda: delete(results[0]), version, version)

    assert ["Completed", "Completed", "Cached"] == names
    assert 2 == len(ran)


@pytest.mark.usefixtures("server")
def test_a_writer_as_input_is_keyed_on_what_it_commits():
    cached, ran = cached_task()
    volume = written(Volume.new("input"), {"a": "1"})

    def change() -> None:
        assert FlowRunContext.get() is not None
        (Path(volume) / "a").write_text("2")

    names = states_of(cached, volume, volume, change, volume)

    assert ["Completed", "Cached", "Completed"] == names
    assert 2 == len(ran)
    volume.finalize_sync()


@pytest.mark.usefixtures("server")
def test_two_tasks_that_create_volumes_share_one_unless_they_are_not_cached():
    results: dict[str, list[ROVolume]] = {"default": [], "no cache": []}

    @volumes
    @task(persist_result=True)
    def make() -> RWVolume:
        return written(Volume.new(f"new-{uuid.uuid4().hex[:6]}"), {"a": "1"})

    @flow
    def twice() -> None:
        results["default"] += [make(), make()]
        fresh = make.with_options(cache_policy=NO_CACHE)
        results["no cache"] += [fresh(), fresh()]

    twice()

    assert 1 == len(set(results["default"]))
    assert 2 == len(set(results["no cache"]))

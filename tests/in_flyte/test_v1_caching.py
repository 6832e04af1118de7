"""flytekit's local cache: one version is one key, and with VolumeHash one content is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest
from flytekit import FlyteContextManager, task, workflow
from flytekit.core import local_cache
from flytekit.core.local_cache import LocalTaskCache
from flytekit.core.type_engine import TypeEngine
from flytekit.exceptions.system import FlyteDownloadDataException
from flytekit.models.literals import LiteralMap
from v1_kit import contents, counted, failing, fill, made

from volume_core import ROVolume, RWVolume, Volume, VolumeError
from volume_flyte import VolumeHash
from volume_flyte.v1.caching import content_key

CONTEXT = FlyteContextManager.current_context()
ran: list[str] = []


@dataclass
class Data:
    data: ROVolume


@task(cache=True, cache_version="1")
def make(number: int) -> RWVolume:
    ran.append("make")
    return fill(Volume.new("a"), a=str(number))


@task(cache=True, cache_version="1")
def read(data: ROVolume) -> str:
    ran.append("read")
    return contents(data)["a"]


@task(cache=True, cache_version="1")
def read_field(data: Data) -> str:
    ran.append("read")
    return contents(data.data)["a"]


@task
def remake(number: int) -> Annotated[RWVolume, VolumeHash]:
    ran.append("remake")
    return fill(Volume.new("a"), a=str(number))


@task
def remake_several(number: int) -> list[Annotated[RWVolume, VolumeHash]]:
    return [fill(Volume.new("a"), a=str(number))]


@task(cache=True, cache_version="1")
def read_several(data: list[ROVolume]) -> str:
    ran.append("read")
    return contents(data[0])["a"]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    """A local cache of this test's own."""
    monkeypatch.setattr(local_cache, "CACHE_LOCATION", str(tmp_path / "cache"))
    monkeypatch.setattr(LocalTaskCache, "_initialized", False)
    ran.clear()
    yield
    if LocalTaskCache._initialized:
        LocalTaskCache._cache.close()


def test_a_cached_task_gives_its_version_again_and_commits_nothing():
    @workflow
    def wf() -> tuple[ROVolume, str]:
        data = make(number=1)
        return data, read(data=data)

    with counted() as commits:
        first, second = wf(), wf()
    assert first == second
    assert ["make", "read"] == ran
    assert 1 == len(commits.versions)


def test_one_version_is_one_key_however_it_was_come_by():
    version = made("a", a="1")
    for way in (version, Volume.from_locator_sync(version.locator), version.fork_sync("b"), {"locator": "a"}):
        assert "1" == read(data=way)
        assert "1" == read_field(data=Data(way if isinstance(way, ROVolume) else version))

    assert ["read", "read"] == ran


def test_another_version_is_another_key_though_its_files_are_the_same():
    for _ in range(2):
        assert "1" == read(data=made("a", a="1"))

    assert ["read", "read"] == ran


def test_with_volumehash_the_same_files_are_one_key_and_others_another():
    @workflow
    def wf(number: int) -> str:
        return read(data=remake(number=number))

    assert ["1", "1", "2"] == [wf(number=number) for number in (1, 1, 2)]
    assert ["remake", "read", "remake", "remake", "read"] == ran


def test_volumehash_within_a_list():
    @workflow
    def wf(number: int) -> str:
        return read_several(data=remake_several(number=number))

    assert ["1", "1", "2"] == [wf(number=number) for number in (1, 1, 2)]
    assert ["read", "read"] == ran


def test_volumehash_on_an_input_counts_for_what_is_given_directly():
    @task(cache=True, cache_version="1")
    def reads(data: Annotated[ROVolume, VolumeHash]) -> str:
        ran.append("read")
        return contents(data)["a"]

    assert ["1", "1"] == [reads(data=made(name, a="1")) for name in ("a", "b")]
    assert ["read"] == ran


def test_volumehash_of_an_optional_is_around_it():
    version = made("a", a="1")
    around, within = Annotated[ROVolume | None, VolumeHash], Annotated[ROVolume, VolumeHash] | None
    literal_type = TypeEngine.to_literal_type(around)

    hashes = [TypeEngine.to_literal(CONTEXT, value, around, literal_type).hash for value in (version, None)]
    assert [version.content_digest_sync(), "none"] == hashes
    assert TypeEngine.to_literal(CONTEXT, version, within, literal_type).hash is None


def test_a_hash_that_a_transformer_sets_does_not_reach_the_cache():
    """flytekit replaces it: only what is annotated counts, so an identity has to be in the bytes."""
    declared = Annotated[ROVolume, VolumeHash]
    version, again = made("a", a="1"), made("b", a="1")
    literals = [TypeEngine.to_literal(CONTEXT, each, declared, None) for each in (version, again)]

    assert literals[0].hash == literals[1].hash == version.content_digest_sync()
    assert TypeEngine.to_literal(CONTEXT, version, ROVolume, None).hash is None
    keys = {local_cache._calculate_cache_key("t", "1", LiteralMap({"data": each})) for each in literals}
    assert 1 == len(keys)


def test_a_key_of_a_writer_is_that_of_what_it_has_committed():
    writer = fill(Volume.new("a"), a="1")
    with pytest.raises(VolumeError, match="has no version, and so no contents"):
        content_key(writer)
    version = writer.commit_sync()

    assert version.content_digest_sync() == content_key(writer) == content_key(version)


def test_a_key_that_cannot_be_made_for_the_moment_is_retried():
    elsewhere = ROVolume.model_validate(made("a", a="1").model_dump())
    with failing(operations=frozenset({"get"})), pytest.raises(FlyteDownloadDataException, match="injected: get"):
        content_key(elsewhere)

"""Tasks of flyte 2 that tests run in processes of their own: in containers, and where a cache outlives a run."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import flyte
from pydantic import BaseModel

from volume_core import ROVolume, RWVolume, Volume, hookimpl
from volume_core.plugins.manager import plugins, register
from volume_core.storage.local import LocalStore
from volume_core.testing.faulty import FaultyStore
from volume_flyte.v2.caching import VolumeHash

env = flyte.TaskEnvironment("v2-tasks")
WRITES = frozenset({"put_new", "put", "swap"})


class Faulty(FaultyStore):
    """A directory under a URL of a scheme that only this process knows."""

    url = ""


class Failing:
    """A plugin: a store at `transient://<directory>` or `permanent://<directory>` fails at its first writes."""

    def __init__(self, *, persistent: bool = True) -> None:
        self._persistent = persistent
        self._stores: dict[str, Faulty] = {}

    @hookimpl
    def volume_open_store(self, url: str) -> FaultyStore | None:
        kind, _, directory = url.partition("://")
        if kind not in {"transient", "permanent"}:
            return None
        if url not in self._stores:
            inner = LocalStore(Path("/") / directory)
            self._stores[url] = made = Faulty(inner, 1, self._persistent, kind=kind, operations=WRITES)
            made.url = url
        return self._stores[url]


def fail() -> None:
    """Have stores fail in this process, unless a test has seen to it."""
    if "failing" not in plugins().names():
        register(Failing(), "failing")


def written(volume: RWVolume) -> RWVolume:
    """*volume*, mounted, with a file in it that is not committed."""
    path = volume.mount_sync()
    (path / "a.txt").write_text("a")
    return volume


@env.task
async def make(name: str) -> RWVolume:
    return written(Volume.new(name))


@env.task(report=True)
async def make_with_report(name: str) -> RWVolume:
    return written(Volume.new(name))


@env.task
async def where() -> str:
    return Volume.new("data").store_url


AT_IMPORT = Volume.new("at-import").store_url


@env.task
async def where_else() -> list[str]:
    """The default store: of a thread of the task's own, and of the import of its module."""
    with ThreadPoolExecutor(1) as threads:
        return [threads.submit(lambda: Volume.new("thread").store_url).result(), AT_IMPORT]


@env.task
async def make_in(bucket: str) -> RWVolume:
    fail()
    return written(Volume.new("data", bucket))


class Model(BaseModel):
    several: list[RWVolume]


@env.task
async def make_in_a_model(bucket: str) -> Model:
    fail()
    return Model(several=[written(Volume.new("data", bucket))])


@env.task
async def maybe_in(bucket: str) -> ROVolume | None:
    fail()
    return written(Volume.new("data", bucket))


@env.task(cache="auto")
async def measured(volume: ROVolume) -> int:
    print(f"measured {volume.name}")
    return volume.used_bytes


@env.task(cache="auto")
async def weighed(volume: Annotated[ROVolume, VolumeHash], volumes: list[Annotated[ROVolume, VolumeHash]]) -> int:
    print(f"weighed {volume.name} {len(volumes)}")
    return volume.used_bytes


@env.task
async def weigh(volume: ROVolume) -> int:
    return await weighed(volume, [volume])


@env.task
async def measure(volume: ROVolume) -> int:
    return await measured(volume)

"""Tasks of flytekit that mount by themselves.  Imported by tests and by the pods that they start."""

from __future__ import annotations

import asyncio
from typing import Annotated

from flytekit import eager, map_task, task, workflow
from shared_tasks import LOGS, SIDE, write

from volume_core import Volume, mounts

logs = Volume.from_name_lazy("logs", create_if_missing=True)
side = Volume.from_name_lazy("side", create_if_missing=True)


@task
@mounts({LOGS: logs, SIDE: side}, message="by a task")
def log(name: str) -> Annotated[str, "what it wrote"]:
    """Write a log."""
    write(SIDE, name)
    return write(LOGS, name)


@task
@mounts({LOGS: logs})
def fail(name: str) -> str:
    write(LOGS, name)
    if name:
        raise ValueError("this task fails")
    return name


@task
@mounts({LOGS: logs})
async def log_async(name: str) -> str:
    await asyncio.sleep(0)
    return write(LOGS, name)


@workflow
def twice() -> tuple[str, str]:
    first = log(name="a")
    second = log(name="a")
    first >> second
    return first, second


@workflow
def mapped() -> list[str]:
    return map_task(log)(name=["a", "b"])


@eager
async def eagerly() -> list[str]:
    return [await log_async(name="a"), await log_async(name="a")]

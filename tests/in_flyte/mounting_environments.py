"""Tasks of flyte 2 that mount, by themselves or by their environment.  Imported by tests and by containers."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

import flyte

from volume_core import Volume, mounts
from volume_flyte import workflow_mounts

# Where it is mounted: the same path in the test and in the containers that it starts, another in each test process.
LOGS = Path(os.environ.setdefault("VOLUME_TEST_LOGS", f"{tempfile.gettempdir()}/volume-logs-{os.getpid()}"))

logs = Volume.from_name_lazy("logs", create_if_missing=True)


def write(prefix: str) -> str:
    """Write one more file; return its name."""
    number = len([each for each in os.listdir(LOGS) if each.startswith(f"{prefix}-")])
    (LOGS / f"{prefix}-{number}").write_text(prefix)
    return f"{prefix}-{number}"


plain = flyte.TaskEnvironment("plain")


@plain.task
@mounts({LOGS: logs}, message="by a task")
async def below(name: str) -> str:
    return write(name)


@plain.task
@mounts({LOGS: logs})
def below_sync(name: str) -> str:
    return write(name)


@plain.task
@mounts({LOGS: logs})
async def fail(name: str) -> str:
    write(name)
    raise ValueError("this task fails")


@plain.task
async def below_all() -> list[str]:
    return [await below("a"), await below_sync.aio("a"), await below("a")]


environment = flyte.TaskEnvironment("logging")


@environment.task
async def defined_before(name: str) -> str:
    return write(name)


workflow_mounts({LOGS: logs})(environment)


@environment.task
async def log(name: str) -> str:
    return write(name)


@environment.task(short_name="sync")
def log_sync(name: str) -> str:
    return write(name)


@environment.task
async def nested(name: str) -> list[str]:
    return [write("outer"), *await asyncio.gather(*(log(each) for each in name)), await log_sync.aio("sync")]


@plain.task
async def three_logs() -> list[str]:
    return list(await asyncio.gather(log("a"), log_sync.aio("b"), defined_before("c")))


@plain.task
async def nobody_mounts() -> bool:
    return LOGS.exists()

"""Tasks that know of no volume: they write where somebody else has mounted one.  Tests and their pods import it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from flytekit import dynamic, task

# Where it is mounted: the same path in the test and in the containers that it starts, another in each test process.
LOGS = Path(os.environ.setdefault("VOLUME_TEST_LOGS", f"{tempfile.gettempdir()}/volume-logs-{os.getpid()}"))
SIDE = LOGS.with_name(LOGS.name + "-side")


def write(directory: Path, prefix: str) -> str:
    """Write one more file; return its name."""
    number = len([each for each in os.listdir(directory) if each.startswith(f"{prefix}-")])
    name = f"{prefix}-{number}"
    (directory / name).write_text(name)
    return name


@task
def log(name: str) -> str:
    return write(LOGS, name)


@task
def log_both(name: str) -> str:
    write(SIDE, name)
    return write(LOGS, name)


@task
def count(after: list[str]) -> int:
    return len(os.listdir(LOGS))


@task
def fail(name: str) -> str:
    write(LOGS, name)
    if name:
        raise ValueError("this task fails")
    return name


@task
def is_there() -> bool:
    return os.path.ismount(LOGS) or LOGS.exists()


@dynamic
def log_dynamically(number: int) -> list[str]:
    write(LOGS, "body")
    return [log(name=f"child{each}") for each in range(number)]

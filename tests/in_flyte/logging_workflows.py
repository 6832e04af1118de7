"""Workflows that have one named volume in all their tasks.  Imported by tests and by the pods that they start."""

from __future__ import annotations

import functools

from flytekit import conditional, map_task, workflow
from shared_tasks import LOGS, SIDE, count, fail, is_there, log, log_both, log_dynamically

from volume_core import Volume
from volume_flyte import workflow_mounts

logs = Volume.from_name_lazy("logs", create_if_missing=True)
side = Volume.from_name_lazy("side", create_if_missing=True)


@workflow_mounts({LOGS: logs}, message="logs of a run")
@workflow
def three_logs() -> int:
    return count(after=[log(name="a"), log(name="b"), log(name="c")])


@workflow
def not_decorated() -> bool:
    return is_there()


@workflow
def inner(name: str) -> str:
    return log(name=name)


@workflow_mounts({LOGS: logs})
@workflow
def everything(number: int) -> list[str]:
    several = map_task(functools.partial(log))(name=["mapped0", "mapped1"])
    chosen = (
        conditional("which")
        .if_(number > 1)
        .then(log(name="large"))
        .elif_(number == 1)
        .then(inner(name="one"))
        .else_()
        .then(log(name="small"))
    )
    chosen >> several
    below = inner(name="below")
    dynamically = log_dynamically(number=number)
    below >> dynamically
    return dynamically


@workflow_mounts({SIDE: side})
@workflow
def side_only(name: str) -> str:
    return log_both(name=name)


@workflow_mounts({LOGS: logs})
@workflow
def both() -> str:
    return side_only(name="x")


@workflow_mounts({LOGS: logs})
@workflow
def failing() -> str:
    first = log(name="before")
    last = fail(name="never")
    first >> last
    return last

"""What becomes of a task's volumes where it does not simply end well: the options, the task's own and the site's.

    @task(retries=2)
    @volumes(on_failure="drop")      # under @task; above it, it is the same
    def f(...): ...

    [volume]                         # airflow.cfg; AIRFLOW__VOLUME__ON_FAILURE
    on_failure = keep

Always true: a function or operator stays the very object that it was, so that Airflow can read its source; what a task
does not say the site's settings say.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, Unpack, cast

from volume_core.passing.options import Choices, Options

T = TypeVar("T")

_MARK = "__volumes__"
_SECTION = "volume"
# Airflow's own habit is that a retry goes on with what is there.
_DEFAULTS: Choices = {"on_failure": "keep", "retry": "resume", "on_terminate": None}


def volumes(**choices: Unpack[Choices]) -> Callable[[T], T]:
    """Say for one task what becomes of its volumes: below or above `@task`, or around an operator.

    on_failure: what was written and not committed is kept as a working copy (`keep`), or dropped (`drop`)
    retry: the next try goes on from what the failed one left (`resume`), or has a fork of what the task was given
        (`fresh`)
    on_terminate: SIGTERM commits what is mounted (`commit`), or keeps it and says where (`keep`); None: it is kept
    message: of the commits; without it the DAG, the task, the run and the try

    Raises TypeError, ValueError saying what there is.
    """
    Options.of(choices)

    def mark(given: T) -> T:
        task = cast("Any", given)
        function = getattr(task, "function", task)  # of @task
        if not callable(function) and not hasattr(task, "execute"):
            raise TypeError(f"volumes goes above or below @task, on a function or an operator, and this is {given!r}")
        object.__setattr__(function, _MARK, choices)
        return given

    return mark


def options_of(task: Any) -> Options:
    """Return the options of *task*.  Raises ValueError where the site's settings are none."""
    return Options.of({**site_choices(), **_choices(task)})


def _choices(task: Any) -> Choices:
    own = getattr(task, _MARK, None)
    if own is None:
        own = getattr(_function(task), _MARK, None)
    return own if isinstance(own, dict) else {}  # type: ignore[return-value]


def is_marked(task: Any) -> bool:
    """Whether *task*'s function has options of its own."""
    return hasattr(_function(task), _MARK)


def _function(task: Any) -> Any:
    function = getattr(task, "python_callable", None)
    while isinstance(function, functools.partial):
        function = function.func
    if function is None or hasattr(function, _MARK):
        return function
    return inspect.unwrap(function)


def site_choices() -> Choices:
    """Return what the section `[volume]` of Airflow's settings says, and what holds where it says nothing."""
    try:
        from airflow.sdk.configuration import conf
    except ImportError:
        from airflow.configuration import conf

    found: dict[str, Any] = dict(_DEFAULTS)
    for name in dataclasses.fields(Options):
        if name.name in found and (said := conf.get(_SECTION, name.name, fallback=None)):
            found[name.name] = None if said.lower() == "none" else said
    return cast("Choices", found)

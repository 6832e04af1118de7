"""One try of a task: what it returns is handed over."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from volume_airflow import running
from volume_core import RWVolume
from volume_core.passing import hand_over, replaced


def handed_over(value: Any) -> Any:
    """Return *value* with a version in the place of each writer in it."""
    return replaced(value, lambda each: hand_over(each) if isinstance(each, RWVolume) else each)


def wrap(ti: Any) -> None:
    """Have volumes handed over by whatever *ti*'s task returns or pushes."""
    task = ti.task
    for name in ("execute", "resume_execution"):
        object.__setattr__(task, name, _wrapped(getattr(task, name), ti))


def _wrapped(inner: Callable[..., Any], ti: Any) -> Callable[..., Any]:
    @functools.wraps(inner)
    def call(*args: Any, **kwargs: Any) -> Any:
        token = running.instance.set(ti)
        try:
            return handed_over(inner(*args, **kwargs))
        finally:
            running.instance.reset(token)

    return call

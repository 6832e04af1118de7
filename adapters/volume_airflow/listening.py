"""The listener: called in the task's process before its task runs, and where it has failed.

Always true: what it raises Airflow logs and goes on without, so it does next to nothing (and envelopes.py sees that
nothing is lost where it could not do even that).
"""

from __future__ import annotations

from typing import Any

from airflow.listeners import hookimpl

from volume_airflow import calling


@hookimpl
def on_task_instance_running(task_instance: Any) -> None:
    """A task is about to run: volumes become values of it."""
    calling.wrap(task_instance)


@hookimpl
def on_task_instance_failed(task_instance: Any, error: Any) -> None:
    """A try has failed, perhaps after its operator was executed: what it has handed over is taken back."""
    calling.failed(task_instance, error if isinstance(error, BaseException) else None)

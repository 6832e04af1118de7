"""The task or flow that Prefect runs in this process, and where its data lies."""

from __future__ import annotations

from volume_core import ActionRef


def current_task() -> ActionRef | None:
    """Return the running task, or the flow; None where neither runs."""
    return None


def default_bucket() -> str | None:
    """Return the URL of the store for the running task's volumes, or None to leave it to others."""
    return None

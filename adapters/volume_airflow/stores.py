"""Where the volumes of Airflow's tasks lie, if they name no bucket."""

from __future__ import annotations


def default_bucket() -> str | None:
    """Return the URL of the store; None where Airflow says nothing of one."""
    return None

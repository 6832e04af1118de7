"""What templates can call: `{{ macros.volume.path(ti.xcom_pull("make")) }}`.

Always true: to import this imports nothing, for every process of Airflow does.
"""

from __future__ import annotations

from typing import Any


def path(volume: Any, within: str = "") -> str:
    """Return where *volume* is mounted, to read, or where *within* it is there; it is mounted until the task has ended.

    *volume* is a version, or what stands for one: NAME, NAME:REF, a vol:// URL, a locator, a record.  Raises
    InvalidNameError, NotFoundError where there is no such version.
    """
    from volume_airflow import templating

    return templating.mounted(volume, within)

"""Volumes in XComs: which classes Airflow may read back.

Airflow reads only what is on its list, so that nobody who can write to its database can have any code run.
"""

from __future__ import annotations

from volume_core import ROVolume, RWVolume


def allow() -> None:
    """Let this process read volumes from XComs."""
    try:
        from airflow.sdk.serde import allow_class
    except ImportError:
        from airflow.serialization import serde

        serde._extra_allowed.update(f"{each.__module__}.{each.__qualname__}" for each in (ROVolume, RWVolume))
    else:
        allow_class(ROVolume)
        allow_class(RWVolume)

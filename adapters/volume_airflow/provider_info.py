"""What Airflow is told of this package: the entry point `apache_airflow_provider`.

Always true: it imports nothing; every name in it leads to something (tests/in_airflow).
"""

from __future__ import annotations

from typing import Any


def get_provider_info() -> dict[str, Any]:
    """Return what Airflow's schema of providers asks for."""
    return {
        "package-name": "volume-core",
        "name": "Volumes",
        "description": "Versioned, forkable, mountable file systems as values of tasks.",
    }

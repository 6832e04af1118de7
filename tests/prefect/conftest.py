"""The adapter's tests need Prefect: where it is missing nothing here is collected (tox -e prefect installs it)."""

from __future__ import annotations

import importlib.util

collect_ignore_glob: list[str] = []
if importlib.util.find_spec("prefect") is None:
    collect_ignore_glob = ["test_*.py"]

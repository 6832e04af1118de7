"""The adapter's tests need both SDKs: where one is missing nothing here is collected (tox -e flyte installs them)."""

from __future__ import annotations

import importlib.util

collect_ignore_glob: list[str] = []
if importlib.util.find_spec("flytekit") is None or importlib.util.find_spec("flyte") is None:
    collect_ignore_glob = ["test_*.py"]

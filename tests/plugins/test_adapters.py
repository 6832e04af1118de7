"""The adapters' hooks are loaded in every process that uses volumes, whether or not the engine is there."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys

import pytest

from volume_core.plugins.manager import ENTRY_POINT_GROUP

OURS = [
    found.value
    for found in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)
    if found.dist.name == "volume-core"
]


def test_there_is_an_entry_point_for_each_adapter():
    assert {"volume_airflow.hookimpls", "volume_flyte.hooks", "volume_prefect.hooks"} <= set(OURS)


@pytest.mark.parametrize("module", OURS)
def test_to_load_an_adapters_hooks_loads_no_engine_and_nothing_of_volumes_that_is_slow(module):
    code = (
        f"import sys, {module}\n"
        "engines = {'airflow', 'flyte', 'flytekit', 'kubernetes', 'prefect'}\n"
        "slow = {'pydantic', 'volume_core.volumes', 'asyncio'} | engines\n"
        "assert not slow & set(sys.modules), slow & set(sys.modules)"
    )

    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

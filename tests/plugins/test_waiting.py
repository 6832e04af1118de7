"""An engine's plugin waits for the classes: it costs nothing before, and takes nothing down."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

import volume_core.volumes
from volume_core.plugins import waiting
from volume_core.plugins.waiting import when_volumes_load


def test_where_the_classes_are_loaded_it_is_called_at_once():
    called: list[type] = []
    when_volumes_load(lambda: called.append(volume_core.volumes.Volume))

    assert [volume_core.volumes.Volume] == called


def test_where_they_are_not_it_is_called_when_they_are_and_once():
    program = """
import sys
from volume_core.plugins.waiting import when_volumes_load
when_volumes_load(lambda: print("loaded", sys.modules["volume_core.volumes"].ROVolume.__name__))
print("waiting", "pydantic" in sys.modules, "volume_core.volumes" in sys.modules)
import volume_core
volume_core.RWVolume
from volume_core.volumes import Volume
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert ["waiting False False", "loaded ROVolume"] == run.stdout.splitlines()
    assert "" == run.stderr


@pytest.mark.loud
def test_one_that_fails_is_named_and_the_next_is_called(monkeypatch, caplog):
    called: list[int] = []
    monkeypatch.setattr(waiting, "_loaded", False)
    when_volumes_load(lambda: called.append(1 // 0))
    when_volumes_load(lambda: called.append(2))
    with caplog.at_level(logging.WARNING):
        waiting.volumes_loaded()

    assert [2] == called
    assert f"{__name__} could not make volumes a type of its engine" in caplog.text
    assert "ZeroDivisionError" in caplog.text

"""Importing flytekit with us installed: it never fails, costs next to nothing, and is all that is needed."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
from flytekit.core.type_engine import TypeEngine, UnionTransformer
from mashumaro.core.meta.types.pack import PackerRegistry
from pydantic import BaseModel

from volume_core import ROVolume, RWVolume, Volume
from volume_flyte import fields
from volume_flyte.v1 import plugin, registering
from volume_flyte.v1.nesting import VolumeModelTransformer, VolumeUnionTransformer
from volume_flyte.v1.transformer import transformer

# Counts processor time: what a busy machine does besides is not ours.
COST = """
import importlib, sys, time, types
NAME = "volume_flyte.v1.plugin"
sys.modules[NAME] = types.ModuleType(NAME)  # what flytekit loads is timed by itself
import flytekit
assert "volume_flyte" not in sys.modules
del sys.modules[NAME]
began, known = time.thread_time(), set(sys.modules)
importlib.import_module(NAME)
print(time.thread_time() - began)
print(*(each for each in set(sys.modules) - known if not each.startswith("volume_flyte")))
from flytekit.core.type_engine import TypeEngine
from flytekit.models.types import LiteralType, SimpleType
guessed = TypeEngine.guess_python_type(LiteralType(simple=SimpleType.STRUCT, metadata={"x-volume": "v1"}))
print(guessed.__name__, TypeEngine.get_transformer(guessed).name)
"""
ORDER = """
import {first}
import {second}
from volume_core import ROVolume
from flytekit.core.type_engine import TypeEngine
print(TypeEngine.get_transformer(ROVolume).name)
"""


def python(code: str, *path: Path) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([*map(str, path), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd="/",
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )


def test_import_flytekit_costs_less_than_50_ms_and_loads_no_volume_until_one_is_asked_for():
    spent, loaded, guessed = python(COST).stdout.splitlines()

    assert float(spent) < 0.05
    assert {"volume_core", "volume_core.plugins", "volume_core.plugins.waiting"} == set(loaded.split())
    assert "ROVolume Volume" == guessed


def test_import_flytekit_does_not_fail_where_volume_core_is_broken(tmp_path):
    package = tmp_path / "volume_core"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('half installed')")
    ran = python("import flytekit; print(flytekit.task)", tmp_path)

    assert "<function task" in ran.stdout, ran.stderr
    assert "tasks cannot take or return volumes: RuntimeError: half installed; is volume-core whole" in ran.stderr


@pytest.mark.parametrize(
    ("first", "second"), [("volume_core.volumes", "flytekit"), ("flytekit", "volume_core.passing")]
)
def test_either_may_be_loaded_first_and_the_classes_by_whatever_needs_them(first, second):
    assert ["Volume"] == python(ORDER.format(first=first, second=second)).stdout.split()


def test_registering_again_changes_nothing():
    registry, packers = dict(TypeEngine._REGISTRY), list(PackerRegistry._registry)
    registering.register()
    plugin._load()

    assert registry == TypeEngine._REGISTRY
    assert packers == PackerRegistry._registry
    assert 1 == packers.count(fields._packer)


def test_every_class_has_the_transformer_and_unions_and_models_have_ours():
    assert {transformer()} == {TypeEngine._REGISTRY[each] for each in (Volume, ROVolume, RWVolume)}
    assert isinstance(TypeEngine.get_transformer(int | None), VolumeUnionTransformer)
    assert isinstance(TypeEngine.get_transformer(BaseModel), VolumeModelTransformer)


def test_a_transformer_that_another_plugin_has_put_there_is_left_alone(monkeypatch):
    class Theirs(UnionTransformer):
        pass

    theirs = Theirs()
    monkeypatch.setitem(TypeEngine._REGISTRY, types.UnionType, theirs)
    registering.register()

    assert theirs is TypeEngine.get_transformer(int | None)


def test_flytekits_transformer_of_unions_is_still_replaced_where_it_is_its_own(monkeypatch):
    union = types.UnionType
    monkeypatch.setitem(TypeEngine._REGISTRY, union, UnionTransformer())
    registering.register()

    assert isinstance(TypeEngine._REGISTRY[union], VolumeUnionTransformer)


def test_what_is_loaded_for_everyone_imports_no_sdk():
    names = "volume_flyte, volume_flyte.hooks, volume_flyte.s3"
    code = f"import sys, {names}; print([each for each in ('flytekit', 'flyte', 'kubernetes') if each in sys.modules])"

    assert "[]" == python(code).stdout.strip()

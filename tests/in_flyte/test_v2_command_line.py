"""flyte 2's command line: volumes as parameters of `flyte run`, and our commands within it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from v2_kit import committed

from volume_core import ROVolume

ROOT = Path(__file__).parents[2]
GROUP = "flyte.plugins.cli.commands"
FLYTE = str(Path(sys.executable).with_name("flyte"))
TASKS = """
import flyte
from volume_core import ROVolume, RWVolume, Volume

env = flyte.TaskEnvironment("from-the-command-line")


@env.task
async def read(volume: ROVolume) -> str:
    return f"{type(volume).__name__} {volume.locator}"


@env.task
async def write(volume: RWVolume) -> str:
    return f"{type(volume).__name__} {volume.locator}"


@env.task
async def several(volumes: list[ROVolume], maybe: ROVolume | None = None) -> str:
    return " ".join([str(maybe and maybe.locator), *(each.locator for each in volumes)])


@env.task
async def defaulted(volume: ROVolume = Volume.from_locator_sync({default!r})) -> str:
    return f"{type(volume).__name__} {volume.locator}"
"""


@pytest.fixture
def flyte(tmp_path):
    """Run flyte's command; return what it printed, in one line."""

    def run(*arguments: str, code: int = 0) -> str:
        own = {"HOME": str(tmp_path / "home"), "VOLUME_MOUNT_ROOT": str(tmp_path / "mounts"), "COLUMNS": "4000"}
        done = subprocess.run(
            [FLYTE, *map(str, arguments)],
            env={**os.environ, **own}, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert code == done.returncode, done.stdout + done.stderr
        return " ".join(re.sub(r"\x1b\[[0-9;]*m|[│╭╰─╮╯]", "", done.stdout + done.stderr).split())

    return run


@pytest.fixture
def version() -> ROVolume:
    return committed()


@pytest.fixture
def tasks(tmp_path, version) -> str:
    (tmp_path / "tasks.py").write_text(TASKS.replace("{default!r}", repr(committed("default").locator)))
    return "tasks.py"


SPELLINGS = {
    "a locator's JSON": ("read", "ROVolume", lambda version: json.dumps(version.locator)),
    "a name's JSON": ("write", "RWVolume", lambda version: json.dumps(version.name)),
    "a mapping": ("defaulted", "ROVolume", lambda version: json.dumps({"locator": version.locator})),
    "a record": ("read", "ROVolume", lambda version: version.model_dump_json()),
}


@pytest.mark.parametrize(("task", "kind", "spell"), SPELLINGS.values(), ids=SPELLINGS)
def test_a_volume_may_be_given_to_flyte_run(flyte, tasks, version, task, kind, spell):
    assert f'o0="{kind} {version.locator}"' in flyte("run", "--local", tasks, task, "--volume", spell(version))


def test_lists_optional_volumes_and_defaults_of_flyte_run(flyte, tasks, version):
    each, other = json.dumps(version.locator), committed("other")
    volumes = f'[{each}, {{"locator": "{other.locator}"}}]'

    given = flyte("run", "--local", tasks, "several", "--volumes", volumes, "--maybe", each)
    assert f'o0="{version.locator} {version.locator} {other.locator}"' in given
    assert f'o0="None {version.locator}"' in flyte("run", "--local", tasks, "several", "--volumes", f"[{each}]")
    assert "ROVolume file:" in flyte("run", "--local", tasks, "defaulted")


def test_what_is_no_volume_is_told_before_anything_runs(flyte, tasks):
    assert "names no volume" in flyte("run", "--local", tasks, "read", "--volume", '"no where"', code=1)
    assert "there is no volume 'nowhere'" in flyte("run", "--local", tasks, "read", "--volume", '"nowhere"', code=1)


# -- our commands in flyte's


@pytest.fixture
def installed(tmp_path, monkeypatch) -> None:
    """The entry points of pyproject.toml, whatever is installed."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    lines = [f"[{GROUP}]", *(f"{name} = {where}" for name, where in groups[GROUP].items())]
    info = tmp_path / "site" / "volume_core_of_this_checkout-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: volume-core-of-this-checkout\nVersion: 0\n")
    (info / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(info.parent), os.environ.get("PYTHONPATH", "")]))


def test_verb_and_noun_as_flyte_has_them(installed, flyte):
    locator = flyte("create", "volume", "data", "-m", "empty")

    [found] = json.loads(flyte("get", "volume", "--json"))
    assert ("data", locator) == (found["name"], found["locator"])
    assert "empty" == json.loads(flyte("get", "volume", "data", "--json"))["message"]
    assert "data" in flyte("get", "volume")
    flyte("delete", "volume", "data", "--yes")
    assert [] == json.loads(flyte("get", "volume", "--json"))


def test_mounts_and_everything_else_that_volume_does(installed, flyte):
    flyte("volume", "new", "data")

    path = flyte("mount", "volume", "data", "--rw", "--driver", "copy", "--detach")
    (Path(path) / "a.txt").write_text("a")
    flyte("volume", "commit", path, "-m", "by hand")
    flyte("unmount", "volume", path)

    assert not Path(path).exists() or not any(Path(path).iterdir())
    assert "a.txt" == flyte("volume", "ls", "data")
    assert "by hand" in flyte("volume", "log", "data")


def test_errors_are_ours_with_our_exit_codes(installed, flyte):
    committed()

    assert "there is no volume 'nowhere'" in flyte("get", "volume", "nowhere", code=3)
    assert "there is no volume 'nowhere'" in flyte("mount", "volume", "nowhere", code=3)
    assert "there is no volume 'nowhere'" in flyte("volume", "log", "nowhere", code=3)
    assert "explore needs a terminal" in flyte("explore", "volume", "data", code=1)
    assert "Usage: flyte create volume [OPTIONS] [NAME]" in flyte("create", "volume", "--help")

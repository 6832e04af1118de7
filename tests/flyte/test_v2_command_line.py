"""flyte 2's command line: volumes as parameters of `flyte run`, and our commands within it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from v2_kit import committed

from volume_core import ROVolume

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

"""`pyflyte run`: a volume is a name, a locator, a vol:// URL or a record's JSON."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Annotated, Optional

import click
import pytest
from click.testing import CliRunner
from flytekit import FlyteContextManager
from flytekit.core.type_engine import TypeEngine
from v1_kit import made

from volume_core import ROVolume, RWVolume, Volume
from volume_flyte.v1 import commandline

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the libraries that flytekit's command line is made of
    from flytekit.clis.sdk_in_container.pyflyte import main
    from flytekit.interaction import click_types
    from flytekit.interaction.click_types import FlyteLiteralConverter

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

PROGRAM = """
from typing import Dict, List, Optional
from flytekit import task, workflow
from volume_core import ROVolume, RWVolume

@task
def show(data: ROVolume) -> str:
    print("GOT", data.locator)
    return data.name

@task
def write(data: RWVolume) -> RWVolume:
    print("FORK", data.committed.locator, type(data).__name__)
    return data

@task
def many(data: List[ROVolume], more: Dict[str, ROVolume], maybe: Optional[ROVolume] = None) -> str:
    print("GOT", [each.locator for each in data], sorted(more), maybe and maybe.locator)
    return ""

@workflow
def wf(data: ROVolume) -> str:
    return show(data=data)
"""


@pytest.fixture
def program(tmp_path) -> Path:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


@pytest.fixture
def run(program, monkeypatch):
    """Run a task of the program by `pyflyte run`; return what was printed."""
    monkeypatch.chdir(program.parent)

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(main, ["run", str(program), *arguments])
        return result.output + (f"{result.exception!r}" if result.exit_code else "")

    yield run
    sys.modules.pop("program", None)


def test_the_command_itself(program):
    """In a process of its own: the command line is loaded there before any class of a volume."""
    version = made("data", a="a")
    command = [str(Path(sys.executable).with_name("pyflyte")), "run", program.name, "wf", "--data", "data"]
    ran = subprocess.run(command, cwd=program.parent, capture_output=True, text=True, check=False)

    assert f"GOT {version.locator}" in ran.stdout, ran.stdout + ran.stderr


@pytest.mark.parametrize("form", ["name", "tag", "locator", "url", "record", "JSON text", "file", "mapping"])
def test_every_form_of_a_volume(run, form, tmp_path):
    version = made("data", a="a")
    version.tag_sync("best")
    record = version.model_dump_json()
    (tmp_path / "record.json").write_text(record)
    given = {
        "name": "data",
        "tag": "data:best",
        "locator": version.locator,
        "url": "vol://data~best",
        "record": record,
        "JSON text": '"data"',
        "file": "record.json",
        "mapping": json.dumps({"locator": "data"}),
    }[form]

    assert f"GOT {version.locator}" in run("show", "--data", given)
    assert f"FORK {version.locator} RWVolume" in run("write", "--data", given)


def test_lists_dictionaries_and_optionals(run):
    one, two = made("one", a="1"), made("two", a="2")
    arguments = ["--data", '["one", "two"]', "--more", '{"x": "one"}']

    assert f"GOT {[one.locator, two.locator]} ['x'] None" in run("many", *arguments)
    assert f"GOT {[one.locator, two.locator]} ['x'] {two.locator}" in run("many", *arguments, "--maybe", "two")


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("nothing", "NotFoundError.*nothing"),
        ("a b", "names no volume: give a version's locator, NAME or NAME:REF"),
        ('{"locator": 3}', "a mapping that stands for a volume has a `locator`"),
        ('{"locator"', "should be a valid json object"),
        ("vol://data/a/file", "is no volume's root"),
    ],
)
def test_what_is_no_volume_is_an_error_of_the_parameter_that_says_what_may_be_given(run, given, reason):
    made("data", a="a")
    shown = " ".join(run("show", "--data", given).replace("│", " ").split())

    assert "Invalid value for '--data'" in shown
    assert re.search(reason, shown), shown


def test_the_help_names_the_forms(run):
    assert "volume: NAME" in run("show", "--help").replace("VOLUME", "volume")


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        (ROVolume, True),
        (Annotated[RWVolume, "x"], True),
        (Optional[Volume], True),  # noqa: UP045
        (list[ROVolume] | None, True),
        (dict[str, list[ROVolume]], True),
        (dict[str, int], False),
        (ROVolume | int, False),
        (list, False),
        (dict, False),
        (str, False),
    ],
)
def test_only_parameters_that_hold_volumes_alone_are_ours(declared, expected):
    assert expected is commandline.holds_only_volumes(declared)


def test_a_value_for_a_cluster_is_the_literal_of_the_version():
    version = made("data", a="a")
    context = FlyteContextManager.current_context()
    for declared in (ROVolume, RWVolume):
        literal_type = TypeEngine.to_literal_type(declared)
        converter = FlyteLiteralConverter(context, literal_type, declared, is_remote=True)
        value = converter.click_type.convert("data", None, click.Context(click.Command("x")))
        literal = converter.convert(click.Context(click.Command("x")), None, value)

        assert version == TypeEngine.to_python_value(context, literal, ROVolume)


def test_the_command_line_is_extended_once_and_others_parameters_are_flytekits():
    commandline.register()
    before = click_types.literal_type_to_click_type
    commandline.register()

    assert before is click_types.literal_type_to_click_type
    original = before.volume_flyte_original
    for declared in (int, str, dict, list[int]):
        literal_type = TypeEngine.to_literal_type(declared)
        assert type(original(literal_type, declared)) is type(before(literal_type, declared))

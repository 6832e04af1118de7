"""flytekit in a container: `pyflyte-execute` with inputs.pb in, and outputs.pb or error.pb out.

One process runs all tasks of this file but one, as v1_container.py says.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import v1_tasks
from flyteidl.core import dynamic_job_pb2, errors_pb2, literals_pb2
from flytekit import FlyteContextManager, map_task
from flytekit.configuration import Image, ImageConfig, SerializationSettings
from flytekit.core.type_engine import TypeEngine, TypeTransformerFailedError
from flytekit.exceptions.system import FlyteDownloadDataException
from flytekit.models.literals import Literal, LiteralMap, Scalar
from google.protobuf import json_format, struct_pb2
from v1_kit import contents, failing, made

from volume_core import ActionRef, ROVolume, RWVolume, Volume

HERE = Path(__file__).parent
RECOVERABLE, NON_RECOVERABLE = (getattr(errors_pb2.ContainerError, kind) for kind in ("RECOVERABLE", "NON_RECOVERABLE"))
EXECUTION = {
    "FLYTE_INTERNAL_EXECUTION_PROJECT": "vision",
    "FLYTE_INTERNAL_EXECUTION_DOMAIN": "development",
    "FLYTE_INTERNAL_EXECUTION_ID": "f1234",
    "FLYTE_INTERNAL_TASK_NAME": "v1_tasks.who",
    "FLYTE_ATTEMPT_NUMBER": "2",
    "BATCH_JOB_ARRAY_INDEX_VAR_NAME": "INDEX",
    "INDEX": "1",
    "FLYTE_EXECUTION_URL": "https://flyte.example/console/f1234",
}


@dataclass
class Ran:
    """What a task has left in its output prefix."""

    directory: Path

    @property
    def outputs(self) -> dict[str, Literal]:
        """The literals of outputs.pb."""
        found = literals_pb2.LiteralMap.FromString((self.directory / "outputs.pb").read_bytes())
        return LiteralMap.from_flyte_idl(found).literals

    @property
    def error(self) -> errors_pb2.ContainerError:
        """What error.pb says."""
        assert not (self.directory / "outputs.pb").exists()
        return errors_pb2.ErrorDocument.FromString((self.directory / "error.pb").read_bytes()).error

    def value(self, declared, name: str = "o0"):
        """An output as what *declared* says."""
        return TypeEngine.to_python_value(FlyteContextManager.current_context(), self.outputs[name], declared)


def literal(value, declared) -> Literal:
    context = FlyteContextManager.current_context()
    return TypeEngine.to_literal(context, value, declared, TypeEngine.to_literal_type(declared))


def volumes(ran) -> list[str]:
    """The names of the volumes that the tasks have committed."""
    return [each.name for each in Volume.list_sync(ran.given.store_url)]


def generic(record: dict[str, str]) -> Literal:
    """What a form sends."""
    return Literal(scalar=Scalar(generic=json_format.ParseDict(record, struct_pb2.Struct())))


def settings() -> SerializationSettings:
    image = ImageConfig(default_image=Image("image", "registry/image", "1"))
    return SerializationSettings(image, project="vision", domain="development", version="v")


def command(root: Path, label: str, task: Any, inputs: dict[str, Literal], raw: str | None = None) -> list[str]:
    """Return the command of *task*'s container, filled in as the cluster does, with its inputs written."""
    directory = root / "metadata" / "propeller" / "vision-development-f1234" / label / "data" / "2"
    directory.mkdir(parents=True)
    given = directory.with_suffix(".inputs")
    given.write_bytes(LiteralMap(inputs).to_flyte_idl().SerializeToString())
    filled = {
        "{{.input}}": str(given),
        "{{.outputPrefix}}": str(directory),
        "{{.rawOutputDataPrefix}}": raw or str(root / "raw"),
        "{{.checkpointOutputPrefix}}": str(directory / "checkpoints"),
        "{{.prevCheckpointPrefix}}": '""',
    }
    return [filled.get(argument, argument) for argument in task.get_container(settings()).args]


def environment(**more: str) -> dict[str, str]:
    """What a container's environment says, and where the tasks are."""
    paths = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH", "")]))
    quiet = {"FLYTE_SDK_LOGGING_LEVEL": "50", "FLYTE_SDK_RICH_TRACEBACKS": "0"}
    return os.environ | EXECUTION | quiet | {"PYTHONPATH": paths, "_F_SS_C": settings().serialized_context} | more


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Every task of this file, run in one process; by label.  `given` are the versions that were their inputs."""
    root = tmp_path_factory.mktemp("container")
    patch = pytest.MonkeyPatch()
    patch.setenv("VOLUME_STATE_DIR", str(root / "state"))
    patch.setenv("VOLUME_MOUNT_ROOT", str(root / "mounts"))
    given = made("given", a="given")
    text = {label: {"name": literal(label, str)} for label in ("made", "transient", "permanent", "body")}
    console = generic({"locator": given.locator})
    jobs = {
        "make": (v1_tasks.make, text["made"]),
        "mapped": (map_task(v1_tasks.make), {"name": literal(["zero", "one"], list[str])}),
        "add": (v1_tasks.add, {"data": literal(given, ROVolume)}),
        "read": (v1_tasks.read, {"data": literal(given.fork_sync("other"), RWVolume)}),
        "console": (v1_tasks.read, {"data": console}),
        "shown": (v1_tasks.shown, {"data": literal(given, ROVolume)}),
        "body": (v1_tasks.body_fails, text["body"]),
        "dynamic": (v1_tasks.dynamically, text["made"]),
        "who": (v1_tasks.who, {}),
        "who-dynamically": (v1_tasks.who_dynamically, {}),
        **{
            f"{task}-{kind}": (getattr(v1_tasks, task), text[kind])
            for task in ("unstored", "unstored_maybe", "unstored_field", "unstored_model")
            for kind in ("transient", "permanent")
        },
    }
    raw = {"who": "s3://my-bucket/raw/xy/f1234-n0-0"}
    commands = [command(root, label, *job, raw.get(label)) for label, job in jobs.items()]
    (root / "jobs.json").write_text(json.dumps(commands))
    run = subprocess.run(
        [sys.executable, str(HERE / "v1_container.py"), str(root / "jobs.json")],
        env=environment(), cwd=root, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert 0 == run.returncode, run.stderr
    yield SimpleNamespace(
        **{label.replace("-", "_"): Ran(Path(made[4])) for label, made in zip(jobs, commands, strict=True)}, given=given
    )
    patch.undo()


def test_what_is_returned_is_committed_before_the_outputs_are_written(ran):
    version = ran.make.value(ROVolume)

    assert {"a": "made"} == contents(version)
    assert "made" == version.name


def test_one_of_a_map_task_is_committed(ran):
    assert {"a": "one"} == contents(ran.mapped.value(ROVolume))


def test_a_version_comes_in_as_a_fork_and_what_was_added_goes_out_as_its_child(ran):
    child = ran.add.value(ROVolume)

    assert "a" == ran.add.value(str, "o1")  # what the body saw committed
    assert {"a": "given", "b": "b"} == contents(child)
    assert [child, ran.given] == [entry.volume for entry in child.log_sync()]


@pytest.mark.parametrize("label", ["read", "console"])
def test_a_fork_and_a_locator_come_in_as_the_version(ran, label):
    assert "given" == getattr(ran, label).value(str)


def test_an_error_of_the_body_is_told_as_ever_and_nothing_is_committed(ran):
    assert (NON_RECOVERABLE, "USER:RuntimeError") == (ran.body.error.kind, ran.body.error.code)
    assert "ValueError: the body" in ran.body.error.message
    assert "made" in volumes(ran) and "body" not in volumes(ran)


@pytest.mark.parametrize("where", ["unstored", "unstored_maybe", "unstored_field", "unstored_model"])
class TestACommitThatFails:
    """Alone, in an Optional, in a dataclass and in a pydantic model."""

    def test_for_the_moment_is_recoverable(self, ran, where):
        error = getattr(ran, f"{where}_transient").error

        assert (RECOVERABLE, "SYSTEM") == (error.kind, error.code)
        assert "not committed: injected: put_new" in error.message

    def test_for_good_is_not_and_says_why(self, ran, where):
        error = getattr(ran, f"{where}_permanent").error

        assert (NON_RECOVERABLE, "SYSTEM") == (error.kind, error.code)
        assert "injected: put_new" in error.message


def test_a_writer_in_the_body_of_a_dynamic_workflow_is_committed_though_it_is_compiled(ran):
    spec = dynamic_job_pb2.DynamicJobSpec.FromString((ran.dynamic.directory / "futures.pb").read_bytes())
    bound = spec.nodes[0].inputs[0].binding.scalar
    value = Literal.from_flyte_idl(literals_pb2.Literal(scalar=bound))
    version = TypeEngine.to_python_value(FlyteContextManager.current_context(), value, ROVolume)

    assert {"a": "made"} == contents(version)


def test_a_deck_shows_what_was_committed(ran):
    page = (ran.shown.directory / "deck.html").read_text()

    assert ran.shown.value(ROVolume).version in page
    assert "given" in page


def test_who_runs_and_where_its_volumes_lie(ran):
    action, bucket = ran.who.value(list[str])

    assert "s3://my-bucket/volumes/vision/development" == bucket
    assert action == str(
        ActionRef(
            engine="flyte",
            project="vision",
            domain="development",
            run="f1234",
            action="who v1_tasks.who",
            attempt="2",
            url="https://flyte.example/console/f1234",
        )
    )


def test_who_runs_is_known_within_a_dynamic_workflow_too(ran):
    assert "f1234-who-dynamically-v1_tasks-who" in volumes(ran)


def test_the_version_says_who_made_it_and_who_made_what_it_came_from(ran):
    made_by = ran.make.value(ROVolume).produced_by

    assert ("flyte", "f1234", "2") == (made_by.engine, made_by.run, made_by.attempt)
    assert made_by.action.startswith("make ")
    assert ran.add.value(ROVolume).parent_produced_by is None  # `given` was made by no task


@pytest.mark.fuse
def test_the_command_itself_with_a_real_mount(tmp_path):
    ran = subprocess_of(tmp_path, v1_tasks.mounted, {"name": literal("m", str)})

    assert {"a": "m"} == contents(ran.value(ROVolume))


def test_threads_of_a_tasks_own_and_imports_have_the_store_of_the_run_too(tmp_path):
    ran = subprocess_of(tmp_path, v1_tasks.where, {}, raw="s3://my-bucket/raw/xy/f1234-n0-0")

    assert ["s3://my-bucket/volumes/vision/development"] * 3 == ran.value(list[str])


def subprocess_of(root: Path, task: Any, inputs: dict[str, Literal], raw: str | None = None) -> Ran:
    """Run *task* by the command that a container runs."""
    name, *arguments = command(root, "n0", task, inputs, raw)
    program = Path(sys.executable).with_name(name)
    subprocess.run(
        [str(program), *arguments],
        env=environment(TEST_DRIVER="kernel"), cwd=root, capture_output=True, timeout=120, check=True,
    )  # fmt: skip
    return Ran(Path(arguments[3]))


def test_a_lookup_that_fails_for_the_moment_says_so_though_flytekit_retries_no_input():
    """flytekit turns every error of an input into one of types: what it would retry does not get through."""
    version = made("a", a="a")
    given = LiteralMap({"data": literal({"locator": version.locator}, ROVolume)})
    transformer = TypeEngine.get_transformer(ROVolume)
    console = generic({"locator": version.locator})
    context = FlyteContextManager.current_context()

    with failing(operations=frozenset({"get"})):
        with pytest.raises(FlyteDownloadDataException, match="could not be looked up: injected: get"):
            transformer.to_python_value(context, console, ROVolume)
        with pytest.raises(TypeTransformerFailedError, match="could not be looked up: injected: get"):
            TypeEngine.literal_map_to_kwargs(context, LiteralMap({"data": console}), {"data": ROVolume})
        assert {"data": version} == TypeEngine.literal_map_to_kwargs(context, given, {"data": ROVolume})

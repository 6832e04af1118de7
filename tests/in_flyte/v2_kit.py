"""What the tests of flyte 2 share: local runs whose files lie in the test's directory, and containers run by hand."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import flyte
import msgpack
import pytest
from flyte._internal.runtime import convert
from flyte.types import TypeEngine
from flyteidl2.core import execution_pb2, literals_pb2
from flyteidl2.task import common_pb2

from volume_core import ROVolume, RWVolume, Volume

with warnings.catch_warnings():  # flyte imports it later, and defines models in a way that pydantic warns of
    warnings.simplefilter("ignore")
    import flyte.io

A0 = str(Path(sys.executable).with_name("a0"))


class Local:
    """Runs tasks in this process, with everything that flyte writes below *directory*."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        monkeypatch.setenv("HOME", str(directory / "home"))
        monkeypatch.setenv("VOLUME_DRIVER", "copy")  # tests that are not about mounts need no privilege
        monkeypatch.setenv("VOLUME_MOUNT_ROOT", str(directory / "mounts"))
        flyte.init()

    def __call__(self, task: Any, _name: str | None = None, **inputs: object) -> Any:
        """Return what *task* returns."""
        made = flyte.with_runcontext(mode="local", name=_name, raw_data_path=str(self.directory / "raw"))
        made._metadata_path = str(self.directory / "metadata")
        outputs = made.run(task, **inputs).outputs()
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def reports(self) -> list[str]:
        """The reports that were written, in no order."""
        return [each.read_text() for each in (self.directory / "metadata").rglob("report.html")]


def written(name: str = "data", files: dict[str, str] | None = None) -> RWVolume:
    """A writer with *files* in it that are not committed, mounted."""
    volume = Volume.new(name)
    path = volume.mount_sync()
    for each, text in (files or {"a.txt": "a"}).items():
        (path / each).write_text(text)
    return volume


def committed(name: str = "data", files: dict[str, str] | None = None) -> ROVolume:
    """A version with *files* in it."""
    return written(name, files).finalize_sync()


def names(volume: Volume) -> list[str]:
    """The paths of a volume's files."""
    return sorted(each.path for each in volume.listdir_sync("/", recursive=True))


async def literal_of(value: object, declared: Any = ROVolume) -> literals_pb2.Literal:
    """What flyte makes of *value* for a parameter that is *declared* so."""
    return await TypeEngine.to_literal(value, declared, TypeEngine.to_literal_type(declared))


def record_in(literal: literals_pb2.Literal) -> dict[str, Any]:
    """What a literal of a volume holds."""
    assert "msgpack" == literal.scalar.binary.tag
    return msgpack.unpackb(literal.scalar.binary.value)


async def inputs_of(task: Any, **inputs: object) -> bytes:
    """The inputs of a call, as a container is given them."""
    made = await convert.convert_from_native_to_inputs(task.native_interface, **inputs)
    return made.proto_inputs.SerializeToString()


class Container:
    """A task's container, run by hand: flyte's own entry point, in a process of its own, without a cluster."""

    def __init__(self, directory: Path, module: str, environ: dict[str, str]) -> None:
        self.directory = directory
        self.outputs = directory / "outputs"
        self._module = module
        self.environ = environ | {"_U_EP_OVERRIDE": "dns:///localhost:1", "_U_INSECURE": "true"}

    def run(self, task: str, inputs: bytes, *, name: str = "a0", raw: str | None = None) -> str:
        """Run *task* with *inputs*; return what it logged."""
        self.outputs.mkdir(parents=True, exist_ok=True)
        (self.directory / "inputs.pb").write_bytes(inputs)
        command = [
            A0,
            *("--inputs", self.directory / "inputs.pb", "--outputs-path", self.outputs, "--version", "v1"),
            *("--run-base-dir", self.directory / "base", "--raw-data-path", raw or self.directory / "raw"),
            *("--checkpoint-path", self.directory / "checkpoint", "--prev-checkpoint", ""),
            *("--run-name", "run-1", "--name", name, "--org", "acme", "--project", "p", "--domain", "d"),
            *("--resolver", "flyte._internal.resolvers.default.DefaultTaskResolver"),
            *("mod", self._module, "instance", task),
        ]
        done = subprocess.run(
            list(map(str, command)),
            env=self.environ, cwd=self.directory, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert 0 == done.returncode, done.stdout + done.stderr
        return done.stdout + done.stderr

    def output(self) -> literals_pb2.Literal:
        """The one value that the task returned."""
        [named] = common_pb2.Outputs.FromString((self.outputs / "outputs.pb").read_bytes()).literals
        return named.value

    def error(self) -> execution_pb2.ContainerError:
        """The error that the cluster is told of."""
        return execution_pb2.ErrorDocument.FromString((self.outputs / "error.pb").read_bytes()).error

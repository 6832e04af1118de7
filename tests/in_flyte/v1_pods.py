"""A workflow as flytekit registers it, and its tasks run by hand as their pods would, by the registered command.

Each is a process of its own, so that it can be killed, and several run at once; all they share is the store.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flyteidl.core import dynamic_job_pb2, errors_pb2, literals_pb2
from flytekit import FlyteContextManager
from flytekit.configuration import Image, ImageConfig, SerializationSettings
from flytekit.core.type_engine import TypeEngine
from flytekit.models.dynamic_job import DynamicJobSpec
from flytekit.models.literals import LiteralMap
from flytekit.models.task import TaskSpec
from flytekit.tools.translator import get_serializable

from volume_core.parts.state import State

HERE = Path(__file__).parent
SCRIPTS = Path(sys.executable).parent
SETTINGS = SerializationSettings(
    project="p",
    domain="d",
    version="v",
    image_config=ImageConfig(default_image=Image("default", "registry/image", "1")),
)


@dataclass
class Pod:
    """One attempt of a task: its process, and what it leaves."""

    process: subprocess.Popen[str]
    directory: Path
    said: str = field(default="", init=False)

    def wait(self) -> Pod:
        """Wait for its end."""
        self.said = self.process.communicate(timeout=120)[0]
        return self

    def kill(self) -> None:
        """End it as a node's crash would."""
        self.process.kill()
        self.wait()

    def output(self, declared: Any, name: str = "o0") -> Any:
        """What the task returned, as *declared*."""
        assert (self.directory / "out" / "outputs.pb").exists(), self.said
        found = literals_pb2.LiteralMap.FromString((self.directory / "out" / "outputs.pb").read_bytes())
        literal = LiteralMap.from_flyte_idl(found).literals[name]
        return TypeEngine.to_python_value(FlyteContextManager.current_context(), literal, declared)

    def error(self) -> errors_pb2.ContainerError:
        """The error that the cluster is told of."""
        assert (self.directory / "out" / "error.pb").exists(), self.said
        return errors_pb2.ErrorDocument.FromString((self.directory / "out" / "error.pb").read_bytes()).error

    def tasks(self) -> dict[str, Any]:
        """The templates of the tasks that a dynamic one wants to have run, by their names."""
        found = dynamic_job_pb2.DynamicJobSpec.FromString((self.directory / "out" / "futures.pb").read_bytes())
        return {each.id.name: each for each in DynamicJobSpec.from_flyte_idl(found).tasks}


class Registered:
    """What `pyflyte register` would send for an entity: `spec`, and `templates` of tasks by their names."""

    def __init__(self, entity: Any, directory: Path) -> None:
        mapping: OrderedDict[Any, Any] = OrderedDict()
        self.spec = get_serializable(mapping, SETTINGS, entity)
        self.templates = {
            each.template.id.name: each.template for each in mapping.values() if isinstance(each, TaskSpec)
        }
        self._directory = directory
        self._attempts: dict[str, int] = {}

    def run(self, name: str, /, **inputs: Any) -> Pod:
        """Start a task's pod and wait for its end; see `start`."""
        return self.start(name, **inputs).wait()

    def start(
        self,
        name: str,
        /,
        *,
        template: Any = None,
        retry_of: Pod | None = None,
        index: int | None = None,
        **inputs: Any,
    ) -> Pod:
        """Start a pod of the task called *name*, whose *template* a dynamic task may have given.

        *retry_of* is the attempt before it; *index* the place in a list, for a task that is mapped.
        """
        number = self._attempts[name] = self._attempts.get(name, -1) + 1
        pod = self._directory / f"{name}-{number}"
        pod.mkdir(parents=True)
        (pod / "inputs.pb").write_bytes(literals(inputs))
        template = template or self.templates[name]
        filled = {
            "{{.input}}": pod / "inputs.pb",
            "{{.outputPrefix}}": pod / "out",
            "{{.rawOutputDataPrefix}}": pod / "raw",
            "{{.checkpointOutputPrefix}}": pod / "checkpoint",
            "{{.prevCheckpointPrefix}}": retry_of.directory / "checkpoint" if retry_of else '""',
        }
        program, *arguments = [str(filled.get(each, each)) for each in template.container.args]
        env = os.environ | (template.container.env or {}) | execution(number) | self.disk(pod)
        env["PYTHONPATH"] = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))
        if index is not None:
            env |= {"BATCH_JOB_ARRAY_INDEX_VAR_NAME": "INDEX", "INDEX": str(index)}
        process = subprocess.Popen(
            [SCRIPTS / program, *arguments],
            env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=pod,
        )  # fmt: skip
        return Pod(process, pod)

    def disk(self, pod: Path) -> dict[str, str]:
        """What a pod has of its own: a state directory, and paths that no other one on this machine can have."""
        return {
            "VOLUME_STATE_DIR": str(pod / "state"),
            "VOLUME_BUCKET": State.default().default_store_url,
            "VOLUME_TEST_LOGS": str(pod / "logs"),
        }


def literals(inputs: dict[str, Any]) -> bytes:
    """*inputs* as an inputs.pb holds them."""
    context = FlyteContextManager.current_context()
    types = {name: TypeEngine.to_literal_type(_type(value)) for name, value in inputs.items()}
    found = {name: TypeEngine.to_literal(context, value, _type(value), types[name]) for name, value in inputs.items()}
    return LiteralMap(found).to_flyte_idl().SerializeToString()


def _type(value: Any) -> Any:
    return list[_type(value[0])] if isinstance(value, list) else type(value)  # type: ignore[misc]


def execution(attempt: int) -> dict[str, str]:
    """The environment variables by which a pod knows whose it is."""
    return {
        "FLYTE_INTERNAL_EXECUTION_PROJECT": "p",
        "FLYTE_INTERNAL_EXECUTION_DOMAIN": "d",
        "FLYTE_INTERNAL_EXECUTION_ID": "run",
        "FLYTE_ATTEMPT_NUMBER": str(attempt),
    }

"""flytekit keeps what every engine's adapter promises."""

from __future__ import annotations

import asyncio
import warnings

import flytekit
import pytest
from flyteidl.core import literals_pb2
from flytekit.core.type_engine import TypeEngine
from flytekit.exceptions.system import FlyteDownloadDataException, FlyteUploadDataException
from flytekit.models.literals import Literal, Scalar
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct

from volume_core.testing.adapters import AdapterContract
from volume_flyte.v1 import commandline

with warnings.catch_warnings():  # its own imports warn with newer releases of click
    warnings.simplefilter("ignore")
    from flytekit.interaction import click_types
commandline.register()  # as in a process that is `pyflyte`


class TestFlytekit(AdapterContract):
    """Through workflows that run in this process."""

    loads = ("volume_flyte", "volume_flyte.hooks", "volume_flyte.images")
    engines = ("flytekit", "flyte", "kubernetes", "flyteidl", "mashumaro", "grpc")

    @pytest.fixture(autouse=True)
    def _own_home(self, monkeypatch, tmp_path):
        monkeypatch.setenv("HOME", str(tmp_path / "home"))

    def run(self, *functions, given=()):
        chain = flytekit.Workflow(name=f"contract.{'-'.join(each.__name__ for each in functions)}")
        inputs, values = [], {}
        for function in functions:
            task = flytekit.task(function)
            names = list(task.python_interface.inputs)
            if not inputs and not values:
                values = dict(zip(names, given, strict=True))
                inputs = [chain.add_workflow_input(name, task.python_interface.inputs[name]) for name in names]
            node = chain.add_entity(task, **dict(zip(names, inputs, strict=True)))
            inputs = [node.outputs[name] for name in task.python_interface.outputs]
        [(_, returned)] = task.python_interface.outputs.items()
        chain.add_workflow_output("o0", inputs[0], python_type=returned)
        return chain(**values)

    def encode(self, value, declared):
        context = flytekit.FlyteContextManager.current_context()
        expected = TypeEngine.to_literal_type(declared)
        literal = asyncio.run(TypeEngine.async_to_literal(context, value, declared, expected))
        return literal.to_flyte_idl().SerializeToString(deterministic=True)

    def decode(self, data, declared):
        return self._taken(Literal.from_flyte_idl(literals_pb2.Literal.FromString(data)), declared)

    def receive(self, given, declared):
        """From a command line if it is text, from a console's form if it is not."""
        if isinstance(given, str):
            parameter = click_types.literal_type_to_click_type(TypeEngine.to_literal_type(declared), declared)
            return self.decode(self.encode(parameter.convert(given, None, None), declared), declared)
        return self._taken(Literal(scalar=Scalar(generic=ParseDict(given, Struct()))), declared)

    def is_retried(self, error):
        """As the container's entry point decides, of what comes out of a conversion."""
        return isinstance(error, FlyteUploadDataException | FlyteDownloadDataException)

    @staticmethod
    def _taken(literal, declared):
        context = flytekit.FlyteContextManager.current_context()
        return asyncio.run(TypeEngine.async_to_python_value(context, literal, declared))

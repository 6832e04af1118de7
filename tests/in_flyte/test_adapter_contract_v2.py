"""flyte 2 keeps what every engine's adapter promises."""

from __future__ import annotations

import asyncio

import flyte
import pytest
from flyte.errors import NonRecoverableError, RuntimeSystemError, RuntimeUserError
from flyte.types import TypeEngine
from flyteidl2.core import literals_pb2
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct
from v2_kit import Local

from volume_core.testing.adapters import AdapterContract


class TestFlyte2(AdapterContract):
    """Through runs in this process, in which a task calls the others."""

    loads = ("volume_flyte", "volume_flyte.hooks", "volume_flyte.images")
    engines = ("flytekit", "flyte", "kubernetes", "flyteidl2", "mashumaro", "connectrpc")

    @pytest.fixture(autouse=True)
    def _local(self, tmp_path, monkeypatch):
        self.local = Local(tmp_path, monkeypatch)

    def run(self, *functions, given=()):
        env = flyte.TaskEnvironment(name="contract")
        tasks = [env.task(each) for each in functions]

        raised: list[Exception] = []

        @env.task
        async def chain() -> str:
            values = tuple(given)
            for task in tasks:
                try:
                    returned = await task.aio(*values)
                except Exception as error:
                    raised.append(error)
                    raise
                values = returned if isinstance(returned, tuple) else (returned,)
            return values[0]

        try:
            return self.local(chain)
        except Exception:  # of the task that calls the others; what one of those ended with says whether it is retried
            if raised:
                raise raised[0] from raised[0].__cause__
            raise

    def encode(self, value, declared):
        literal = asyncio.run(TypeEngine.to_literal(value, declared, TypeEngine.to_literal_type(declared)))
        return literal.SerializeToString(deterministic=True)

    def decode(self, data, declared):
        return self._taken(literals_pb2.Literal.FromString(data), declared)

    def receive(self, given, declared):
        """From a command line or a call if it is text, from a console's form if it is not."""
        if isinstance(given, str):
            return self.decode(self.encode(given, declared), declared)
        form = literals_pb2.Scalar(generic=ParseDict(given, Struct()))
        return self._taken(literals_pb2.Literal(scalar=form), declared)

    def is_retried(self, error):
        """As the cluster decides by the error's class; what is none of flyte's ends the process."""
        assert isinstance(error, RuntimeSystemError | RuntimeUserError | NonRecoverableError), repr(error)
        return not isinstance(error, NonRecoverableError)

    @staticmethod
    def _taken(literal, declared):
        return asyncio.run(TypeEngine.to_python_value(literal, declared))

    # flyte logs what a task ends with.

    @pytest.mark.loud
    def test_an_attempt_that_fails_publishes_nothing_and_the_next_one_does_not_see_it(self, version, commits):
        super().test_an_attempt_that_fails_publishes_nothing_and_the_next_one_does_not_see_it(version, commits)

    @pytest.mark.loud
    def test_a_commit_that_may_succeed_later_is_tried_again(self, version, faults):
        super().test_a_commit_that_may_succeed_later_is_tried_again(version, faults)

    @pytest.mark.loud
    def test_a_commit_that_never_will_is_not(self, version, faults):
        super().test_a_commit_that_never_will_is_not(version, faults)

"""Prefect keeps what every engine's adapter promises.

Where it is unlike the engines that the suite has in mind:

  - Values go from task to task as objects.  What Prefect keeps of one is what its result serializer writes (`encode`),
    and what a task is given of that is what it reads, as the parameter is declared (`decode`).
  - Whether a task is tried again does not depend on the error, unless the task says so by a condition
    (`is_retried`): the suite's promise is that of tasks with `unless_permanent`.
  - A failed task's handles are let go of, since the frames of its error, which Prefect keeps, would keep them mounted.
    What was written is a working copy then, which anybody recovers (`kept`).
"""

from __future__ import annotations

import pytest
from prefect import flow, task
from prefect.serializers import JSONSerializer
from prefect_kit import working_copies

from volume_core import StorageError, Volume
from volume_core.testing.adapters import AdapterContract
from volume_prefect import unless_permanent, volumes


class TestPrefect(AdapterContract):
    """Through runs on a real server: a flow that calls each function as a task of its own."""

    loads = ("volume_prefect", "volume_prefect.hooks")
    engines = ("prefect",)

    @pytest.fixture(autouse=True)
    def _served(self, server):
        """A run is known to a server."""

    def run(self, *functions, given=()):
        tasks = [volumes(task(each)) for each in functions]

        @flow
        def chain():
            values = tuple(given)
            for each in tasks:
                returned = each.submit(*values).result()
                values = returned if isinstance(returned, tuple) else (returned,)
            return values[0]

        return chain()

    def encode(self, value, declared):
        return JSONSerializer().dumps(value)

    def decode(self, data, declared):
        """As a task: Prefect itself never looks at the annotations of one."""
        found = []

        def take(data):
            found.append(data)

        take.__annotations__ = {"data": declared}
        self._in_a_flow(take, JSONSerializer().loads(data))
        return found[0]

    def receive(self, given, declared):
        """As a flow's parameter, where Prefect checks the value before the adapter sees it."""
        found = []

        def take(data):
            found.append(data)

        take.__annotations__ = {"data": declared}
        volumes(flow(take, name="take"))(given)
        return found[0]

    def is_retried(self, error):
        """Whether Prefect runs a task with the condition again that ends with this very error."""
        attempts = []

        def fail():
            attempts.append(1)
            raise error

        with pytest.raises(type(error)):
            self._in_a_flow(fail, retries=1, retry_condition_fn=unless_permanent)
        return len(attempts) == 2

    def kept(self):
        [left] = working_copies()
        return Volume.recover_sync(left)

    @staticmethod
    def _in_a_flow(function, *given, **options):
        runs = volumes(task(function, **options))

        @flow(name="one-task")
        def one_task():
            runs.submit(*given).result()

        one_task()

    @pytest.mark.loud
    def test_without_a_condition_an_error_that_never_passes_is_retried_as_any_other(self):
        attempts = []

        def fail():
            attempts.append(1)
            raise StorageError("no such bucket")

        with pytest.raises(StorageError):
            self._in_a_flow(fail, retries=1)
        assert len(attempts) == 2

    # Prefect logs what a task or flow ends with.

    @pytest.mark.loud
    def test_an_attempt_that_fails_publishes_nothing_and_the_next_one_does_not_see_it(self, version, commits):
        super().test_an_attempt_that_fails_publishes_nothing_and_the_next_one_does_not_see_it(version, commits)

    @pytest.mark.loud
    def test_a_commit_that_may_succeed_later_is_tried_again(self, version, faults):
        super().test_a_commit_that_may_succeed_later_is_tried_again(version, faults)

    @pytest.mark.loud
    def test_a_commit_that_never_will_is_not(self, version, faults):
        super().test_a_commit_that_never_will_is_not(version, faults)

    @pytest.mark.loud
    def test_what_is_no_volume_is_told_what_is_wrong(self, version):
        super().test_what_is_no_volume_is_told_what_is_wrong(version)

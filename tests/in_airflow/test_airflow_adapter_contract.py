"""Airflow keeps what every engine's adapter promises.

Where it is unlike the engines that the suite has in mind:

  - Values go from task to task as XComs: what Airflow keeps of one is what its serialization writes (`encode`), and
    what a task is given of that is what it reads, as the parameter is declared (`decode`).
  - A tuple is one value to Airflow, so here its two items are put into the DAG as two arguments.
  - A failed task's handles are let go of.  What was written is a working copy then, which anybody recovers (`kept`).
  - Whether a task is tried again depends on its error: AirflowFailException never is (`is_retried`).
"""

from __future__ import annotations

import json

import pytest
from airflow_kit import Supervisor, returned, run_task

from volume_core import Volume
from volume_core.parts.state import State
from volume_core.parts.workcopies import survey
from volume_core.testing.adapters import AdapterContract


class TestAirflow(AdapterContract):
    """Through tasks that Airflow's own runner runs: see airflow_kit."""

    loads = ("volume_airflow", "volume_airflow.hookimpls", "volume_airflow.provider_info")
    engines = ("airflow",)

    def run(self, *functions, given=()):
        from volume_airflow.compat import DAG, task

        supervisor, values = Supervisor(), tuple(given)
        for index, function in enumerate(functions):
            with DAG("chain", schedule=None) as dag:
                task(task_id=f"t{index}")(function)(*values)
            ended = run_task(dag.get_task(f"t{index}"), supervisor, max_tries=1)
            if ended.error is not None:
                raise ended.error
            # What returns None has no XCom.
            found = returned(supervisor, f"t{index}") if supervisor.xcoms else None
            supervisor.xcoms.clear()
            values = found if isinstance(found, tuple) else (found,)
        return values[0]

    def encode(self, value, declared):
        from volume_airflow import envelopes
        from volume_airflow.compat import serialize

        envelopes.allow()
        return json.dumps(serialize(value)).encode()

    def decode(self, data, declared):
        from volume_airflow import envelopes
        from volume_airflow.compat import deserialize

        envelopes.allow()
        return self.receive(deserialize(json.loads(data)), declared)

    def receive(self, given, declared):
        """As a TaskFlow task gets an argument that stands in the DAG."""
        from volume_airflow.compat import DAG, task

        found = []

        def take(data):
            found.append(data)

        take.__annotations__ = {"data": declared}
        with DAG("one", schedule=None) as dag:
            task(take)(given)
        ended = run_task(dag.get_task("take"), Supervisor())
        if ended.error is not None:
            raise ended.error
        return found[0]

    def is_retried(self, error):
        """Whether Airflow runs a task again that ends with this very error."""
        from volume_airflow.compat import DAG, task

        with DAG("fails", schedule=None) as dag:

            @task
            def fail():
                raise error

            fail()
        return "up_for_retry" == run_task(dag.get_task("fail"), Supervisor(), max_tries=1).state

    def kept(self):
        [left] = [each.id for each in survey(State.default()).copies]
        return Volume.recover_sync(left)

    # Airflow logs what a task fails with.

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

"""What goes wrong between two tries costs the resuming, says so, and never the try or the work."""

from __future__ import annotations

import logging

import pytest
from airflow_kit import Supervisor, made
from test_airflow_resuming import Flaky, works

from volume_airflow import compat, resuming
from volume_core import StorageError, Volume
from volume_core.parts import workcopies
from volume_core.parts.state import State
from volume_core.passing import purposes

pytestmark = pytest.mark.loud
only_with_state = pytest.mark.skipif(not compat.IS_3, reason="tasks have no state here")


class Failing(Supervisor):
    """A supervisor whose API fails for what *fails* names: comms.GetTaskStateStore, ..."""

    fails: frozenset[str] = frozenset()

    def send(self, msg):
        from airflow.sdk.execution_time import comms

        if type(msg).__name__ in self.fails:
            if type(msg).__name__ == "GetTaskStateStore":
                return comms.ErrorResponse(error=comms.ErrorType.API_SERVER_ERROR)
            raise OSError("the API does not answer")
        return super().send(msg)


@only_with_state
@pytest.mark.parametrize("fails", ["GetTaskStateStore", "SetTaskStateStore", "DeleteTaskStateStore"])
def test_a_state_that_cannot_be_read_or_written_fails_no_task(fails, caplog):
    flaky = Flaky(made(a="1"))
    flaky.supervisor = Failing()
    flaky.supervisor.fails = frozenset({fails})

    flaky.tried(1)
    flaky.fails = False
    ended = flaky.tried(2)

    assert ended.state == "success"
    assert any(each.name == resuming.__name__ and each.levelno == logging.WARNING for each in caplog.records)
    # Without what was noted nobody knows whether the try before has ended well: its work is kept, and not gone on from.
    assert [["a"], ["a"] if fails == "SetTaskStateStore" else ["a", "try1"]] == flaky.seen
    assert (fails == "SetTaskStateStore") == bool(works())


@only_with_state
@pytest.mark.parametrize(
    "value",
    [
        "something else", 7, [], {}, {"since": "1", "forks": {}}, {"since": 1, "forks": []},
        {"since": 1, "forks": {"data/0": ["", {}]}}, {"since": 1, "forks": {"data/0": ["a", "b", "c", "d", "e"]}},
    ],
)  # fmt: skip
def test_a_corrupted_state_is_told_of_and_written_anew(value, caplog):
    flaky = Flaky(made(a="1"))
    flaky.tried(1)
    [key] = flaky.supervisor.states
    flaky.supervisor.states[key] = value

    flaky.tried(2)

    assert [["a"], ["a", "try1"]] == flaky.seen
    assert "has something else" in caplog.text
    assert 1 == flaky.supervisor.states[key]["since"]


def test_work_that_is_gone_is_begun_afresh(caplog):
    flaky = Flaky(made(a="1"))
    flaky.tried(1)
    Volume.recover_sync(works()[0]).abandon_sync()

    flaky.tried(2)

    assert [["a"], ["a"]] == flaky.seen


def test_work_that_may_be_torn_is_left_to_people(caplog):
    flaky = Flaky(made(a="1"))
    flaky.tried(1)
    [work_id] = works()
    workcopies.load(State.default(), work_id).update(boot_id="another boot")

    flaky.tried(2)

    assert [["a"], ["a"]] == flaky.seen
    assert "when the machine went down" in caplog.text
    assert work_id in works()


def test_a_store_that_does_not_answer_now_fails_the_try_and_keeps_the_work(monkeypatch):
    flaky = Flaky(made(a="1"))
    flaky.tried(1)

    def down(*_):
        raise StorageError("the store does not answer", transient=True)

    with monkeypatch.context() as patch:
        patch.setattr(purposes, "go_on", down)
        ended = flaky.tried(2)
    flaky.tried(3)

    assert isinstance(ended.error, StorageError)
    assert [["a"], ["a", "try1"]] == flaky.seen


def test_another_try_that_is_still_at_work_keeps_its_work():
    flaky = Flaky(made(a="1"))
    flaky.tried(1)
    with workcopies.load(State.default(), works()[0]).lock():
        flaky.tried(2)
    before = works()

    flaky.tried(3)  # goes on from the newer of the two

    assert [["a"], ["a"], ["a", "try2"]] == flaky.seen
    assert 2 == len(before)
    assert before[0] in works()


def test_what_others_note_on_their_working_copies_is_no_ones_to_resume():
    for purpose in ("", "{", "[]", '["airflow"]', '["airflow", 1, 2]', '["prefect", "a", "b", "c", 0, 1, "d", "e"]'):
        assert resuming.Purpose.parse(purpose) is None
    mine = resuming.Purpose("dag", "run", "task", -1, 2, "data/0", "locator")
    assert mine == resuming.Purpose.parse(str(mine))

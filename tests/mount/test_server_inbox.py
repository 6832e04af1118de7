"""When the loop looks awake for its next request: only where that was seen to pay."""

from __future__ import annotations

import os

import pytest

from volume_core.mount.inbox import _AWAKE, _CONTENT, _TRIAL, SPIN_S, Inbox

NEAR_S, FAR_S = 10e-6, 40e-6


@pytest.fixture
def pipe():
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def verdicts(inbox: Inbox, waits: int, waited_s: float) -> list[int]:
    """Which of so many waits in a row make it spin."""
    return [number for number in range(1, waits + 1) if inbox._is_worth_spinning(waited_s)]


def test_a_reader_that_must_be_woken_elsewhere_is_waited_for_awake(pipe):
    inbox = Inbox(pipe[0], spin_s=SPIN_S)

    assert [_TRIAL, 2 * _TRIAL] == verdicts(inbox, 2 * _TRIAL, FAR_S)


def test_a_reader_on_the_same_cpu_is_left_to_run_and_looked_at_again_later(pipe):
    inbox = Inbox(pipe[0], spin_s=SPIN_S)

    assert [] == verdicts(inbox, _TRIAL, NEAR_S)
    assert [_CONTENT] == verdicts(inbox, _CONTENT, FAR_S)


def test_a_pause_begins_the_trial_anew(pipe):
    inbox = Inbox(pipe[0], spin_s=SPIN_S)
    verdicts(inbox, _TRIAL - 1, FAR_S)
    verdicts(inbox, 1, SPIN_S)

    assert [_TRIAL] == verdicts(inbox, _TRIAL, FAR_S)


def test_spinning_ends_after_so_many_requests(pipe):
    inbox = Inbox(pipe[0], spin_s=10.0)
    inbox._is_busy = all(inbox._is_worth_spinning(FAR_S) is (wait == _TRIAL) for wait in range(1, _TRIAL + 1))
    spun = 0
    while inbox._is_busy:
        os.write(pipe[1], b"request")
        assert len(b"request") == inbox.receive()
        spun += 1

    assert _AWAKE == spun


def test_nobody_spins_where_there_is_one_cpu(pipe, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    inbox = Inbox(pipe[0])

    assert [] == verdicts(inbox, 2 * _CONTENT, 0.0)

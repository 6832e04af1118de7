"""SIGTERM is sent to real processes within a block; afterwards another process looks at what there is."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from facade_kit import contents, eventually, mounts_below, working_copies

from volume_core import ROVolume, Volume
from volume_core.parts.state import State

pytestmark = pytest.mark.faults

PROGRAMS = Path(__file__).with_name("terminated.py")


class Running:
    """A program that has said "ready"."""

    def __init__(self, program: str, driver: str, on_terminate: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, PROGRAMS, program, driver, on_terminate],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.said: list[str] = []
        for line in self.process.stdout:
            self.said.append(line.strip())
            if line == "ready\n":
                break
        else:
            raise AssertionError(self.process.stderr.read())

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def end(self) -> int:
        """Wait for its end; return its code."""
        out, self.log = self.process.communicate(timeout=60)
        self.said += out.splitlines()
        return self.process.returncode


@pytest.fixture
def run(driver, tmp_path, monkeypatch):
    """Start a program; what it had mounted is gone in the end, and may not be yet when this process looks at it."""
    started = []

    def start(program: str, on_terminate: str) -> Running:
        started.append(Running(program, driver, on_terminate))
        monkeypatch.setenv("VOLUME_MOUNT_ROOT", str(tmp_path / "looked at"))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.communicate()
    assert eventually(lambda: [] == mounts_below(tmp_path))


def versions(name: str = "data") -> list[ROVolume]:
    """Every version of the volume *name*, oldest first."""
    folder = State.default().root / "store" / "versions" / name
    found = [Volume.from_locator_sync(f"file://{path}") for path in folder.glob("*.json")]
    return sorted(found, key=lambda version: len(version.log_sync()))


def test_commit_commits_what_is_there_and_ends_by_the_signal(run):
    running = run("sync", "commit")
    running.terminate()

    assert -signal.SIGTERM == running.end()
    [version] = versions()
    assert ("of the block", {"a": "1"}) == (version.message, contents(version))
    assert [] == working_copies()


def test_keep_commits_nothing_and_says_where_the_work_is(run):
    running = run("sync", "keep")
    running.terminate()

    assert -signal.SIGTERM == running.end()
    assert [] == versions()
    [work_id] = working_copies()
    assert f"volume commit {work_id}" in running.log
    assert {"a": "1"} == contents(Volume.recover_sync(work_id).finalize_sync())


def test_where_the_commit_fails_the_work_is_kept_and_the_log_says_why_and_where(run):
    running = run("without_a_store", "commit")
    running.terminate()

    assert -signal.SIGTERM == running.end()
    [work_id] = working_copies()
    assert "the store is gone" in running.log
    assert f"volume commit {work_id}" in running.log
    assert {"a": "1"} == contents(Volume.recover_sync(work_id).finalize_sync())


def test_without_a_word_the_signal_is_left_alone_and_the_work_kept(run):
    running = run("sync", "nothing")
    running.terminate()

    assert -signal.SIGTERM == running.end()
    assert [] == versions()
    assert {"a": "1"} == contents(Volume.recover_sync(*working_copies()).finalize_sync())


def test_a_body_that_never_holds_still_waits_for_the_commit(run):
    running = run("writing", "commit")
    running.terminate()

    assert -signal.SIGTERM == running.end()
    [version] = versions()
    assert {"a", "log"} >= set(contents(version))
    assert [] == working_copies()


@pytest.mark.parametrize("program", ["awaited", "worker"])
def test_a_block_of_a_loop_or_of_a_thread_is_committed_too(run, program):
    running = run(program, "commit")
    running.terminate()

    assert -signal.SIGTERM == running.end()
    [version] = versions()
    assert {"a": "1"} == contents(version)
    assert [] == working_copies()


def test_a_block_of_a_thread_without_a_listener_says_so_and_is_kept(run):
    running = run("deaf_worker", "commit")
    running.terminate()

    assert -signal.SIGTERM == running.end()
    assert "listen_for_sigterm" in running.log
    assert {"a": "1"} == contents(Volume.recover_sync(*working_copies()).finalize_sync())


@pytest.mark.parametrize("program", ["sync", "writing", "awaited", "worker", "previous_passes_on"])
def test_it_may_come_many_times(run, program):
    running = run(program, "commit")
    for _ in range(20):
        running.terminate()

    assert -signal.SIGTERM == running.end()
    assert 1 == len(versions())


def test_a_commit_under_way_goes_on_to_its_end_once(run):
    running = run("committing", "commit")
    running.terminate()
    running.process.stdin.write("\n")
    running.process.stdin.flush()

    assert -signal.SIGTERM == running.end()
    assert 1 == running.said.count("changed True")
    [version] = versions()
    assert {"a": "1"} == contents(version)
    assert [] == working_copies()


def test_a_lock_that_the_main_thread_holds_only_delays_it(run):
    running = run("holding_a_lock", "commit")
    running.terminate()
    running.process.stdin.write("\n")
    running.process.stdin.flush()

    assert -signal.SIGTERM == running.end()
    assert [{"a": "1"}] == [contents(version) for version in versions()]


def test_kill_9_after_it_loses_nothing(run):
    running = run("committing", "commit")
    running.terminate()
    running.process.kill()

    assert -signal.SIGKILL == running.end()
    assert [] == versions()
    assert {"a": "1"} == contents(Volume.recover_sync(*working_copies()).finalize_sync())


@pytest.mark.parametrize(("on_terminate", "count"), [("commit", 1), ("keep", 0)])
def test_a_handler_that_raises_does_so_after_the_commit(run, on_terminate, count):
    running = run("previous_raises", on_terminate)
    running.terminate()

    assert 0 == running.end()
    assert [f"committed {count == 1}", "handler is back True"] == running.said[-2:]
    assert 1 == running.said.count("previous")
    assert [{"a": "1"}] * count == [contents(version) for version in versions()]
    [notes] = [line for line in running.said if line.startswith("notes")]
    assert re.search("is committed: file:" if count else "volume commit", notes)
    assert 1 - count == len(working_copies())


def test_a_handler_is_asked_once_also_if_the_saver_is_late(run):
    running = run("prodded_late", "commit")
    running.terminate()

    assert 0 == running.end()
    assert "handler is back True" in running.said
    assert 1 == running.said.count("previous")


def test_a_handler_that_returns_lets_the_body_go_on(run):
    running = run("previous_returns", "commit")
    running.terminate()

    assert 0 == running.end()
    assert ["at True", "calls 1", "committed 2"] == running.said[-3:]
    assert [{"a": "1"}, {"a": "1", "b": "2"}] == [contents(version) for version in versions()]


def test_a_handler_between_two_of_ours_is_asked_once(run):
    running = run("previous_passes_on", "commit")
    running.terminate()

    assert -signal.SIGTERM == running.end()
    assert 1 == running.said.count("over")
    assert [{"a": "1"}] == [contents(version) for version in versions()]
    assert [{"b": "2"}] == [contents(version) for version in versions("other")]


def test_a_loops_own_handler_is_asked_too_and_its_cancellation_commits(run):
    running = run("loop_handler", "commit")
    running.terminate()

    assert 0 == running.end()
    assert "committed True" == running.said[-1]
    assert "is committed: file:" in running.said[-2]
    assert [{"a": "1"}] == [contents(version) for version in versions()]
    assert [] == working_copies()


def test_a_forked_child_dies_of_it_alone(run):
    running = run("forked", "commit")
    children = subprocess.run(["pgrep", "-P", str(running.process.pid)], capture_output=True, text=True, check=True)
    [child] = [pid for pid in map(int, children.stdout.split()) if b"terminated.py" in _command(pid)]
    os.kill(child, signal.SIGTERM)

    assert 0 == running.end()
    assert f"child {-signal.SIGTERM}" == running.said[-1]
    assert [{"a": "1"}] == [contents(version) for version in versions()]


def test_after_the_block_the_signal_is_whose_it_was(run):
    running = run("after", "commit")
    running.terminate()

    assert -signal.SIGTERM == running.end()
    assert "handler is back True" in running.said


def _command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()

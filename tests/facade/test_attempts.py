"""Attempts: what the body of a task mounted, committed and left is undone as far as it can be, and nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from pathlib import Path

import pytest
from facade_kit import eventually

from volume_core import ROVolume, RWVolume, StorageError, Volume
from volume_core.facade import attempts
from volume_core.parts import landing
from volume_core.parts.heads import read_head
from volume_core.parts.state import State
from volume_core.parts.workcopies import load, survey
from volume_core.passing import Attempt, is_there


def written(volume: RWVolume, driver: str, text: str = "1") -> RWVolume:
    (volume.mount_sync(driver=driver) / "a").write_text(text)
    return volume


def base(name: str = "data") -> ROVolume:
    return written(Volume.new(name), "copy", "0").finalize_sync()


def head_of(version: ROVolume) -> str | None:
    head = read_head(version._place().store(), version.name)
    return head and head.version


def copies() -> list[str]:
    return [copy.id for copy in survey(State.default()).copies]


def test_a_failed_attempt_unmounts_all_keeps_its_work_and_says_where(driver):
    attempt, first = Attempt(), base()
    with attempt.running():
        writer = written(first.fork_sync("data"), driver)
        first.mount_sync(driver=driver)

    (said,) = attempt.fail(ValueError(), drop=False)

    assert [None, None] == [writer.mount_path, first.mount_path]
    (left,) = attempt.left
    assert ("data", id(writer)) == (left.name, left.handle)
    assert left.work_id in said
    assert "volume 'data': what is not committed is kept" in said
    Volume.recover_sync(left.work_id).abandon_sync()


def test_a_failed_attempt_can_drop_its_work_also_what_a_block_within_has_kept(driver):
    attempt, error = Attempt(), ValueError("in the block")
    with attempt.running():
        one, two = written(Volume.new("one"), driver), Volume.new("two")
        with contextlib.suppress(ValueError), two.mounted_sync(driver=driver) as path:
            Path(path, "b").write_text("2")
            raise error
    assert 2 == len(copies())
    assert one.mount_path is not None

    assert [] == attempt.fail(ValueError(), drop=True)

    assert [] == copies()


@pytest.mark.loud
def test_a_failed_attempt_drops_the_work_of_a_handle_that_nobody_holds_any_more():
    attempt = Attempt()
    with attempt.running():
        written(Volume.new("forgotten"), "copy")
    (left,) = copies()
    assert eventually(lambda: not load(State.default(), left).in_use)

    attempt.fail(ValueError(), drop=True)

    assert [] == copies()


def test_an_attempt_leaves_alone_what_was_mounted_outside_of_it():
    outside = written(Volume.new("outside"), "copy")
    attempt = Attempt()
    with attempt.running():
        (outside / "b").write_text("2")

    attempt.fail(ValueError(), drop=True)

    assert ["a", "b"] == sorted(path.name for path in Path(outside).iterdir())
    outside.abandon_sync()


def test_an_attempt_sees_what_its_body_does_in_other_threads_of_the_loop():
    attempt = Attempt()

    async def body() -> RWVolume:
        with attempt.running():
            volume = Volume.new("threads")
            await volume.mount(driver="copy")
            return volume

    volume = asyncio.run(body())
    attempt.fail(ValueError(), drop=True)

    assert volume.mount_path is None


def test_handing_over_then_failing_moves_the_head_back_and_keeps_the_version():
    first, attempt = base(), Attempt()
    with attempt.running():
        writer = written(first.fork_sync("data"), "copy")
    second = attempt.hand_over(writer)
    assert second.version == head_of(first)

    attempt.fail(ValueError(), drop=False)

    assert first.version == head_of(first)
    assert is_there(second)


def test_what_the_body_committed_itself_stays_on_the_head_after_a_failure():
    first, attempt = base(), Attempt()
    with attempt.running():
        checkpoint = written(first.fork_sync("data"), "copy").finalize_sync()
    attempt.fail(ValueError(), drop=False)

    assert checkpoint.version == head_of(first)


def test_taking_back_goes_to_before_the_first_commit_of_the_attempt():
    first, attempt = base(), Attempt()
    with attempt.running():
        writer = written(first.fork_sync("data"), "copy", "1")
        writer.commit_sync()
        (writer / "a").write_text("2")
    attempt.hand_over(writer)
    attempt.finish()
    assert writer.mount_path is None

    attempt.take_back()

    assert first.version == head_of(first)
    head = read_head(first._place().store(), "data")
    assert head is not None
    assert "rollback" == head.history[0].why


def test_taking_back_leaves_a_head_that_others_have_moved_on():
    first, attempt = base(), Attempt()
    with attempt.running():
        writer = written(first.fork_sync("data"), "copy", "1")
    second = attempt.hand_over(writer)
    attempt.finish()
    others = written(second.fork_sync("data"), "copy", "others").finalize_sync()

    attempt.take_back()

    assert others.version == head_of(first)


def test_taking_back_leaves_the_first_version_of_a_volume_on_its_head():
    attempt = Attempt()
    with attempt.running():
        writer = written(Volume.new("fresh"), "copy")
    only = attempt.hand_over(writer)
    attempt.finish()

    attempt.take_back()

    assert only.version == head_of(only)


def test_taking_back_of_a_named_volume_keeps_what_others_committed_before():
    first = base()
    mine = Volume.from_name_sync("data")
    attempt = Attempt()
    with attempt.running():
        written(mine, "copy", "mine")
    others = Volume.from_name_sync("data")
    (others.mount_sync(driver="copy") / "b").write_text("others")
    theirs = others.finalize_sync()
    attempt.hand_over(mine)
    attempt.finish()

    attempt.take_back()

    assert theirs.version == head_of(first)


def test_taking_back_leaves_the_head_where_what_it_stood_at_is_gone():
    first, attempt = base(), Attempt()
    with attempt.running():
        writer = written(first.fork_sync("data"), "copy")
    second = attempt.hand_over(writer)
    attempt.finish()
    first._place().store().delete(f"versions/data/{first.version}.json")
    assert not is_there(first)

    attempt.take_back()

    assert second.version == head_of(second)


def test_two_attempts_at_once_know_their_own_writers():
    one, two = Attempt(), Attempt()
    with one.running():
        first = written(Volume.new("one"), "copy")
        with two.running():
            second = written(Volume.new("two"), "copy")

    two.fail(ValueError(), drop=True)
    assert [True, True] == [first.mount_path is not None, second.mount_path is None]

    one.fail(ValueError(), drop=True)
    assert first.mount_path is None


# -- of a whole process


def test_what_an_attempt_has_taken_over_is_not_its_own_to_drop(driver):
    first, second = Attempt(), Attempt()
    with first.running():
        volume = written(Volume.new("data"), driver)
    first.fail(ValueError(), drop=False)
    work_id = first.left[0].work_id
    with second.running():
        volume = Volume.recover_sync(work_id)
        (volume.mount_sync(driver=driver) / "b").write_text("2")

    [said] = second.fail(ValueError(), drop=True)
    assert volume.mount_path is None
    assert work_id in said
    Volume.recover_sync(work_id).abandon_sync()


def test_an_attempt_that_runs_everywhere_is_told_of_what_threads_without_a_context_do(driver):
    attempt, made = Attempt(), []

    def in_a_thread():
        made.append(written(Volume.new("data"), driver))

    with attempt.running_everywhere():
        thread = threading.Thread(target=in_a_thread)
        thread.start()
        thread.join()
    assert [made[0].name] == [each.name for each in attempt.at_work()]

    [said] = attempt.leave()
    assert "volume commit" in said
    assert made[0].mount_path is None
    assert [] == attempt.at_work()
    Volume.recover_sync(attempt.left[0].work_id).abandon_sync()


def test_within_an_attempt_of_a_whole_process_one_of_a_context_is_told_what_that_does(driver):
    outer, inner = Attempt(), Attempt()
    with outer.running_everywhere(), inner.running():
        volume = written(Volume.new("data"), driver)
    assert ([], [volume.name]) == (outer.at_work(), [each.name for each in inner.at_work()])
    volume.abandon_sync()
    with outer.running_everywhere(), Attempt().running_everywhere():
        pass
    with outer.running_everywhere():
        again = written(Volume.new("data"), driver)
    assert [again.name] == [each.name for each in outer.at_work()]
    again.abandon_sync()


def test_an_attempt_that_is_left_keeps_its_work_and_its_heads():
    attempt, before = Attempt(), base()
    with attempt.running_everywhere():
        writer = written(before.fork_sync("data"), "copy", "1")
        handed = attempt.hand_over(writer)
        (writer.mount_path / "a").write_text("2")
    [said] = attempt.leave()

    assert handed.version == head_of(handed)
    assert [handed.locator] == attempt.handed_over("data")
    assert attempt.left[0].work_id in said
    Volume.recover_sync(attempt.left[0].work_id).abandon_sync()


def test_an_attempt_that_goes_on_from_another_process_takes_back_what_that_has_handed_over():
    first, before = Attempt(), base()
    with first.running():
        writer = written(before.fork_sync("data"), "copy", "1")
        one = first.hand_over(writer)
        (writer.mount_path / "a").write_text("2")
        other = first.hand_over(writer)
    first.leave()

    then = Attempt()
    for version in (one, other):
        then.go_on_from(version._existing())
    assert other.version == head_of(other)
    then.fail(ValueError("after it went on"), drop=False)
    assert before.version == head_of(before)


def in_a_child(body) -> int:
    """Run *body* in a forked child, for ten seconds at most; return how that ended."""
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # kills it, wherever it waits
        signal.alarm(10)
        status = 1
        with contextlib.suppress(BaseException):
            body()
            status = 0
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_child_that_the_body_has_forked_takes_back_nothing_of_its_parent():
    first = base()
    attempt = Attempt()
    writer = written(Volume.from_name_sync("data"), "copy")
    version = attempt.hand_over(writer)

    assert 0 == in_a_child(lambda: attempt.fail(SystemExit(0), drop=True))
    assert version.version == head_of(first)
    attempt.fail(ValueError(), drop=True)
    assert first.version == head_of(first)
    writer.close_sync()


def test_a_child_that_is_forked_while_a_thread_has_the_lock_can_use_volumes():
    attempt = Attempt()
    held, done = threading.Event(), threading.Event()

    def hold():
        with attempt._lock:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    with attempt.running_everywhere():
        status = in_a_child(lambda: written(Volume.new("of-the-child"), "copy").finalize_sync())
    done.set()
    thread.join()
    assert 0 == status


def test_a_store_that_fails_does_not_keep_the_heads_of_others_from_going_back(monkeypatch):
    one, two = base("one"), base("two")
    attempt = Attempt()
    writers = [written(Volume.from_name_sync(name), "copy") for name in ("one", "two")]
    for writer in writers:
        attempt.hand_over(writer)
    inner = attempts.step_back

    def fails(place, name, *args):
        if name == "two":  # which comes first
            raise StorageError("of the store")
        return inner(place, name, *args)

    monkeypatch.setattr(attempts, "step_back", fails)
    said = attempt.fail(ValueError(), drop=False)

    assert one.version == head_of(one)
    assert two.version != head_of(two)
    assert any("could not be moved back: of the store" in each for each in said)
    assert any("volume 'one': its head went back" in each for each in said)


def test_an_interrupt_after_the_head_was_moved_moves_it_back_and_keeps_the_work(monkeypatch):
    first = base()
    attempt, inner = Attempt(), landing.move_head

    def interrupted(*args, **kwargs):
        inner(*args, **kwargs)
        raise KeyboardInterrupt

    with attempt.running():
        writer = written(Volume.from_name_sync("data"), "copy")
    monkeypatch.setattr(landing, "move_head", interrupted)
    with pytest.raises(KeyboardInterrupt):
        attempt.hand_over(writer)
    monkeypatch.setattr(landing, "move_head", inner)
    assert first.version != head_of(first)
    attempt.fail(KeyboardInterrupt(), drop=False)

    assert first.version == head_of(first)
    (left,) = attempt.left
    assert b"1" == b"".join(Volume.recover_sync(left.work_id).finalize_sync().read_file_sync("a"))

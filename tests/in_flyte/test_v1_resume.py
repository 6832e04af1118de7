"""flytekit: after a retry a task goes on from what its last attempt has committed, however that ended."""

from __future__ import annotations

import asyncio
import logging

import pytest
import resuming_tasks as tasks
from flytekit import workflow
from v1_kit import contents, fill, made
from v1_pods import Registered

from volume_core import ROVolume, RWVolume, Volume, VolumeError
from volume_flyte import resume, resume_async

pytestmark = pytest.mark.slow


@pytest.fixture
def base() -> ROVolume:
    return made("data", base="")


def two_attempts(task, base, directory, how):
    """What the second attempt of *task* returns, the first having ended by *how*."""
    registered, inputs = Registered(task, directory), {"data": base, "how": how}
    first = registered.run(task.name, **inputs)
    assert (-9 if how == "kill" else 0) == first.process.returncode, first.said
    assert not (first.directory / "out" / "outputs.pb").exists()
    return contents(registered.run(task.name, retry_of=first, **inputs).output(ROVolume))


@pytest.mark.parametrize("how", ["kill", "raise"])
def test_the_second_attempt_begins_with_the_last_commit_of_the_first(base, tmp_path, how):
    expected = {"base": "", "step-1": "0", "step-2": "0", "step-3": "1", "step-4": "1", "uncommitted-1": ""}

    assert expected == two_attempts(tasks.train, base, tmp_path, how)


def test_an_asynchronous_task_resumes_too(base, tmp_path):
    assert {"base": "", "step-1": "0", "step-2": "1"} == two_attempts(tasks.train_async, base, tmp_path, "kill")


def test_a_commit_in_the_background_counts(base, tmp_path):
    found = two_attempts(tasks.train_with_checkpoints, base, tmp_path, "kill")

    assert {"base": "", "step-1": "0", "step-2": "1"} == found


def test_an_attempt_that_ends_before_its_first_commit_hands_on_what_the_one_before_it_had(base, tmp_path):
    task = tasks.only_the_first_attempt_commits
    registered, inputs = Registered(task, tmp_path), {"data": base, "how": ""}
    pod = None
    for _ in range(2):
        pod = registered.run(task.name, retry_of=pod, **inputs)
        assert "this attempt fails" in pod.error().message
    last = registered.run(task.name, retry_of=pod, **inputs)

    assert {"base": "", "step-1": "0"} == contents(last.output(ROVolume))


def test_where_the_last_attempt_left_nothing_the_volume_is_begun(base, tmp_path):
    """Flyte says where the last checkpoint would be, whether it is there or not."""
    registered, inputs = Registered(tasks.train, tmp_path), {"data": base, "how": "well"}
    never = registered.start(tasks.train.name, **inputs)
    never.kill()
    second = registered.run(tasks.train.name, retry_of=never, **inputs)

    assert {"base", "step-1", "step-2", "uncommitted-1"} == set(contents(second.output(ROVolume)))


def test_several_volumes_are_kept_apart_and_what_is_not_resumed_is_not(base, tmp_path):
    registered = Registered(tasks.two, tmp_path)
    inputs = {"first": base, "second": base, "how": "raise"}
    first = registered.run(tasks.two.name, **inputs)
    found = contents(registered.run(tasks.two.name, retry_of=first, **inputs).output(ROVolume))

    assert {"base": "", "step-1": "0", "step-2": "1", "of-new": "step-0,step-1"} == found


def test_a_task_that_does_not_resume_has_its_checkpoint_to_itself(base, tmp_path):
    task = tasks.has_a_checkpoint_of_its_own
    registered = Registered(task, tmp_path)
    first = registered.run(task.name, data=base, how="own")
    [kept] = (first.directory / "checkpoint").iterdir()
    error = registered.run(task.name, retry_of=first, data=base, how="resume").error()

    assert b"mine" == kept.read_bytes()
    assert "the task's checkpoint holds something that resume() did not write" in error.message


# -- without a pod


def test_outside_of_a_task_there_is_nothing_to_resume():
    volume = Volume.new("x")

    assert volume is resume(volume)
    assert volume is asyncio.run(resume_async(volume))


def test_in_a_local_run_a_task_begins_with_its_volume(monkeypatch):
    monkeypatch.setenv("FLYTE_ATTEMPT_NUMBER", "0")

    @workflow
    def wf(data: ROVolume) -> RWVolume:
        return tasks.train(data=data, how="well")

    for _ in range(2):
        assert {"step-0", "step-1", "uncommitted-0"} == set(contents(wf(data=Volume.new("new").commit_sync())))


def test_a_volume_that_was_opened_by_name_has_every_commit_at_its_head(monkeypatch):
    volume = Volume.from_name_sync("logs", create_if_missing=True)

    assert volume is resume(volume)


def test_a_volume_is_resumed_before_it_is_used(base):
    changed = fill(Volume.new("changed"), a="a")
    mounted = base.fork_sync("mounted")
    mounted.mount_sync(driver="copy")
    for volume in (changed, mounted):
        with pytest.raises(VolumeError, match="is mounted or has changes already: resume it before"):
            resume(volume)
    with pytest.raises(VolumeError, match="a writer is resumed, an RWVolume, and not a ROVolume"):
        resume(base)
    changed.abandon_sync()
    mounted.abandon_sync()


@pytest.mark.loud
def test_a_version_that_is_gone_is_in_the_log_and_the_volume_is_begun(base, tmp_path, caplog):
    from volume_flyte import resuming

    class Kept:
        destination = str(tmp_path)
        data: bytes | None = None

        def read(self):
            return self.data

        def write(self, data):
            type(self).data = data

    resumed = base.fork_sync("x")
    notes = resuming.Notes()
    notes.begin(Kept())
    key = resuming._key(resumed)
    notes.follow(key, resumed)
    with resumed.mounted_sync(driver="copy") as path:
        (path / "a").write_text("a")
    notes.note(resumed.committed)
    found = resuming.Notes().begin(Kept())[key]
    assert resumed.index == found

    resumed.close_sync()
    Volume.delete_sync("x")
    with caplog.at_level(logging.WARNING):
        assert resuming._version(found, resumed) is None
    assert "begins anew" in caplog.text

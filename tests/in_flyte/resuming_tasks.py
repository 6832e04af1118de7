"""Tasks that go on after a retry, and ways to end the first attempt.  Imported by tests and by the pods they start."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import flytekit
from flytekit import task

from volume_core import RWVolume, Volume
from volume_flyte import resume, resume_async


def end(how: str) -> None:
    """End this attempt, if it is the first one."""
    if os.environ["FLYTE_ATTEMPT_NUMBER"] != "0" or how == "well":
        return
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    raise ValueError("this attempt fails")


def step(path: Path) -> None:
    """Write what says how many steps there were before."""
    (path / f"step-{len(os.listdir(path))}").write_text(os.environ["FLYTE_ATTEMPT_NUMBER"])


@task
def train(data: RWVolume, how: str) -> RWVolume:
    data = resume(data)
    path = data.mount_sync(driver="copy")
    step(path)
    data.commit_sync()
    step(path)
    data.commit_sync()
    (path / f"uncommitted-{os.environ['FLYTE_ATTEMPT_NUMBER']}").write_text("")
    end(how)
    return data


@task
async def train_async(data: RWVolume, how: str) -> RWVolume:
    data = await resume_async(data)
    async with data.mounted(driver="copy") as path:
        step(path)
        await data.commit()
        end(how)
    return data


@task
def train_with_checkpoints(data: RWVolume, how: str) -> RWVolume:
    data = resume(data)
    with data.mounted_sync(driver="copy", checkpoint_every=0.1) as path:
        before = data.index
        step(path)
        while data.index == before:
            time.sleep(0.02)
        data.status_sync()  # waits until whoever commits has told everybody
        end(how)
    return data


@task
def only_the_first_attempt_commits(data: RWVolume, how: str) -> RWVolume:
    data = resume(data)
    if os.environ["FLYTE_ATTEMPT_NUMBER"] == "0":
        with data.mounted_sync(driver="copy") as path:
            step(path)
    if os.environ["FLYTE_ATTEMPT_NUMBER"] in {"0", "1"}:
        raise ValueError("this attempt fails")
    return data


@task
def two(first: RWVolume, second: RWVolume, how: str) -> RWVolume:
    """Two forks of one version, under one name: they are kept apart by being committed to different handles."""
    new = resume(Volume.new("new"))
    first = resume(first)
    for each in (first, new):
        with each.mounted_sync(driver="copy") as path:
            step(path)
    with second.mounted_sync(driver="copy") as path:  # it is not resumed
        (path / "second").write_text("")
    end(how)
    with first.mounted_sync(driver="copy") as path, new.mounted_sync(driver="copy") as other:
        (path / "of-new").write_text(",".join(sorted(os.listdir(other))))
    return first


@task
def has_a_checkpoint_of_its_own(data: RWVolume, how: str) -> RWVolume:
    kept = flytekit.current_context().checkpoint
    if how == "resume":
        return resume(data)
    with data.mounted_sync(driver="copy") as path:
        step(path)
    data.commit_sync()
    kept.write(b"mine")
    return data

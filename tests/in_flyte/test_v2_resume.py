"""flyte 2: after a retry, a real one, a task goes on from what its last attempt has committed."""

from __future__ import annotations

import os
from pathlib import Path

import flyte
import pytest
from v2_kit import Local, committed, names

from volume_core import ROVolume, RWVolume
from volume_flyte import resume, resume_async

HERE = Path(__file__).parent
env = flyte.TaskEnvironment("v2-resume")
attempts: list[list[str]] = []


@pytest.fixture
def run(tmp_path, monkeypatch) -> Local:
    attempts.clear()
    return Local(tmp_path, monkeypatch)


def step(path: Path) -> None:
    """Write what says how many steps there were before; note what was there."""
    there = sorted(os.listdir(path))
    attempts.append(there)
    (path / f"step-{len(there)}").write_text("")


@env.task(retries=2)
async def train(data: RWVolume) -> RWVolume:
    data = await resume_async(data)
    path = await data.mount()
    step(path)
    await data.commit()
    (path / "uncommitted").write_text("")
    if len(attempts) < 3:
        await data.close()
        raise ValueError("this attempt fails")
    return data


@env.task(retries=1)
def train_sync(data: RWVolume) -> RWVolume:
    data = resume(data)
    with data.mounted_sync(checkpoint_every=0.05) as path:
        before = data.index
        step(path)
        while data.index == before:
            pass
        if len(attempts) < 2:
            raise ValueError("this attempt fails")
    return data


@env.task
async def both(data: ROVolume) -> tuple[ROVolume, ROVolume]:
    first = await train(data)
    attempts.clear()
    return first, await train_sync.aio(data)


@pytest.mark.loud
def test_each_attempt_begins_with_the_last_commit_of_the_one_before(run):
    version = run(train, data=committed(files={"base": ""}))

    assert [["base"], ["base", "step-1"], ["base", "step-1", "step-2"]] == attempts
    assert ["/base", "/step-1", "/step-2", "/step-3", "/uncommitted"] == sorted(
        f"/{n.strip('/')}" for n in names(version)
    )


@pytest.mark.loud
def test_the_tasks_of_a_run_do_not_resume_what_another_one_has_committed(run):
    """In a local run all tasks have one checkpoint; and the next run has it too."""
    base = committed(files={"base": ""})
    for _ in range(2):
        attempts.clear()
        first, second = run(both, data=base)

        assert [["base"], ["base", "step-1"]] == attempts
        assert {"base", "step-1", "step-2"} == {each.strip("/") for each in names(second)}
        assert {"base", "step-1", "step-2", "step-3", "uncommitted"} == {each.strip("/") for each in names(first)}

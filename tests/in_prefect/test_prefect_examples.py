"""The examples run as they stand, each as a program of its own, on a real server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client

from volume_core import Volume
from volume_prefect.news import artifact_key

EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "prefect").glob("*.py"))
SAYS = {
    "agent_workspace": "## outline\n## draft\n## review\n",
    "fan_out_and_merge": "[0, 1, 4, 9, 16, 25, 36, 49, 64, 81, 100, 121] by",
    "logs_of_parallel_tasks": "3 logs, then 6\n",
    "scrape_and_transform": "['page  one', 'page  three', 'page  two'] requests: 4\n",
}


def run(example: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(example)], env=os.environ | variables, capture_output=True, text=True, check=False
    )


def test_there_are_examples():
    assert [each.stem for each in EXAMPLES] == sorted(SAYS)


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda each: each.stem)
def test_the_example_runs_where_nothing_can_be_mounted(server, example):
    done = run(example, VOLUME_DRIVER="copy")
    assert done.returncode == 0, done.stdout + done.stderr
    assert SAYS[example.stem] in done.stdout


@pytest.mark.slow
def test_what_a_process_pool_commits_has_pages_too(server):
    [example] = [each for each in EXAMPLES if each.stem == "fan_out_and_merge"]
    done = run(example, VOLUME_DRIVER="copy")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "could not be made" not in done.stderr
    store = Volume.new("numbers").store_url
    with get_client(sync_client=True) as client:
        keys = [each.key for each in client.read_artifacts()]
    assert keys.count(artifact_key(store, "numbers")) == 4  # the base, and a fork in each of three processes
    assert keys.count(artifact_key(store, "squares")) == 1


@pytest.mark.slow
@pytest.mark.fuse
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda each: each.stem)
def test_the_example_runs_on_real_mounts(server, example):
    done = run(example, VOLUME_DRIVER="kernel")
    assert done.returncode == 0, done.stdout + done.stderr
    assert SAYS[example.stem] in done.stdout


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda each: each.stem)
def test_an_example_can_be_read_at_once(example):
    assert len(example.read_text().splitlines()) < 80

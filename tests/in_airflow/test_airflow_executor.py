"""Volumes through a real Airflow: each task is a process that LocalExecutor has forked, and values go by the API."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from airflow_kit import texts

from volume_core import ROVolume

pytest.importorskip("airflow.sdk", reason="the API that is asked is that of Airflow 3")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.xdist_group("airflow_server")]

DAG, RUN = "all_ways", "a-run"


@pytest.fixture(scope="module")
def ended(airflow_server):
    """The server, once the DAG has run; the logs are shown if it has not ended well."""
    if airflow_server.run(DAG, RUN) != "success":
        print(airflow_server.logs())
    return airflow_server


def test_the_run_and_every_task_of_it_end_well_and_one_at_its_second_try(ended):
    assert ended.get(f"dags/{DAG}/dagRuns/{RUN}")["state"] == "success"
    found = {
        (each["task_id"], each["map_index"]): (each["state"], each["try_number"])
        for each in ended.get(f"dags/{DAG}/dagRuns/{RUN}/taskInstances")["task_instances"]
    }
    tries = {"fails_once": 2}
    assert found == {key: ("success", tries.get(key[0], 1)) for key in found}
    assert {("shard", 0), ("shard", 1), ("sleeps", -1), ("list_files", -1)} <= found.keys()


def test_mapped_tasks_work_in_forks_and_what_they_made_is_merged(ended):
    joined = ended.xcom(DAG, RUN, "join")
    assert type(joined) is ROVolume
    assert texts(joined) == {"numbers": "1 2 3", "part-1": "1", "part-2": "2"}
    shards = [ended.xcom(DAG, RUN, "shard", map_index=index) for index in range(2)]
    assert set(joined.log_sync(limit=1)[0].parents) == {each.locator for each in shards}
    base = ended.xcom(DAG, RUN, "make")
    assert [each.log_sync(limit=1)[0].parents for each in shards] == [(base.locator,)] * 2


def test_a_version_says_which_task_of_which_run_made_it(ended):
    made_by = ended.xcom(DAG, RUN, "shard", map_index=1).log_sync(limit=1)[0].volume.produced_by
    assert (made_by.engine, made_by.project, made_by.run) == ("airflow", DAG, RUN)
    assert (made_by.action, made_by.attempt) == ("shard[1]", "1")
    assert made_by.url.startswith(f"{ended.url}/dags/{DAG}/runs/{RUN}/tasks/shard/mapped/1")


def test_a_writer_crosses_a_deferral_and_what_was_written_before_and_after_is_in_one_version(ended):
    assert texts(ended.xcom(DAG, RUN, "sleeps")) == {"before": "1", "after": "2"}


def test_a_retry_goes_on_from_what_the_first_try_has_left(ended):
    assert texts(ended.xcom(DAG, RUN, "fails_once")).keys() == {"numbers", "try-1", "try-2"}


def test_what_a_task_pushes_itself_is_a_version(ended):
    assert texts(ended.xcom(DAG, RUN, "push", key="side")) == {"note": "pushed"}


def test_a_volume_is_the_directory_of_a_command(ended):
    assert ended.xcom(DAG, RUN, "list_files").split() == ["numbers", "part-1", "part-2"]


def test_the_database_has_an_asset_event_for_each_volume_that_a_task_has_committed(ended):
    events = ended.get("assets/events", source_dag_id=DAG, limit=100)["asset_events"]
    found = {(each["source_task_id"], each["extra"]["volume"], each["extra"]["version"]) for each in events}
    for task_id, key in (("make", "return_value"), ("join", "return_value"), ("push", "side")):
        version = ended.xcom(DAG, RUN, task_id, key=key)
        assert (task_id, version.name, version.version) in found
    assert {each[1] for each in found} == {"base", "joined", "crossed", "beside"}


def test_a_task_that_returned_a_volume_has_a_link_to_it_and_others_have_none(ended):
    def links(task_id):
        found = ended.get(f"dags/{DAG}/dagRuns/{RUN}/taskInstances/{task_id}/links")["extra_links"]
        return [url for url in found.values() if url]

    [link] = links("join")
    assert ended.xcom(DAG, RUN, "join").version[:12] in link
    assert links("list_files") == []


def test_the_logs_of_tasks_that_ended_well_have_no_errors_and_no_warnings(ended):
    """What an adapter does beside the task (events, links, lineage) fails into the log and nowhere else."""
    found = []
    for file in ended.home.glob(f"logs/dag_id={DAG}/run_id={RUN}/**/*.log"):
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        if "task_id=fails_once" not in str(file):
            found += [(file.parent.name, each) for each in lines if each.get("level") in {"warning", "error"}]
    assert [] == found


def test_nothing_stays_mounted_when_tasks_have_ended(ended):
    mounted = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    assert [] == [each for each in mounted if each.startswith(str(ended.home))]

"""The examples run as they stand: by `dag.test()`, and one of them by a real executor."""

from __future__ import annotations

import datetime
import importlib.util
from pathlib import Path

import pytest
from airflow.sdk import DAG

from volume_core import Volume

EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "airflow").glob("*.py"))
DAYS = ("2026-03-01", "2026-03-02")


def read(name: str) -> DAG:
    """The DAG of an example, from its file."""
    [file] = [each for each in EXAMPLES if each.stem == name]
    spec = importlib.util.spec_from_file_location(f"example_{name}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)()


def test_there_are_examples_and_each_is_named_as_its_dag():
    assert {each.stem for each in EXAMPLES} == {read(each.stem).dag_id for each in EXAMPLES}
    assert {"daily_ingest", "hand_over", "sql_on_files"} <= {each.stem for each in EXAMPLES}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda each: each.stem)
def test_an_example_can_be_read_at_once(example):
    assert len(example.read_text().splitlines()) < 90


@pytest.mark.slow
@pytest.mark.parametrize("driver", ["copy", pytest.param("kernel", marks=pytest.mark.fuse)])
def test_the_volume_grows_by_a_day_at_a_time_and_a_day_that_is_run_again_is_there_once(run_dag, monkeypatch, driver):
    monkeypatch.setenv("VOLUME_DRIVER", driver)
    ingest = read("daily_ingest")
    for day in (*DAYS, DAYS[1]):
        date = datetime.datetime.fromisoformat(f"{day}T00:00:00+00:00")
        run, _ = run_dag(ingest, logical_date=date)
        assert run.state == "success"

    events = Volume.from_name_sync("events").finalize_sync()
    found = sorted(entry.path for entry in events.listdir_sync("/", recursive=True) if entry.path.endswith(".csv"))
    assert found == [f"day={day}/{region}.csv" for day in DAYS for region in ("ap", "eu", "us")]
    assert b"".join(events.read_file_sync(found[0])).count(b"\n") == 1000
    heads = [entry.volume.message for entry in events.log_sync() if entry.volume.name == "events"]
    assert heads[:3] == [DAYS[1], DAYS[1], DAYS[0]]


@pytest.mark.slow
@pytest.mark.parametrize("driver", ["copy", pytest.param("kernel", marks=pytest.mark.fuse)])
def test_a_database_and_a_shell_work_on_files_of_a_version(run_dag, monkeypatch, driver):
    monkeypatch.setenv("VOLUME_DRIVER", driver)
    run, xcoms = run_dag(read("sql_on_files"))
    assert run.state == "success"
    assert xcoms["revenue", -1, "return_value"] == {"Ada": 42, "Grace": 20}
    assert xcoms["largest", -1, "return_value"] == "1,1,30"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.xdist_group("airflow_server")
def test_the_ingest_runs_in_a_real_executor_too(airflow_server):
    state = airflow_server.run("daily_ingest", "by-executor", f"{DAYS[0]}T00:00:00Z")
    if state != "success":
        print(airflow_server.logs())
    assert state == "success"
    landed = airflow_server.xcom("daily_ingest", "by-executor", "land")
    assert landed.message == DAYS[0]
    parts = [airflow_server.xcom("daily_ingest", "by-executor", "fetch", map_index=index) for index in range(3)]
    assert {each.locator for each in parts} <= set(landed.log_sync(limit=1)[0].parents)
    # The scheduler has a run of today as well, which may have landed by now, on top of this one.
    events = Volume.from_name_sync("events", airflow_server.store).finalize_sync()
    assert landed.locator in {entry.volume.locator for entry in events.log_sync()}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.xdist_group("airflow_server")
def test_a_database_a_shell_and_a_hand_over_by_locator_run_in_a_real_executor_too(airflow_server):
    pages = Volume.new("pages", airflow_server.store)
    (pages.mount_sync(driver="copy") / "one.txt").write_text("three words long")
    given = pages.finalize_sync()
    airflow_server.start("hand_over", "by-executor", pages=given.locator)
    states = [airflow_server.run("sql_on_files", "by-executor"), airflow_server.ended("hand_over", "by-executor")]
    if states != ["success"] * 2:
        print(airflow_server.logs())
    assert states == ["success"] * 2

    assert airflow_server.xcom("sql_on_files", "by-executor", "revenue") == {"Ada": 42, "Grace": 20}
    assert airflow_server.xcom("sql_on_files", "by-executor", "largest") == "1,1,30"
    counted = Volume.from_locator_sync(airflow_server.xcom("hand_over", "by-executor", "locator"))
    assert b"3" == b"".join(counted.read_file_sync("one.count"))
    assert (given.locator,) == counted.log_sync(limit=1)[0].parents

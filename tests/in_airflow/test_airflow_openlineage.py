"""OpenLineage, by Airflow's own provider: which versions a task has read and made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from volume_airflow.assets.vol import asset_of, to_openlineage, volume_asset
from volume_core.facade.naming import place_of

pytest.importorskip("airflow.providers.openlineage", reason="the provider for OpenLineage is not installed")

# A process of its own: whether there is somebody to tell is decided once in each, when plugins are loaded; and its
# tasks share what is collected, so each DAG has one.
RUNS = """
import datetime, json, sys
from airflow_kit import dag_runs, written
from airflow.sdk import DAG, task
from volume_core import ROVolume, RWVolume, Volume

given = json.loads(sys.argv[1])

def in_a_dag(name, function, *args):
    with DAG(name, schedule=None, start_date=datetime.datetime(2026, 1, 1)) as dag:
        task(function, task_id="do")(*args)
    run, xcoms = dag_runs(dag)
    assert run.state == "success", name
    return xcoms.get(("do", -1, "return_value"))

def change(data: RWVolume, rules: ROVolume):
    other = ROVolume.model_validate(given["mounted"])
    other.mount_sync(driver="copy")
    for number in range(2):
        root = data.mount_path or data.mount_sync(driver="copy")
        (root / "b").write_text(str(number))
        data.commit_sync()
    other.unmount_sync()
    return data

made = in_a_dag("told", change, given["data"], given["rules"])
print("MADE", made.version)
"""


@pytest.mark.slow
@pytest.mark.usefixtures("database")
def test_a_complete_event_has_the_versions_read_and_the_last_version_made(tmp_path):
    from airflow_kit import made

    given = {name: made(name, a="1") for name in ("data", "rules", "mounted")}
    told, script = tmp_path / "events.json", tmp_path / "runs.py"
    script.write_text(RUNS)
    transport = {"type": "file", "log_file_path": str(told), "append": True}
    environment = os.environ | {
        "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(transport),
        "AIRFLOW__OPENLINEAGE__NAMESPACE": "tests",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
    }
    locators = json.dumps({name: version.locator for name, version in given.items()})

    done = subprocess.run(
        [sys.executable, str(script), locators], env=environment, capture_output=True, text=True, check=False
    )

    assert 0 == done.returncode, done.stdout[-3000:] + done.stderr[-3000:]
    version = done.stdout.rpartition("MADE ")[2].split()[0]
    events = [json.loads(line) for line in told.read_text().splitlines()]
    [complete] = [each for each in events if each["eventType"] == "COMPLETE" and each["job"]["name"] == "told.do"]
    inputs = {each["name"]: each["facets"]["version"]["datasetVersion"] for each in complete["inputs"]}
    assert {name: version.version for name, version in given.items()} == inputs
    [output] = complete["outputs"]
    assert ("data", version) == (output["name"], output["facets"]["version"]["datasetVersion"])
    assert f"{output['namespace']}/{output['name']}" == volume_asset("data").uri


def test_an_asset_becomes_a_dataset_whose_namespace_is_its_store():
    dataset = to_openlineage(asset_of("s3://bucket/prefix", "raw", {"version": "ab"}), None)

    assert ("vol://s3+bucket/prefix/-", "raw") == (dataset.namespace, dataset.name)
    assert "ab" == dataset.facets["version"].datasetVersion
    assert "s3://bucket/prefix" == dataset.facets["dataSource"].uri


def test_an_asset_of_the_default_store_is_the_same_dataset_however_it_is_written():
    from volume_airflow.compat import Asset

    short, full = to_openlineage(Asset("vol://raw"), None), to_openlineage(volume_asset("raw"), None)

    assert (short.namespace, short.name) == (full.namespace, full.name)
    assert "version" not in short.facets
    assert full.facets["dataSource"].uri == place_of(None).url


def test_airflow_finds_the_converter_by_the_scheme():
    from airflow.providers.openlineage.utils.utils import translate_airflow_asset

    assert "raw" == translate_airflow_asset(volume_asset("raw"), None).name

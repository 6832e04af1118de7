"""`vol://` paths of Airflow, and directories and files of a version that tasks hand on."""

from __future__ import annotations

import json
import os

import pytest
from airflow_kit import made, returned, run_tasks

from volume_airflow import stores
from volume_airflow.compat import DAG, IS_3, ObjectStoragePath, deserialize, serialize, task
from volume_core import ROVolume, Volume, VolumeError
from volume_core.fs import VolumeFileSystem

# Airflow 2's paths do not ask universal_pathlib for a class of their scheme.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Could not find default for known protocol 'vol'", "ignore::PendingDeprecationWarning"
)


@pytest.fixture(autouse=True)
def own_connections(monkeypatch):
    """No connection of another test is known."""
    for name in [name for name in os.environ if name.startswith("AIRFLOW_CONN_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(stores, "_met", {})
    monkeypatch.setattr(stores, "_asked", {})
    try:
        from airflow.sdk.io import store as attached
    except ImportError:
        from airflow.io import store as attached
    monkeypatch.setattr(attached, "_STORE_CACHE", {})
    VolumeFileSystem.clear_instance_cache()


def conn_id_of(path):
    """The connection of a path: an attribute from 3 on, an option before."""
    return path.conn_id if IS_3 else path.storage_options["conn_id"]


@pytest.fixture
def team(monkeypatch, tmp_path):
    """A connection `team`, and a version of `data` in its store."""
    url = f"file://{tmp_path}/team"
    monkeypatch.setenv("AIRFLOW_CONN_TEAM", json.dumps({"conn_type": "volume", "host": url}))
    volume = Volume.from_name_sync("data", url, create_if_missing=True)
    with volume.batch_upload_sync() as batch:
        batch.put_file(__file__, "/deep/a.py")
    return batch.version


def test_a_path_is_read_listed_looked_at_and_copied(tmp_path):
    made(name="data", a="1", b="22")
    root = ObjectStoragePath("vol://data/")
    assert ["a", "b"] == sorted(each.name for each in root.iterdir())
    assert "22" == (root / "b").read_text()
    assert 2 == (root / "b").stat().st_size
    root.copy(ObjectStoragePath(f"file://{tmp_path}/out/"), recursive=True)
    assert "1" == next((tmp_path / "out").rglob("a")).read_text()


def test_a_path_is_written_and_that_is_a_version():
    before = made(name="data", a="1")
    (ObjectStoragePath("vol://data/") / "new").write_text("3")
    now = Volume.from_name_sync("data").committed
    assert now != before
    assert b"3" == b"".join(now.read_file_sync("new"))


def test_the_connection_says_which_store(team):
    path = ObjectStoragePath("vol://data/deep", conn_id="team")
    assert ["a.py"] == [each.name for each in path.iterdir()]
    assert (path / "a.py").exists()


def test_userinfo_of_a_url_is_the_connections_id_so_a_version_stands_behind_a_tilde(team):
    path = ObjectStoragePath(f"vol://team@data~{team.version[:12]}/deep/a.py")
    assert "team" == conn_id_of(path)
    assert "userinfo" in path.read_text()
    mistaken = ObjectStoragePath("vol://data@v1/deep/a.py")
    assert "data" == conn_id_of(mistaken)


def test_a_path_goes_through_an_xcom_with_its_connection(team):
    path = ObjectStoragePath("vol://data/deep/a.py", conn_id="team")
    back = deserialize(serialize(path))
    assert ("team", str(path)) == (conn_id_of(back), str(back))
    assert back.read_text() == path.read_text()


def test_a_path_in_a_dag_file_asks_for_no_credentials(monkeypatch):
    from volume_core.passing import environment

    monkeypatch.setenv(
        "AIRFLOW_CONN_TEAM",
        json.dumps({"conn_type": "volume", "host": "s3://team/v", "login": "KEYKEY", "password": "SECRET"}),
    )
    ObjectStoragePath("vol://data/a", conn_id="team")
    assert {} == environment._sets
    assert "VOLUME_S3_ACCESS_KEY_ID" not in os.environ


def test_a_version_as_a_directory_or_a_file_is_a_path_that_means_the_same_in_the_next_task():
    version = made(a="1")
    with DAG("referring", schedule=None) as dag:

        @task
        def give():
            return [version.as_directory(), version.as_file("a")]

        @task
        def look(paths):
            directory, file = paths
            return [sorted(each.name for each in directory.iterdir()), file.read_text(), type(file).__name__]

        look(give())

    assert [["a"], "1", "ObjectStoragePath"] == returned(run_tasks(dag), "look")


def test_outside_of_a_task_there_is_no_path_to_hand_on():
    with pytest.raises(VolumeError, match="no engine's task runs here"):
        made(a="1").as_directory()


def test_the_url_of_a_version_is_a_path_of_it(team):
    path = ObjectStoragePath(str(team)) / "deep" / "a.py"
    assert path.exists()
    assert isinstance(team, ROVolume)

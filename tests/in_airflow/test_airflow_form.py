"""The form of a connection and its button "Test", as the UI asks a real API server for them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from volume_airflow.provider_info import UI_FIELD_BEHAVIOUR, conn_fields
from volume_core.testing.s3server import S3Server

pytest.importorskip("airflow.sdk", reason="the API that is asked is that of Airflow 3")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.xdist_group("airflow_server")]

KEY, SECRET = "AKIATESTTESTTEST", "a-secret-that-is-never-shown"


@pytest.fixture(scope="module")
def bucket():
    """A server that knows one key alone, and a bucket in it."""
    with S3Server(access_key=KEY, region="eu-west-1") as s3:
        s3.made = s3.make_bucket("team")
        yield s3


def to_the_bucket(bucket, **fields):
    extra = {"endpoint_url": bucket.endpoint, "region": "eu-west-1"}
    told = {"connection_id": "volume_team", "conn_type": "volume", "host": "s3://team/v"}
    return told | {"login": KEY, "password": SECRET, "extra": json.dumps(extra)} | fields


def outcome(airflow_server, **fields):
    found = airflow_server.post("connections/test", connection_id="it", conn_type="volume", **fields)
    return found["status"], found["message"]


def test_the_form_has_the_fields_of_a_store(airflow_server):
    [meta] = [each for each in airflow_server.ui("connections/hook_meta") if each["connection_type"] == "volume"]

    assert "Volume store" == meta["hook_name"]
    assert conn_fields().keys() == meta["extra_fields"].keys()
    assert "password" == meta["extra_fields"]["session_token"]["schema"]["format"]
    standard = meta["standard_fields"]
    assert UI_FIELD_BEHAVIOUR["relabeling"]["host"] == standard["host"]["title"]
    assert UI_FIELD_BEHAVIOUR["placeholders"]["host"] == standard["host"]["placeholder"]
    assert {"url_schema", "port"} == {name for name, each in standard.items() if each and each["hidden"]}


def test_a_directory_is_tried_and_nothing_stays_in_it(airflow_server, tmp_path):
    store = tmp_path / "store"

    worked, said = outcome(airflow_server, host=str(store))

    assert worked, said
    assert "can be read and written" in said
    assert [] == [each for each in store.rglob("*") if each.is_file() and ".store" not in each.parts]  # its own locks


def test_a_bucket_is_tried_with_the_keys_of_the_form_and_with_those_that_are_kept(airflow_server, bucket):
    fields = to_the_bucket(bucket)
    del fields["connection_id"], fields["conn_type"]
    worked, said = outcome(airflow_server, **fields)
    assert worked, said

    airflow_server.post("connections", **to_the_bucket(bucket))
    kept = airflow_server.post("connections/test", connection_id="volume_team", conn_type="volume", host="s3://team/v")
    assert kept["status"], kept["message"]


def test_a_wrong_key_is_a_sentence_without_the_key_and_leaves_nothing_to_the_next_one(airflow_server, bucket):
    fields = to_the_bucket(bucket, login="AKIAWRONG", password="another-secret")
    del fields["connection_id"], fields["conn_type"]

    worked, said = outcome(airflow_server, **fields)
    assert not worked
    assert "check the credentials" in said
    assert "another-secret" not in said
    again, said = outcome(airflow_server, **(fields | {"login": KEY, "password": SECRET}))
    assert again, said


def test_a_host_that_is_no_store_is_a_sentence(airflow_server):
    worked, said = outcome(airflow_server, host="s4://team")
    assert not worked
    assert "s4" in said


def test_no_secret_is_in_a_log_of_airflows(airflow_server):
    logs = "".join(each.read_text(errors="replace") for each in Path(airflow_server.home).glob("*.log"))
    assert SECRET not in logs
    assert "another-secret" not in logs

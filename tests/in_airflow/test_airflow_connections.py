"""Connections of type `volume`: what may be in one, how its keys reach a store, and who finds it."""

from __future__ import annotations

import importlib
import json
import os
import types

import pytest
from airflow_kit import Supervisor, returned, run_task, run_tasks

from volume_airflow import running, stores
from volume_airflow.compat import DAG, IS_3, BaseHook, Connection, task
from volume_airflow.connections import variables_of
from volume_airflow.hooks.volume import VolumeHook
from volume_core import NotFoundError, ROVolume, StorageError, Volume, VolumeError
from volume_core.testing.s3server import S3Server

KEY, SECRET = "AKIATESTTESTTEST", "a-secret-that-is-never-shown"
needs_supervisor = pytest.mark.skipif(not IS_3, reason="the kit's supervisor answers as that of Airflow 3 does")


@pytest.fixture(autouse=True)
def own_environment(monkeypatch):
    """What a connection sets is taken back after the test, and nothing of this machine's is there before."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_", "AIRFLOW_CONN_")):
            monkeypatch.delenv(name)
    before = dict(os.environ)
    monkeypatch.setattr("volume_core.passing.environment._sets", {})
    monkeypatch.setattr("volume_core.passing.environment._before", {})
    for name in ("_asked", "_met"):
        monkeypatch.setattr(stores, name, {})
    monkeypatch.setattr(stores, "_defaults", type(stores._defaults)())
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture
def bucket():
    """A server that knows one key alone, and a bucket in it."""
    with S3Server(access_key=KEY, region="eu-west-1") as s3:
        s3.team = s3.make_bucket("team")
        yield s3


def given(monkeypatch, conn_id="volume_default", **fields):
    """A connection, as the environment has it."""
    fields = {"conn_type": "volume"} | fields
    monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(fields))


def to_the_bucket(bucket, **fields):
    extra = {"endpoint_url": bucket.endpoint, "region": "eu-west-1"}
    return {"host": "s3://team/volumes", "login": KEY, "password": SECRET, "extra": extra} | fields


def connection(**fields):
    """A connection as variables_of sees one."""
    empty = dict.fromkeys(("conn_type", "host", "schema", "port", "login", "password", "extra"))
    extra = fields.pop("extra", None)
    return types.SimpleNamespace(**{"conn_id": "c", **empty, **fields, "extra": json.dumps(extra) if extra else None})


# -- what may be in one


@pytest.mark.parametrize(
    ("uri", "url"),
    [
        ("volume://s3://team/volumes", "s3://team/volumes"),
        ("volume://s3://team%2FVolumes%2Fdeep", "s3://team/Volumes/deep"),
        ("volume://gs://team", "gs://team"),
        ("volume://abfs://c%40account.dfs.core.windows.net/p", "abfs://c@account.dfs.core.windows.net/p"),
    ],
)
def test_a_connection_that_is_written_as_a_uri_has_its_url_put_together_again(monkeypatch, uri, url):
    monkeypatch.setenv("AIRFLOW_CONN_TEAM", uri)
    assert url == VolumeHook("team").store.url


def test_a_uri_brings_keys_and_extra(monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_TEAM", f"volume://s3://{KEY}:{SECRET}@team/volumes?region=eu-west-1")
    store = VolumeHook("team").store
    assert (KEY, SECRET) == (store.variables["VOLUME_S3_ACCESS_KEY_ID"], store.variables["VOLUME_S3_SECRET_ACCESS_KEY"])
    assert "eu-west-1" == store.region


def test_what_airflow_writes_as_a_uri_is_read_as_the_same_store(monkeypatch, tmp_path):
    for host in ("s3://team/volumes", f"file://{tmp_path}", str(tmp_path)):
        uri = Connection(conn_id="x", conn_type="volume", host=host).get_uri()
        monkeypatch.setenv("AIRFLOW_CONN_TEAM", uri)
        assert {"s3://team/volumes": host}.get(host, f"file://{tmp_path}") == VolumeHook("team").store.url


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "names no store: its host is a URL"),
        ({"host": "s3://team", "conn_type": "aws"}, "one of type 'volume' says where volumes lie"),
        ({"host": "s3://team", "port": 9000}, "which belongs to endpoint_url"),
        ({"host": "s3://key:secret@team"}, "credentials are taken from the environment"),
        ({"host": "s3://team", "login": KEY}, "has no password: keys are two"),
        ({"host": "s3://team", "extra": {"google_cloud_conn_id": "google_team"}}, "which is for gs://, and its store"),
        (
            {"host": "gs://team", "extra": {"aws_conn_id": "aws_team"}},
            "which is for s3://, and its store is one of gs://",
        ),
        ({"host": "gs://team", "login": KEY, "password": SECRET}, "name a connection in google_cloud_conn_id"),
        ({"host": "/srv", "login": KEY, "password": SECRET}, "leave login and password empty"),
        ({"host": "gs://team", "extra": {"endpoint_url": "http://x"}}, "endpoint_url, which is for s3://"),
        (
            {"host": "s3://t", "login": KEY, "extra": {"aws_conn_id": "aws_team"}},
            "leave one of them out",
        ),
    ],
)
def test_what_cannot_be_a_store_is_refused_with_what_to_do(monkeypatch, fields, said):
    given(monkeypatch, "team", **fields)
    with pytest.raises((VolumeError, ValueError), match=said):
        _ = VolumeHook("team").store


def test_an_extra_that_is_no_object_is_refused():
    each = connection(host="s3://team")
    each.extra = "[1]"
    with pytest.raises(VolumeError, match="not a JSON object"):
        stores.store_of(each)


# -- from a connection to variables


def test_the_tasks_own_clients_are_not_sent_to_where_volumes_lie():
    extra = {"endpoint_url": "http://minio:9000", "region": "eu-west-1", "session_token": "t", "cache_size": "1G"}
    found = variables_of(connection(login=KEY, password=SECRET, extra=extra), "s3")
    assert found == {
        "VOLUME_S3_ACCESS_KEY_ID": KEY,
        "VOLUME_S3_SECRET_ACCESS_KEY": SECRET,
        "VOLUME_S3_SESSION_TOKEN": "t",
        "VOLUME_S3_ENDPOINT": "http://minio:9000",
        "VOLUME_S3_REGION": "eu-west-1",
        "VOLUME_CACHE_LIMIT": "1G",
    }


def test_a_connection_that_says_nobody_leaves_it_to_the_machine():
    assert {} == variables_of(connection(), "s3")
    assert {} == variables_of(connection(), "gs", connection(conn_type="google_cloud_platform"))
    assert {} == variables_of(connection(), "az", connection(conn_type="wasb"))


def test_a_profile_goes_before_keys_in_the_environment():
    found = variables_of(connection(), "s3", connection(conn_type="aws", extra={"profile_name": "team"}))
    assert "team" == found["AWS_PROFILE"]
    assert {"AWS_ACCESS_KEY_ID", "VOLUME_S3_ACCESS_KEY_ID"} <= {name for name, value in found.items() if value is None}


def test_the_endpoint_of_an_aws_connections_s3_service_counts():
    extra = {"endpoint_url": "http://all", "service_config": {"s3": {"endpoint_url": "http://s3"}}}
    found = variables_of(connection(), "s3", connection(conn_type="aws", login="k", password="s", extra=extra))
    assert "http://s3" == found["VOLUME_S3_ENDPOINT"]


def test_an_assumed_role_is_asked_of_its_own_provider():
    with pytest.raises(VolumeError, match="pip install apache-airflow-providers-amazon"):
        variables_of(connection(), "s3", connection(conn_type="aws", extra={"role_arn": "arn:aws:iam::1:role/r"}))


@pytest.mark.parametrize("field", ["keyfile_dict", "extra__google_cloud_platform__keyfile_dict"])
def test_a_service_account_is_its_json_or_its_file(field):
    account = connection(conn_type="google_cloud_platform", extra={field: '{"a": 1}'})
    assert '{"a": 1}' == variables_of(connection(), "gs", account)["GOOGLE_SERVICE_ACCOUNT_KEY"]
    file = connection(conn_type="google_cloud_platform", extra={"key_path": "/key.json"})
    assert "/key.json" == variables_of(connection(), "gs", file)["GOOGLE_APPLICATION_CREDENTIALS"]


def test_a_google_connection_that_stores_cannot_use_is_refused():
    account = connection(conn_type="google_cloud_platform", extra={"impersonation_chain": "a@b"})
    with pytest.raises(VolumeError, match="impersonation_chain, which stores do not know"):
        variables_of(connection(), "gs", account)


@pytest.mark.parametrize(
    ("fields", "variables"),
    [
        ({"extra": {"connection_string": "AccountName=a"}}, {"AZURE_STORAGE_CONNECTION_STRING": "AccountName=a"}),
        ({"login": "team", "password": "k"}, {"AZURE_STORAGE_ACCOUNT_NAME": "team", "AZURE_STORAGE_ACCOUNT_KEY": "k"}),
        (
            {"host": "https://team.blob.core.windows.net/", "extra": {"sas_token": "sv=1"}},
            {"AZURE_STORAGE_ACCOUNT_NAME": "team", "AZURE_STORAGE_SAS_TOKEN": "sv=1"},
        ),
        (
            {"host": "team.blob.core.windows.net", "login": "c", "password": "s", "extra": {"tenant_id": "t"}},
            {
                "AZURE_STORAGE_ACCOUNT_NAME": "team",
                "AZURE_STORAGE_TENANT_ID": "t",
                "AZURE_STORAGE_CLIENT_ID": "c",
                "AZURE_STORAGE_CLIENT_SECRET": "s",
            },
        ),
    ],
)
def test_azure_is_a_connection_string_or_an_account(fields, variables):
    found = variables_of(connection(), "az", connection(conn_type="wasb", **fields))
    assert variables == {name: value for name, value in found.items() if value is not None}


def test_a_referenced_connection_of_another_type_is_refused():
    with pytest.raises(VolumeError, match="for a store of s3:// it is one of type 'aws'"):
        variables_of(connection(), "s3", connection(conn_type="wasb"))


# -- the hook


def test_a_store_is_written_and_read_by_the_hook_and_shows_no_secret(monkeypatch, bucket):
    given(monkeypatch, **to_the_bucket(bucket))
    hook = VolumeHook()
    with hook.use() as store:
        volume = store.volume("data")
        with volume.batch_upload_sync() as batch:
            batch.put_file(__file__, "/a.py")
    assert batch.version == hook.head("data")
    assert hook.head("nothing") is None
    assert ["data"] == [each.name for each in hook.volumes()]
    assert batch.version == hook.from_name("data", version=batch.version.version)
    hook.delete("data")
    assert [] == hook.volumes()
    assert SECRET not in f"{hook!r} {hook.store!r} {hook.get_conn()} {hook.use()!r}"


def test_keys_are_in_the_environment_for_the_length_of_a_block(monkeypatch):
    given(monkeypatch, host="s3://team/volumes", login=KEY, password=SECRET)
    with VolumeHook().use():
        assert KEY == os.environ["VOLUME_S3_ACCESS_KEY_ID"]
    assert "VOLUME_S3_ACCESS_KEY_ID" not in os.environ


def test_two_stores_with_other_keys_are_used_one_after_the_other(monkeypatch, bucket):
    with S3Server(access_key="AKIAOTHEROTHER") as second:
        second.make_bucket("partner")
        given(monkeypatch, "one", **to_the_bucket(bucket))
        extra = {"endpoint_url": second.endpoint}
        given(monkeypatch, "two", host="s3://partner", login="AKIAOTHEROTHER", password=SECRET, extra=extra)
        for conn_id in ("one", "two", "one"):
            hook = VolumeHook(conn_id)
            with hook.use(), hook.volume("data").batch_upload_sync(force=True) as batch:
                batch.put_file(__file__, "/a.py")
            assert "VOLUME_S3_ACCESS_KEY_ID" not in os.environ


def test_keys_of_a_referenced_connection_are_read_afresh(monkeypatch, bucket):
    given(monkeypatch, **to_the_bucket(bucket, login=None, password=None) | {"extra": {"aws_conn_id": "team_keys"}})
    given(monkeypatch, "team_keys", conn_type="aws", login="OLD", password=SECRET, extra={"region_name": "eu-west-1"})
    assert "OLD" == VolumeHook().environment()["VOLUME_S3_ACCESS_KEY_ID"]
    given(
        monkeypatch, "team_keys", conn_type="aws", login=KEY, password=SECRET, extra={"endpoint_url": bucket.endpoint}
    )
    assert KEY == VolumeHook().environment()["VOLUME_S3_ACCESS_KEY_ID"]
    assert bucket.endpoint == VolumeHook().environment()["VOLUME_S3_ENDPOINT"]


def test_a_connection_that_is_not_there_is_named():
    with pytest.raises(NotFoundError, match="there is no connection 'nobody'"):
        VolumeHook("nobody").get_conn()


@pytest.mark.fuse
def test_the_mount_server_has_the_keys_of_the_connection(monkeypatch, bucket, tmp_path):
    given(monkeypatch, **to_the_bucket(bucket))
    hook = VolumeHook()
    with hook.volume("data").mounted_sync() as path:
        (path / "big").write_bytes(b"x" * 300_000)
    with hook.head("data").mounted_sync(cache_dir=str(tmp_path / "cache")) as path:
        assert b"x" * 300_000 == (path / "big").read_bytes()


# -- the button


def test_a_test_of_a_connection_reads_and_writes_and_leaves_nothing(monkeypatch, bucket):
    given(monkeypatch, **to_the_bucket(bucket))
    assert (
        True,
        "s3://team/volumes can be read and written; there are no volumes yet",
    ) == VolumeHook().test_connection()
    with VolumeHook().use(), VolumeHook().store.volume("data").batch_upload_sync() as batch:
        batch.put_file(__file__, "/a.py")
    before = set(bucket.team.keys)
    assert (True, "s3://team/volumes can be read and written") == VolumeHook().test_connection()
    assert before == set(bucket.team.keys)
    assert before


def test_a_test_says_what_is_wrong_with_keys_bucket_and_url(monkeypatch, bucket):
    given(monkeypatch, **to_the_bucket(bucket, login="AKIASOMEBODYELSE"))
    worked, said = VolumeHook().test_connection()
    assert not worked
    assert "check the credentials" in said
    given(monkeypatch, **to_the_bucket(bucket, host="s3://nobodys/volumes"))
    worked, said = VolumeHook().test_connection()
    assert not worked
    assert "check the bucket's name" in said
    given(monkeypatch, host="s3://", login=KEY, password=SECRET)
    worked, said = VolumeHook().test_connection()
    assert not worked
    assert "volume_default" in said
    assert (False, "there is no connection 'nobody': make it (of type 'volume'), or name another one") == VolumeHook(
        "nobody"
    ).test_connection()


def test_a_test_of_an_endpoint_where_nobody_is_ends_soon(monkeypatch):
    extra = {"endpoint_url": "http://127.0.0.1:9", "region": "eu-west-1"}
    given(monkeypatch, host="s3://team", login=KEY, password=SECRET, extra=extra)
    worked, said = VolumeHook().test_connection()
    assert not worked
    assert "check the endpoint" in said


def test_airflows_own_test_of_a_connection_asks_the_hook(monkeypatch, tmp_path):
    made = Connection(conn_id="volume_default", conn_type="volume", host=str(tmp_path / "store"))
    monkeypatch.setenv("AIRFLOW_CONN_VOLUME_DEFAULT", made.get_uri())
    worked, said = made.test_connection()
    assert worked, said
    assert "can be read and written" in said


@pytest.fixture
def plugin():
    """The plugin is loaded, as in every process of Airflow, and with it the hooks that look for connections."""
    importlib.import_module("volume_airflow.calling")


@pytest.mark.usefixtures("plugin")
def test_a_form_is_tested_again_where_the_connection_of_the_test_before_is_gone(monkeypatch, bucket):
    """Airflow names each test's connection by chance, and takes it away."""
    for conn_id in ("one", "two"):
        given(monkeypatch, conn_id, **to_the_bucket(bucket))
        assert (True, "s3://team/volumes can be read and written; there are no volumes yet") == VolumeHook(
            conn_id
        ).test_connection()
        monkeypatch.delenv(f"AIRFLOW_CONN_{conn_id.upper()}")


@pytest.mark.usefixtures("plugin")
def test_a_form_with_new_keys_is_tested_with_these_and_not_those_of_the_connection_in_use(monkeypatch, bucket):
    given(monkeypatch, "kept", **to_the_bucket(bucket, login="AKIAOFYESTERDAY"))
    stores.connected("kept")
    given(monkeypatch, "rotated", **to_the_bucket(bucket))
    worked, said = VolumeHook("rotated").test_connection()
    assert worked, said


# -- where volumes lie by default


@task
def where():
    return Volume.new("data").store_url


def run_where(supervisor):
    with DAG("where", schedule=None) as dag:
        where()
    return returned(run_tasks(dag, supervisor), "where")


@needs_supervisor
def test_the_default_connection_says_where_volumes_lie(tmp_path):
    supervisor = Supervisor({"volume_default": {"conn_type": "volume", "host": str(tmp_path / "team")}})
    assert f"file://{tmp_path}/team" == run_where(supervisor)


@needs_supervisor
def test_the_settings_name_another_connection_which_must_be_there(monkeypatch, tmp_path):
    monkeypatch.setenv("AIRFLOW__VOLUME__CONN_ID", "team")
    supervisor = Supervisor({"team": {"conn_type": "volume", "host": str(tmp_path / "team")}})
    assert f"file://{tmp_path}/team" == run_where(supervisor)
    with pytest.raises(NotFoundError, match="there is no connection 'team'"):
        run_where(Supervisor())


@needs_supervisor
def test_the_settings_name_a_store_where_there_is_no_connection(monkeypatch, tmp_path):
    monkeypatch.setenv("AIRFLOW__VOLUME__STORE", str(tmp_path / "all"))
    assert f"file://{tmp_path}/all" == run_where(Supervisor())


@needs_supervisor
def test_the_environment_goes_before_the_connection_and_asks_nobody(monkeypatch, tmp_path):
    monkeypatch.setenv("VOLUME_BUCKET", str(tmp_path / "mine"))
    supervisor = Supervisor({"volume_default": {"conn_type": "volume", "host": str(tmp_path / "team")}})
    assert f"file://{tmp_path}/mine" == run_where(supervisor)
    assert [] == asked(supervisor)


def asked(supervisor):
    return [each.conn_id for each in supervisor.sent if type(each).__name__ == "GetConnection"]


@needs_supervisor
def test_where_volumes_lie_is_asked_once_a_task(tmp_path):
    supervisor = Supervisor({"volume_default": {"conn_type": "volume", "host": str(tmp_path / "team")}})
    with DAG("often", schedule=None) as dag:

        @task
        def often():
            return [Volume.new("data").bucket for _ in range(5)]

        often()
    run_tasks(dag, supervisor)
    assert ["volume_default"] == asked(supervisor)


class Silent(Supervisor):
    """One whose API does not answer."""

    def send(self, msg):
        from airflow.sdk.execution_time import comms

        if isinstance(msg, comms.GetConnection):
            return comms.ErrorResponse(error=comms.ErrorType.API_SERVER_ERROR)
        return super().send(msg)


@needs_supervisor
def test_an_api_that_does_not_answer_is_an_error_that_may_pass_and_never_another_place():
    with DAG("silent", schedule=None) as dag:
        where()
    ended = run_task(dag.get_task("where"), Silent())
    assert isinstance(ended.error, StorageError)
    assert ended.error.transient
    assert "API_SERVER_ERROR" in str(ended.error)


def test_airflow_does_not_tell_what_is_not_there_from_what_could_not_be_asked():
    """Which is why _silence asks once more.  Were this to fail, Airflow tells, and _silence can go."""
    if not IS_3:
        pytest.skip("the supervisor is Airflow 3's")
    from airflow.sdk.execution_time.supervisor import set_supervisor_comms

    from volume_airflow.compat import AirflowNotFoundException

    with set_supervisor_comms(Silent()), pytest.raises(AirflowNotFoundException):
        BaseHook.get_connection("volume_default")


def test_outside_of_a_task_nobody_is_asked(monkeypatch):
    monkeypatch.setattr(stores, "connected", lambda conn_id: pytest.fail(f"asked for {conn_id}"))
    assert stores.default_bucket() is None
    stores.reach("s3://team/v")


# -- a store that a task meets


@needs_supervisor
def test_a_task_that_meets_a_version_gets_in_by_the_connection_of_its_store(monkeypatch, bucket):
    given(monkeypatch, "archive", **to_the_bucket(bucket))
    with VolumeHook("archive").use() as store, store.volume("data").batch_upload_sync() as batch:
        batch.put_file(__file__, "/a.py")
    locator = batch.version.locator
    monkeypatch.delenv("AIRFLOW_CONN_ARCHIVE")
    stores._met.clear()
    monkeypatch.setenv("AIRFLOW__VOLUME__CONNECTIONS", "wide, archive")
    fields = to_the_bucket(bucket)
    fields["extra"] = json.dumps(fields["extra"])
    wide = {"conn_type": "volume", "host": "s3://team", "login": "SOMEBODY", "password": SECRET}
    supervisor = Supervisor({"wide": wide, "archive": {"conn_type": "volume", **fields}})
    with DAG("meets", schedule=None) as dag:

        @task
        def look():
            return [each.path for each in ROVolume.model_validate(locator).listdir_sync()]

        look()

    assert ["a.py"] == returned(run_tasks(dag, supervisor), "look")


def test_of_two_connections_for_one_url_the_longer_one_counts(monkeypatch):
    given(monkeypatch, "wide", host="s3://team", extra={"region": "wide-region"})
    given(monkeypatch, "deep", host="s3://team/deep", extra={"region": "deep-region"})
    for conn_id in ("wide", "deep"):
        stores.connected(conn_id)
    stores.reach("s3://team/deep/er")
    assert "deep-region" == os.environ["VOLUME_S3_REGION"]


def test_two_stores_that_need_different_keys_at_once_are_refused_with_both_names(monkeypatch):
    given(monkeypatch, "one", host="s3://one", login="1", password=SECRET)
    given(monkeypatch, "two", host="s3://two", login="2", password=SECRET)
    with VolumeHook("one").use(), pytest.raises(VolumeError, match=r"the connection 'two' needs another .* 'one'"):
        VolumeHook("two").use()


def test_a_task_runs_here_as_long_as_it_is_executed():
    assert running.current() is None

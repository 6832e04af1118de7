"""flytekit: which task runs, where its volumes lie, and with whose keys."""

from __future__ import annotations

import os
from contextlib import contextmanager

import pytest
from flytekit import task, workflow
from flytekit.core.context_manager import ExecutionParameters, ExecutionState, FlyteContextManager
from v1_kit import contents, counted, fill

from volume_core import ActionRef, ROVolume, RWVolume, Volume
from volume_core.plugins.manager import plugins
from volume_core.testing.s3server import S3Server
from volume_flyte.v1 import running

LOCAL = ActionRef(engine="flyte", project="local", domain="local", run="local")
AWS = ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


@task
def make() -> RWVolume:
    return fill(Volume.new("a"), a="a")


@task
def bucket() -> str:
    return plugins().default_bucket()


@workflow
def wf() -> str:
    make()
    return bucket()


@contextmanager
def running_with(prefix: str):
    """A run, as in a container, whose raw outputs go to *prefix*."""
    context = FlyteContextManager.current_context()
    parameters = ExecutionParameters.Builder(context.user_space_params)
    parameters.raw_output_prefix = prefix
    state = context.execution_state.with_params(
        mode=ExecutionState.Mode.TASK_EXECUTION, user_space_params=parameters.build()
    )
    with FlyteContextManager.with_context(context.with_execution_state(state)):
        yield


def test_no_task_runs_where_flytekit_is_only_imported():
    """`flytekit.current_context()` has an answer there, too."""
    assert running.current_task() is None
    assert plugins().current_task() is None
    assert running.default_bucket() is None


def test_a_local_run_is_one_and_its_volumes_are_kept_where_the_users_are(tmp_path):
    """flytekit's own directory for a local run's data is another one in each process, and is lost."""
    with counted() as commits:
        assert f"file://{tmp_path}/volume-state/store" == wf()
    assert [LOCAL] == commits.actions
    assert LOCAL == commits.versions[0].produced_by


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("s3://b/raw/x/f1-n0-0", "s3://b/volumes/local/local"),
        ("gs://b/raw", "gs://b/volumes/local/local"),
        ("abfs://cont@acc.dfs.core.windows.net/raw", "abfs://cont@acc.dfs.core.windows.net/volumes/local/local"),
        ("abfs://cont/raw/x", "az://cont/volumes/local/local"),
        ("file:///data/raw", None),
        ("/data/raw", None),
    ],
)
def test_the_default_bucket_is_that_of_the_run_and_not_below_what_one_attempt_writes(prefix, expected):
    with running_with(prefix):
        assert expected == running.default_bucket()


def test_a_bucket_that_the_user_has_set_goes_before_that_of_the_run(monkeypatch):
    monkeypatch.setenv("VOLUME_BUCKET", "s3://mine/volumes")
    with running_with("s3://b/raw"):
        assert "s3://mine/volumes" == plugins().default_bucket()


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("s3://b/metadata/propeller/p-d-f1/n0/data/0", ("n0", "0")),
        ("s3://b/metadata/propeller/p-d-f1/n0/data/3/", ("n0", "3")),
        ("s3://b/metadata/propeller/p-d-f1/n0/dn2/data/1", ("n0/dn2", "1")),
        ("s3://b/metadata/propeller/p-d-f1/n0", ("n0", "")),
        ("s3://b/elsewhere/n0/data/0", ("", "")),
        ("", ("", "")),
    ],
)
def test_node_and_attempt_are_in_the_path_of_the_outputs(prefix, expected):
    assert expected == running._node_and_attempt(prefix, "p-d-f1")


@pytest.fixture
def flyte_s3(monkeypatch, tmp_path):
    """An S3 server that only Flyte's own variables know of."""
    for name in (*AWS, "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with S3Server(access_key="minio") as server:
        server.make_bucket("my-s3-bucket")
        monkeypatch.setenv("FLYTE_AWS_ENDPOINT", server.endpoint)
        monkeypatch.setenv("FLYTE_AWS_ACCESS_KEY_ID", "minio")
        monkeypatch.setenv("FLYTE_AWS_SECRET_ACCESS_KEY", "miniostorage")
        yield server


@pytest.mark.s3
@pytest.mark.parametrize("driver", ["copy", pytest.param("kernel", marks=pytest.mark.fuse)])
def test_flytes_own_settings_reach_the_bucket_and_the_mount_server(flyte_s3, driver, monkeypatch, tmp_path):
    with running_with("s3://my-s3-bucket/raw"):
        version = fill(Volume.new("a"), a="over the network").finalize_sync()
    assert "my-s3-bucket/volumes/local/local" == version.bucket
    monkeypatch.setenv("VOLUME_STATE_DIR", str(tmp_path / "another machine"))
    reader = Volume.from_locator_sync(version.locator)
    with reader.mounted_sync(driver=driver) as path:
        assert "over the network" == (path / "a").read_text()
    assert all(name not in os.environ for name in AWS)  # the task's own clients go on as they were


@pytest.mark.s3
def test_an_explicit_aws_setting_goes_before_flytes(flyte_s3, monkeypatch):
    with S3Server(access_key="mine") as mine:
        bucket = mine.make_bucket("b")
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", mine.endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "mine")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        fill(Volume.new("a", "s3://b"), a="a").finalize_sync()

        assert bucket.objects
        assert "VOLUME_S3_ENDPOINT" not in os.environ


def test_a_task_sees_its_inputs_contents_whatever_made_them():
    @task
    def read(data: ROVolume) -> str:
        return contents(data)["a"]

    assert "a" == read(data=make())

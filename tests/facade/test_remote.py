"""The whole way over a remote store: an S3 server whose requests fail now and then."""

from __future__ import annotations

import shutil

import pytest
from facade_kit import contents, read, write

from volume_core import StorageError, Volume
from volume_core.parts.state import State
from volume_core.testing.s3server import Faults, S3Server

FAULTS = Faults(slow_down=0.08, internal_error=0.08, cut_before=0.06, cut_after=0.06)


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A server with one bucket, and in the environment who may use it."""
    with S3Server() as server:
        server.make_bucket("b")
        for name, value in {
            "AWS_ENDPOINT_URL": server.endpoint,
            "AWS_ACCESS_KEY_ID": "facade-key",
            "AWS_SECRET_ACCESS_KEY": "facade-secret",
            "AWS_REGION": "us-east-1",
            "AWS_CONFIG_FILE": str(tmp_path / "none"),
            "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            monkeypatch.setenv(name, value)
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3", "AWS_DEFAULT_REGION"):
            monkeypatch.delenv(name, raising=False)
        server.faults = FAULTS
        yield server


@pytest.fixture
def bucket(server):
    """The URL of a prefix in the bucket."""
    return "s3://b/some/prefix"


@pytest.mark.s3
def test_the_whole_life_in_a_bucket_whose_requests_fail_now_and_then(bucket, server, any_driver):
    files = {f"d/{number:03}": f"{number}\n" * number for number in range(100)} | {"big": "x" * 9_000_000}
    volume = Volume.new("data", bucket)
    with volume.mounted_sync(driver=any_driver) as path:
        write(path, files)
        first = volume.commit_sync("one")
        (path / "big").unlink()
    shutil.rmtree(State.default().cache)
    again = Volume.from_locator_sync(first.locator)
    with again.mounted_sync(driver=any_driver) as path:
        found = read(path)
    fork = again.fork_sync("fork")
    with fork.mounted_sync(driver=any_driver) as path:
        write(path, {"d/000": "changed"})

    assert files == found
    assert files | {"d/000": "changed"} == contents(fork.committed)
    assert "big" not in contents(volume.committed)
    assert ("s3", "b/some/prefix") == (first.storage, first.bucket)
    assert [] == fork.committed.verify_sync()
    assert sum(server.failed.values()) > 0


@pytest.mark.s3
def test_a_mount_asks_in_the_region_that_the_volume_was_given(bucket, server, any_driver, tmp_path, monkeypatch):
    with S3Server(region="eu-north-1") as elsewhere:
        elsewhere.make_bucket("b")
        monkeypatch.setenv("AWS_ENDPOINT_URL", elsewhere.endpoint)
        volume = Volume.new("data", bucket, region="eu-north-1")
        with volume.mounted_sync(driver=any_driver) as path:
            write(path, {"a.txt": "a" * 5000})
        shutil.rmtree(State.default().cache)
        again = Volume.model_validate_json(volume.committed.model_dump_json())
        with again.mounted_sync(driver=any_driver) as path:
            assert {"a.txt": "a" * 5000} == read(path)
        with again.fork_sync("fork").mounted_sync(driver=any_driver) as path:
            assert {"a.txt": "a" * 5000} == read(path)


@pytest.mark.s3
def test_nothing_secret_is_in_a_record_or_on_disk(bucket, tmp_path):
    volume = Volume.new("data", bucket)
    with volume.mounted_sync(driver="copy") as path:
        write(path, {"a": "1"})
        version = volume.commit_sync()
        everything = [each.read_bytes() for each in State.default().root.rglob("*") if each.is_file()]

    for secret in ("facade-key", "facade-secret"):
        assert secret not in version.model_dump_json()
        assert not any(secret.encode() in data for data in everything)


@pytest.mark.s3
def test_work_stays_when_the_store_fails_for_good(bucket):
    volume = Volume.new("data", "s3://no-such-bucket")
    path = volume.mount_sync(driver="copy")
    write(path, {"a": "1"})
    with pytest.raises(StorageError, match="no-such-bucket") as caught:
        volume.commit_sync()

    assert not caught.value.transient
    assert {"a": "1"} == read(path)
    assert volume.status_sync().changed
    volume.abandon_sync()


@pytest.mark.s3
def test_files_of_a_bucket_whose_requests_fail_now_and_then(bucket, tmp_path):
    files = {f"d/{number:03}": f"{number}\n" * number for number in range(100)} | {"big": "x" * 9_000_000}
    write(tmp_path / "source", files)
    volume = Volume.new("data", bucket)
    with volume.batch_upload_sync() as batch:
        batch.put_directory(tmp_path / "source", "/")
    volume.copy_files_sync(["d"], "e", recursive=True)
    volume.remove_file_sync("d/000")
    shutil.rmtree(State.default().cache)
    again = Volume.from_locator_sync(volume.locator)
    found = {entry.path: b"".join(again.read_file_sync(entry.path)).decode() for entry in again.iterdir_sync("**/*")
             if entry.is_file()}  # fmt: skip

    expected = files | {name.replace("d/", "e/"): text for name, text in files.items()}
    del expected["d/000"]
    assert expected == found
    assert b"x" * 10 == b"".join(again.read_file_sync("big", offset=8_999_990))
    assert [] == again.verify_sync()

"""`vol://` over an S3 server whose requests fail now and then."""

from __future__ import annotations

import fsspec
import pytest
from fs_kit import BIG, TREE

from volume_core.fs import VolumeFileSystem
from volume_core.testing.s3server import Faults, S3Server

pytestmark = pytest.mark.s3

FAULTS = Faults(slow_down=0.08, internal_error=0.08, cut_before=0.06, cut_after=0.06)


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A server with one bucket, and in the environment who may use it."""
    with S3Server() as server:
        server.make_bucket("b")
        for name, value in {
            "AWS_ENDPOINT_URL": server.endpoint,
            "AWS_ACCESS_KEY_ID": "fs-key",
            "AWS_SECRET_ACCESS_KEY": "fs-secret",
            "AWS_REGION": "us-east-1",
            "AWS_CONFIG_FILE": str(tmp_path / "none"),
            "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            monkeypatch.setenv(name, value)
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3", "AWS_DEFAULT_REGION"):
            monkeypatch.delenv(name, raising=False)
        yield server


def test_written_and_read_by_url(server, tmp_path):
    server.faults = FAULTS
    root = "s3+b/some/prefix/-/data"
    files = {name: data for name, data in TREE.items() if not name.endswith("/")}
    fs = VolumeFileSystem()

    with fs.transaction:
        fs.pipe({f"{root}/{name}": data for name, data in files.items()})
    assert b"bb" == fsspec.open(f"vol://{root}/d/b.txt").open().read()

    again = VolumeFileSystem(bucket="s3://b/some/prefix")
    assert files == {name.removeprefix("data/"): data for name, data in again.cat("data", recursive=True).items()}
    with again.open("data/big.bin") as file:
        file.seek(5 << 20)
        assert BIG[5 << 20 :] == file.read()
    again.get("data", str(tmp_path / "out"), recursive=True)
    assert BIG == (tmp_path / "out" / "big.bin").read_bytes()
    again.mv("data/d", "data/e", recursive=True)
    again.rm("data/a.txt")
    fs.invalidate_cache()
    assert [f"{root}/big.bin", f"{root}/e/b.txt", f"{root}/e/e/c.bin"] == fs.find(root)


@pytest.mark.slow
def test_a_store_that_is_away_is_an_error_and_no_answer(server):
    fs = VolumeFileSystem(bucket="s3://b")
    fs.pipe_file("data/a", b"1")
    fs.invalidate_cache()
    server.faults = Faults(internal_error=1.0)

    for ask in (lambda: fs.exists("data/a"), lambda: fs.pipe_file("data/b", b"")):
        with pytest.raises(OSError) as caught:
            ask()
        assert not isinstance(caught.value, FileNotFoundError)
        assert "fs-secret" not in str(caught.value)
    server.faults = Faults()
    assert ["data/a"] == fs.find("data")

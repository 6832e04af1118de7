"""Real servers on loopback for the tests of the remote stores, each started once per session."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import MutableMapping
from contextlib import contextmanager
from pathlib import Path

import botocore.config
import botocore.exceptions
import botocore.session

ACCESS_KEY = "AKIATESTTESTTEST"
SECRET_KEY = "a-secret-that-is-never-shown"
REGION = "us-east-1"
AZURITE = "azurite@3.35.0"


def s3_client(endpoint):
    """Return a client of botocore's: the other eye."""
    config = botocore.config.Config(
        s3={"addressing_style": "path"}, retries={"max_attempts": 1}, connect_timeout=5, read_timeout=20
    )
    return botocore.session.Session().create_client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        region_name=REGION,
        config=config,
    )


class RawBucket(MutableMapping):
    """The objects of a bucket below a prefix, through botocore."""

    def __init__(self, client, bucket, prefix=""):
        self.client = client
        self.bucket = bucket
        self.prefix = prefix

    def __getitem__(self, name):
        try:
            return self.client.get_object(Bucket=self.bucket, Key=self.prefix + name)["Body"].read()
        except self.client.exceptions.NoSuchKey:
            raise KeyError(name) from None

    def __setitem__(self, name, data):
        self.client.put_object(Bucket=self.bucket, Key=self.prefix + name, Body=data)

    def __delitem__(self, name):
        self.client.delete_object(Bucket=self.bucket, Key=self.prefix + name)

    def __iter__(self):
        for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.prefix):
            for found in page.get("Contents", ()):
                yield found["Key"].removeprefix(self.prefix)

    def __len__(self):
        return sum(1 for _ in self)


def new_bucket(client):
    """Make a bucket that no other test uses."""
    name = f"test-{uuid.uuid4().hex}"
    client.create_bucket(Bucket=name)
    return name


def start_moto():
    """Start moto's server; return it and its endpoint."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    return server, f"http://{host}:{port}"


def free_port():
    """Return a port of the loopback that nothing listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port, process, timeout_s=30):
    """Wait until *process* listens on *port*."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the server ended with {process.returncode}"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise TimeoutError(f"nothing listens on port {port} after {timeout_s} s")


@contextmanager
def running(command, port, log):
    """Run a server process while the block runs."""
    with open(log, "wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            wait_for(port, process)
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def rclone_command():
    """Return where rclone is, or None."""
    beside = Path(sys.executable).with_name("rclone")
    return str(beside) if beside.exists() else shutil.which("rclone")


def azurite_command():
    """Return the command line that runs Azurite's blob server, or None.

    VOLUME_TEST_AZURITE names the program; else `azurite-blob` is looked for on the PATH and where
    `python tests/storage/storage_servers.py install-azurite` puts it.
    """
    named = os.environ.get("VOLUME_TEST_AZURITE") or shutil.which("azurite-blob")
    if named:
        return [named]
    installed = azurite_directory() / "node_modules" / ".bin" / "azurite-blob"
    return [str(installed)] if installed.exists() else None


def azurite_directory():
    """Where the helper installs Azurite: a cache outside of the tree, kept between runs."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "volume-tests" / "azurite"


def install_azurite():
    """Install Azurite from the npm registry, once; return the path of its blob server."""
    if not azurite_command():
        directory = azurite_directory()
        directory.mkdir(parents=True, exist_ok=True)
        npm = ["npm", "install", "--no-audit", "--no-fund", "--silent", "--prefix", str(directory), AZURITE]
        subprocess.run(npm, check=True, timeout=300)
    return azurite_command()[0]


if __name__ == "__main__":
    assert ["install-azurite"] == sys.argv[1:], "the only command is install-azurite"
    print(install_azurite())

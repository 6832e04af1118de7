"""Real servers on loopback for the tests of the remote stores, each started once per session."""

from __future__ import annotations

import logging
import uuid
from collections.abc import MutableMapping

import boto3
import botocore.config
import botocore.exceptions

ACCESS_KEY = "AKIATESTTESTTEST"
SECRET_KEY = "a-secret-that-is-never-shown"
REGION = "us-east-1"


def s3_client(endpoint):
    """Return a boto3 client: the other eye."""
    config = botocore.config.Config(
        s3={"addressing_style": "path"}, retries={"max_attempts": 1}, connect_timeout=5, read_timeout=20
    )
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        region_name=REGION,
        config=config,
    )


class RawBucket(MutableMapping):
    """The objects of a bucket below a prefix, through boto3."""

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

"""Our own S3 server: S3 and Google stores keep the contract on it, and it answers as moto does."""

import random
from functools import partial

import botocore.exceptions
import pytest
import storage_servers as servers

from volume_core.storage.opening import open_store
from volume_core.storage.probing import ensure_format
from volume_core.testing.s3server import S3Server
from volume_core.testing.stores import ODD_NAMES, StoreContract

pytestmark = pytest.mark.s3

RARE = ["head_object", "delete_object", "list_objects_v2"]


@pytest.fixture
def client(our_server):
    client = servers.s3_client(our_server.endpoint)
    yield client
    client.close()


@pytest.fixture
def bucket(client):
    return servers.new_bucket(client)


class TestS3(StoreContract):
    @pytest.fixture
    def store(self, our_server, bucket, aws_environment):
        aws_environment.setenv("AWS_ENDPOINT_URL", our_server.endpoint)
        return open_store(f"s3://{bucket}")

    @pytest.fixture
    def raw(self, client, bucket):
        return servers.RawBucket(client, bucket)


class TestGoogle(StoreContract):
    """Google's XML interface, as far as our server speaks it."""

    @pytest.fixture
    def store(self, our_server, bucket, monkeypatch):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", our_server.endpoint.removeprefix("http://"))
        return open_store(f"gs://{bucket}/pre fix")

    @pytest.fixture
    def raw(self, client, bucket):
        return servers.RawBucket(client, bucket, "pre fix/")

    def test_the_probe_finds_every_promise_kept(self, store, raw):
        assert ensure_format(store).honours_conditions
        assert ["format.json"] == list(raw)


def said(call):
    """Return what a server answered to a call of botocore, without what may differ between servers."""
    try:
        answer = call()
    except botocore.exceptions.ClientError as error:
        return error.response["ResponseMetadata"]["HTTPStatusCode"], error.response["Error"]["Code"]
    kept = {"ETag", "ContentLength", "ContentRange", "AcceptRanges", "ContentType", "IsTruncated", "KeyCount", "Prefix"}
    shown = {key: value for key, value in answer.items() if key in kept}
    if "Body" in answer:
        shown["Body"] = answer["Body"].read()
    shown["Contents"] = [(each["Key"], each["Size"], each["ETag"]) for each in answer.get("Contents", ())]
    shown["CommonPrefixes"] = [each["Prefix"] for each in answer.get("CommonPrefixes", ())]
    return answer["ResponseMetadata"]["HTTPStatusCode"], shown


def random_call(chance, etags):
    """Return (method, arguments) of a random call with random conditions."""
    key = chance.choice(["a", "a/b", "a/c", "b", "ä/x y", "q?x&y", "100%", "z+1"])
    method = chance.choice(["put_object"] * 4 + ["get_object"] * 4 + RARE)
    arguments = {"Key": key}
    if method == "put_object":
        arguments["Body"] = b"0123456789"[: chance.randrange(11)]
        arguments |= chance.choice([{}, {"IfNoneMatch": "*"}, {"IfMatch": chance.choice(etags)}])
    elif method == "get_object":
        first, last = chance.randrange(12), chance.randrange(12)
        ranges = [f"bytes={first}-{last}", f"bytes={first}-", f"bytes=-{last + 1}"]
        arguments |= chance.choice([{}, {"Range": chance.choice(ranges)}, {"IfMatch": chance.choice(etags)}])
        if "Range" in arguments and last < first:
            arguments["Range"] = f"bytes={first}-"
    elif method == "list_objects_v2":
        arguments = {"Prefix": chance.choice(["", "a", "a/", "ä", "zz"]), "MaxKeys": chance.choice([1, 2, 1000])}
        arguments |= chance.choice([{}, {"Delimiter": "/"}, {"StartAfter": key}])
    return method, arguments


@pytest.mark.parametrize("seed", range(6))
def test_it_answers_call_by_call_as_moto_does(client, moto, seed):
    chance = random.Random(seed)
    other = servers.s3_client(moto)
    bucket, etags = servers.new_bucket(client), ['"d41d8cd98f00b204e9800998ecf8427e"', '"stale"']
    other.create_bucket(Bucket=bucket)
    statuses = set()
    for number in range(100):
        method, arguments = random_call(chance, etags)
        ours = said(partial(getattr(client, method), Bucket=bucket, **arguments))
        theirs = said(partial(getattr(other, method), Bucket=bucket, **arguments))

        assert theirs == ours, f"call {number}: {method} {arguments}"
        statuses.add(ours[0])
        if method == "put_object" and ours[0] == 200:
            etags.append(ours[1]["ETag"])
    other.close()
    assert {200, 204, 206, 404, 412} <= statuses


def test_it_pages_and_folds_as_moto_does(client, moto):
    other = servers.s3_client(moto)
    bucket = servers.new_bucket(client)
    other.create_bucket(Bucket=bucket)
    for each in (client, other):
        for name in [*ODD_NAMES, *(f"{folder}/{number}" for folder in "xyz" for number in range(3))]:
            each.put_object(Bucket=bucket, Key=name, Body=name.encode())

    def pages(each, **arguments):
        found = each.get_paginator("list_objects_v2").paginate(
            Bucket=bucket, PaginationConfig={"PageSize": 4}, **arguments
        )
        return [said(lambda page=page: page) for page in found]

    for arguments in ({}, {"Delimiter": "/"}, {"Prefix": "x/"}, {"Prefix": "y", "Delimiter": "/"}):
        assert pages(other, **arguments) == pages(client, **arguments)
    other.close()


def test_buckets_answer_as_motos_do(client, moto):
    other = servers.s3_client(moto)
    bucket = servers.new_bucket(client)
    other.create_bucket(Bucket=bucket)
    calls = [
        lambda each: each.head_bucket(Bucket=bucket),
        lambda each: each.head_bucket(Bucket="none-" + bucket[5:]),
        lambda each: each.get_object(Bucket="none-" + bucket[5:], Key="a"),
        lambda each: each.put_object(Bucket="none-" + bucket[5:], Key="a", Body=b"x"),
        lambda each: each.list_objects_v2(Bucket="none-" + bucket[5:]),
        lambda each: each.create_bucket(Bucket="x"),
        lambda each: each.put_object(Bucket=bucket, Key="a", Body=b"x"),
        lambda each: each.delete_bucket(Bucket=bucket),
        lambda each: each.delete_object(Bucket=bucket, Key="a"),
        lambda each: each.delete_bucket(Bucket=bucket),
        lambda each: each.head_bucket(Bucket=bucket),
    ]
    for call in calls:
        assert said(lambda call=call: call(other)) == said(lambda call=call: call(client))
    other.close()


def test_a_large_object_in_chunks_of_the_client(client, bucket):
    """botocore sends a file without a known length in chunks."""
    data = random.Random(0).randbytes(3_000_000)
    client.put_object(Bucket=bucket, Key="a", Body=data)

    assert data == client.get_object(Bucket=bucket, Key="a")["Body"].read()


def test_a_server_can_be_started_and_stopped_many_times():
    for _ in range(3):
        with S3Server() as server:
            assert server.endpoint.startswith("http://127.0.0.1:")
    assert not server._thread.is_alive()

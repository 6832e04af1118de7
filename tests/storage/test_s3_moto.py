"""The S3 store keeps the contract on moto's server."""

import pytest
import storage_servers as servers

from volume_core.storage.opening import open_store
from volume_core.storage.probing import ensure_format
from volume_core.testing.stores import StoreContract

pytestmark = pytest.mark.s3


@pytest.fixture
def client(moto):
    client = servers.s3_client(moto)
    yield client
    client.close()


@pytest.fixture
def bucket(client):
    return servers.new_bucket(client)


class TestS3Store(StoreContract):
    @pytest.fixture
    def store(self, moto, bucket, aws_environment):
        aws_environment.setenv("AWS_ENDPOINT_URL", moto)
        return open_store(f"s3://{bucket}/pre/fix/")

    @pytest.fixture
    def raw(self, client, bucket):
        return servers.RawBucket(client, bucket, "pre/fix/")

    def test_the_probe_finds_every_promise_kept(self, store, raw):
        found = ensure_format(store)

        assert (True, True, True, True) == (
            found.create_once,
            found.swap_once,
            found.exact_ranges,
            found.list_after_write,
        )
        assert store.honours_conditions
        assert ["format.json"] == list(raw)

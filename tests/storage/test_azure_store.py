"""The Azure store keeps the contract on Azurite, whose own client library is not needed for it."""

import base64
import hashlib
import hmac
import html
import http.client
import re
import uuid
from collections.abc import MutableMapping
from email.utils import formatdate
from urllib.parse import quote, urlsplit

import pytest

from volume_core.errors import StorageError
from volume_core.storage.opening import open_store
from volume_core.storage.probing import ensure_format
from volume_core.testing.stores import StoreContract

pytestmark = pytest.mark.s3

# Azurite's account and key are the same everywhere and printed in its manual.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


class RawContainer(MutableMapping):
    """The blobs of a container below a prefix, by plain HTTP and shared-key signatures: the other eye."""

    def __init__(self, endpoint, container, prefix):
        self.address = urlsplit(endpoint).netloc
        self.container = container
        self.prefix = prefix

    def request(self, method, path="", query="", body=b"", **headers):
        target = f"/{ACCOUNT}/{self.container}" + (f"/{quote(self.prefix + path, safe='/')}" if path else "")
        headers = {f"x-ms-{name}": value for name, value in headers.items()}
        headers |= {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
        signed = [method, "", "", str(len(body) or ""), *[""] * 8]
        signed += [f"{name}:{headers[name]}" for name in sorted(headers)]
        resource = f"/{ACCOUNT}{target}" + "".join(
            f"\n{item.replace('=', ':')}" for item in sorted(query.split("&")) if item
        )
        text = "\n".join([*signed, resource])
        digest = hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()
        headers["Authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}"
        connection = http.client.HTTPConnection(self.address, timeout=20)
        connection.request(method, target + (f"?{query}" if query else ""), body, headers)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, data

    def create(self):
        status, data = self.request("PUT", query="restype=container")
        assert 201 == status, data

    def __getitem__(self, name):
        status, data = self.request("GET", name)
        if status == 404:
            raise KeyError(name)
        assert 200 == status, data
        return data

    def __setitem__(self, name, data):
        status, answer = self.request("PUT", name, body=data, **{"blob-type": "BlockBlob"})
        assert 201 == status, answer

    def __delitem__(self, name):
        self.request("DELETE", name)

    def __iter__(self):
        _, data = self.request("GET", query="comp=list&restype=container")
        for name in re.findall(r"<Name>(.*?)</Name>", data.decode()):
            yield html.unescape(name).removeprefix(self.prefix)

    def __len__(self):
        return sum(1 for _ in self)


@pytest.fixture
def raw(azurite):
    raw = RawContainer(azurite, f"test-{uuid.uuid4().hex}", "pre/fix/")
    raw.create()
    return raw


@pytest.fixture
def azure_environment(azurite, monkeypatch):
    settings = f"AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={azurite}/{ACCOUNT};"
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", settings)
    return monkeypatch


class TestAzureStore(StoreContract):
    @pytest.fixture
    def store(self, raw, azure_environment):
        return open_store(f"az://{raw.container}/pre/fix/")

    # More than a page of Azure's, which are of 5,000, would take Azurite half a minute.
    listed = 200

    def test_the_probe_finds_every_promise_kept(self, store, raw):
        assert ensure_format(store).honours_conditions
        assert ["format.json"] == list(raw)


def test_the_account_may_stand_in_the_url(raw, azurite, azure_environment):
    azure_environment.delenv("AZURE_STORAGE_CONNECTION_STRING")
    azure_environment.setenv("AZURE_STORAGE_ACCOUNT_KEY", KEY)
    url = f"abfs://{raw.container}@{ACCOUNT}.dfs.core.windows.net/pre/fix"
    store = open_store(url, {"endpoint": f"{azurite}/{ACCOUNT}"})
    store.put_new("a", b"x")

    assert url == store.url
    assert b"x" == raw["a"]


def test_a_container_that_is_not_there_and_a_wrong_key_say_what_to_check(raw, azurite, azure_environment):
    with pytest.raises(StorageError, match="bucket's name") as caught:
        open_store("az://no-such-container").put_new("a", b"x")
    assert not caught.value.transient
    wrong = base64.b64encode(b"another key, of another account").decode()
    settings = f"AccountName={ACCOUNT};AccountKey={wrong};BlobEndpoint={azurite}/{ACCOUNT};"
    azure_environment.setenv("AZURE_STORAGE_CONNECTION_STRING", settings)

    with pytest.raises(StorageError, match="check the credentials") as caught:
        open_store(f"az://{raw.container}").get("a")
    assert wrong not in str(caught.value)
    assert not caught.value.transient

"""The block `volume-store`: what may be in it, how its credentials reach a store, and who finds it."""

from __future__ import annotations

import asyncio
import http.server
import os
import socket
import subprocess
import sys
import threading
import time
import uuid

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from prefect import flow, task
from prefect.blocks.core import Block
from prefect_aws import AwsCredentials, MinIOCredentials
from pydantic import SecretStr, ValidationError

from volume_core import NotFoundError, ROVolume, StorageError, VolumeError
from volume_core.passing import environment
from volume_core.passing.environment import Lease
from volume_core.storage.objects import ObjectStore
from volume_core.testing.s3server import S3Server
from volume_prefect import hooks
from volume_prefect.blocks import VolumeStore, load_store, store_for
from volume_prefect.credentials import KINDS, variables_of

KEY, SECRET = "AKIATESTTESTTEST", "a-secret-that-is-never-shown"
AWS = {"aws_access_key_id": KEY, "aws_secret_access_key": SECRET}


@pytest.fixture(autouse=True)
def own_environment(monkeypatch):
    """What a block sets is taken back after the test, and nothing of this machine's is there before."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_")):
            monkeypatch.delenv(name)
    before = dict(os.environ)
    monkeypatch.setattr("volume_core.passing.environment._sets", {})
    monkeypatch.setattr("volume_core.passing.environment._before", {})
    monkeypatch.setattr("volume_prefect.reaching._asked", {})
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture
def bucket():
    """A server that knows one key alone, and the URL of a store in it."""
    with S3Server(access_key=KEY, region="eu-west-1") as s3:
        s3.make_bucket("team")
        yield s3


def unique(word: str) -> str:
    return f"{word}-{uuid.uuid4().hex[:8]}"


def saved_aws(endpoint: str, **fields) -> str:
    name = unique("keys")
    block = AwsCredentials(
        aws_access_key_id=KEY,
        aws_secret_access_key=SecretStr(SECRET),
        aws_client_parameters={"endpoint_url": endpoint},
        **fields,
    )
    block.save(name)
    return f"aws-credentials/{name}"


# -- what may be in it


def test_the_url_is_kept_in_its_one_spelling():
    assert VolumeStore(url="s3a://team/volumes/").url == "s3://team/volumes"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"url": "s3://key:secret@team"}, "credentials are taken from the environment"),
        ({"url": "s3://team", "credentials": "team"}, "give type/name"),
        ({"url": "s3://team", "credentials": "slack-webhook/team"}, "there are aws-credentials, minio-credentials"),
        ({"url": "gs://team", "credentials": "aws-credentials/team"}, "is for s3://, and the store is gs://team"),
        ({"url": "file:///srv", "credentials": "aws-credentials/team"}, "the store is file:///srv"),
        ({"url": "s3://team", "cache_size": "much"}, "give bytes, or a number with a unit"),
    ],
)
def test_what_cannot_be_a_store_is_refused_with_what_to_do(fields, said):
    with pytest.raises(ValidationError, match=said):
        VolumeStore(**fields)


def test_the_block_is_found_under_its_slug_by_whoever_never_imported_it():
    code = "from prefect.blocks.core import Block; print(Block.get_block_class_from_key('volume-store').__module__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "volume_prefect.blocks"


def test_the_schema_is_the_same_where_no_package_for_a_cloud_is_installed():
    code = (
        "import sys\n"
        "for each in ('prefect_aws', 'prefect_gcp', 'prefect_azure', 'boto3'): sys.modules[each] = None\n"
        "from volume_prefect.blocks import VolumeStore; print(VolumeStore._calculate_schema_checksum())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == VolumeStore._calculate_schema_checksum()


# -- from a credentials block to variables


def test_keys_take_the_place_of_a_session_token_that_is_another_ones():
    assert variables_of("aws-credentials/a", {**AWS, "region_name": "eu-west-1"}) == {
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_SESSION_TOKEN": None,
        "AWS_REGION": "eu-west-1",
    }


def test_a_profile_goes_before_keys_in_the_environment():
    found = variables_of("aws-credentials/a", {"profile_name": "team"})
    assert found["AWS_PROFILE"] == "team"
    assert found["AWS_ACCESS_KEY_ID"] is None


def test_a_block_that_says_nobody_leaves_it_to_the_machine():
    assert variables_of("aws-credentials/a", {"aws_access_key_id": None, "aws_client_parameters": {}}) == {}
    assert variables_of("gcp-credentials/a", {"project": "p"}) == {}


def test_minio_without_an_endpoint_is_refused():
    with pytest.raises(VolumeError, match="set endpoint_url"):
        variables_of("minio-credentials/a", {"minio_root_user": "u", "minio_root_password": "p"})


@pytest.mark.parametrize(
    ("data", "variables"),
    [
        (
            {"connection_string": "AccountName=a;AccountKey=k"},
            {"AZURE_STORAGE_CONNECTION_STRING": "AccountName=a;AccountKey=k"},
        ),
        (
            {
                "account_url": "https://team.blob.core.windows.net/",
                "tenant_id": "t",
                "client_id": "c",
                "client_secret": "s",
            },
            {
                "AZURE_STORAGE_CONNECTION_STRING": None,
                "AZURE_STORAGE_ACCOUNT_NAME": "team",
                "AZURE_STORAGE_TENANT_ID": "t",
                "AZURE_STORAGE_CLIENT_ID": "c",
                "AZURE_STORAGE_CLIENT_SECRET": "s",
            },
        ),
        (
            {"account_url": "https://team.blob.core.chinacloudapi.cn"},
            {
                "AZURE_STORAGE_CONNECTION_STRING": None,
                "AZURE_STORAGE_ACCOUNT_NAME": "team",
                "AZURE_STORAGE_ENDPOINT": "https://team.blob.core.chinacloudapi.cn",
            },
        ),
    ],
)
def test_azure_is_a_connection_string_or_an_account(data, variables):
    assert variables_of("azure-blob-storage-credentials/a", data) == variables


def test_every_kind_of_credentials_is_a_type_that_prefect_calls_so():
    assert AwsCredentials.get_block_type_slug() in KINDS
    assert MinIOCredentials.get_block_type_slug() in KINDS


class Listening:
    """A server that remembers what it was asked, and refuses."""

    def __enter__(self):
        asked = self.asked = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                asked.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
                self.send_error(401)

            def log_message(self, *_args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()
        return self

    def __exit__(self, *_error):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def test_the_library_of_the_stores_takes_azures_service_principal_from_these_variables(monkeypatch):
    data = {"tenant_id": "TENANT", "client_id": "CLIENT", "client_secret": "SECRET"}
    with Listening() as login:
        data["account_url"] = login.url
        monkeypatch.setenv("AZURE_STORAGE_AUTHORITY_HOST", login.url)
        with Lease("a", variables_of("azure-blob-storage-credentials/a", data)), pytest.raises(StorageError):
            ObjectStore.open("az://container", {}).get("x")
    path, said = login.asked[0]
    assert path == "/TENANT/oauth2/v2.0/token"
    assert b"client_id=CLIENT&client_secret=SECRET" in said


def test_the_library_of_the_stores_takes_googles_service_account_from_this_variable():
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    with socket.create_server(("127.0.0.1", 0)) as listening:
        info = {
            "private_key": key.decode(), "private_key_id": "i", "client_email": "a@b", "disable_oauth": True,
            "gcs_base_url": f"https://127.0.0.1:{listening.getsockname()[1]}",
        }  # fmt: skip

        def answer():
            listening.accept()[0].close()

        answered = threading.Thread(target=answer)
        answered.start()
        with (
            Lease("a", variables_of("gcp-credentials/a", {"service_account_info": info})),
            pytest.raises(StorageError),
        ):
            ObjectStore.open("gs://bucket", {}).get("x")
        answered.join(20)
        assert not answered.is_alive()  # it came to the address that the account names


# -- the environment


def test_a_lease_gives_back_what_was_there(monkeypatch):
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    with Lease("a", {"AWS_REGION": "eu-west-1", "AWS_PROFILE": "team"}):
        assert (os.environ["AWS_REGION"], os.environ["AWS_PROFILE"]) == ("eu-west-1", "team")
        with Lease("a", {"AWS_REGION": "eu-west-1", "AWS_PROFILE": None}):
            assert "AWS_PROFILE" not in os.environ  # rotated
        assert os.environ["AWS_REGION"] == "eu-west-1"
    assert os.environ["AWS_REGION"] == "us-east-1"
    assert "AWS_PROFILE" not in os.environ


def test_two_owners_cannot_need_different_keys_at_once_but_one_after_the_other():
    with Lease("the first", {"AWS_ACCESS_KEY_ID": "1"}):
        with pytest.raises(VolumeError, match="the second needs another AWS_ACCESS_KEY_ID than the first"):
            Lease("the second", {"AWS_ACCESS_KEY_ID": "2"})
        assert os.environ["AWS_ACCESS_KEY_ID"] == "1"
    with Lease("the second", {"AWS_ACCESS_KEY_ID": "2"}):
        assert os.environ["AWS_ACCESS_KEY_ID"] == "2"
    assert "AWS_ACCESS_KEY_ID" not in os.environ


def test_what_two_owners_need_alike_stays_until_the_last_one_ends():
    first, second = Lease("a", {"AWS_PROFILE": "team"}), Lease("b", {"AWS_PROFILE": "team"})
    first.end()
    first.end()
    assert os.environ["AWS_PROFILE"] == "team"
    second.end()
    assert "AWS_PROFILE" not in os.environ


def test_what_an_owner_needs_no_more_when_it_comes_again_is_given_back():
    with Lease("a", {"AWS_PROFILE": "team", "AWS_REGION": "here"}), Lease("a", {"AWS_REGION": "there"}):
        assert "AWS_PROFILE" not in os.environ
        assert os.environ["AWS_REGION"] == "there"
        with Lease("b", {"AWS_PROFILE": "others"}):
            assert os.environ["AWS_PROFILE"] == "others"
    assert not {"AWS_PROFILE", "AWS_REGION"} & os.environ.keys()


def test_the_limit_of_the_one_cache_is_no_reason_to_refuse():
    with Lease("a", {"VOLUME_CACHE_LIMIT": "10G"}), Lease("b", {"VOLUME_CACHE_LIMIT": "20G"}):
        assert os.environ["VOLUME_CACHE_LIMIT"] == "20G"
    assert "VOLUME_CACHE_LIMIT" not in os.environ


def test_many_threads_that_come_and_go_leave_nothing_behind():
    def come_and_go():
        for _ in range(200):
            with Lease("a", {"AWS_PROFILE": "team"}):
                assert os.environ["AWS_PROFILE"] == "team"

    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert "AWS_PROFILE" not in os.environ


# -- with a server


def test_a_store_with_saved_credentials_is_written_and_read_and_shows_no_secret(server, bucket):
    reference = saved_aws(bucket.endpoint, region_name="eu-west-1")
    name = unique("store")
    VolumeStore(url="s3://team/volumes", credentials=reference, cache_size="1G").save(name)
    store = VolumeStore.load(name)
    with pytest.raises(StorageError):
        ROVolume.model_validate("s3://team/volumes/versions/x/" + "0" * 64 + ".json")  # nobody has said who we are
    with store.use() as used:
        assert used is store
        volume = store.volume("data")
        with volume.batch_upload_sync() as batch:
            batch.put_file(__file__, "/a.py")
        assert os.environ["VOLUME_CACHE_LIMIT"] == "1G"
        assert [each.name for each in store.volumes_sync()] == ["data"]
    found = asyncio.run(store.from_name("data"))
    assert found.committed == batch.version
    assert SECRET not in f"{store!r} {store} {store.use()!r} {store.model_dump_json()}"
    assert SECRET not in VolumeStore.load(name).model_dump_json(context={"include_secrets": True})


@pytest.mark.fuse
def test_the_mount_server_has_the_credentials_of_the_block(server, bucket):
    store = VolumeStore(url="s3://team/v", credentials=saved_aws(bucket.endpoint), region="eu-west-1")
    with store.volume("data").mounted_sync() as path:
        (path / "big").write_bytes(b"x" * 300_000)
    version = store.from_name_sync("data").committed
    with version.mounted_sync(cache_dir=os.environ["VOLUME_STATE_DIR"] + "-other") as path:
        assert (path / "big").read_bytes() == b"x" * 300_000


def test_credentials_are_read_afresh_so_rotated_keys_count(server, bucket):
    reference = saved_aws(bucket.endpoint)
    store = VolumeStore(url="s3://team/v", credentials=reference)
    assert store.environment()["AWS_ACCESS_KEY_ID"] == KEY
    block = AwsCredentials.load(reference.partition("/")[2])
    block.aws_access_key_id = "AKIAROTATED"
    block.save(reference.partition("/")[2], overwrite=True)
    assert store.environment()["AWS_ACCESS_KEY_ID"] == "AKIAROTATED"


def test_a_credentials_block_itself_may_be_given_once_it_is_saved(server):
    block = MinIOCredentials(
        minio_root_user="u", minio_root_password="p", aws_client_parameters={"endpoint_url": "http://127.0.0.1:9"}
    )
    with pytest.raises(ValidationError, match="save the credentials block first"):
        VolumeStore(url="s3://team", credentials=block)
    name = unique("minio")
    block.save(name)
    store = VolumeStore(url="s3://team", credentials=block)
    assert store.credentials == f"minio-credentials/{name}"
    assert store.environment() == {
        "AWS_ACCESS_KEY_ID": "u",
        "AWS_SECRET_ACCESS_KEY": "p",
        "AWS_SESSION_TOKEN": None,
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9",
    }


def test_credentials_that_are_not_there_are_named(server):
    store = VolumeStore(url="s3://team", credentials="aws-credentials/nobody")
    with pytest.raises(NotFoundError, match="no block aws-credentials/nobody"):
        store.environment()


def test_credentials_are_read_without_the_package_that_brought_them(server, bucket):
    reference = saved_aws(bucket.endpoint)
    code = (
        "import sys\n"
        "for each in ('prefect_aws', 'boto3'): sys.modules[each] = None\n"
        "from volume_prefect.blocks import VolumeStore\n"
        f"print(VolumeStore(url='s3://team', credentials={reference!r}).environment()['AWS_ACCESS_KEY_ID'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == KEY


def test_an_assumed_role_is_asked_of_its_own_package(server, monkeypatch):
    reference = saved_aws("http://127.0.0.1:9", assume_role_arn="arn:aws:iam::1:role/r")
    monkeypatch.setitem(sys.modules, "prefect_aws", None)
    with pytest.raises(VolumeError, match="pip install prefect-aws"):
        VolumeStore(url="s3://team", credentials=reference).environment()


def test_the_block_of_a_url_is_the_one_with_the_longest_store(server):
    team = unique("team")
    VolumeStore(url=f"s3://{team}").save(unique("wide"))
    VolumeStore(url=f"s3://{team}/deep").save(unique("deep"))
    assert store_for(f"s3://{team}/deep").url == f"s3://{team}/deep"
    assert store_for(f"s3://{team}/deep/er").url == f"s3://{team}/deep"
    assert store_for(f"s3://{team}/deeper").url == f"s3://{team}"
    assert store_for("s3://nobody/knows") is None


def test_a_store_is_loaded_by_name_in_an_event_loop_too(server):
    name = unique("store")
    VolumeStore(url="memory://x").save(name)

    async def load():
        return load_store(name), load_store(unique("nobody"))

    found, none = asyncio.run(load())
    assert found.url == "memory://x"
    assert none is None
    assert Block.load(f"volume-store/{name}") == found


def test_a_run_that_meets_a_version_gets_in_by_the_block_of_its_store(server, bucket):
    prefix = unique("v")
    store = VolumeStore(url=f"s3://team/{prefix}", credentials=saved_aws(bucket.endpoint), region="eu-west-1")
    store.save(unique("store"))
    with store.use(), store.volume("data").batch_upload_sync() as batch:
        batch.put_file(__file__, "/a.py")
    locator = batch.version.locator
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    environment._sets.clear()

    @task
    def look(locator):
        return [each.path for each in ROVolume.model_validate(locator).listdir_sync()]

    @flow
    def reader(locator):
        return look(locator), look.submit(locator).result()

    assert reader(locator) == (["a.py"], ["a.py"])


def test_who_opens_a_store_while_its_credentials_are_asked_for_waits_for_them(server, monkeypatch):
    asked, answer, have = threading.Event(), threading.Event(), []

    class Slow:
        def use(self):
            asked.set()
            assert answer.wait(20)
            have.append("keys")

    monkeypatch.setattr("volume_prefect.reaching.store_for", lambda url: Slow())

    @task
    def opens():
        hooks.volume_open_store("s3://team/v")
        return list(have)

    @flow
    def together():
        first = opens.submit()
        assert asked.wait(20)
        second = opens.submit()
        time.sleep(0.5)
        answer.set()
        return first.result(), second.result()

    assert (["keys"], ["keys"]) == together()


def test_outside_of_a_run_no_block_is_asked_for(monkeypatch):
    monkeypatch.setattr("volume_prefect.reaching.store_for", lambda url: pytest.fail(f"asked for {url}"))
    hooks.volume_open_store("s3://team/v")


@pytest.mark.loud
def test_an_api_that_does_not_answer_leaves_it_to_the_machines_credentials(server, monkeypatch, caplog):
    def broken(_url):
        raise OSError("no route to host")

    monkeypatch.setattr("volume_prefect.reaching.store_for", broken)

    @flow
    def meets():
        hooks.volume_open_store("s3://team/v")
        return 1

    assert meets() == 1
    assert "the credentials block of s3://team/v could not be looked up: OSError: no route to host" in caplog.text

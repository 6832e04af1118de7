"""What a remote store says when something is wrong: what to check, and never a secret."""

import os
import stat
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import storage_servers as servers

from volume_core.errors import ConflictError, NotFoundError, StorageError
from volume_core.storage.credentials import AwsCredentials
from volume_core.storage.objects import ObjectStore
from volume_core.storage.opening import open_store
from volume_core.storage.retrying import Policy, Retrying
from volume_core.testing.s3server import Faults, S3Server

pytestmark = pytest.mark.s3


@pytest.fixture
def server():
    """A server of this test alone, which knows one key and one region."""
    with S3Server(access_key=servers.ACCESS_KEY, region=servers.REGION) as server:
        server.bucket = server.make_bucket("test")
        yield server


@pytest.fixture
def environment(server, aws_environment):
    aws_environment.setenv("AWS_ENDPOINT_URL", server.endpoint)
    return aws_environment


def quick(url, **options):
    """Open the store at *url* with waits too short to notice."""
    return Retrying(ObjectStore.open(url, options), Policy(attempts=4, first_s=0.001, longest_s=0.001))


def refused(store):
    with pytest.raises(StorageError) as caught:
        store.get("a")
    assert servers.SECRET_KEY not in f"{caught.value!r}{caught.value.__cause__!r}{store!r}"
    return caught.value


class TestPermanentErrorsSayWhatToCheck:
    def test_a_wrong_key(self, environment, server):
        environment.setenv("AWS_ACCESS_KEY_ID", "AKIAWRONG")
        error = refused(open_store("s3://test/x"))

        assert not error.transient
        assert "403 InvalidAccessKeyId" in str(error)
        assert "check the credentials" in str(error)
        assert 1 == server.seen["GET"]

    def test_a_wrong_secret(self, rclone, environment):
        environment.setenv("AWS_ENDPOINT_URL", rclone)
        environment.setenv("AWS_SECRET_ACCESS_KEY", "not-" + servers.SECRET_KEY)
        error = refused(open_store("s3://test/x"))

        assert not error.transient
        assert "403 SignatureDoesNotMatch" in str(error)

    def test_a_wrong_region(self, environment, server):
        environment.setenv("AWS_REGION", "eu-west-1")
        error = refused(open_store("s3://test/x"))

        assert not error.transient
        assert "check the region" in str(error)
        assert "region eu-west-1" in str(error)
        server.make_bucket("test").objects.clear()
        with pytest.raises(NotFoundError):
            open_store("s3://test/x", {"region": servers.REGION}).get("a")

    def test_a_bucket_that_is_not_there(self, environment):
        store = open_store("s3://none/x")
        for call in (lambda: store.get("a"), lambda: store.put_new("a", b""), lambda: list(store.names(""))):
            with pytest.raises(StorageError, match="check the bucket's name") as caught:
                call()
            assert not caught.value.transient

    def test_no_credentials_at_all(self, environment):
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            environment.delenv(name)
        error = refused(open_store("s3://test/x"))

        assert not error.transient
        assert "no AWS credentials were found; set AWS_ACCESS_KEY_ID" in str(error)

    def test_a_profile_that_is_not_there(self, environment):
        with pytest.raises(StorageError, match=r"missing-profile.*AWS_PROFILE") as caught:
            open_store("s3://test/x", {"profile": "missing-profile"}).get("a")
        assert not caught.value.transient

    def test_an_unsigned_request(self, environment):
        error = refused(open_store("s3://test/x", {"anonymous": "true"}))

        assert "403 AccessDenied" in str(error)

    def test_an_endpoint_where_nobody_listens(self, environment):
        environment.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{servers.free_port()}")
        error = refused(quick("s3://test/x"))

        assert error.transient
        assert "Connection refused" in str(error)
        assert "check the endpoint" in str(error)

    def test_a_name_of_no_host(self, environment):
        environment.setenv("AWS_ENDPOINT_URL", "http://no-such-host.invalid")
        error = refused(quick("s3://test/x"))

        assert "check the endpoint" in str(error)

    def test_what_is_secret_in_an_endpoint_is_not_shown(self, environment):
        address = f"127.0.0.1:{servers.free_port()}"
        environment.setenv("AWS_ENDPOINT_URL", f"http://user:{servers.SECRET_KEY}@{address}/?sig={servers.SECRET_KEY}")
        error = refused(quick("s3://test/x"))

        assert address in str(error)


class TestTransientFailures:
    @pytest.mark.parametrize("fault", ["slow_down", "internal_error", "cut_before", "cut_after", "cut_body"])
    @pytest.mark.parametrize("call", ["get", "get_range", "put_new", "put", "swap", "info", "names", "delete"])
    def test_once_is_not_seen(self, environment, server, call, fault):
        store = quick("s3://test/x")
        store.put("there", b"old value, which is not short")
        calls = {
            "get": lambda: b"old value, which is not short" == store.get("there"),
            "get_range": lambda: b"value" == store.get_range("there", 4, 5),
            "put_new": lambda: store.put_new("new", b"x") is None,
            "put": lambda: store.put("new", b"x") is None,
            "swap": lambda: store.swap("there", b"old value, which is not short", b"new") is None,
            "info": lambda: 29 == store.info("there").size_bytes,
            "names": lambda: ["there"] == [found.name for found in store.names("")],
            "delete": lambda: store.delete("there") is None,
        }
        # A swap reads before it writes, and reads format.json before that, so its PUT is the third request.
        server.plan.extend(["", "", fault] if call == "swap" else [fault])

        assert calls[call]()
        assert 1 == server.failed[fault]
        objects = {key: stored.data for key, stored in server.bucket.objects.items()}
        old = {"x/there": b"old value, which is not short"}
        after = {
            "put_new": old | {"x/new": b"x"},
            "put": old | {"x/new": b"x"},
            "swap": {"x/there": b"new"},
            "delete": {},
        }
        assert after.get(call, old) == objects

    @pytest.mark.parametrize("fault", ["slow_down", "internal_error", "cut_before", "cut_after"])
    def test_for_ever_is_a_transient_error(self, environment, server, fault):
        store = quick("s3://test/x")
        server.plan.extend([fault] * 50)

        with pytest.raises(StorageError) as caught:
            store.put_new("a", b"x")
        assert caught.value.transient
        assert 4 == server.seen["PUT"]
        assert (["x/a"] if fault == "cut_after" else []) == server.bucket.keys

    def test_a_creation_whose_answer_is_lost_is_not_its_own_conflict(self, environment, server):
        store = quick("s3://test/x")
        server.plan.append("cut_after")
        store.put_new("a", b"ours")
        server.plan.append("cut_before")
        server.bucket.objects["x/b"] = server.bucket.objects["x/a"]

        with pytest.raises(ConflictError):
            store.put_new("b", b"other")

    def test_many_failures_at_many_writers(self, environment):
        faults = Faults(seed=7, slow_down=0.1, internal_error=0.05, cut_before=0.05, cut_after=0.1, cut_body=0.05)
        with S3Server(faults) as server:
            bucket = server.make_bucket("test")
            environment.setenv("AWS_ENDPOINT_URL", server.endpoint)
            store = Retrying(ObjectStore.open("s3://test", {}), Policy(attempts=30, first_s=0.001, longest_s=0.002))
            store.swap("n", None, b"0 start")

            def count(worker):
                for number in range(10):
                    store.put_new(f"packs/{worker}-{number}", b"%d" % number)
                    move(store, b"%d-%d" % (worker, number))

            with ThreadPoolExecutor(4) as pool:
                list(pool.map(count, range(4)))
            names = {found.name for found in store.names("packs/")}

        assert 40 == len(names)
        assert b"40" == bucket.objects["n"].data.split(b" ")[0]
        assert {"slow_down", "internal_error", "cut_before", "cut_after", "cut_body"} <= set(server.failed)

    def test_a_throttled_server_is_waited_for(self, environment):
        with S3Server(Faults(requests_per_s=40)) as server:
            server.make_bucket("test")
            environment.setenv("AWS_ENDPOINT_URL", server.endpoint)
            store = Retrying(ObjectStore.open("s3://test", {}), Policy(attempts=50, first_s=0.02, longest_s=0.1))
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(lambda number: store.put(f"{number}", b"x"), range(60)))

            assert 60 == len(list(store.names("")))
        assert server.failed["throttled"] > 0

    def test_a_capped_line_takes_its_time(self, environment):
        with S3Server(Faults(bytes_per_s=2_000_000, latency_s=(0.001, 0.002))) as server:
            server.make_bucket("test")
            environment.setenv("AWS_ENDPOINT_URL", server.endpoint)
            store = open_store("s3://test")
            started = time.monotonic()
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(lambda number: store.put(f"{number}", bytes(50_000)), range(4)))

            assert time.monotonic() - started > 0.09


def move(store, mark):
    """Add one to the number in `n` beside *mark*; a lost answer that stayed open is looked up in the history."""
    while True:
        old = store.get("n")
        number, _, history = old.partition(b" ")
        if mark in history.split(b" "):
            return None
        try:
            return store.swap("n", old, b"%d %b %b" % (int(number) + 1, history, mark))
        except ConflictError:
            continue
        except StorageError as error:
            if not error.transient:
                raise


class TestCredentials:
    def test_of_a_profile_with_its_region_and_endpoint(self, environment, server, tmp_path):
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_REGION"):
            environment.delenv(name)
        (tmp_path / "aws-credentials").write_text(
            f"[work]\naws_access_key_id = {servers.ACCESS_KEY}\naws_secret_access_key = {servers.SECRET_KEY}\n"
        )
        settings = f"[profile work]\nregion = {servers.REGION}\nendpoint_url = {server.endpoint}\n"
        (tmp_path / "aws-config").write_text(settings)
        open_store("s3://test/x", {"profile": "work"}).put("a", b"x")
        environment.setenv("AWS_PROFILE", "work")
        open_store("s3://test/x").put("b", b"x")

        assert ["x/a", "x/b"] == server.bucket.keys

    def test_a_profile_that_was_asked_for_goes_before_the_environment(self, environment, tmp_path):
        (tmp_path / "aws-credentials").write_text("[other]\naws_access_key_id = OTHER\naws_secret_access_key = x\n")

        assert "OTHER" == AwsCredentials("other")()["access_key_id"]
        assert servers.ACCESS_KEY == AwsCredentials()()["access_key_id"]

    def test_of_volumes_alone_go_before_those_of_everything_else(self, environment, server):
        environment.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        environment.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
        environment.setenv("AWS_ACCESS_KEY_ID", "SOMEBODY")
        environment.setenv("AWS_SESSION_TOKEN", "of-somebody")
        environment.setenv("VOLUME_S3_ENDPOINT", server.endpoint)
        environment.setenv("VOLUME_S3_ACCESS_KEY_ID", servers.ACCESS_KEY)
        environment.setenv("VOLUME_S3_SECRET_ACCESS_KEY", servers.SECRET_KEY)
        open_store("s3://test/x").put("a", b"x")

        assert ["x/a"] == server.bucket.keys
        assert AwsCredentials()()["token"] is None

    def test_of_volumes_alone_may_be_temporary_and_have_a_region_of_their_own(self, environment):
        environment.setenv("AWS_REGION", "eu-west-1")
        environment.setenv("VOLUME_S3_REGION", "us-west-2")
        environment.setenv("VOLUME_S3_ACCESS_KEY_ID", servers.ACCESS_KEY)
        environment.setenv("VOLUME_S3_SECRET_ACCESS_KEY", servers.SECRET_KEY)
        environment.setenv("VOLUME_S3_SESSION_TOKEN", "for-an-hour")

        assert "for-an-hour" == AwsCredentials()()["token"]
        assert "us-west-2" == AwsCredentials().region()

    def test_of_volumes_alone_count_only_together(self, environment):
        environment.setenv("VOLUME_S3_ACCESS_KEY_ID", "HALF")

        assert servers.ACCESS_KEY == AwsCredentials()()["access_key_id"]

    def test_that_expire_are_fetched_again(self, environment, tmp_path):
        """A program that hands out keys for a few seconds stands for SSO and roles."""
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            environment.delenv(name)
        program = tmp_path / "give-keys"
        program.write_text(
            f"#!{sys.executable}\n"
            "import datetime, json, pathlib\n"
            f"count = pathlib.Path({str(tmp_path / 'count')!r})\n"
            "number = int(count.read_text()) + 1 if count.exists() else 1\n"
            "count.write_text(str(number))\n"
            "soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=20)\n"
            "print(json.dumps({'Version': 1, 'AccessKeyId': f'KEY{number}', 'SecretAccessKey': 'x',\n"
            "    'SessionToken': 't', 'Expiration': soon.isoformat()}))\n"
        )
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        (tmp_path / "aws-config").write_text(f"[default]\ncredential_process = {program}\n")
        credentials = AwsCredentials()

        first, second = credentials(), credentials()
        assert first["access_key_id"] != second["access_key_id"]
        assert "t" == second["token"]
        assert second["expires_at"] is not None

    def test_keys_that_were_changed_in_the_environment_count(self, environment):
        credentials = AwsCredentials()
        before = credentials()["access_key_id"]
        environment.setenv("AWS_ACCESS_KEY_ID", "CHANGED")

        assert (servers.ACCESS_KEY, "CHANGED") == (before, credentials()["access_key_id"])


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_of_a_process_that_used_a_bucket_fails_at_once_and_does_not_hang(environment):
    store = open_store("s3://test/x")
    store.put("a", b"x")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            store.get("a")
        except StorageError as error:
            os.write(writer, str(error).encode())
        os._exit(0)
    os.close(writer)
    _, status = os.waitpid(child, 0)
    with open(reader, "rb") as said:
        text = said.read().decode()

    assert 0 == status
    assert "forked" in text
    assert "spawn" in text


FORK_FIRST = """
    import os, sys
    from volume_core.storage.opening import open_store
    store = open_store("s3://test/x")
    child = os.fork()
    if child == 0:
        store.put("from the child", b"x")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    store.put("from the parent", b"x")
"""


def test_a_store_opened_before_a_fork_and_used_after_it_works_in_both(environment, server):
    program = textwrap.dedent(FORK_FIRST)
    subprocess.run([sys.executable, "-c", program], timeout=30, check=True)

    assert ["x/from the child", "x/from the parent"] == server.bucket.keys


def test_a_slow_object_does_not_hold_the_interpreter(environment):
    """Other threads run while a call waits."""
    with S3Server(Faults(latency_s=(0.3, 0.3))) as server:
        server.make_bucket("test")
        environment.setenv("AWS_ENDPOINT_URL", server.endpoint)
        store = open_store("s3://test")
        waiting = threading.Thread(target=lambda: store.put("a", b"x"))
        waiting.start()
        steps = 0
        while waiting.is_alive():
            steps += 1
            time.sleep(0.001)
        waiting.join()

    assert steps > 50

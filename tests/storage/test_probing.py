"""What a server promises is found out before the first write, and what it breaks is named."""

import json
import threading

import pytest
import storage_servers as servers

from volume_core.errors import ConflictError, CorruptObjectError, StorageError
from volume_core.format.storeinfo import StoreFormat
from volume_core.storage import probing
from volume_core.storage.memory import MemoryStore
from volume_core.storage.opening import open_store
from volume_core.storage.probing import ensure_format, probe, read_format
from volume_core.testing.faulty import FaultyStore
from volume_core.testing.s3server import S3Server
from volume_core.testing.stores import StoreContract


@pytest.fixture
def server():
    """A server of this test alone, whose manners it may change."""
    with S3Server() as server:
        server.bucket = server.make_bucket("test")
        yield server


@pytest.fixture
def s3(server, aws_environment):
    aws_environment.setenv("AWS_ENDPOINT_URL", server.endpoint)

    def open_again():
        probing._known.clear()
        return open_store("s3://test/x")

    yield open_again
    probing._known.clear()


def test_memory_and_directories_keep_every_promise(memory, tmp_path):
    for store in (memory, open_store(str(tmp_path / "st"))):
        assert None is read_format(store)
        assert StoreFormat() == ensure_format(store) == ensure_format(store) == probe(store)
        assert ["format.json"] == [found.name for found in store.names("")]
        assert StoreFormat() == read_format(store)


class Careless(MemoryStore):
    """A store that says by itself that it keeps no conditions, as another package's may."""

    honours_conditions = False
    url = "careless://here"

    def swap(self, name, old, new):
        raise StorageError("this store swaps nothing")


def test_a_store_that_says_it_keeps_no_conditions_is_believed():
    store = Careless("careless")

    found = ensure_format(store)

    assert StoreFormat(create_once=False, swap_once=False) == found == read_format(store)
    assert not found.honours_conditions
    assert ["format.json"] == [found.name for found in store.names("")]


def test_the_format_is_one_line_of_json(memory):
    ensure_format(memory)

    assert {
        "format": "volume-store/1",
        "promises": {"create_once": True, "exact_ranges": True, "list_after_write": True, "swap_once": True},
    } == json.loads(memory.get("format.json"))


@pytest.mark.s3
def test_a_good_server_is_probed_once(s3, server):
    store = s3()
    assert not store.honours_conditions
    assert StoreFormat() == ensure_format(store)
    requests = server.seen.total()
    ensure_format(store)

    assert requests == server.seen.total()
    assert store.honours_conditions
    assert ["x/format.json"] == server.bucket.keys


@pytest.mark.s3
def test_who_comes_later_reads_what_was_found(s3, server):
    ensure_format(s3())
    server.seen.clear()
    store = s3()

    assert store.honours_conditions
    assert StoreFormat() == ensure_format(store)
    assert {"GET": 2} == dict(server.seen)


@pytest.mark.s3
def test_a_server_that_ignores_conditions_is_used_without_swaps(s3, server):
    server.faults.manners.ignore_conditions = True
    store = s3()
    found = ensure_format(store)

    assert StoreFormat(create_once=False, swap_once=False) == found == read_format(store)
    assert not store.honours_conditions
    for each in (store, s3()):
        with pytest.raises(StorageError, match=r"ignores the conditions of a PUT.*use a store that keeps them"):
            each.swap("heads/h", None, b"x")
        each.put_new("packs/a", b"abc")
        each.put_new("packs/a", b"abc")
        with pytest.raises(ConflictError):
            each.put_new("packs/a", b"xyz")
    assert b"abc" == server.bucket.objects["x/packs/a"].data


@pytest.mark.s3
class TestAServerThatIgnoresConditions(StoreContract):
    """Everything but swaps, for one writer at a time."""

    conditions = False
    listed = 20

    @pytest.fixture
    def store(self, s3, server):
        server.faults.manners.ignore_conditions = True
        store = s3()
        store.inner.learn(probe(store).honours_conditions)
        return store

    @pytest.fixture
    def raw(self, server):
        client = servers.s3_client(server.endpoint)
        yield servers.RawBucket(client, "test", "x/")
        client.close()


@pytest.mark.s3
def test_a_server_that_ignores_ranges_is_refused_by_name(s3, server):
    server.faults.manners.ignore_ranges = True

    with pytest.raises(StorageError, match=r"does not answer a range request with exactly that range") as caught:
        ensure_format(s3())
    assert "If-Match" not in str(caught.value)
    assert not caught.value.transient
    assert [] == server.bucket.keys


@pytest.mark.s3
def test_a_server_whose_listings_lag_is_refused_by_name(s3, server):
    server.faults.manners.stale_requests = 20

    with pytest.raises(StorageError, match="listings do not show what was just written"):
        ensure_format(s3())
    assert [] == server.bucket.keys


@pytest.mark.s3
def test_rclone_is_found_out_and_every_broken_promise_named(rclone, aws_environment):
    aws_environment.setenv("AWS_ENDPOINT_URL", rclone)
    store = open_store("s3://test/x")

    with pytest.raises(StorageError) as caught:
        ensure_format(store)
    said = str(caught.value)
    assert "s3://test/x cannot hold volumes" in said
    for promise in ("If-None-Match", "stale If-Match", "exactly that range"):
        assert promise in said
    assert "listings" not in said
    assert [] == [found.name for found in store.names("")]


@pytest.mark.s3
def test_a_range_from_rclone_is_an_error_and_not_other_bytes(rclone, aws_environment):
    aws_environment.setenv("AWS_ENDPOINT_URL", rclone)
    store = open_store("s3://test/ranges")
    store.put("a", b"0123456789")

    with pytest.raises(StorageError, match="range request with the whole object"):
        store.get_range("a", 3, 4)


@pytest.mark.s3
@pytest.mark.parametrize("fault", ["slow_down", "internal_error", "cut_before", "cut_after"])
def test_a_bad_moment_is_no_broken_promise(s3, server, fault, monkeypatch):
    """Each request of the probe fails once: no promise is thought broken because of it."""
    monkeypatch.setattr("time.sleep", lambda _: None)
    ensure_format(s3())
    requests = server.seen.total()
    for number in range(requests):
        server.bucket.objects.clear()
        server.bucket.keys.clear()
        server.plan.extend([""] * number + [fault])

        assert StoreFormat() == ensure_format(s3()), f"request {number}"
        server.plan.clear()


def test_of_two_first_writers_the_faster_ones_word_counts(memory):
    theirs = StoreFormat(swap_once=False)

    class Slower(FaultyStore):
        def put_new(self, name, data):
            if name == "format.json":
                memory.put(name, theirs.to_bytes())
            super().put_new(name, data)

    assert theirs == ensure_format(Slower(memory))


def test_many_first_writers_agree(tmp_path):
    found = []
    gate = threading.Barrier(4)

    def first_writer():
        gate.wait(10)
        found.append(ensure_format(open_store(str(tmp_path / "st"))))

    threads = [threading.Thread(target=first_writer) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [StoreFormat()] * 4 == found


def test_a_store_that_was_made_anew_is_written_anew(memory):
    ensure_format(memory)
    memory.clear()
    ensure_format(memory)

    assert ["format.json"] == [found.name for found in memory.names("")]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not json",
        b"[]",
        b"null",
        b"{}",
        b'{"format": "volume-store/1"}',
        b'{"format": "volume-store/1", "promises": {"create_once": true}}',
        StoreFormat().to_bytes().replace(b"true", b"1", 1),
        StoreFormat().to_bytes().replace(b"store/1", b"store/2"),
        StoreFormat().to_bytes()[:-1],
        b"\xff" + StoreFormat().to_bytes(),
    ],
)
def test_a_format_that_is_not_ours_is_refused(memory, data):
    memory.put("format.json", data)

    with pytest.raises(CorruptObjectError, match=r"format\.json"):
        ensure_format(memory)
    assert data == memory.get("format.json")


def test_a_newer_release_may_say_more():
    fields = json.loads(StoreFormat(swap_once=False).to_bytes()) | {"news": 1}
    fields["promises"]["more"] = "x"

    assert StoreFormat(swap_once=False) == StoreFormat.from_bytes(json.dumps(fields).encode())

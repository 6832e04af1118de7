"""Heads and locks in a real S3 server that loses answers, cuts lines and refuses requests."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from heads_kit import VOLUME, locator, version

from volume_core.errors import ConflictError, StorageError
from volume_core.format.names import head_name
from volume_core.parts.heads import is_ancestor, move_head, read_head
from volume_core.parts.leases import HeldLease
from volume_core.parts.tags import create_tag
from volume_core.storage.objects import ObjectStore
from volume_core.storage.probing import ensure_format
from volume_core.storage.retrying import Policy, Retrying
from volume_core.testing.s3objects import Manners
from volume_core.testing.s3server import Faults, S3Server

pytestmark = [pytest.mark.faults, pytest.mark.s3]


@pytest.fixture(autouse=True)
def keys(monkeypatch, tmp_path):
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL_S3", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATESTTESTTEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-that-is-never-shown")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "aws-credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def server() -> Iterator[S3Server]:
    with S3Server() as started:
        yield started


def opened(server: S3Server, monkeypatch: pytest.MonkeyPatch, prefix: str, attempts: int) -> Retrying:
    """A store of its own in *server*, which knows what it promises."""
    server.make_bucket("bucket")
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
    store = Retrying(ObjectStore.open(f"s3://bucket/{prefix}", {}), Policy(attempts, first_s=0.001))
    ensure_format(store)
    return store


@pytest.mark.parametrize("attempts", [1, 4], ids=["without retries", "with"])
@pytest.mark.parametrize("seed", range(3))
def test_what_a_mover_was_told_is_so(server, monkeypatch, seed, attempts):
    """Every move that was said to have happened has, once; none that was said to be a conflict has."""
    store = opened(server, monkeypatch, f"{seed}-{attempts}", attempts)
    move_head(store, VOLUME, None, version(store), "create")
    told: dict[str, set[str]] = {"moved": set(), "conflict": set(), "unsure": set()}
    clean = [[version(store) for _ in range(12)] for _ in range(4)]  # no two movers move to the same one
    server.faults = Faults(seed, slow_down=0.05, internal_error=0.05, cut_before=0.05, cut_after=0.25)

    def work(versions: list[str]) -> None:
        for ours in versions:
            try:
                move_head(store, VOLUME, read_head(store, VOLUME), ours, "commit")
            except ConflictError:
                told["conflict"].add(ours)
            except StorageError:
                told["unsure"].add(ours)
            else:
                told["moved"].add(ours)

    threads = [threading.Thread(target=work, args=(versions,)) for versions in clean]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    server.faults = Faults()

    head = read_head(store, VOLUME)
    history = [move.version for move in head.history]
    assert len(history) == len(set(history))
    assert [move.previous for move in head.history] == [*history[1:], None]
    assert told["moved"] <= set(history) <= told["moved"] | told["unsure"] | {history[-1]}
    assert told["moved"]
    assert told["conflict"]
    assert server.failed["cut_after"]
    store.close()


@pytest.mark.parametrize("others", [0, 1, 120])
def test_an_answer_that_was_lost_on_the_way(server, monkeypatch, others):
    """The server swaps and cuts the line, and others move on before the look."""
    store = opened(server, monkeypatch, f"lost-{others}", 1)
    found = move_head(store, VOLUME, None, version(store), "create")
    ours = version(store, found.version)
    theirs = Retrying(ObjectStore.open(store.url, {}))
    get, looks = store.inner.get, []

    def others_first(name: str) -> bytes:
        if name == head_name(VOLUME) and not looks:
            looks.append(name)
            for _ in range(others):
                head = read_head(theirs, VOLUME)
                move_head(theirs, VOLUME, head, version(theirs, head.version), "commit")
        return get(name)

    monkeypatch.setattr(store.inner, "get", others_first)
    server.plan.extend(["", "cut_after"])  # a swap reads before it writes

    assert ours == move_head(store, VOLUME, found, ours, "commit").version
    assert (1, 1) == (server.failed["cut_after"], len(looks))
    assert is_ancestor(theirs, locator(store, ours), locator(store, read_head(theirs, VOLUME).version))
    store.close()


def test_locks_over_a_bad_network_exclude_each_other(server, monkeypatch):
    store = opened(server, monkeypatch, "locks", 8)
    move_head(store, VOLUME, None, version(store), "create")
    server.faults = Faults(1, slow_down=0.05, internal_error=0.05, cut_before=0.05, cut_after=0.2)
    inside, tokens = threading.Lock(), []

    def work() -> None:
        for _ in range(3):
            with HeldLease(store, VOLUME, lifetime_s=30).acquire(120) as held:
                assert inside.acquire(blocking=False)
                held.check()
                tokens.append(held.token)
                inside.release()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 9 == len(tokens)
    assert sorted(tokens) == tokens
    store.close()


def test_a_server_that_ignores_conditions_has_neither_heads_nor_tags_nor_locks(monkeypatch):
    with S3Server(Faults(manners=Manners(ignore_conditions=True))) as server:
        store = opened(server, monkeypatch, "", 1)
        made = version(store)
        for write in (
            lambda: move_head(store, VOLUME, None, made, "create"),
            lambda: create_tag(store, VOLUME, "v1", made),
            lambda: HeldLease(store, VOLUME).acquire(0),
        ):
            with pytest.raises(StorageError, match="ignores the conditions"):
                write()
        assert read_head(store, VOLUME) is None
        store.close()

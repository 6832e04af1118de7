"""Commits to a real S3 server over a bad network: answers are lost, lines cut, requests refused."""

from __future__ import annotations

import json

import committer
import pytest

from volume_core.format.names import Locator
from volume_core.parts import packing
from volume_core.parts.checking import check_version
from volume_core.storage.opening import open_store
from volume_core.testing.lines import Line, checkout
from volume_core.testing.oracle import assert_same_tree
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


@pytest.mark.parametrize("seed", range(3))
def test_what_was_committed_over_a_bad_network_is_whole(tmp_path, monkeypatch, seed):
    monkeypatch.setattr(packing, "PACK_BYTES", committer.PACK_BYTES)
    faults = Faults(
        seed, (0.0, 0.01), slow_down=0.04, internal_error=0.04, cut_before=0.04, cut_after=0.08, cut_body=0.04
    )
    with S3Server(faults) as server:
        server.make_bucket("bucket")
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        store = open_store("s3://bucket/prefix")
        line = Line(store, tmp_path / "line")
        locators = []
        for number, apply in enumerate((committer.prepare, committer.change, committer.touch)):
            apply(line.tree)
            locators.append(line.commit().locator)
            checkout(store, locators[-1], tmp_path / f"out{number}")
            assert_same_tree(line.tree, tmp_path / f"out{number}")
        unchanged = line.commit()

        found = {f"{store.url}/{found.name}" for found in store.names("versions/")}
        assert set(locators) == found
        assert (False, locators[-1]) == (unchanged.changed, unchanged.locator)
        assert [] == list(store.names("intents/"))
        assert server.failed, json.dumps(server.seen)
        for locator in locators:
            assert [] == check_version(store, *Locator.parse(locator)[1:])
        store.close()

"""Every call of a transaction's commit to its store fails once: it is all or nothing, and doing it again is right."""

from __future__ import annotations

import contextlib
import itertools

import pytest

from volume_core.facade import versions as places
from volume_core.fs import VolumeFileSystem
from volume_core.testing.faulty import FaultyStore

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("persistent", [False, True], ids=["once", "for ever"])
def test_a_transaction_whose_store_fails_is_all_or_nothing(monkeypatch, after, persistent):
    """Fail the 1st call of the commit, then the 2nd, ... until none is left to fail."""
    opened = places.Place.store
    faulty: list[FaultyStore] = []
    monkeypatch.setattr(places.Place, "store", lambda place: faulty[0] if faulty else opened(place))

    for fail_at in itertools.count(1):
        bucket = f"memory://faults-{after}-{persistent}-{fail_at}"
        fs = VolumeFileSystem(bucket=bucket)
        fs.pipe({"data/a": b"old", "data/gone": b""})
        store = opened(fs._versions.place(_address()))

        transaction = fs.transaction
        transaction.start()
        fs.pipe({"data/a": b"new", "data/b": b"new"})
        fs.rm("data/gone")
        faulty[:] = [FaultyStore(store, fail_at, persistent, after, "permanent")]
        failed = False
        try:
            transaction.complete()
        except OSError:
            failed = True
        faults = faulty.pop().faults

        # A store's last answer may be lost after the version was published: then it is there, whole.
        found = {name.removeprefix("data/"): data for name, data in _fresh(bucket).cat("data", recursive=True).items()}
        assert found in (
            [{"a": b"old", "gone": b""}, {"a": b"new", "b": b"new"}] if failed else [{"a": b"new", "b": b"new"}]
        )
        with fs.transaction:
            fs.pipe({"data/a": b"new", "data/b": b"new"})
            with contextlib.suppress(FileNotFoundError):
                fs.rm("data/gone")
        assert {"data/a": b"new", "data/b": b"new"} == _fresh(bucket).cat("data", recursive=True)
        if not faults:
            break
    assert fail_at > 5


def _fresh(bucket: str) -> VolumeFileSystem:
    return VolumeFileSystem(bucket=bucket, skip_instance_cache=True)


def _address():
    from volume_core.facade.addresses import parse

    return parse("data")

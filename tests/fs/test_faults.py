"""Every call of a transaction's commit to its store fails once: it is all or nothing, and doing it again is right."""

from __future__ import annotations

import contextlib
import itertools
import os

import pytest
from fs_kit import write

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


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_directory_that_is_put_is_there_whole_or_not_at_all(monkeypatch, tmp_path, after):
    """Fail the 1st call of the upload, then the 2nd, ... until none is left to fail; what is got then is all of it."""
    write(tmp_path / "in", {"d/a": b"new", "d/b": b"new", "empty/": b""})
    (tmp_path / "in" / "link").symlink_to("d/a")
    opened = places.Place.store
    faulty: list[FaultyStore] = []
    monkeypatch.setattr(places.Place, "store", lambda place: faulty[0] if faulty else opened(place))

    for fail_at in itertools.count(1):
        bucket = f"memory://faults-put-{after}-{fail_at}"
        fs = VolumeFileSystem(bucket=bucket)
        fs.pipe_file("data/d/a", b"old")
        faulty[:] = [FaultyStore(opened(fs._versions.place(_address())), fail_at, False, after, "permanent")]
        failed = False
        try:
            fs.put(f"{tmp_path}/in/", "data", recursive=True)
        except OSError:
            failed = True
        faults = faulty.pop().faults

        names = sorted(_fresh(bucket).find("data", withdirs=True))
        assert names in ([["data", "data/d", "data/d/a"]] if failed else []) + [
            ["data", "data/d", "data/d/a", "data/d/b", "data/empty", "data/link"]
        ]
        fs.put(f"{tmp_path}/in/", "data", recursive=True)
        _fresh(bucket).get("data/", f"{tmp_path}/out-{fail_at}", recursive=True)
        assert ["d", "empty", "link"] == sorted(os.listdir(tmp_path / f"out-{fail_at}"))
        assert b"new" == (tmp_path / f"out-{fail_at}" / "link").read_bytes()
        if not faults:
            break
    assert fail_at > 5


def _fresh(bucket: str) -> VolumeFileSystem:
    return VolumeFileSystem(bucket=bucket, skip_instance_cache=True)


def _address():
    from volume_core.facade.addresses import parse

    return parse("data")

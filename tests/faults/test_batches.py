"""A batch is whole or nothing: every call to the store fails once, its process is killed, two go at once."""

from __future__ import annotations

import io
import itertools
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from committer import PACK_BYTES, prepare

from volume_core import StorageError, Volume
from volume_core.domain.view import View
from volume_core.format.names import Locator
from volume_core.parts import packing
from volume_core.parts.checking import check_version
from volume_core.parts.editing import EditSession
from volume_core.parts.indexes import open_index, unpack_index
from volume_core.parts.publishing import About, Parent, Published
from volume_core.storage.memory import MemoryStore
from volume_core.storage.protocol import Store
from volume_core.testing.faulty import Crashed, FaultyStore
from volume_core.testing.strict import StrictStore

pytestmark = pytest.mark.faults

PREPARE = ["get format", "put intent", "put pack", "put pack", "put layer", "put layer"]  # the delta, the merged one
PUBLISH = ["info parent", "info intent", "put manifest", "delete intent"]


@pytest.fixture
def small_packs(monkeypatch):
    monkeypatch.setattr(packing, "PACK_BYTES", PACK_BYTES)


def view_of(store: Store, published: Published) -> View:
    stored = [store.get(f"layers/{ref.digest}") for ref in published.manifest.stack]
    return View(
        [
            open_index(b"".join(unpack_index(ref, data)))
            for ref, data in zip(published.manifest.stack, stored, strict=True)
        ]
    )


def batch(store: Store, place: Path, parent: Published | None, seed: int, journals: Path | None = None) -> Published:
    """Put a directory and more, remove and copy: one version."""
    source = place / f"source{seed}"
    if not source.is_dir():
        source.mkdir(parents=True)
        prepare(source, seed)
    before = Parent(parent.locator, parent.manifest, view_of(store, parent)) if parent else None
    with EditSession(store, "volume", before, journals=journals, max_uploads=1) as session:
        session.put_directory(source, b"put", recursive=True, force=True)
        session.put_stream(io.BytesIO(b"%d" % seed), b"stream", mode=None, force=True)
        session.edits.copy([b"put/directory0"], b"copy%d" % seed, recursive=True)
        session.edits.remove(b"put/directory1", recursive=True)
        landed = session.commit(About())
    assert landed is not None
    published = landed.published
    assert published is not None
    if before is not None:
        before.view.close()
    return published


def versions(store: Store) -> set[str]:
    return {f"{store.url}/{found.name}" for found in store.names("versions/")}


def sound(store: Store) -> bool:
    found = [Locator.parse(each) for each in versions(store)]
    return [] == [problem for each in found for problem in check_version(store, each.volume, each.version)]


@pytest.mark.parametrize("journaled", [False, True], ids=["plain", "resumed"])
@pytest.mark.parametrize("persistent", [False, True], ids=["once", "for ever"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("fault", ["transient", "permanent", "crash"])
@pytest.mark.usefixtures("small_packs")
def test_a_failed_batch_is_all_or_nothing(tmp_path, request, journaled, persistent, after, fault):
    """Fail the 1st call of a batch, then the 2nd, ... until none is left; then the same batch again is right."""
    for fail_at in itertools.count(1):
        place = tmp_path / str(fail_at)
        journals = place / "journals"
        journals.mkdir(parents=True)
        memory = MemoryStore(f"{request.node.nodeid}/{fail_at}")
        store = StrictStore(memory)
        first = batch(store, place, None, 1)
        faulty = FaultyStore(store, fail_at, persistent, after, fault)
        made = None
        try:
            made = batch(faulty, place, first, 2, journals if journaled else None)
        except (StorageError, Crashed):
            assert faulty.faults
        came = versions(store) - {first.locator}
        assert len(came) <= 1
        assert made is None or {made.locator} == came
        again = batch(store, place, first, 2, journals if journaled else None)
        assert (made or again).manifest.used_bytes == again.manifest.used_bytes
        assert sound(store)
        assert [] == list(journals.iterdir())
        memory.clear()
        if not faulty.faults:
            break
    looking = 1  # get layer: the parent's view is opened by this test
    assert len(PREPARE + PUBLISH) + looking + 1 == fail_at, [f"{call.operation} {call.name}" for call in faulty.calls]


def test_a_killed_upload_goes_on_where_it_was(tmp_path, monkeypatch, small_packs):
    source, store = tmp_path / "source", tmp_path / "store"
    source.mkdir()
    for number in range(40):
        (source / f"{number:02}").write_bytes(random.Random(number).randbytes(9000))
    command = [sys.executable, str(Path(__file__).with_name("batcher.py")), f"file://{store}", str(source)]
    with subprocess.Popen([*command, "3"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert {"packs": 3} == json.loads(process.stdout.readline())
        os.kill(process.pid, signal.SIGKILL)
    before = packs(store)
    assert 3 == len(before)
    assert not list(store.glob("versions/*/*"))

    finished = subprocess.run([*command, "-1"], stdout=subprocess.PIPE, check=True, stdin=subprocess.DEVNULL)
    version = Volume.from_locator_sync(json.loads(finished.stdout)["locator"])
    again = {name: size for name, size in packs(store).items() if name not in before}

    assert before.items() <= packs(store).items()
    assert sum(again.values()) < 40 * 9000 - sum(before.values()) + 100 * (len(before) + len(again))
    assert [] == version.verify_sync()
    assert {f"{n:02}": random.Random(n).randbytes(9000) for n in range(40)} == {
        entry.path: b"".join(version.read_file_sync(entry.path)) for entry in version.listdir_sync()
    }
    assert not list(store.glob("intents/*"))


def packs(store: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in store.glob("packs/*/*")}

"""Going on from an upload that broke off: only under an intent that was alive all the time, and only what is there."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from volume_core.errors import StorageError
from volume_core.format.digests import digest
from volume_core.format.entries import ChunkRef
from volume_core.format.intent import Intent
from volume_core.format.names import Locator, intent_name
from volume_core.parts import packing, resuming
from volume_core.parts.checking import check_version
from volume_core.parts.editing import EditSession
from volume_core.parts.intents import HeldIntent
from volume_core.parts.publishing import About, Published
from volume_core.parts.resuming import Journal
from volume_core.storage.memory import MemoryStore
from volume_core.storage.protocol import ObjectInfo, Store
from volume_core.testing.faulty import FaultyStore
from volume_core.testing.strict import StrictStore

URL, OTHER = "memory://here", "memory://there"
OLD, NEW = (f"memory:///versions/volume/{each * 64}.json" for each in "ab")


@pytest.fixture
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    memory = MemoryStore(request.node.nodeid)
    yield StrictStore(memory)
    memory.clear()


# -- the journal


def chunk(seed: int) -> ChunkRef:
    return ChunkRef(digest(b"%d" % seed), b"", 32 + seed, 10, 20 + seed, seed % 2)


def noted(directory: Path, *packs: bytes) -> Journal:
    journal = Journal.create(directory, URL, "volume", "i" * 32)
    for number, pack in enumerate(packs):
        journal.add(pack, [chunk(2 * number), chunk(2 * number + 1)])
    return journal


def test_a_journal_is_taken_by_the_next_of_that_volume_alone(tmp_path, store):
    pack = digest(b"pack")
    journal = noted(tmp_path, pack)
    assert Journal.take(tmp_path, URL, "volume") is None  # it is being written
    journal.close()
    assert Journal.take(tmp_path, OTHER, "volume") is None
    assert Journal.take(tmp_path, URL, "vol") is None
    again = Journal.take(tmp_path, URL, "volume")

    assert "i" * 32 == again.intent
    store.put_new(f"packs/{pack.hex()[:2]}/{pack.hex()}", b"")
    assert chunk(1)._replace(pack=pack) == again.find(store, chunk(1).digest)
    assert again.find(store, chunk(9).digest) is None
    again.discard()
    assert [] == list(tmp_path.iterdir())
    assert Journal.take(tmp_path, URL, "volume") is None


@pytest.mark.loud
def test_a_pack_that_is_gone_is_not_named(tmp_path, store, caplog):
    noted(tmp_path, digest(b"pack")).close()

    assert Journal.take(tmp_path, URL, "volume").find(store, chunk(1).digest) is None
    assert "is gone" in caplog.text


def test_a_journal_that_was_cut_short_anywhere_is_good_up_to_there(tmp_path, store):
    packs = [digest(b"one"), digest(b"two")]
    for pack in packs:
        store.put_new(f"packs/{pack.hex()[:2]}/{pack.hex()}", b"")
    journal = noted(tmp_path, *packs)
    journal.close()
    whole = journal.path.read_bytes()
    found_at = []
    for cut in range(0, len(whole) + 1, 7):
        journal.path.write_bytes(whole[:cut])
        again = Journal.take(tmp_path, URL, "volume")
        found_at.append(-1 if again is None else sum(again.find(store, chunk(n).digest) is not None for n in range(4)))
        if again is not None:
            again.add(digest(b"three"), [chunk(7)])
            again.close()
            again = Journal.take(tmp_path, URL, "volume")
            assert found_at[-1] == sum(again.find(store, chunk(n).digest) is not None for n in range(4))
            again.close()

    assert sorted(found_at) == found_at
    assert {-1, 0, 2} == set(found_at)


def test_a_damaged_record_ends_the_journal(tmp_path, store):
    journal = noted(tmp_path, digest(b"one"))
    journal.close()
    data = bytearray(journal.path.read_bytes())
    data[-3] ^= 1
    journal.path.write_bytes(data)

    assert Journal.take(tmp_path, URL, "volume").find(store, chunk(0).digest) is None


def test_what_nobody_can_go_on_from_is_removed(tmp_path):
    old, held, young = (Journal.create(tmp_path, URL, name, "i" * 32) for name in ("old", "held", "young"))
    old.close()
    young.close()
    for each in (old, held):
        os.utime(each.path, (0, 0))

    assert Journal.take(tmp_path, URL, "another") is None
    assert {held.path, young.path} == set(tmp_path.iterdir())
    held.close()


# -- the intent


def left_behind(store: Store, lifetime_s: int = 100) -> str:
    intent = HeldIntent(store, "volume", [OLD], lifetime_s=lifetime_s)
    intent.begin()
    intent.leave()
    return intent.id


def alive(store: Store) -> list[Intent]:
    return [Intent.from_bytes(found.name, store.get(found.name)) for found in store.names("intents/")]


def test_an_intent_that_is_alive_is_taken_over(store):
    left = left_behind(store)
    with HeldIntent(store, "volume", [NEW]) as intent:
        assert intent.take_over(left)
        [found] = alive(store)
        assert (left, 1, {OLD, NEW}) == (found.id, found.write, set(found.versions))
        intent.renew()
        intent.check()
        assert [2] == [each.write for each in alive(store)]

    assert [] == alive(store)


class Aged(FaultyStore):
    """A store that saw one object written earlier than it did."""

    def __init__(self, inner: Store, name: str, age_s: float) -> None:
        super().__init__(inner)
        self.aged, self.age_ns = name, int(age_s * 1e9)

    def info(self, name: str) -> ObjectInfo:
        found = super().info(name)
        return found._replace(modified_ns=found.modified_ns - self.age_ns) if name == self.aged else found


@pytest.mark.parametrize("why", ["lapsed", "gone", "damaged", "moved"])
def test_an_intent_that_may_have_lapsed_is_not_taken_over(store, why):
    left = left_behind(store)
    tried: Store = store
    if why == "lapsed":
        tried = Aged(store, intent_name(left), 101)
    elif why == "gone":
        store.delete(intent_name(left))
    elif why == "damaged":
        store.put(intent_name(left), b"{}")
    else:

        class Moving(FaultyStore):
            def swap(self, name: str, old: bytes | None, new: bytes) -> None:
                self.inner.put(name, b"another")
                super().swap(name, old, new)

        tried = Moving(store)
    intent = HeldIntent(tried, "volume", [NEW])

    assert not intent.take_over(left)
    assert left != intent.id
    intent.check()
    intent.remove()


def test_an_intent_that_lapsed_while_it_was_taken_over_is_not_brought_back(store):
    left = left_behind(store)
    clock_s = [0.0]

    class Sleepy(FaultyStore):
        def swap(self, name: str, old: bytes | None, new: bytes) -> None:
            clock_s[0] += 101
            super().swap(name, old, new)

    intent = HeldIntent(Sleepy(store), "volume", [NEW], elapsed_s=lambda: clock_s[0])

    assert not intent.take_over(left)
    assert [intent.id] == [each.id for each in alive(store)]
    intent.remove()


# -- all of it

FILES, FILE_BYTES = 32, 9000


@pytest.fixture
def source(tmp_path, monkeypatch) -> Path:
    """A directory of files that make several packs."""
    monkeypatch.setattr(packing, "PACK_BYTES", 64 << 10)
    made = tmp_path / "source"
    made.mkdir()
    for number in range(FILES):
        (made / f"{number:02}").write_bytes(random.Random(number).randbytes(FILE_BYTES))
    return made


def put(store: Store, source: Path, journals: Path, volume: str = "volume") -> Published:
    journals.mkdir(exist_ok=True)
    with EditSession(store, volume, None, journals=journals, max_uploads=1) as session:
        session.put_directory(source, b"", recursive=True, force=False)
        return session.commit(About())


def sent(faulty: FaultyStore) -> int:
    return sum(call.operation == "put_new" and call.name.startswith("packs/") for call in faulty.calls)


def failing_at_pack(store: Store, number: int) -> FaultyStore:
    class Failing(FaultyStore):
        def put_new(self, name: str, data: bytes | memoryview) -> None:
            if name.startswith("packs/") and sent(self) >= number:
                raise StorageError("no answer", transient=True)
            super().put_new(name, data)

    return Failing(store)


def test_what_was_uploaded_before_a_failure_is_not_uploaded_again(store, source, tmp_path):
    journals = tmp_path / "journals"
    with pytest.raises(StorageError, match="no answer"):
        put(failing_at_pack(store, 2), source, journals)
    assert 1 == len(alive(store))
    counting = FaultyStore(store)
    published = put(counting, source, journals)
    found = Locator.parse(published.locator)

    assert 4 == 2 + sent(counting)
    assert [] == list(check_version(store, found.volume, found.version))
    assert FILES * FILE_BYTES == published.manifest.used_bytes
    assert [] == alive(store) == list(journals.iterdir())


def test_it_may_fail_again_and_again(store, source, tmp_path):
    journals, uploads = tmp_path / "journals", 0
    for _ in range(3):
        failing = failing_at_pack(store, 1)
        with pytest.raises(StorageError):
            put(failing, source, journals)
        uploads += sent(failing)
    counting = FaultyStore(store)
    put(counting, source, journals)

    assert 4 == uploads + sent(counting)
    assert [] == alive(store) == list(journals.iterdir())


def test_a_file_that_changed_meanwhile_is_read_as_it_is(store, source, tmp_path):
    journals = tmp_path / "journals"
    with pytest.raises(StorageError):
        put(failing_at_pack(store, 2), source, journals)
    (source / "00").write_bytes(b"changed")
    published = put(store, source, journals)
    found = Locator.parse(published.locator)

    assert [] == list(check_version(store, found.volume, found.version))
    assert (FILES - 1) * FILE_BYTES + len(b"changed") == published.manifest.used_bytes


def test_what_no_intent_has_protected_is_uploaded_again(store, source, tmp_path):
    journals = tmp_path / "journals"
    with pytest.raises(StorageError):
        put(failing_at_pack(store, 2), source, journals)
    [left] = alive(store)
    counting = Aged(store, intent_name(left.id), resuming.LIFETIME_S + 1)
    put(counting, source, journals)

    assert 4 == sent(counting)
    assert [] == list(journals.iterdir())


def test_another_volume_does_not_go_on_from_it(store, source, tmp_path):
    journals = tmp_path / "journals"
    with pytest.raises(StorageError):
        put(failing_at_pack(store, 2), source, journals)
    counting = FaultyStore(store)
    put(counting, source, journals, volume="another")

    assert 4 == sent(counting)
    assert 1 == len(list(journals.iterdir()))


def test_a_journal_that_cannot_be_written_fails_nothing(store, source, tmp_path, monkeypatch):
    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Journal, "add", full)

    assert FILES * FILE_BYTES == put(store, source, tmp_path / "journals").manifest.used_bytes

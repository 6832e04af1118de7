"""Heads, tags and locks: what was written is read, and nothing else is taken for one."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from make_golden_objects import ACTION, FIRST, MOVES, OBJECTS, SECOND, VOLUME

from volume_core.errors import CorruptObjectError
from volume_core.format import checked
from volume_core.format.head import HISTORY_MAX, Head, Move
from volume_core.format.lease import Lease
from volume_core.format.manifest import Action
from volume_core.format.tag import Tag

HEAD, TAG, LEASE = OBJECTS.values()
EACH = pytest.mark.parametrize("value", OBJECTS.values(), ids=lambda value: type(value).__name__)

IDS = st.binary(min_size=32, max_size=32).map(bytes.hex)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ACTIONS = st.none() | st.builds(Action, **{field.name: TEXT for field in dataclasses.fields(Action)})
MOVES_ = st.builds(Move, IDS, st.none() | IDS, TEXT, TEXT, TEXT, TEXT, ACTIONS)


@given(st.lists(MOVES_, min_size=1, max_size=4), st.integers(0, 1 << 70))
def test_a_head_is_read_as_it_was_written(moves, fence):
    head = Head(VOLUME, tuple(moves), fence)

    assert head == Head.from_bytes("heads/x", head.to_bytes())
    assert (moves[0].version, moves[0].write_id) == (head.version, head.write_id)


@given(IDS, TEXT, TEXT)
def test_a_tag_is_read_as_it_was_written(version, when, message):
    tag = Tag(VOLUME, "v1", version, when, message)

    assert tag == Tag.from_bytes("tags/x", tag.to_bytes())


@given(TEXT, st.integers(1, 1 << 70), TEXT, st.integers(1, 1 << 40), st.booleans(), st.integers(0, 1 << 70))
def test_a_lease_is_read_as_it_was_written(ident, token, holder, lifetime_s, held, write):
    lease = Lease(VOLUME, ident, token, holder, lifetime_s, "then", "now", held, write)

    assert lease == Lease.from_bytes("leases/x", lease.to_bytes())


def test_a_head_knows_its_moves():
    assert HEAD.has("a" * 32)
    assert HEAD.has("b" * 32)
    assert not HEAD.has("c" * 32)
    assert HEAD.is_all
    assert not Head(VOLUME, MOVES[:1]).is_all


@EACH
def test_any_changed_byte_is_noticed(value):
    whole = value.to_bytes()
    for position in range(len(whole)):
        for damaged in (whole[:position], whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :]):
            with pytest.raises(CorruptObjectError, match="some/object"):
                type(value).from_bytes("some/object", damaged)


@EACH
def test_another_spelling_is_refused(value):
    """A swap names the bytes that it replaces, so a value must have one spelling."""
    fields = json.loads(value.to_bytes())
    with pytest.raises(CorruptObjectError, match="spelled"):
        type(value).from_bytes("some/object", json.dumps(fields, sort_keys=True).encode())


@EACH
@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"{}", b"{", b"\xff", b"3", b"[" * 100_000])
def test_no_bytes_crash_the_decoder(value, data):
    with pytest.raises(CorruptObjectError):
        type(value).from_bytes("some/object", data)


def changed(value: object, change: dict[str, object]) -> bytes:
    fields = {**json.loads(value.to_bytes()), **change}
    format_ = fields.pop("format")
    del fields["digest"]
    return checked.spell(str(format_), {key: each for key, each in fields.items() if each is not ...})


def moved(change: dict[str, object]) -> dict[str, object]:
    return {"history": [{**json.loads(HEAD.to_bytes())["history"][0], **change}]}


MOVE = {"moved_at": "", "why": "", "by": "", "action": None, "write_id": "", "previous": None}


@pytest.mark.parametrize(
    ("value", "change"),
    [
        *((value, change) for value in OBJECTS.values() for change in (
            {"format": "volume-other/1"}, {"surprise": 1}, {"volume": ...}, {"volume": 3}, {"volume": "a/b"},
        )),
        (HEAD, {"history": []}),
        (HEAD, {"history": [{**MOVE, "version": SECOND}] * (HISTORY_MAX + 1)}),
        (HEAD, {"history": None}),
        (HEAD, {"version": FIRST}),
        (HEAD, {"version": ...}),
        (HEAD, {"fence": -1}),
        (HEAD, {"fence": True}),
        (HEAD, {"fence": "1"}),
        (HEAD, moved({"version": "short"})),
        (HEAD, moved({"version": None})),
        (HEAD, moved({"previous": "short"})),
        (HEAD, moved({"write_id": 1})),
        (HEAD, moved({"by": None})),
        (HEAD, moved({"action": {"engine": "only"}}) | {"history": [3]}),
        (HEAD, moved({"action": {**dataclasses.asdict(ACTION), "run": 3}})),
        (HEAD, moved({"surprise": 1})),
        (TAG, {"tag": "a/b"}),
        (TAG, {"tag": "0" * 64}),
        (TAG, {"version": "v1"}),
        (TAG, {"message": None}),
        (LEASE, {"token": 0}),
        (LEASE, {"token": 1.0}),
        (LEASE, {"lifetime_s": 0}),
        (LEASE, {"lifetime_s": 0.5}),
        (LEASE, {"held": 1}),
        (LEASE, {"write": -1}),
        (LEASE, {"holder": None}),
    ],
)  # fmt: skip
def test_what_is_none_of_this_release_is_refused(value, change):
    assert value == type(value).from_bytes("some/object", changed(value, {}))
    with pytest.raises(CorruptObjectError, match="some/object"):
        type(value).from_bytes("some/object", changed(value, change))

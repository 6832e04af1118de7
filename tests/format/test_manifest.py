"""Manifests: one spelling for one version, and nothing is believed that does not hash to its name."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from volume_core.errors import CorruptObjectError
from volume_core.format.digests import hex_digest
from volume_core.format.manifest import FORMAT, Action, LayerRef, Manifest

TEXT = st.text(max_size=12)
HEX = st.binary(min_size=32, max_size=32).map(bytes.hex)
NUMBER = st.integers(0, 1 << 62)
LAYER = st.builds(LayerRef, HEX, NUMBER, HEX, NUMBER, NUMBER)
ACTION = st.builds(Action, TEXT, TEXT, TEXT, TEXT, TEXT, TEXT, TEXT, TEXT)
MANIFEST = st.builds(
    Manifest,
    volume=st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,9}", fullmatch=True),
    created_at=TEXT,
    stack=st.lists(LAYER, max_size=3).map(tuple),
    delta=st.none() | LAYER,
    parents=st.lists(TEXT, max_size=2).map(tuple),
    message=TEXT,
    used_bytes=NUMBER,
    inode_count=NUMBER,
    metadata_store_type=TEXT,
    region=st.none() | TEXT,
    produced_by=st.none() | ACTION,
    parent_produced_by=st.none() | ACTION,
    labels=st.dictionaries(TEXT, TEXT, max_size=3),
    torn=st.lists(TEXT, max_size=2).map(tuple),
)
SAMPLE = Manifest(
    "data",
    "2030-01-02T03:04:05Z",
    (LayerRef("a" * 64, 10, "b" * 64, 20, 3),),
    LayerRef("c" * 64, 11, "d" * 64, 21, 4),
    ("s3://b/versions/data/" + "e" * 64 + ".json",),
    produced_by=Action(engine="x", run="y"),
    labels={"k": "v"},
)


def stored(fields: object) -> tuple[str, bytes]:
    """The bytes of a manifest with these fields, under the name that they hash to."""
    data = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
    return hex_digest(data), data


@given(MANIFEST)
def test_a_manifest_comes_back_equal(manifest):
    data = manifest.to_bytes()

    assert manifest == Manifest.from_bytes(manifest.version, data)
    assert hex_digest(data) == manifest.version
    assert data == Manifest.from_bytes(manifest.version, data).to_bytes()


def test_the_spelling_is_the_one_on_disk():
    """Do not change: versions are named by it."""
    fields = json.loads(SAMPLE.to_bytes())

    assert FORMAT == fields["format"]
    assert 20 == fields["index_bytes"]
    assert sorted(fields) == list(fields)
    assert b'{"created_at":"2030-01-02T03:04:05Z","delta":{"digest":"cc' in SAMPLE.to_bytes()
    assert SAMPLE.version == "3ea727ef1ae54875d17450042ff0dc6a6d8fefadc0dc3d682ce4e952005c77f9"


@given(MANIFEST, st.integers(0), st.integers(1, 255))
@settings(max_examples=50)
def test_a_flipped_or_cut_manifest_is_refused(manifest, place, flip):
    data = bytearray(manifest.to_bytes())
    data[place % len(data)] ^= flip

    for wrong in (bytes(data), manifest.to_bytes()[: place % len(data)], b"", manifest.to_bytes() + b" "):
        with pytest.raises(CorruptObjectError, match=manifest.version):
            Manifest.from_bytes(manifest.version, wrong)


def broken(**changes):
    fields = json.loads(SAMPLE.to_bytes())
    return {key: value for key, value in {**fields, **changes}.items() if value is not ...}


def layer(**changes):
    return {**dataclasses.asdict(SAMPLE.stack[0]), **changes}


@pytest.mark.parametrize(
    "fields",
    [
        broken(format="volume-manifest/2"),
        broken(format=...),
        broken(index_bytes=21),
        broken(index_bytes=...),
        broken(stack=...),
        broken(stack=None),
        broken(stack=[layer(digest="A" * 64)]),
        broken(stack=[layer(index_digest="../x")]),
        broken(stack=[layer(digest=5)]),
        broken(stack=[layer(more=1)]),
        broken(stack=[layer(rows="3")]),
        broken(stack=[layer(index_bytes=-20)], index_bytes=-20),
        broken(stack=[layer(index_bytes=20.0)], index_bytes=20.0),
        broken(stack=[1]),
        broken(delta=[]),
        broken(delta={}),
        broken(delta="x"),
        broken(volume="../x"),
        broken(volume=5),
        broken(volume=...),
        broken(created_at=None),
        broken(message=["x"]),
        broken(parents="abc"),
        broken(parents=[1]),
        broken(torn={"a": "b"}),
        broken(torn=None),
        broken(used_bytes=True),
        broken(used_bytes=-1),
        broken(inode_count="1"),
        broken(region=3),
        broken(labels=[["a", "b"]]),
        broken(labels={"a": 1}),
        broken(labels=None),
        broken(produced_by={"engine": "x"}),
        broken(produced_by={**dataclasses.asdict(Action()), "engine": None}),
        broken(parent_produced_by=["x"]),
        broken(newer_field=1),
        [],
        None,
        "text",
        5,
    ],
    ids=lambda fields: json.dumps(fields)[:40],
)
def test_a_manifest_that_hashes_right_and_says_wrong_things_is_refused(fields):
    with pytest.raises(CorruptObjectError, match="not a volume-manifest/1"):
        Manifest.from_bytes(*stored(fields))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"{",
        b"[" * 100_000,
        SAMPLE.to_bytes().replace(b'"k":"v"', b'"k":"u","k":"v"'),
        SAMPLE.to_bytes().replace(b'"k":"v"', b'"k": "v"'),
        SAMPLE.to_bytes().replace(b'"k":"v"', b'"k":"\\u0076"'),
        SAMPLE.to_bytes().replace(b'"used_bytes":0', b'"used_bytes":NaN'),
        SAMPLE.to_bytes().replace(b'"used_bytes":0', b'"used_bytes":-0'),
        SAMPLE.to_bytes().replace(b'"used_bytes":0', b'"used_bytes":' + b"9" * 5000),
        SAMPLE.to_bytes() + b"\n",
    ],
    ids=lambda data: repr(data[:20]),
)
def test_any_other_spelling_is_refused(data):
    assert data != SAMPLE.to_bytes()
    with pytest.raises(CorruptObjectError):
        Manifest.from_bytes(hex_digest(data), data)

"""The record: exactly the fields, the same bytes everywhere, and enough to go on with."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys

import pytest
from facade_kit import committed, contents, write
from pydantic import BaseModel, ValidationError

from volume_core import ActionRef, InvalidNameError, ROVolume, RWVolume, Volume
from volume_core.facade.records import fields_of
from volume_core.format.manifest import Manifest
from volume_core.format.names import Locator

FIELDS = [
    "kind", "name", "bucket", "storage", "region", "index", "metadata_store_type", "used_bytes", "inode_count",
    "index_bytes", "message", "produced_by", "parent_produced_by",
]  # fmt: skip
ACTION = ActionRef(engine="e", org="o", project="p", domain="d", run="r", action="a", attempt="0", url="https://u")


def golden() -> ROVolume:
    """A version that only a record knows of."""
    manifest = Manifest(
        volume="data", created_at="2026-01-01T00:00:00.000000Z", message="größer", used_bytes=7, inode_count=3,
        region="eu-west-1", produced_by=ACTION,
    )  # fmt: skip
    return ROVolume(**fields_of(Locator("s3://bucket/prefix", "data", manifest.version), manifest))


# DO NOT CHANGE: engines key their caches on these bytes.
GOLDEN = (
    '{"kind":"volume/v1","name":"data","bucket":"bucket/prefix","storage":"s3","region":"eu-west-1",'
    '"index":"s3://bucket/prefix/versions/data/VERSION.json","metadata_store_type":"sqlite","used_bytes":7,'
    '"inode_count":3,"index_bytes":0,"message":"größer","produced_by":{"engine":"e","org":"o","project":"p",'
    '"domain":"d","run":"r","action":"a","attempt":"0","url":"https://u"},"parent_produced_by":null}'
)


def test_the_json_of_a_version_is_pinned():
    volume = golden()

    assert GOLDEN.replace("VERSION", volume.version) == volume.model_dump_json()
    assert FIELDS == list(ROVolume.model_fields) == list(RWVolume.model_fields) == list(Volume.model_fields)


def test_the_json_is_the_same_wherever_and_however_the_version_is_reached(python):
    version = committed()
    expected = version.model_dump_json()
    code = "import sys; from volume_core import Volume; print(Volume.from_locator_sync(sys.argv[1]).model_dump_json())"
    again = Volume.model_validate_json(expected)

    assert f"{expected}\n" == python(code, version.locator).stdout
    assert expected == again.model_dump_json()
    assert expected == Volume.model_validate(json.loads(expected)).model_dump_json()
    assert expected == pickle.loads(pickle.dumps(version)).model_dump_json()
    with version.mounted_sync(driver="copy"):
        assert expected == version.model_dump_json()


def test_a_record_is_a_usable_version():
    version = committed()
    again = Volume.model_validate_json(version.model_dump_json())

    assert type(again) is ROVolume
    assert contents(version) == contents(again)


def test_a_new_volume_is_a_record_and_no_io(tmp_path):
    volume = Volume.new("data")

    assert (None, "file") == (volume.index, volume.storage)
    assert volume.locator is None
    assert not (tmp_path / "volume-state").exists()
    assert type(Volume.model_validate_json(volume.model_dump_json())) is RWVolume


def test_a_fork_is_a_record_of_its_base_under_another_name():
    version = committed()
    fork = version.fork_sync("other")
    again = Volume.model_validate_json(fork.model_dump_json())

    assert ("other", version.index) == (fork.name, fork.index)
    assert version.model_dump(exclude={"name"}) == fork.model_dump(exclude={"name"})
    assert type(again) is RWVolume
    assert version == again.commit_sync()


def test_a_writers_record_follows_its_commits():
    volume = Volume.new("data")
    with volume.mounted_sync(driver="copy") as path:
        write(path, {"a": "123"})
        version = volume.commit_sync("one")

        assert version.model_dump() == volume.model_dump()
        assert (3, 2, "one") == (volume.used_bytes, volume.inode_count, volume.message)


def test_both_kinds_are_known_by_their_class():
    version = committed()

    assert isinstance(version, Volume)
    assert isinstance(version.fork_sync("x"), Volume)
    for missing in ("commit", "commit_sync", "finalize", "abandon"):
        assert not hasattr(version, missing)
    with pytest.raises(TypeError, match=r"Volume\.new"):
        Volume(name="x")


@pytest.mark.parametrize(
    "change",
    [{"index": None}, {"name": "other"}, {"index": "s3://bucket/x"}, {"kind": "volume/v2"}, {"used_bytes": "many"}],
)
def test_a_record_that_is_no_versions_is_refused(change):
    with pytest.raises(ValidationError):
        ROVolume.model_validate(golden().model_dump() | change)


def test_fields_of_a_newer_release_are_passed_over():
    assert golden() == Volume.model_validate(golden().model_dump() | {"colour": "blue"})


def test_volumes_are_fields_of_other_models():
    class Result(BaseModel):
        data: Volume
        more: list[ROVolume] = []

    result = Result(data=golden(), more=[golden()])
    again = Result.model_validate_json(result.model_dump_json())

    assert result == again
    assert type(again.data) is ROVolume


def test_versions_are_values():
    one, other = golden(), golden()

    assert one == other
    assert 1 == len({one, other})
    assert one == copy.copy(one) == copy.deepcopy(one) == one.model_copy()
    assert one != one.fork_sync("x")


def test_a_record_cannot_be_changed():
    for volume in (golden(), Volume.new("data")):
        with pytest.raises(ValidationError):
            volume.name = "other"


def test_writers_are_themselves():
    volume = Volume.new("data", "memory://")

    assert [volume] == [volume.model_copy(), volume][1:]
    assert volume != Volume.new("data", "memory://")
    assert volume != copy.copy(volume)
    assert 2 == len({volume, copy.copy(volume)})


@pytest.mark.parametrize("name", ["", "a/b", ".hidden", "-flag", "ü", "a" * 129, "a b"])
def test_a_bad_name_is_refused_where_it_is_given(name):
    with pytest.raises(InvalidNameError):
        Volume.new(name)
    with pytest.raises(InvalidNameError):
        golden().fork_sync(name)
    with pytest.raises(ValidationError):
        RWVolume.model_validate(Volume.new("x").model_dump() | {"name": name})


def test_a_volume_without_a_name_gets_one_of_its_own():
    assert Volume.new().name != Volume.new().name


@pytest.mark.parametrize(
    ("arguments", "storage", "bucket"),
    [
        ({"bucket": "s3://b/p/"}, "s3", "b/p"),
        ({"bucket": "b/p", "storage": "s3"}, "s3", "b/p"),
        ({"bucket": "b", "storage": "gs"}, "gs", "b"),
        ({"bucket": "az://c/p"}, "wasb", "c/p"),
        ({"bucket": "file:///data/store"}, "file", "/data/store"),
        ({"bucket": "/data/store"}, "file", "/data/store"),
        ({"bucket": "memory://x"}, "memory", "x"),
        ({"bucket": "ftp://host/x"}, "ftp", "ftp://host/x"),
    ],
)
def test_a_bucket_is_spelled_in_one_way(arguments, storage, bucket):
    volume = Volume.new("data", **arguments)

    assert (storage, bucket) == (volume.storage, volume.bucket)
    assert volume.store_url == RWVolume.model_validate(volume.model_dump()).store_url
    assert volume.store_url == Volume.new("data", volume.store_url).store_url


def test_the_default_bucket_is_the_environments_then_the_state_directorys(monkeypatch, tmp_path):
    assert f"file://{tmp_path}/volume-state/store" == Volume.new("data").store_url
    monkeypatch.setenv("VOLUME_BUCKET", "s3://team/volumes")
    assert "s3://team/volumes" == Volume.new("data").store_url
    assert "s3://other" == Volume.new("data", "other").store_url
    assert "file:///x" == Volume.new("data", "/x").store_url


def test_what_cannot_be_a_store_is_refused():
    for arguments in ({"bucket": "s3://"}, {"bucket": "x", "storage": "tape"}, {"metadata_store_type": "clay"}):
        with pytest.raises(InvalidNameError):
            Volume.new("data", **arguments)


def test_the_package_loads_its_names_when_they_are_used():
    code = (
        "import sys, volume_core; heavy = {'pydantic', 'obstore', 'pluggy', 'blake3', 'asyncio', 'botocore'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert 'Volume' in dir(volume_core)\n"
        "for name in volume_core.__all__: assert getattr(volume_core, name) is not None\n"
        "from volume_core import *\n"
        "assert not {'obstore', 'botocore', 'rich', 'click'} & set(sys.modules)\n"
        "try: volume_core.nothing\n"
        "except AttributeError as error: print(error)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "module 'volume_core' has no attribute 'nothing'\n" == ran.stdout

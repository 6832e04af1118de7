"""Names: what may be one, where objects lie, and that a locator leads back to its parts."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volume_core.errors import InvalidNameError, VolumeError
from volume_core.format import names
from volume_core.format.names import Locator, validate_name

VERSION = "0123456789abcdef" * 4
FIRST = string.ascii_letters + string.digits + "_"
NAME = st.builds(str.__add__, st.sampled_from(FIRST), st.text(FIRST + ".-", max_size=names.NAME_CHARACTERS_MAX - 1))
STORES = (
    "s3://bucket",
    "s3://bucket/a/prefix",
    "gs://b/p",
    "abfs://container@account/p",
    "file:///var/volumes",
    "memory://x",
)


@given(NAME)
def test_a_name_is_given_back(name):
    assert name == validate_name(name)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ".hidden", "-rf", "a/b", "a\\b", "a b", "a\n", "\na", "ä", "a\0", "a%2f", "x" * 129, "a:b", "a*"],
)
def test_what_some_store_cannot_hold_is_no_name(name):
    with pytest.raises(InvalidNameError, match="tag"):
        validate_name(name, "tag")
    with pytest.raises(ValueError):
        validate_name(name)


@given(st.text(max_size=20))
def test_whatever_is_accepted_is_safe_everywhere(text):
    try:
        validate_name(text)
    except VolumeError:
        return

    assert text.isascii()
    assert set(text) <= set(FIRST + ".-")
    assert text[0] not in ".-"


def test_objects_lie_where_the_format_says():
    assert f"packs/01/{VERSION}" == names.pack_name(VERSION)
    assert f"layers/{VERSION}" == names.layer_name(VERSION)
    assert f"versions/data/{VERSION}.json" == names.version_name("data", VERSION)
    assert "intents/i-1.json" == names.intent_name("i-1")
    assert "format.json" == names.FORMAT_NAME


@given(st.sampled_from(STORES), NAME)
def test_a_locator_leads_back_to_its_parts(store, volume):
    locator = Locator(store, volume, VERSION)

    assert f"{store}/versions/{volume}/{VERSION}.json" == str(locator)
    assert locator == Locator.parse(str(locator))


def test_a_store_below_a_folder_called_versions_is_found():
    locator = Locator("s3://b/versions/x", "data", VERSION)

    assert locator == Locator.parse(str(locator))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "data",
        "s3://bucket",
        f"/versions/data/{VERSION}.json",
        f"bucket/versions/data/{VERSION}.json",
        f"s3://b/versions/data/{VERSION}",
        f"s3://b/versions/data/{VERSION[:-1]}.json",
        f"s3://b/versions/data/{VERSION.upper()}.json",
        f"s3://b/versions/data/more/{VERSION}.json",
        f"s3://b/versions/../{VERSION}.json",
        f"s3://b/versions//{VERSION}.json",
        f"s3://b/heads/data/{VERSION}.json",
        f"s3://b/versions/data/{VERSION}.json.json",
    ],
)
def test_what_is_no_locator_is_refused_and_told_how_one_looks(text):
    with pytest.raises(InvalidNameError):
        Locator.parse(text)

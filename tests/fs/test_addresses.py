"""What a `vol://` URL means, and that it means the same after every round trip."""

from __future__ import annotations

import os

import pytest
from fsspec.utils import infer_storage_options
from hypothesis import given
from hypothesis import strategies as st

from volume_core import InvalidNameError
from volume_core.facade.addresses import Address, join, parse, store_root, strip, to_bytes, to_text
from volume_core.fs import VolumeFileSystem, url_of
from volume_core.storage.opening import normalize

ID = "0123456789abcdef" * 4
STORES = [
    "s3://bucket",
    "s3://bucket/prefix/-/deep",
    "gs://bucket/a+b",
    "az://container/prefix",
    "abfs://container@account.dfs.core.windows.net/prefix",
    "file:///srv/volumes",
    "file:///srv/odd%20%40%25%FF/-/~x",
    "memory://",
    "memory://name",
]


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("vol://", Address("", None, "", "", b"")),
        ("vol://data", Address("data", None, "data", "", b"")),
        ("vol://data/", Address("data", None, "data", "", b"")),
        ("vol:///data//a/./b/", Address("data", None, "data", "", b"a/b")),
        ("vol://data~v7/a", Address("data~v7", None, "data", "v7", b"a")),
        (f"vol://data~{ID}/a~b", Address(f"data~{ID}", None, "data", ID, b"a~b")),
        ("vol://s3/bucket/-/x", Address("s3", None, "s3", "", b"bucket/-/x")),
        ("vol://s3+bucket/-", Address("s3+bucket/-", "s3://bucket", "", "", b"")),
        ("vol://s3+b/p/-/d~v/x/-/y", Address("s3+b/p/-/d~v", "s3://b/p", "d", "v", b"x/-/y")),
        ("vol://file+/srv/v/-/d/x", Address("file+/srv/v/-/d", "file:///srv/v", "d", "", b"x")),
        ("vol://memory+/-/d", Address("memory+/-/d", "memory://", "d", "", b"")),
    ],
)
def test_each_part_of_a_url_is_where_the_grammar_says(url, address):
    assert address == parse(strip(url))


@pytest.mark.parametrize(
    "url", ["vol://.hidden/a", "vol://data~", "vol://data~v~w", "vol://s3+bucket/prefix", "vol://a b", "vol://a/../b"]
)
def test_what_is_no_address_is_refused(url):
    with pytest.raises(InvalidNameError):
        parse(strip(url))


@pytest.mark.parametrize("store", STORES)
def test_a_store_in_a_url_is_that_store(store):
    root = store_root(store)

    assert Address(root, normalize(store), "", "", b"") == parse(strip(f"vol://{root}"))
    assert "@" not in root, "what stands before it is a user, or a connection, to those who parse URLs"


@pytest.mark.parametrize("store", STORES)
def test_a_locator_has_a_url(store):
    url = url_of(f"{normalize(store)}/versions/data/{ID}.json", "/a/b")

    address = parse(strip(url))
    assert (normalize(store), "data", ID, b"a/b") == address[1:]


@pytest.mark.parametrize("store", [None, *STORES])
@given(path=st.lists(st.binary(min_size=1, max_size=9).filter(lambda name: name not in {b".", b".."}), max_size=4))
def test_every_name_comes_back(store, path):
    path = [name.replace(b"/", b"_").replace(b"\0", b"_") for name in path]
    root = join(store_root(store) if store else "", "data~v7")
    name = join(root, to_text(b"/".join(path)))

    address = parse(VolumeFileSystem._strip_protocol(f"vol://{name}"))
    assert (root, b"/".join(path)) == (address.root, address.path)
    assert name == address.name(address.path)
    assert name == VolumeFileSystem._strip_protocol(name), "a name may be stripped again"
    assert VolumeFileSystem._parent(name) == (name.rpartition("/")[0] if "/" in name else "")


def test_names_are_those_of_the_operating_system():
    assert os.fsdecode(b"\xff") == to_text(b"\xff")
    assert b"\xff" == to_bytes(os.fsdecode(b"\xff"))


@pytest.mark.parametrize("ref", ["v7", "20240131", ID])
def test_other_parsers_of_urls_live_with_a_version(ref):
    options = infer_storage_options(f"vol://data~{ref}/a/b")

    assert ("vol", f"data~{ref}", "/a/b") == (options["protocol"], options["host"], options["path"])

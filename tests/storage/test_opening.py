"""URLs of stores: one spelling each, and errors that say how one looks."""

import os
import string
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volume_core.errors import InvalidNameError, StorageError
from volume_core.format.names import Locator
from volume_core.storage.opening import BUILTIN_SCHEMES, normalize, open_store, split_url, store_url

DEFAULT = "file:///home/u/.volumes/store"

SPELLINGS = [
    ("s3://bucket", "s3://bucket"),
    ("s3://bucket/", "s3://bucket"),
    ("s3://bucket/a/b///", "s3://bucket/a/b"),
    ("S3://Bucket/A", "s3://Bucket/A"),
    ("s3a://bucket/a", "s3://bucket/a"),
    ("gs://b/x", "gs://b/x"),
    ("gcs://b/x/", "gs://b/x"),
    ("az://cont/x/", "az://cont/x"),
    ("azure://cont", "az://cont"),
    ("abfs://cont/x", "az://cont/x"),
    ("abfs://cont@acc.dfs.core.windows.net/x/y/", "abfs://cont@acc.dfs.core.windows.net/x/y"),
    ("abfss://cont@acc.dfs.core.windows.net", "abfs://cont@acc.dfs.core.windows.net"),
    ("wasbs://cont@acc.blob.core.windows.net/x", "abfs://cont@acc.dfs.core.windows.net/x"),
    ("abfs://cont@acc.dfs.core.chinacloudapi.cn/x", "abfs://cont@acc.dfs.core.chinacloudapi.cn/x"),
    ("file:///data/st", "file:///data/st"),
    ("file:///data/st///", "file:///data/st"),
    ("file:///data/./x/../st", "file:///data/st"),
    ("file:////data//st", "file:///data/st"),
    ("file://localhost/data", "file:///data"),
    ("file:///a b#c?d", "file:///a%20b%23c%3Fd"),
    ("file:///a%20b", "file:///a%20b"),
    ("file:///ä", "file:///%C3%A4"),
    ("file:///100%", "file:///100%25"),
    ("file:///", "file:///"),
    ("/data/a b", "file:///data/a%20b"),
    ("//data", "file:///data"),
    ("memory://", "memory://"),
    ("memory://x/", "memory://x"),
    ("memory:///x/y", "memory://x/y"),
    ("redis://host:6379/0/", "redis://host:6379/0"),
]


@pytest.mark.parametrize(("given_url", "expected"), SPELLINGS)
def test_one_spelling(given_url, expected):
    assert expected == normalize(given_url)
    assert expected == normalize(expected)


def test_paths_are_made_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    assert f"file://{tmp_path}/st" == normalize("st") == normalize("./st") == normalize("x/../st/")
    assert f"file://{tmp_path}/home/st" == normalize("~/st") == normalize("file://~/st")


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("", "neither a path nor"),
        ("file://", "three slashes"),
        ("file://relative/dir", "three slashes"),
        ("file://host/dir", "three slashes"),
        ("file:///a%00b", "three slashes"),
        ("/a\0b", "neither a path nor"),
        ("s3://", "bucket"),
        ("s3:///prefix", "bucket"),
        ("s3://buck et/x", "bucket"),
        ("s3://user:secret@bucket/x", "bucket"),
        ("s3://bucket/a//b", "empty"),
        ("s3://bucket/../x", "'..'"),
        ("s3://bucket/x?region=eu", "may not hold"),
        ("gs://bucket/a#b", "may not hold"),
        ("abfs://cont@acc/x", "container@account.dfs"),
        ("memory://a/../b", "'..'"),
    ],
)
def test_what_is_no_url_says_how_one_looks(bad, said):
    with pytest.raises(InvalidNameError, match=said):
        normalize(bad)


def test_a_wrong_file_url_names_the_right_one(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(InvalidNameError, match=f"file://{tmp_path}/data/st"):
        normalize("file://data/st")


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=40))
def test_any_path_survives_its_url(name):
    path = os.path.normpath("/" + name)
    url = normalize(Path("/" + name.lstrip("/")).as_posix())

    assert url == normalize(url)
    assert set(url) <= set(string.ascii_letters + string.digits + "/:%-._~")
    assert "/" + path.lstrip("/") == open_store(url).local_root.as_posix()


def test_a_path_of_any_bytes_survives_its_url(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe")
    store = open_store(path)
    store.put("a", b"x")

    assert store.url.endswith("/%FF%FE")
    assert b"x" == open_store(store.url).get("a")
    assert store.url == store_url(*split_url(store.url), DEFAULT)


@pytest.mark.parametrize("url", sorted({expected for _, expected in SPELLINGS if not expected.startswith("redis")}))
def test_splitting_and_joining_are_inverse(url):
    storage, bucket = split_url(url)

    assert storage in {"s3", "gs", "wasb", "file", "memory"}
    if bucket:
        assert url == store_url(storage, bucket, DEFAULT)
    else:
        assert url == store_url(storage, None, url)


@pytest.mark.parametrize(
    ("storage", "bucket", "default", "expected"),
    [
        (None, None, DEFAULT, DEFAULT),
        (None, None, "s3://b/x/", "s3://b/x"),
        ("s3", "b/x", DEFAULT, "s3://b/x"),
        ("gs", "b", DEFAULT, "gs://b"),
        ("wasb", "cont/x", DEFAULT, "az://cont/x"),
        ("wasb", "cont@acc.dfs.core.windows.net/x", DEFAULT, "abfs://cont@acc.dfs.core.windows.net/x"),
        ("file", "/data", DEFAULT, "file:///data"),
        ("memory", "x", DEFAULT, "memory://x"),
        ("memory", None, DEFAULT, "memory://"),
        ("file", None, DEFAULT, DEFAULT),
        (None, "/data", "s3://b", "file:///data"),
        (None, "s3://b/x/", DEFAULT, "s3://b/x"),
        ("s3", "s3://b/x/", DEFAULT, "s3://b/x"),
        (None, "b", "gs://other/y", "gs://b"),
        (None, "b", DEFAULT, "s3://b"),
        (None, "b", "", "s3://b"),
        ("gs", "b", "", "gs://b"),
        (None, "redis://h/0", DEFAULT, "redis://h/0"),
    ],
)
def test_storage_and_bucket_make_a_url(storage, bucket, default, expected):
    assert expected == store_url(storage, bucket, default)


@pytest.mark.parametrize(
    ("storage", "bucket", "said"),
    [
        ("ftp", "b", "not one of"),
        ("s3", None, "needs a bucket"),
        ("gs", "s3://b", "store of s3"),
    ],
)
def test_storage_and_bucket_that_do_not_fit(storage, bucket, said):
    with pytest.raises(InvalidNameError, match=said):
        store_url(storage, bucket, DEFAULT)


def test_a_locator_of_any_store_is_taken_apart_into_its_url():
    for _, url in SPELLINGS:
        locator = Locator(url, "v", "0" * 64)

        assert locator == Locator.parse(str(locator))


def test_an_unknown_scheme_says_which_are_known():
    with pytest.raises(InvalidNameError, match=r"'redis'.*file, memory, s3, gs, az, abfs"):
        open_store("redis://host/0")


def test_an_unknown_option_says_which_are_known():
    with pytest.raises(InvalidNameError, match=r"'regoin'.*endpoint.*region"):
        open_store("s3://b", {"regoin": "x"})


def test_azure_without_an_account_says_how_to_name_one(monkeypatch):
    for name in list(os.environ):
        if name.startswith("AZURE_"):
            monkeypatch.delenv(name)

    with pytest.raises(StorageError, match=r"AZURE_STORAGE_ACCOUNT_NAME.*abfs://cont@"):
        open_store("az://cont/x")


@pytest.mark.parametrize("scheme", BUILTIN_SCHEMES)
def test_opening_sends_nothing_and_knows_its_url(scheme, monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "acc")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    url = {"file": "file:///none", "memory": "memory://none", "abfs": "abfs://c@a.dfs.core.windows.net/x"}.get(
        scheme, f"{scheme}://none/x"
    )

    assert url == open_store(url).url


@pytest.mark.parametrize("url", ["file:///none", "memory://none"])
def test_a_local_store_loads_no_library_of_remote_ones(url):
    program = (
        f"import sys; from volume_core.storage.opening import open_store; open_store({url!r}); "
        "print(sorted({'obstore', 'botocore'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=True)

    assert "[]\n" == done.stdout


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIA:SECRET@bucket",
        "s3://AKIA:SEC/SECRET@bucket/prefix",
        "gs://SECRET@bucket",
        "az://name:SECRET@container",
        "az://container/prefix?sig=SECRET",
    ],
)
def test_credentials_in_a_url_are_refused_and_not_repeated(url):
    with pytest.raises(InvalidNameError) as refused:
        normalize(url)

    assert "SECRET" not in str(refused.value)

    with pytest.raises(InvalidNameError) as refused:
        Locator.parse(url)

    assert "SECRET" not in str(refused.value)

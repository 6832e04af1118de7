"""Reading through `vol://`: bytes, from any thread, loop and process."""

from __future__ import annotations

import asyncio
import io
import itertools
import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import fsspec
import pytest
from fs_kit import BIG, TREE, committed
from fsspec.callbacks import Callback

from volume_core.fs import VolumeFileSystem, url_of

FILES = {name: data for name, data in TREE.items() if not name.endswith("/")}


def test_a_range_is_a_slice(fs):
    edges = [None, 0, 1, (4 << 20) - 1, (4 << 20) + 1, len(BIG), len(BIG) + 5, -1, -len(BIG), -(9 << 30)]
    for start, end in itertools.product(edges, edges):
        assert BIG[start:end] == fs.cat_file("data/big.bin", start, end), (start, end)


def test_many_at_once(fs):
    assert {f"data/{name}": data for name, data in FILES.items()} == fs.cat("data", recursive=True)
    assert {f"data/{name}": FILES[name] for name in ("a.txt", "d/b.txt")} == fs.cat(
        ["data/a.txt", "vol://data/d/b.txt"]
    )
    assert [b"a", BIG[5:9], b""] == fs.cat_ranges(
        ["data/a.txt", "data/big.bin", "data/big.bin"], [0, 5, 7], [1, 9, 7], on_error="raise"
    )
    found = fs.cat_ranges(["data/a.txt", "data/nothing"], 0, 1)
    assert b"a" == found[0] and isinstance(found[1], FileNotFoundError)
    assert {"data/a.txt": b"a"} == fs.cat(["data/a.txt", "data/nothing"], on_error="omit")


@pytest.mark.parametrize("cache_type", ["none", "readahead", "bytes", "blockcache", "all"])
def test_an_open_file_reads_as_a_local_one(fs, cache_type):
    local = io.BytesIO(BIG)
    with fs.open("data/big.bin", cache_type=cache_type) as file:
        assert (len(BIG), "data/big.bin") == (file.size, file.info()["name"])
        for offset, whence, count in [(0, 0, 10), (5, 1, 1 << 20), (-7, 2, -1), (4 << 20, 0, 3 << 20), (0, 2, 5)]:
            assert local.seek(offset, whence) == file.seek(offset, whence)
            assert local.read(count) == file.read(count)


def test_text(fs):
    committed("text", {"lines": "é\nb\r\nc".encode()})

    with fsspec.open("vol://text/lines", "r") as file:
        assert ["é\n", "b\n", "c"] == list(file)
    assert "é\nb\nc" == fs.read_text("text/lines", encoding="utf-8")
    assert b"b" == fs.read_block("text/lines", 3, 1)
    assert (b"\xc3", b"c") == (fs.head("text/lines", 1), fs.tail("text/lines", 1))


def test_what_is_no_file_cannot_be_read(fs):
    for name in ["data", "data/d", ""]:
        with pytest.raises(IsADirectoryError):
            fs.cat_file(name)
        with pytest.raises(IsADirectoryError):
            fs.open(name)
    with pytest.raises(FileNotFoundError):
        fs.open("data/nothing")


def test_a_tree_comes_out(fs, tmp_path):
    callback = Callback()
    fs.get("data", str(tmp_path / "out"), recursive=True, callback=callback)

    out = tmp_path / "out"
    assert FILES == {str(each.relative_to(out)): each.read_bytes() for each in out.rglob("*") if each.is_file()}
    assert (out / "empty").is_dir()
    assert callback.size == callback.value


def test_one_file_comes_out_whole_or_not_at_all(fs, tmp_path, monkeypatch):
    told = Callback()
    fs.get_file("data/big.bin", tmp_path / "deep" / "big", callback=told)
    assert BIG == (tmp_path / "deep" / "big").read_bytes()
    assert (len(BIG), len(BIG)) == (told.size, told.value)
    assert 0o644 == (tmp_path / "deep" / "big").stat().st_mode & 0o777 & ~os.umask(os.umask(0)) | 0o044

    def fail(_bytes):
        raise OSError("full")

    (tmp_path / "there").write_bytes(b"old")
    monkeypatch.setattr(told, "relative_update", fail)
    with pytest.raises(OSError, match="full"):
        fs.get_file("data/big.bin", tmp_path / "there", callback=told)
    assert b"old" == (tmp_path / "there").read_bytes()
    assert ["deep", "there"] == sorted(path.name for path in tmp_path.glob("[dt]*"))

    into = io.BytesIO()
    fs.get_file("data/big.bin", into)
    assert BIG == into.getvalue()


def test_by_coroutines(version):
    async def read() -> None:
        fs = VolumeFileSystem(asynchronous=True)
        assert FILES["d/b.txt"] == await fs._cat_file("data/d/b.txt")
        assert ["data/a.txt", "data/d/b.txt"] == await fs._glob("data/*.txt") + await fs._glob("data/d/*.txt")
        assert "directory" == (await fs._info("data/d"))["type"]
        assert ["data", "data/d", "data/d/e", "data/empty"] == [path async for path, _, _ in fs._walk("data")]
        ranges = await fs._cat_ranges(["data/big.bin"] * 50, list(range(50)), list(range(1, 51)))
        assert [BIG[n : n + 1] for n in range(50)] == ranges
        async with await fs.open_async("data/big.bin") as file:
            assert BIG[:7] == await file.read(7)
            assert BIG[7:] == await file.read()
            assert b"" == await file.read(1)
        with pytest.raises(FileNotFoundError):
            await fs.open_async("data/nothing")

    asyncio.run(read())


def test_from_within_a_running_loop(fs):
    async def read() -> bytes:
        return fs.cat_file("data/a.txt") + fs.open("data/d/b.txt").read()

    assert b"abb" == asyncio.run(read())


def test_from_many_threads(fs):
    start = threading.Barrier(16)

    def read(number: int) -> None:
        start.wait()
        for _ in range(5):
            assert BIG[number:-number] == fs.cat_file("data/big.bin", number, -number)
            assert 3 == fs.info("data/d/e/c.bin")["size"]
            assert len(FILES) == len(fs.find("data"))

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(read, range(1, 17)))


def test_a_forked_child_reads_with_its_parents_instance(fs, version):
    url = url_of(version.locator, "d/b.txt")
    assert b"a" == fs.cat("data/a.txt")
    with fs.open("data/big.bin") as file:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                same = fs.cat("data/a.txt") == b"a" and fs.cat([url])  # direct, and by a loop of its own
                same = same and fsspec.open(f"vol://data~{version.version}/a.txt").open().read() == b"a"
                status = 0 if same and file.read() == BIG else 2
            finally:
                os._exit(status)
        assert 0 == os.waitpid(child, 0)[1]
        assert BIG == file.read()
    assert b"a" == fs.cat("data/a.txt")


def test_what_is_pickled_is_the_options(version, tmp_path):
    fs = VolumeFileSystem(bucket=str(tmp_path / "volume-state" / "store"))
    again = pickle.loads(pickle.dumps(fs))

    assert fs == again and fs.fsid == again.fsid
    assert b"a" == again.cat("data/a.txt")
    assert fs.to_json() == VolumeFileSystem.from_json(fs.to_json()).to_json()
    assert len(pickle.dumps(fs)) < 500
    with fs.open("data/a.txt") as file:
        assert b"a" == pickle.loads(pickle.dumps(fsspec.open("vol://data/a.txt"))).open().read() == file.read()


@pytest.mark.parametrize("protocol", ["simplecache", "filecache"])
def test_behind_fsspecs_caches(version, tmp_path, protocol):
    options = {protocol: {"cache_storage": str(tmp_path / "cache")}}
    for _ in range(2):
        with fsspec.open(f"{protocol}::vol://data/d/b.txt", **options) as file:
            assert b"bb" == file.read()


def test_as_a_mapping(fs):
    mapping = fs.get_mapper("data")

    assert sorted(FILES) == sorted(mapping)
    assert FILES == dict(mapping)
    assert {"a.txt": b"a"} == mapping.getitems(["a.txt", "nothing"], on_error="omit")
    with pytest.raises(KeyError):
        mapping["nothing"]


def test_in_a_directory_of_another_file_system(fs):
    inner = fsspec.filesystem("dir", path="data/d", fs=fs)

    assert ["b.txt", "e"] == sorted(inner.ls("", detail=False))
    assert b"bb" == inner.cat("b.txt")

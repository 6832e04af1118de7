"""pandas, pyarrow, zarr and pathlib-like paths read and write volumes by URL, without a mount."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import zarr
from fsspec.parquet import open_parquet_file
from pyarrow.fs import FileSelector, FileType, FSSpecHandler, PyFileSystem
from upath import UPath
from zarr.storage import FsspecStore

from volume_core import Volume
from volume_core.fs import url_of

FRAME = pd.DataFrame({"a": range(1000), "b": [str(n) for n in range(1000)], "k": [n % 3 for n in range(1000)]})


def head(fs, volume: str):
    """The head of *volume*."""
    fs.invalidate_cache()
    return Volume.from_name_sync(volume).committed


def commits(fs, volume: str) -> int:
    """How many versions *volume* has."""
    return len(head(fs, volume).log_sync())


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.json", "t.parquet", "t.pkl"])
def test_pandas(fs, name):
    kind = name.split(".")[1]
    kind = {"pkl": "pickle"}.get(kind, kind)
    index = {} if kind in {"json", "pickle"} else {"index": False}
    getattr(FRAME, f"to_{kind}")(f"vol://frames/d/{name}", **index)

    read = getattr(pd, f"read_{kind}")
    more = {"dtype": {"b": str}} if kind in {"csv", "json"} else {}
    pd.testing.assert_frame_equal(FRAME, read(f"vol://frames/d/{name}", **more))
    version = head(fs, "frames")
    pd.testing.assert_frame_equal(FRAME, read(url_of(version.locator, f"d/{name}"), **more))
    # fsspec.open, which pandas uses for all but parquet, makes the directory first.
    assert (1 if kind == "parquet" else 2) == commits(fs, "frames")
    getattr(FRAME, f"to_{kind}")(f"vol://frames/d/again-{name}", **index)
    assert (2 if kind == "parquet" else 3) == commits(fs, "frames")


def test_pandas_with_options(tmp_path):
    options = {"bucket": str(tmp_path / "another")}
    FRAME.to_csv("vol://frames/t.csv", index=False, storage_options=options)

    assert 1000 == len(pd.read_csv("vol://frames/t.csv", storage_options=options))
    assert 1000 == len(pd.read_csv(f"vol://file+{tmp_path}/another/-/frames/t.csv"))
    with pytest.raises(FileNotFoundError):
        pd.read_csv("vol://frames/t.csv")


def test_a_partitioned_data_set_is_one_commit_in_a_transaction(fs):
    with fs.transaction:
        FRAME.to_parquet("vol://frames/set", partition_cols=["k"])

    assert 1 == commits(fs, "frames")
    assert 333 == len(pd.read_parquet("vol://frames/set", filters=[("k", "==", 1)]))


@pytest.mark.parametrize("wrap", [lambda fs: fs, lambda fs: PyFileSystem(FSSpecHandler(fs))])
def test_pyarrow_data_sets(fs, wrap):
    there = wrap(fs)
    table = pa.Table.from_pandas(FRAME)
    with fs.transaction:
        ds.write_dataset(table, "frames/set", format="parquet", filesystem=there, partitioning=["k"])
    pq.write_table(table, "frames/one.parquet", filesystem=there)

    found = ds.dataset("frames/set", filesystem=there, partitioning=["k"])
    assert (1000, 333) == (found.count_rows(), found.to_table(filter=ds.field("k") == 2).num_rows)
    assert table.equals(pq.read_table("frames/one.parquet", filesystem=there))
    assert 2 == commits(fs, "frames")


def test_pyarrow_file_system(fs):
    there = PyFileSystem(FSSpecHandler(fs))
    fs.pipe({"v/a": b"123", "v/d/b": b"4"})

    infos = {info.path: info for info in there.get_file_info(FileSelector("v", recursive=True))}
    assert {"v/a": FileType.File, "v/d": FileType.Directory, "v/d/b": FileType.File} == {
        path: info.type for path, info in infos.items()
    }
    assert (3, fs.modified("v/a")) == (infos["v/a"].size, infos["v/a"].mtime)
    assert FileType.NotFound == there.get_file_info("v/nothing").type
    there.create_dir("v/new/dir")
    there.copy_file("v/a", "v/new/a")
    there.move("v/new/a", "v/new/b")
    with there.open_output_stream("v/out") as out:
        out.write(b"5")
    there.delete_dir_contents("v/d")
    there.delete_file("v/a")
    assert ["v/new/b", "v/out"] == fs.find("v") and fs.isdir("v/d")


def test_zarr(fs):
    data = np.arange(10_000, dtype="i4").reshape(100, 100)
    loose = fsspec.filesystem("vol", asynchronous=True)
    with loose.transaction:
        array = zarr.create_array(FsspecStore(loose, path="arrays/z"), shape=data.shape, chunks=(10, 10), dtype="i4")
        array[:] = data
        assert (data == array[:]).all()
    assert 1 == commits(fs, "arrays")

    url = url_of(head(fs, "arrays").locator, "z")
    for each in ("vol://arrays/z", url):
        assert (data == zarr.open_array(each, mode="r")[:]).all()
        assert 505 == zarr.open_array(FsspecStore.from_url(each, read_only=True), mode="r")[5, 5]
    array = zarr.open_array("vol://arrays/z", mode="r+")
    array[0, 0] = 7
    assert (7, 0) == (zarr.open_array("vol://arrays/z", mode="r")[0, 0], zarr.open_array(url, mode="r")[0, 0])
    group = zarr.open_group("vol://arrays/g", mode="w")
    group.create_array("inner", shape=(3,), dtype="i4")[:] = 5
    assert ["inner"] == list(zarr.open_group("vol://arrays/g", mode="r").array_keys())


@pytest.mark.filterwarnings("ignore:UPath 'vol' filesystem not explicitly implemented")
def test_paths(fs):
    fs.pipe({"v/a.txt": b"1", "v/d/b.txt": b"22"})
    version = head(fs, "v").version
    for root in ("vol://v", f"vol://v~{version}"):
        path = UPath(root)
        assert root == str(path) == str(path / "d" / "..").removesuffix("/d/..")
        assert [f"{root}/a.txt", f"{root}/d"] == sorted(str(each) for each in path.iterdir())
        assert [f"{root}/a.txt", f"{root}/d/b.txt"] == sorted(str(each) for each in path.rglob("*.txt"))
        assert (b"22", 2) == ((path / "d" / "b.txt").read_bytes(), (path / "d" / "b.txt").stat().st_size)
        assert (path / "d" / "b.txt").parent == path / "d" and (path / "d").is_dir()
    (UPath("vol://v") / "new" / "c.txt").write_text("3")
    assert b"3" == fs.cat("v/new/c.txt")


def test_caches_of_fsspec(fs, tmp_path):
    fs.pipe({f"v/d/{n}": b"%d" % n for n in range(3)})
    options = {"filecache": {"cache_storage": str(tmp_path), "check_files": True}}
    with fsspec.open_files("filecache::vol://v/d/*", **options) as files:
        assert [b"0", b"1", b"2"] == [each.read() for each in files]

    fs.pipe_file("v/d/0", b"new")
    with fsspec.open("filecache::vol://v/d/0", **options) as file:
        assert b"new" == file.read(), "what changed has another ukey"
    local = fsspec.open_local("simplecache::vol://v/d/*", simplecache={"cache_storage": str(tmp_path / "s")})
    assert {b"new", b"1", b"2"} == {Path(path).read_bytes() for path in local}


def test_parquet_columns_are_fetched_apart(fs):
    FRAME.to_parquet("vol://frames/t.parquet")
    with open_parquet_file("vol://frames/t.parquet", columns=["a"], engine="pyarrow") as file:
        assert 1000 == len(pd.read_parquet(file, columns=["a"]))


def test_another_process_finds_the_scheme(fs):
    fs.pipe_file("v/a.csv", b"x\n1\n")
    code = "import pandas; print(pandas.read_csv('vol://v/a.csv')['x'].sum())"

    assert "1\n" == subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_zarr_within_a_loop_of_the_callers(fs):
    array = zarr.create_array("vol://arrays/z", shape=(4,), dtype="i4")
    array[:] = 3

    async def read() -> int:
        return int(zarr.open_array("vol://arrays/z", mode="r")[:].sum())

    assert 12 == asyncio.run(read())

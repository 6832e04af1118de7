"""Looking through `vol://`: names, infos, listings, and which version they are of."""

from __future__ import annotations

import os
import stat

import fsspec
import pytest
from fs_kit import ODD_NAMES, TREE, committed

from volume_core import Volume
from volume_core.fs import VolumeFileSystem, url_of


def test_the_scheme_is_registered():
    assert VolumeFileSystem is fsspec.get_filesystem_class("vol")


def test_a_store_is_a_directory_of_its_volumes(fs):
    committed("other", {"x": b""})

    assert ["data", "other"] == fs.ls("vol://", detail=False)
    assert [("", ["data", "other"], [])] == list(fs.walk("", maxdepth=1))
    assert fs.isdir("") and fs.isdir("data") and not fs.isfile("data")


def test_listing_and_info_agree(fs):
    for name in fs.find("", withdirs=True):
        if "/" in name:
            above = name.rpartition("/")[0]
            assert fs.info(name) in fs.ls(above), name
    assert [fs.info("data/a.txt")] == fs.ls("data/a.txt")


def test_an_info_says_what_stat_would(fs, version):
    with version.mounted_sync(driver="copy") as path:
        for name, kind in [("a.txt", "file"), ("d/e", "directory")]:
            there, info = os.lstat(path / name), fs.info(f"data/{name}")
            assert (kind, there.st_mode, there.st_uid, there.st_gid) == (
                info["type"],
                info["mode"],
                info["uid"],
                info["gid"],
            )
            assert there.st_mtime == pytest.approx(info["mtime"], abs=1e-6)
            assert (there.st_size if kind == "file" else 0) == info["size"]
            assert not info["islink"]


@pytest.mark.parametrize("root", ["data", "{locator}"])
def test_find_walk_and_glob_give_names_that_lead_back(fs, version, root):
    root = fs._strip_protocol(root.format(locator=url_of(version.locator)))
    files = sorted(f"{root}/{name}" for name in TREE if not name.endswith("/"))
    directories = sorted(f"{root}/{name}" for name in ("d", "d/e", "empty"))

    assert files == fs.find(root)
    assert sorted([root, *files, *directories]) == fs.find(root, withdirs=True)
    assert fs.find(root, detail=True) == {name: fs.info(name) for name in files}
    assert [name for name in files if name.count("/") == root.count("/") + 1] == fs.find(root, maxdepth=1)
    assert [f"{root}/a.txt", f"{root}/d/b.txt"] == fs.glob(f"{root}/*.txt") + fs.glob(f"vol://{root}/d/*.txt")
    assert sorted([root, *files, *directories]) == sorted(fs.glob(f"{root}/**"))
    walked = list(fs.walk(root))
    assert [root, f"{root}/d", f"{root}/d/e", f"{root}/empty"] == [path for path, _, _ in walked]
    assert sorted(files) == sorted(f"{path}/{name}" for path, _, names in walked for name in names)
    assert fs.du(root) == sum(map(len, TREE.values()))
    assert f"vol://{files[0]}" == fs.unstrip_protocol(files[0])
    assert [files[0]] == fs.expand_path(fs.unstrip_protocol(files[0]))


def test_a_walk_can_be_pruned(fs):
    seen = []
    for path, names, _ in fs.walk("data"):
        seen.append(path)
        names[:] = [name for name in names if name != "e"]

    assert ["data", "data/d", "data/empty"] == seen
    assert ["data/d/e", "data/d", "data/empty", "data"] == [path for path, _, _ in fs.walk("data", topdown=False)]


def test_what_is_not_there_is_not_found(fs):
    for name in ["nothing", "data/nothing", "data/a.txt/x", "data~v7", "data/..", "data/d/../a.txt", "a b/c", "s3+x"]:
        assert not fs.exists(name)
        with pytest.raises(FileNotFoundError) as caught:
            fs.info(name)
        assert f"vol://{fs._strip_protocol(name)}" == caught.value.filename
    assert [] == fs.find("data/nothing")
    assert [] == fs.glob("data/nothing*")
    assert [] == list(fs.walk("nothing"))[1:]
    with pytest.raises(FileNotFoundError):
        list(fs.walk("nothing", on_error="raise"))


def test_odd_names_come_back():
    committed("odd", {b"d/" + name: name for name in ODD_NAMES})
    fs = VolumeFileSystem()

    names = fs.ls("odd/d", detail=False)
    assert sorted(ODD_NAMES) == sorted(os.fsencode(name.removeprefix("odd/d/")) for name in names)
    assert sorted(names) == fs.find("odd") == sorted(fs.glob("odd/d/*"))
    for name in names:
        assert os.fsencode(name.removeprefix("odd/d/")) == fs.cat_file(name)
        assert name == fs.info(name)["name"]


def test_symlinks_are_followed_and_circles_are_not(tmp_path):
    volume = Volume.new("linked")
    with volume.mounted_sync(driver="copy") as path:
        (path / "d").mkdir()
        (path / "d" / "file").write_bytes(b"1234")
        (path / "to_file").symlink_to("d/file")
        (path / "to_directory").symlink_to("/d")
        (path / "d" / "to_root").symlink_to("..")
        (path / "d" / "nowhere").symlink_to("nothing")
        (path / "d" / "itself").symlink_to("itself")
        os.mkfifo(path / "fifo")
    fs = VolumeFileSystem()

    info = fs.info("linked/to_file")
    assert ("file", 4, True, "d/file") == (info["type"], info["size"], info["islink"], info["destination"])
    assert stat.S_ISREG(info["mode"])
    assert b"1234" == fs.cat("linked/to_directory/file") == fs.cat("linked/to_file")
    assert "directory" == fs.info("linked/to_directory")["type"]
    assert "link" == fs.info("linked/d/nowhere")["type"] == fs.info("linked/d/itself")["type"]
    assert "other" == fs.info("linked/fifo")["type"]
    assert fs.islink("linked/to_file") and not fs.islink("linked/d/file") and not fs.islink("linked/nothing")
    files = fs.find("linked")
    assert "linked/to_directory/file" in files
    assert not any("to_root/" in name for name in files), "that is where the walk came from"
    assert sorted(files) == sorted(f"{path}/{name}" for path, _, names in fs.walk("linked") for name in names)
    with pytest.raises(OSError, match="no file"):
        fs.open("linked/fifo")
    with pytest.raises(FileNotFoundError):
        fs.cat("linked/d/nowhere")


def test_an_instance_reads_one_version_until_it_is_told_to_look_again(fs, version):
    with fs.open("data/a.txt") as before:
        committed("data", {"a.txt": b"new", "b": b""})
        assert b"a" == fs.cat("data/a.txt")
        assert not fs.exists("data/b")

        fs.invalidate_cache()
        assert b"new" == fs.cat("data/a.txt")
        assert b"a" == before.read(), "an open file stays where it is"

    committed("data", {"c": b""})
    assert not fs.exists("data/c")
    assert fs.exists("data/c", refresh=True)
    committed("data", {"e": b""})
    fs.invalidate_cache("other/x")
    assert not fs.exists("data/e")
    fs.invalidate_cache("vol://data/a.txt")
    assert fs.exists("data/e")
    assert b"a" == fs.cat(url_of(version.locator, "a.txt"))


def test_how_long_a_head_is_believed_is_an_option(version):
    always, expires = VolumeFileSystem(use_listings_cache=False), VolumeFileSystem(listings_expiry_time=0)
    assert always.exists("data/a.txt") and expires.exists("data/a.txt")

    committed("data", {"b": b""})

    assert always.exists("data/b") and expires.exists("data/b")


def test_a_version_is_named_by_its_id_or_how_it_begins(fs, version):
    newer = committed("data", {"a.txt": b"new"})

    for each, data in [(version, b"a"), (newer, b"new")]:
        assert data == fs.cat(f"data~{each.version}/a.txt") == fs.cat(f"data~{each.version[:12]}/a.txt")
    with pytest.raises(FileNotFoundError):
        fs.cat(f"data~{'0' * 64}/a.txt")
    version.tag_sync("v7")
    assert b"a" == fs.cat("vol://data~v7/a.txt")
    with pytest.raises(FileNotFoundError, match="v8"):
        fs.cat("vol://data~v8/a.txt")


def test_volumes_of_another_store(fs, tmp_path):
    committed("far", {"x": b"far away"}, bucket=str(tmp_path / "odd @ store" / "-"))
    [root] = [f"file+{tmp_path}/odd%20%40%20store/%2D/-"]

    assert [f"{root}/far"] == fs.ls(f"vol://{root}", detail=False)
    assert b"far away" == fs.cat(f"{root}/far/x")
    assert b"far away" == VolumeFileSystem(bucket=str(tmp_path / "odd @ store" / "-")).cat("far/x")
    assert [f"{root}/far/x"] == fs.glob(f"{root}/far/*") == fs.find(root)


def test_fingerprints_tell_contents_apart(fs, version):
    committed("data", TREE | {"d/b.txt": b"BB", "d/copy": b"\0\1\2", "new": b"a"})
    fs.invalidate_cache()

    assert fs.ukey("data/d/copy") == fs.ukey("data/d/e/c.bin")
    assert fs.ukey("data/new") == fs.ukey(url_of(version.locator, "a.txt"))
    assert fs.ukey("data/d/b.txt") != fs.ukey(url_of(version.locator, "d/b.txt"))
    assert fs.checksum("data/new") == fs.checksum("data/a.txt") != fs.checksum("data/big.bin")
    assert fs.ukey("data/d") != fs.ukey("data/d/e")


def test_times(fs, version):
    assert fs.info("data/a.txt")["mtime"] == pytest.approx(fs.modified("data/a.txt").timestamp())
    assert fs.modified("data/a.txt") <= fs.created("data/a.txt")
    with pytest.raises(FileNotFoundError):
        fs.created("data/nothing")


def test_a_store_that_does_not_answer_is_no_answer(fs, monkeypatch):
    from volume_core.errors import StorageError
    from volume_core.fs import opened

    def fail(*_arguments):
        raise StorageError("the store is away")

    monkeypatch.setattr(opened, "find_version", fail)
    for ask in (fs.exists, fs.isdir, fs.isfile, fs.info, fs.ls, fs.find):
        with pytest.raises(OSError, match="away"):
            ask("elsewhere/a")

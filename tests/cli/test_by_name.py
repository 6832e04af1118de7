"""Names on the command line: wherever a locator may stand, a volume's name may, and a version of it."""

from __future__ import annotations

import json

import pytest

from volume_core import Volume


@pytest.fixture
def named(tmp_path):
    """A named volume with a file, and its version."""
    volume = Volume.from_name_sync("data", create_if_missing=True)
    with volume.mounted_sync(driver="copy", message="one") as path:
        (path / "a.txt").write_text("first")
    return volume.committed


def test_a_name_stands_for_what_its_head_names(volume, named):
    assert named.locator == json.loads(volume("show", "data", "--json").stdout)["locator"]
    assert "a.txt\n" == volume("ls", "data").stdout == volume("ls", "data:/").stdout
    assert "first" == volume("cat", "data:/a.txt").stdout
    for ref in (named.version, named.version[:7]):
        assert "first" == volume("cat", f"data:{ref}:/a.txt").stdout
    assert named.locator in volume("log", "data").stdout


def test_what_is_not_there_is_said(volume, named):
    assert "no volume 'nothing'" in volume("show", "nothing", code=3).stderr
    assert "data" in volume("cat", "data:v9:/a.txt", code=3).stderr
    assert "no/where" in volume("show", "no/where", code=2).stderr


def test_another_store_of_names(volume, named, tmp_path):
    volume("--bucket", f"{tmp_path}/other", "new", "data")
    assert [] == json.loads(volume("--bucket", f"{tmp_path}/other", "ls", "data", "--json").stdout)


def test_a_directory_goes_before_a_volume_of_its_name(volume, named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    assert "there is no store" in volume("ls", "data", code=3).stderr


def test_promote_moves_the_head(volume, named):
    fork = named.fork_sync("fork").commit_sync(even_if_unchanged=True)
    made = volume("promote", fork.locator, "--name", "data").stdout.strip()

    assert made == Volume.from_name_sync("data").committed.locator
    volume("promote", f"data:{named.version}")
    assert named == Volume.from_name_sync("data").committed


def test_a_store_lists_heads(volume, named):
    [found] = json.loads(volume("ls", "--json").stdout)
    assert ("data", 1, named.locator, True) == (
        found["name"],
        found["versions"],
        found["locator"],
        found["has_head"],
    )


def test_a_volume_is_deleted_after_asking(volume, named):
    kept = named.fork_sync("kept").commit_sync(even_if_unchanged=True)
    asked = volume("rm", "data", code=1, input="n\n")
    assert "all its versions (1)" in asked.stderr
    assert "data" in volume("ls").stdout
    volume("rm", "data", input="y\n")

    assert ["kept"] == [each["name"] for each in json.loads(volume("ls", "--json").stdout)]
    assert "first" == volume("cat", f"{kept.locator}:/a.txt").stdout
    assert "no volume 'data'" in volume("rm", "data", "--yes", code=3).stderr
    volume("rm", "kept", "--yes")


def test_files_go_to_the_head_of_a_name(volume, named, tmp_path):
    (tmp_path / "b.txt").write_text("b")
    locator = volume("put", tmp_path / "b.txt", "data:/d/b.txt").stdout.strip()
    assert locator == Volume.from_name_sync("data").committed.locator
    assert "b" == volume("cat", "data:/d/b.txt").stdout
    volume("cp", "-r", "data:/d", "data:/e")
    volume("rm", "-r", "data:/d")
    assert "a.txt\ne\ne/b.txt\n" == volume("ls", "-R", "data").stdout
    volume("get", "data:/e", tmp_path / "out")
    assert "b" == (tmp_path / "out" / "b.txt").read_text()

"""put, get, rm, ls -R and cp within a version: what they make, and what they leave alone."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from volume_core import Volume
from volume_core.testing.oracle import assert_same_tree


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def read(root: Path) -> dict[str, str]:
    return {str(each.relative_to(root)): each.read_text() for each in root.rglob("*") if each.is_file()}


def lines(text: str) -> list[str]:
    return text.split("\n")


def test_put_of_one_directory_merges_it_and_of_several_gives_each_its_name(said, locator, tmp_path):
    write(tmp_path / "more", {"dir/new": "new", "top": "top"})
    write(tmp_path / "second", {"x": "x"})
    one = said("put", tmp_path / "more", f"{locator}:/", "-m", "more")
    several = said("put", tmp_path / "more", tmp_path / "second", tmp_path / "second" / "x", f"{locator}:/deep/er")

    assert ["dir", "dir/data.bin", "dir/link", "dir/new", "hello.txt", r"odd\nname\x1b[31m", "top"] == lines(
        said("ls", "-R", f"{one}:/")
    )
    assert ["more", "more/dir", "more/dir/new", "more/top", "second", "second/x", "x"] == lines(
        said("ls", "-R", f"{several}:/deep/er")
    )
    assert "more" == Volume.from_locator_sync(one).message


def test_put_of_a_file_is_named_or_goes_into_a_directory(said, locator, tmp_path):
    file = tmp_path / "file"
    file.write_text("file")
    for target, path in (("/named", "named"), ("/dir", "dir/file"), ("/new/", "new/file"), ("/", "file")):
        made = said("put", file, f"{locator}:{target}")
        assert "file" == said("cat", f"{made}:/{path}")
    piped = said("put", "-", f"{locator}:/a/b", input="from a pipe")

    assert "from a pipe" == said("cat", f"{piped}:/a/b")


def test_put_replaces_only_if_forced(volume, said, locator, tmp_path):
    write(tmp_path / "more", {"hello.txt": "other"})
    result = volume("put", tmp_path / "more", f"{locator}:/", code=11)
    assert "/hello.txt: there already" in result.stderr
    made = said("put", "--force", tmp_path / "more", f"{locator}:/")

    assert "other" == said("cat", f"{made}:/hello.txt")
    assert "hello" == said("cat", f"{locator}:/hello.txt")


def test_what_is_put_to_a_name_moves_its_head(said, volume, tmp_path):
    (tmp_path / "file").write_text("file")
    said("new", "named")
    volume("put", tmp_path / "file", "named:/file")
    volume("cp", "named:/file", "named:/copy")
    volume("rm", "named:/file")

    assert "copy" == said("ls", "named:/")
    assert "file" == said("cat", "named:/copy")


def test_put_begins_another_volume(told, locator, tmp_path):
    (tmp_path / "file").write_text("file")

    assert "other" == told("put", tmp_path / "file", f"{locator}:/file", "--fork", "other")["name"]


def test_get_is_what_was_put(said, volume, tmp_path, monkeypatch):
    write(tmp_path / "tree", {"a/b": "b", "c": "c"})
    locator = said("put", tmp_path / "tree", f"{said('new', 'data')}:/tree")
    volume("get", f"{locator}:/tree", tmp_path / "out")
    (tmp_path / "into").mkdir()
    monkeypatch.chdir(tmp_path / "into")
    volume("get", f"{locator}:/tree/c")
    volume("get", f"{locator}:/tree")

    assert_same_tree(tmp_path / "tree", tmp_path / "out")
    assert {"c": "c", "tree/a/b": "b", "tree/c": "c"} == read(tmp_path / "into")


def test_get_replaces_only_if_forced(said, volume, tmp_path):
    write(tmp_path / "tree", {"a/b": "new", "c": "new", "file": "new"})
    locator = said("put", tmp_path / "tree", f"{said('new', 'data')}:/tree")
    write(tmp_path / "out" / "tree", {"a/b": "old", "kept": "old"})
    before = read(tmp_path / "out")
    assert "already: --force" in volume("get", f"{locator}:/tree", tmp_path / "out", code=11).stderr
    assert before == read(tmp_path / "out")
    volume("get", "--force", f"{locator}:/tree", tmp_path / "out")
    volume("get", "--force", f"{locator}:/tree/file", tmp_path / "out" / "tree" / "kept")

    assert {"tree/a/b": "new", "tree/c": "new", "tree/file": "new", "tree/kept": "new"} == read(tmp_path / "out")
    assert ["tree"] == os.listdir(tmp_path / "out")
    write(tmp_path / "clash", {"tree/c/x": "a directory"})
    assert "is a directory" in volume("get", "--force", f"{locator}:/tree", tmp_path / "clash", code=11).stderr
    assert {"tree/c/x": "a directory"} == read(tmp_path / "clash")


def test_rm_makes_a_version_without_it(said, volume, locator):
    made = said("rm", f"{locator}:/hello.txt", "-m", "gone")
    assert ["dir", r"odd\nname\x1b[31m"] == lines(said("ls", made))
    assert "recursive=True" in volume("rm", f"{made}:/dir", code=1).stderr
    assert [r"odd\nname\x1b[31m"] == lines(said("ls", said("rm", "-r", f"{made}:/dir")))
    assert "no such path" in volume("rm", f"{made}:/hello.txt", code=3).stderr
    assert "cannot be removed" in volume("rm", "-r", f"{made}:/", code=1).stderr


def test_cp_within_a_version_moves_no_data(said, volume, locator):
    made = said("cp", f"{locator}:/hello.txt", f"{locator}:/dir/")
    made = said("cp", "-r", f"{made}:/dir", f"{made}:/copy")
    assert ["copy", "copy/data.bin", "copy/hello.txt", "copy/link"] == lines(said("ls", "-R", f"{made}:/"))[:4]
    assert "not of one version" in volume("cp", f"{made}:/copy", f"{locator}:/x", code=2).stderr


def test_ls_lists_all_below_and_patterns(said, told, locator):
    assert ["data.bin", "link"] == lines(said("ls", "-R", f"{locator}:/dir"))
    assert ["dir/data.bin"] == lines(said("ls", f"{locator}:/**/*.bin"))
    assert ["dir", "dir/data.bin", "dir/link", "hello.txt"] == [each["path"] for each in told("ls", "-R", locator)][:4]
    assert "dir/link -> ../hello.txt" in said("ls", "-Rl", locator)


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["put", "/no/such", "LOCATOR:/"], 2, "no such file"),
        (["put", "/etc/hostname", "/tmp/x"], 2, "must be VERSION:/PATH"),
        (["put", "/etc/hostname", "LOCATOR:/hello.txt/x"], 11, "is no directory"),
        (["get", "LOCATOR:/nope"], 3, "no such path"),
        (["get", "LOCATOR:/hello.txt", "/no/such/dir/x"], 2, "no such directory"),
        (["rm", "nope"], 3, "no volume 'nope'"),
        (["ls", "LOCATOR:/no*"], 0, ""),
    ],
)
def test_what_goes_wrong_is_one_line(volume, locator, arguments, code, complaint):
    result = volume(*[each.replace("LOCATOR", locator) for each in arguments], code=code)

    assert complaint in result.stderr


def test_put_tells_a_script_its_record(told, locator, tmp_path):
    (tmp_path / "file").write_text("file")
    record = told("put", tmp_path / "file", f"{locator}:/x")

    assert record == json.loads(Volume.from_locator_sync(record["index"]).model_dump_json())

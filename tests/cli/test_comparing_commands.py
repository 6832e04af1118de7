"""diff, merge and revert."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from volume_core import Volume


@pytest.fixture
def put(said, tmp_path):
    """Commit files (name -> bytes) into a version, as one of the volume *fork*; return the locator."""
    counter = iter(range(100))

    def commit(locator: str, files: dict[str, bytes], fork: str = "data", edit=lambda path: None) -> str:
        tree = tmp_path / f"put-{next(counter)}"
        for name, data in files.items():
            path = tree / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            os.utime(path, ns=(10**18, 10**18))
        edit(tree)
        return said("cp", tree, f"{locator}:/", "--fork", fork)

    return commit


def lines(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_diff_lists_what_turns_one_into_the_other(said, told, put):
    old = put(said("new", "data"), {"a.txt": b"a", "b.txt": b"b", "d/c.txt": b"c"})
    new = put(old, {"a.txt": b"other", "b.txt": b"b", "n": b""}, edit=lambda tree: (tree / "b.txt").chmod(0o600))
    shown = said("diff", old, new)

    assert [["modified", "/a.txt"], ["metadata", "/b.txt", "(mode", "0644", "->", "0600)"], ["added", "/n"]] == [
        line for line in lines(shown) if line[1] != "/"
    ]
    found = {each["path"]: each for each in told("diff", old, new)}
    assert (1, 5, "file") == (
        found["a.txt"]["before"]["size"],
        found["a.txt"]["after"]["size"],
        found["a.txt"]["after"]["type"],
    )
    assert found["n"]["before"] is None
    assert "" == said("diff", old, old)
    assert [] == told("diff", old, old)


def test_diff_stat_gives_sizes_and_sums(said, put):
    old = put(said("new", "data"), {"a.txt": b"a" * 2048})
    new = put(old, {"a.txt": b"other", "n": b"nn"})
    *_, modified, added, summary = said("diff", "--stat", old, new).splitlines()

    assert ["modified", "2.0K", "5", "/a.txt"] == modified.split()
    assert ["added", "-", "2", "/n"] == added.split()
    assert summary.startswith("1 added, 1 modified")
    assert "no difference; 0 -> 0 bytes in them" in said("diff", "--stat", old, old)


def test_a_patch_can_be_applied(said, put, tmp_path):
    before = {
        "text": b"one\ntwo\x0bstill two\nthree\n",
        "no end": b"last",
        "gone": b"g\n",
        "same": b"s",
        "a\\b": b"x\n",
    }
    after = {"text": b"one\n2\nthree\nfour\n", "no end": b"last\n", "new": b"n\n", "a\\b": b"y\n"}
    old = put(said("new", "data"), before)
    new = put(put(said("new", "data"), {"same": b"s"}), after)
    patch = said("diff", "-p", old, new)
    tree = tmp_path / "tree"
    tree.mkdir()
    for name, data in before.items():
        (tree / name).write_bytes(data)
    patch = patch.replace("a\\\\b", "a\\b")  # a name is shown escaped
    subprocess.run(["patch", "-p1", "-s"], cwd=tree, input=patch.encode() + b"\n", check=True)

    assert {**after, "same": b"s"} == {path.name: path.read_bytes() for path in tree.iterdir()}


def test_a_patch_only_names_what_is_no_small_text(said, put):
    old = put(said("new", "data"), {"bin": b"\0", "latin": b"a", "big": b"x\n", "dir/f": b""})
    new = put(old, {"bin": b"\0\1", "latin": b"\xff", "big": b"x\n" * (1 << 18), "new/f": b""})
    shown = said("diff", "-p", old, new).splitlines()

    for name in ("bin", "latin", "big"):
        assert f"modified /{name}: not a small text" in shown
    assert "added /new" in shown


def test_a_symlink_is_a_line(said, put):
    old = put(said("new", "data"), {"f": b""}, edit=lambda tree: (tree / "link").symlink_to("one"))
    new = put(old, {"f": b""}, edit=lambda tree: (tree / "link").symlink_to("other"))
    shown = said("diff", "-p", old, new)

    assert "-one" in shown
    assert "+other" in shown


def test_names_cannot_move_the_cursor(volume, said, put):
    old = said("new", "data")
    new = put(old, {"odd\n\x1b[31m": b"x\n"})

    for options in ([], ["--stat"], ["-p"]):
        assert "\x1b" not in said("diff", *options, old, new)
    other = put(old, {"odd\n\x1b[31m": b"y\n"}, "other")
    assert "/odd\\n\\x1b[31m (" in volume("merge", new, other, code=4).stderr


def test_only_one_way_to_show_it(volume, said):
    locator = said("new", "data")

    assert "choose one" in volume("diff", "--stat", "-p", locator, locator, code=2).stderr


def test_merge_prints_the_locator_of_all_that_was_changed(said, told, put):
    base = put(said("new", "data"), {"a": b"a"})
    one, other = put(base, {"one": b"1"}, "one"), put(base, {"two": b"2"}, "other")
    merged = said("merge", one, other, "--name", "all", "-m", "together")
    shown = told("show", merged)

    assert ["a", "one", "two"] == said("ls", merged).splitlines()
    assert ("all", "together", [one, other]) == (shown["name"], shown["message"], shown["parents"])
    assert merged == said("merge", merged, one)


def test_a_conflict_has_an_exit_code_of_its_own_and_a_decision(volume, said, put):
    base = put(said("new", "data"), {"a": b"a"})
    one, other = put(base, {"a": b"1"}, "one"), put(base, {"a": b"2"}, "other")

    assert "1 path in conflict: /a" in volume("merge", one, other, code=4).stderr
    assert "1" == said("cat", f"{said('merge', one, other, '--on-conflict', 'ours')}:/a")
    assert "2" == said("cat", f"{said('merge', one, other, '--on-conflict', 'theirs')}:/a")


def test_revert_shows_an_old_version_again(said, told, put):
    old = put(said("new", "data"), {"a": b"a"})
    new = put(old, {"a": b"other", "n": b"n"})
    again = said("revert", new, "--to", old, "-m", "back")

    assert "a" == said("cat", f"{again}:/a")
    assert [] == told("diff", old, again)
    assert [again, new, old] == [entry["locator"] for entry in told("log", again)][:3]
    assert Volume.from_locator_sync(again).message == "back"


def test_a_local_manifest_is_a_locator_too(said, put):
    locator = put(said("new", "data"), {"a": b"a"})
    path = Path(locator.removeprefix("file://"))

    assert "" == said("diff", path, locator)

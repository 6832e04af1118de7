"""log, tag and head, as users run them; and the graph beside a log."""

from __future__ import annotations

import dataclasses
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volume_core import Volume
from volume_core.cli.graph import COMMIT, graph, topological
from volume_core.format.names import Locator, version_name
from volume_core.parts.heads import delete_head, move_head, read_head


def drawn(parents: dict[str, list[str]]) -> str:
    return "\n".join(f"{line:8}{version or ''}".rstrip() for line, version in graph(parents))


def test_a_merge_and_a_fork_are_drawn():
    assert """\
●       m
├─╮
● │     a
│ ●     b
├─╯
●       r""" == drawn({"m": ["a", "b"], "a": ["r"], "b": ["r"], "r": []})


def test_lanes_cross_and_end():
    assert """\
●       m
├─╮
│ ●     b
│ ├─╮
├─╯ │
●   │   a
│   ●   z
├───╯
●       r""" == drawn({"m": ["a", "b"], "b": ["a", "z"], "a": ["r"], "z": ["r"], "r": []})


def test_a_line_is_a_line_and_goes_on_to_what_is_not_shown():
    assert "●       c\n●       b" == drawn({"c": ["b"], "b": ["gone"]})


def test_children_come_first_whatever_the_clocks_said():
    assert ["tip", "m", "b", "a", "r"] == topological({"tip": ["m"], "r": [], "m": ["b", "a"], "b": ["r"], "a": ["r"]})


@given(st.lists(st.lists(st.integers(0, 30), max_size=4), min_size=1, max_size=20), st.randoms())
def test_every_version_is_drawn_once_after_all_that_came_from_it(lines, chance):
    parents = {
        str(number): [str(each) for each in above if each > number] for number, above in enumerate(lines)
    }  # some parents are not shown
    keys = list(parents)
    chance.shuffle(keys)
    shown: list[str] = []
    for line, version in graph({key: parents[key] for key in keys}):
        assert line == line.rstrip()
        assert (version is not None) == (COMMIT in line)
        assert line.count(COMMIT) <= 1
        if version is not None:
            assert not set(parents[version]) & set(shown)
            shown.append(version)
    assert sorted(parents) == sorted(shown)


# -- the commands


@pytest.fixture
def story(said, tmp_path):
    """Three versions: empty, a file, the file changed and another below a directory."""
    locators = [said("new", "data", "-m", "empty")]
    (tmp_path / "a").write_text("1")
    locators.append(said("cp", tmp_path / "a", f"{locators[-1]}:/", "-m", "first"))
    (tmp_path / "more" / "dir").mkdir(parents=True)
    (tmp_path / "more" / "dir" / "odd\nname").write_text("2")
    locators.append(said("cp", tmp_path / "more", f"{locators[-1]}:/", "-m", "second\nline"))
    return locators


def merged(ours: str, *others: str) -> str:
    """A version with several parents."""
    volume = Volume.from_locator_sync(ours)
    store = volume._place().store()
    manifest = dataclasses.replace(
        volume._existing().manifest, parents=(ours, *others), delta=None, message="merged", created_at="2100"
    )
    store.put_new(version_name(manifest.volume, manifest.version), manifest.to_bytes())
    return str(Locator(store.url, manifest.volume, manifest.version))


@pytest.fixture
def touched(said):
    """The locators that `volume log LOCATOR -- PATH` lists."""

    def ask(locator: str, path: str) -> list[str]:
        return [entry["locator"] for entry in json.loads(said("log", "--json", locator, "--", path))]

    return ask


def test_log_of_a_path(said, touched, told, story):
    assert story[1:2] == touched(story[2], "a")
    assert story[1:2] == [entry["locator"] for entry in told("log", story[2], "/a")]
    assert story[2:] == touched(story[2], "dir/odd\nname")
    assert [] == touched(story[2], "-n")
    assert "created" in said("log", story[2], "--", "nowhere")


def test_log_of_a_path_that_is_no_text(said, touched, tmp_path):
    name = os.fsdecode(b"\xff\xfe")
    (tmp_path / name).write_text("x")
    locator = said("cp", tmp_path / name, f"{said('new', 'data')}:/")

    assert [locator] == touched(locator, name)


def test_log_draws_where_there_are_merges(said, volume, story, tmp_path):
    fork = said("cp", tmp_path / "a", f"{story[1]}:/copy", "--fork", "other")
    last = merged(story[2], fork)
    lines = said("log", last).splitlines()

    assert ["●", "├─╮"] == [lines[1].split()[0], lines[2]]
    assert "├─╯" in [line.strip() for line in lines]
    assert [last, story[1], story[0]] == [
        next(word for word in line.split() if word.endswith(".json")) for line in (lines[1], lines[-2], lines[-1])
    ]
    assert "●" not in said("log", last, "--no-graph")
    assert "●" in said("log", story[2], "--graph")
    assert "●" not in said("log", story[2])
    assert "--graph shows parents" in volume("log", last, "a", "--graph", code=2).stderr


def test_log_shows_names(said, told, story):
    delete_head(Volume.from_locator_sync(story[0])._place().store(), "data")
    assert "names" not in said("log", story[2]).splitlines()[0]
    said("tag", story[1], "v1")
    said("head", "data", "--set", "v1")

    header, newest, middle, oldest = said("log", story[2]).splitlines()
    assert "names" in header.split()
    assert "  head, v1  first" in middle
    assert "v1" not in newest + oldest
    assert [([], False), (["v1"], True), ([], False)] == [
        (entry["tags"], entry["is_head"]) for entry in told("log", story[2])
    ]


def test_tag_and_its_list(said, told, volume, story):
    assert story[1] in volume("tag", story[1], "v1", "-m", "the\nfirst").stderr
    volume("tag", story[1], "v1")
    assert story[2] == told("tag", story[2], "best")["locator"]

    rows = said("tag", "-l", "data").splitlines()
    assert ["best", "v1"] == [row.split()[0] for row in rows[1:]]
    assert rows[2].endswith(f"{story[1]}  the\\nfirst")
    assert told("tag", "-l", "data") == told("tag", "--list", story[0])
    assert "of another version" in volume("tag", story[2], "v1", code=4).stderr
    volume("tag", "-d", "data", "v1")
    assert "has no tag 'v1'" in volume("tag", "-d", "data", "v1", code=3).stderr
    assert ["best"] == [each["tag"] for each in told("tag", "-l", "data")]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["LOCATOR"], "NAME is the tag"),
        (["-l", "data", "v1"], "--list takes none"),
        (["-d", "data"], "NAME is the tag"),
        (["-l", "-d", "data"], "two things"),
        (["LOCATOR", "a/b"], "cannot name a tag"),
        (["-l", "bad name"], "cannot name a volume"),
    ],
)
def test_a_tag_that_is_asked_for_wrongly(volume, story, arguments, complaint):
    result = volume("tag", *(each.replace("LOCATOR", story[2]) for each in arguments), code=2)

    assert complaint in result.stderr


def test_head_and_its_history(said, told, volume, story, tmp_path):
    assert story[2] == said("head", "data")
    delete_head(Volume.from_locator_sync(story[0])._place().store(), "data")
    assert "has no head" in volume("head", "data", code=3).stderr
    said("tag", story[1], "v1")
    assert story[1] == said("head", "data", "--set", "v1")
    digits = Locator.parse(story[2]).version[:16]
    assert story[2] == said("head", "data", "--set", digits) == said("head", "data")

    header, newest, oldest = said("head", "data", "--history").splitlines()
    assert ["moved", "why", "by", "from", "locator"] == header.split()
    assert ["set", Locator.parse(story[1]).version[:12], story[2]] == [newest.split()[n] for n in (1, 3, 4)]
    assert ["-", story[1]] == oldest.split()[3:]
    assert [story[2], story[1]] == [move["locator"] for move in told("head", "data", "--history")]
    assert Locator.parse(story[1]).version == told("head", "data")["previous"]
    assert "no version whose id begins so" in volume("head", "data", "--set", "v2", code=3).stderr


def test_head_of_another_store(said, volume, tmp_path):
    locator = said("new", "data", "--bucket", tmp_path / "bucket")

    assert locator == said("head", "data", "--bucket", tmp_path / "bucket", "--set", Locator.parse(locator).version)
    assert locator == said("head", "data", "--bucket", tmp_path / "bucket") == said("head", locator)
    volume("head", "data", code=3)


def test_a_head_that_somebody_else_moved_is_a_conflict(said, volume, story, monkeypatch):
    assert story[2] == said("head", "data")

    def meanwhile(store, name):
        head = read_head(store, name)
        move_head(store, name, head, Locator.parse(story[1]).version, "commit")
        return head

    monkeypatch.setattr("volume_core.facade.histories.read_head", meanwhile)
    result = volume("head", "data", "--set", Locator.parse(story[0]).version, code=4)

    assert "was moved meanwhile" in result.stderr


def test_a_page_is_written_to_a_file_or_printed(volume, said, locator, tmp_path):
    file = tmp_path / "page.html"
    assert "" == said("page", locator, "-o", file)

    html = file.read_text()
    assert html.startswith("<!DOCTYPE html>") and "</html>" in html and Locator.parse(locator).version in html
    assert html.rstrip("\n") == said("page", locator)
    assert said("page", "--markdown", locator).startswith(f"## {Locator.parse(locator).volume}")
    volume("page", locator.replace(Locator.parse(locator).version, "0" * 64), code=3)

"""Pages about versions: well-formed, harmless whatever a name is, bounded, and there when the store is not whole."""

from __future__ import annotations

import ast
import io
import os
import re
import shlex
import subprocess
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from volume_core import ActionRef, Volume, hookimpl
from volume_core.domain.changes import Changes
from volume_core.facade import telling
from volume_core.facade.versions import Place, Version
from volume_core.format.names import Locator, version_name
from volume_core.pages import chart, document, facts, version_markdown, version_page
from volume_core.pages.chart import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Axis, Dot
from volume_core.pages.spelling import number, shell_word, size
from volume_core.parts.intents import HeldIntent
from volume_core.parts.publishing import About, publish_changes
from volume_core.parts.state import State
from volume_core.plugins import manager

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = (
    "</style></td><script>alert(1)</script>\" onload='x' | [a](javascript:x) ``` ![](http://evil) \x1b[31m\u202e\n# x"
)


@pytest.fixture(autouse=True)
def _own_state(own_state):
    """A state directory, and so a store, of each test's own."""


def following(version, files: dict[str, bytes | None], message=""):
    """The version that *files* (by paths; None: removed) make of *version*."""
    writer = version.fork_sync(version.name) if version is not None else Volume.new("data")
    with writer.batch_upload_sync(force=True, message=message) as batch:
        for name, data in files.items():
            if data is None:
                batch.remove(name)
            else:
                batch.put_file(io.BytesIO(data), name)
    return batch.version


def labelled(version, message: str, labels: dict[str, str]):
    """*version* once more, with labels: what it changed is told of the one before."""
    writer = version.fork_sync("data")
    with writer.mounted_sync(driver="copy") as path:
        (path / "labelled").touch()
        return writer.commit_sync(message, labels=labels)


def line(length: int):
    """The last of *length* versions, each one KiB and one file more than the one before."""
    version = None
    for step in range(length):
        version = following(version, {f"f{step}": bytes(1024)}, f"step {step}")
    return version


def manifest_path(locator: str) -> Path:
    parsed = Locator.parse(locator)
    return Path(parsed.store.removeprefix("file://")) / version_name(parsed.volume, parsed.version)


def parsed(page: str) -> ET.Element:
    """The fragment, which is to be well-formed to the last bracket."""
    root = ET.fromstring(page)
    assert root.tag == "div" and root.get("class") == "volume-page"
    return root


def words(element: ET.Element) -> str:
    """All text in an element, a style's left out."""
    return " ".join("".join(each.itertext()) for each in element if each.tag != "style")


def rows_of(root: ET.Element) -> list[list[str]]:
    return [["".join(cell.itertext()) for cell in row] for row in root.iter("tr")][1:]


def dots_of(root: ET.Element) -> list[list[tuple[float, float]]]:
    """Of each chart, where its dots are."""
    charts = root.iter(f"{SVG}svg")
    return [[(float(c.get("cx")), float(c.get("cy"))) for c in each.iter(f"{SVG}circle")] for each in charts]


# -- what it says


def test_a_page_says_what_the_version_is_and_what_it_changed():
    first = following(None, {"a": b"1", "gone": b"22", "same": b"3"}, "first")
    second = following(first, {"a": b"12345", "d/new": bytes(2048), "gone": None}, "second\nthing")
    root = parsed(version_page(second))

    told = words(root)
    for each in ("data", second.version, second.locator, "second\nthing", first.locator):
        assert each in told
    assert ["removed", "/gone", "2 B", "–"] in rows_of(root)
    assert ["added", "/d/new", "–", "2 KiB"] in rows_of(root)
    assert ["modified", "/a", "1 B", "5 B"] in rows_of(root)
    assert not any("/same" in row[1] for row in rows_of(root))
    assert "2 added" in told and "1 removed" in told and "1 modified" in told
    assert f"volume mount {second.locator} DIR" in told


def test_what_changed_in_the_metadata_alone_comes_last():
    first = following(None, {"a": b"1", "z": b"1"})
    writer = first.fork_sync("data")
    with writer.mounted_sync(driver="copy") as path:
        (path / "a").chmod(0o600)
        (path / "z").write_bytes(b"2")
    rows = rows_of(parsed(version_page(writer.committed)))
    kinds = [row[0] for row in rows]
    assert kinds == sorted(kinds, key=lambda kind: kind == "metadata")
    assert ["metadata", "/a mode 0644 -> 0600", "1 B", "1 B"] in rows


def test_the_first_version_of_all_has_nothing_to_be_compared_with():
    root = parsed(version_page(line(1)))
    assert "changed against" not in words(root)
    assert [[((LEFT + WIDTH - RIGHT) / 2, TOP)]] * 2 == dots_of(root)


def test_a_version_that_changed_nothing_says_so():
    again = line(1).fork_sync("again").commit_sync("", even_if_unchanged=True)
    assert "it shows the same tree" in version_page(again)
    assert "it shows the same tree" in version_markdown(again)


def test_the_commands_lead_to_the_version():
    version = line(1)
    root = parsed(version_page(version))
    command, python = ("".join(each.itertext()) for each in root.iter("pre"))
    assert shlex.split(command) == ["volume", "mount", version.locator, "DIR"]
    [call] = [each for each in ast.walk(ast.parse(python)) if isinstance(each, ast.Constant)]
    assert call.value == version.locator
    assert python.count("\n") == 1
    assert f"\n{command}\n" in version_markdown(version)


@pytest.mark.parametrize("text", ["plain", "it's", "a\nb", "back\\slash'\n", "\udcff$x`y`", "ü \u202e"])
def test_a_shell_takes_a_word_for_what_it_was(text: str):
    word = shell_word(text)
    assert word.isprintable()
    done = subprocess.run(["bash", "-c", f"printf %s {word}"], capture_output=True, check=True)
    assert done.stdout == os.fsencode(text)


def test_who_produced_it_is_a_link_only_to_the_web():
    class Task:
        @hookimpl
        def volume_current_task(self):
            return ActionRef("engine", project="p", run="r<1>", action="a", attempt="2", url=self.url)

    task = Task()
    undo = manager.register(task)
    try:
        pages = {}
        for url in ("https://example.com/a?b=1&c='2'|`", "javascript:alert(1)", ""):
            task.url = url
            pages[url] = following(None, {"f": url.encode()})
    finally:
        undo()
    for url, version in pages.items():
        root = parsed(version_page(version))
        assert [link.get("href") for link in root.iter("a")] == ([url] if url.startswith("http") else [])
        assert "engine / p / r<1> / a, attempt 2" in words(root)
        assert ("(javascript:alert(1))" in words(root)) == url.startswith("javascript")
    links = [
        token
        for token in inline(version_markdown(pages["https://example.com/a?b=1&c='2'|`"]))
        if token.type == "link_open"
    ]
    assert ["https://example.com/a?b=1&c='2'%7C%60"] == [each.attrs["href"] for each in links]


# -- names are any bytes


def test_no_text_becomes_markup():
    files = {"<script>alert(1)": b"", 'x" onload="y': b"", "&amp;<b>": b""}
    odd = {os.fsdecode(b"\xff\xfe\x1b[31m\n"): b"", "\u202egnp.exe": b"", "a|b`c`*d*[e](f)": b"", "x" * 255: b""}
    version = following(None, {"f": b""})
    version = following(version, {**files, **odd}, HOSTILE)
    assert "k = v" in words(parsed(version_page(labelled(version, "", {"k": "v"}))))
    assert parsed(version_page(labelled(version, HOSTILE, {HOSTILE: HOSTILE}))).find(".//script") is None
    page = version_page(version)
    root = parsed(page)

    assert {each.tag for each in root.iter()}.isdisjoint({"script", "b", "img", "iframe", "link"})
    attributes = {name for each in root.iter() for name in each.attrib}
    assert not any(name.startswith("on") or name == "id" for name in attributes)
    assert len(list(root.iter("style"))) == 1
    paths = [row[1] for row in rows_of(root)]
    assert "/&amp;<b>" in paths and '/x" onload="y' in paths
    assert r"/\xff\xfe\x1b[31m\n" in paths and r"/\u202egnp.exe" in paths
    assert all(each.isprintable() or each == "\n" for each in page)
    assert page.encode("utf-8")
    assert "http" not in re.sub(r"http://(www\.w3\.org/2000/svg|evil)", "", page), "nothing is loaded from anywhere"


def inline(text: str):
    """What a Markdown parser finds within lines."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    assert not any(token.type.startswith("html") for token in tokens)
    return [child for token in tokens for child in token.children or ()]


def test_no_text_becomes_markdown():
    names = [
        "a|b",
        "`c`",
        "*d*",
        "[e](f)",
        "<b>",
        "&amp;",
        "_g_",
        "~~h~~",
        "back\\slash",
        "# i",
        "www.j.k",
        "$l$",
    ]
    version = following(following(None, {"f": b""}), dict.fromkeys(names, b""), HOSTILE)
    assert not [each for each in inline(version_markdown(labelled(version, "", {"k": HOSTILE}))) if "link" in each.type]
    text = version_markdown(version)
    found = inline(text)

    assert {token.type for token in found} == {"text"} | {"text_special"} & {token.type for token in found}
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    cells = ["".join(child.content for child in token.children) for token in tokens if token.type == "inline"]
    for name in names:
        assert "/" + name.replace("\\", "\\\\") in cells
    assert any("<script>alert(1)</script>" in cell for cell in cells)
    headings = [after.content for token, after in pairwise(tokens) if token.type == "heading_open"]
    assert [each.split(" ")[0] for each in headings] == ["data", "What", "History", "Use"]


def test_markdown_says_what_the_page_says():
    first = following(None, {"a": b"1"}, "first")
    second = following(first, {"a": b"12345", "d/new": bytes(2048)}, "second")
    text = version_markdown(second)
    assert "| added | /d/new | – | 2 KiB |" in text
    assert "| modified | /a | 1 B | 5 B |" in text
    assert f"| Version | {second.version} |" in text
    assert re.search(rf"\| {second.version[:12]} \| 2 KiB \| 4 \| second \|", text)
    assert re.search(rf"\| {first.version[:12]} \| 1 B \| 2 \| first \|", text)


# -- the charts


def test_dots_stand_where_their_values_are():
    root = parsed(version_page(line(5)))
    of_bytes, of_files = dots_of(root)
    for dots, values, top in ((of_bytes, [1024 * n for n in range(1, 6)], 6 * 1024), (of_files, [2, 3, 4, 5, 6], 6)):
        inside = HEIGHT - TOP - BOTTOM
        assert [round(TOP + inside * (1 - value / top), 1) for value in values] == [up for _, up in dots]
        steps = [after[0] - before[0] for before, after in pairwise(dots)]
        assert steps == pytest.approx([(WIDTH - LEFT - RIGHT) / 4] * 4, abs=0.2)
        assert (dots[0][0], dots[-1][0]) == (LEFT, WIDTH - RIGHT)


VALUES = {
    "one": [7],
    "none": [0],
    "equal": [5, 5, 5],
    "all zero": [0, 0],
    "falling": [9, 3, 0],
    "huge": [1, 1 << 62],
    "many": list(range(300)),
}


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())
@pytest.mark.parametrize("binary", [False, True])
def test_nothing_is_drawn_outside_of_the_picture(values: list[int], binary: bool):
    dots = [Dot(value, "2026-01-02", f"<{value}>") for value in values]
    picture = ET.fromstring(chart.chart(dots, "A & B", size if binary else number, binary=binary))
    places = [(float(each.get("cx")), float(each.get("cy"))) for each in picture.iter(f"{SVG}circle")]
    assert len(places) == len(values)
    assert all(LEFT <= across <= WIDTH - RIGHT and TOP <= up <= HEIGHT - BOTTOM for across, up in places)
    for (one, (_, up)), (other, (_, above)) in pairwise(zip(values, places, strict=True)):
        assert (one < other) >= (up > above) and (one > other) >= (up < above)
    assert [f"<{value}>" for value in values] == [each.text for each in picture.iter(f"{SVG}title")]
    for each in picture.iter(f"{SVG}text"):
        assert 0 <= float(each.get("x")) <= WIDTH and 0 <= float(each.get("y")) <= HEIGHT
    labels = [each.text for each in picture.iter(f"{SVG}text") if each.text != "2026-01-02"]
    assert len(labels) == len(set(labels)) == len(list(picture.iter(f"{SVG}line")))
    assert (picture.find(f"{SVG}polyline") is not None) == (len(values) > 1)


@pytest.mark.parametrize(
    ("largest", "binary", "ticks"),
    [
        (0, False, [0, 1]),
        (1, False, [0, 1]),
        (4, False, [0, 1, 2, 3, 4]),
        (7, False, [0, 2, 4, 6, 8]),
        (99, False, [0, 50, 100]),
        (1234, False, [0, 500, 1000, 1500]),
        (5000, True, [0, 2048, 4096, 6144]),
        (1 << 20, True, [0, 1 << 18, 2 << 18, 3 << 18, 4 << 18]),
    ],
)
def test_an_axis_has_few_round_steps_and_reaches_the_largest(largest: int, binary: bool, ticks: list[int]):
    assert Axis.of(largest, binary=binary).ticks == ticks


@pytest.mark.parametrize("binary", [False, True])
def test_every_axis_has_one_to_four_steps(binary: bool):
    for largest in (*range(2000), 10**9 + 1, (1 << 62) + 3):
        axis = Axis.of(largest, binary=binary)
        assert largest <= axis.top and 1 <= len(axis.ticks) - 1 <= 4
        assert axis.top - axis.step < max(largest, 1)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (1536, "1.5 KiB"), (102_400, "100 KiB"), (1_048_575, "1 MiB")],
)
def test_sizes_have_three_digits(count: int, text: str):
    assert size(count) == text
    assert not count or size(-count) == f"−{text}"


# -- bounded


def test_no_more_of_the_history_is_read_than_is_shown(monkeypatch):
    last, read = line(6), []
    real = telling.read_parent
    monkeypatch.setattr(telling, "read_parent", lambda version: read.append(version) or real(version))
    page = version_page(last, history_max=3)
    assert [3, 3] == [len(dots) for dots in dots_of(parsed(page))]
    assert "the last 3 versions of a longer line" in page
    assert len(read) == 2
    assert "All 6 versions" in version_markdown(last) and "The last 3 versions" in version_markdown(last, history_max=3)


def test_what_is_left_out_is_not_read(monkeypatch):
    last = line(3)
    monkeypatch.setattr(telling, "read_parent", lambda version: pytest.fail("a parent was read"))
    page = version_page(last, history_max=0, changes_max=0)
    assert "<svg" not in page and "changed against" not in page
    assert "History" not in version_markdown(last, history_max=0, changes_max=0)


def test_what_changed_is_told_without_a_history():
    page = version_page(line(3), history_max=0)
    assert "<svg" not in page and "What changed" in page


def test_a_large_change_is_cut(monkeypatch):
    first = following(None, {f"d/old{number}": b"" for number in range(30)})
    removed = dict.fromkeys(f"d/old{number}" for number in range(30))
    second = following(first, {**removed, **{f"new{number}": b"" for number in range(30)}})
    root = parsed(version_page(second, changes_max=7))
    assert len(rows_of(root)) == 7
    assert "30 added" in words(root) and "30 removed" in words(root) and "and 55 more" in words(root)

    monkeypatch.setattr(facts, "COUNTED_MAX", 10)
    root = parsed(version_page(second, changes_max=7))
    assert len(rows_of(root)) == 7
    assert "there are more" in words(root) and "and 3 more at least" in words(root)
    assert "at least" in version_markdown(second, changes_max=7)


def test_nothing_large_is_fetched_to_tell_what_changed(monkeypatch):
    last = line(2)
    monkeypatch.setattr(telling, "FETCH_BYTES_MAX", 0)
    assert len(rows_of(parsed(version_page(last)))) > 0, "what is here need not be fetched"
    for index in (State.default().cache / "layers").iterdir():
        index.unlink()
    assert "too much would have to be fetched" in version_page(last)
    assert not list((State.default().cache / "layers").iterdir())


# -- when something is not there


def test_a_parent_that_was_deleted_is_a_sentence():
    last = line(3)
    [parent] = last.log_sync(limit=1)[0].parents
    manifest_path(parent).unlink()
    for page in (version_page(last), version_markdown(last)):
        assert "is not in the store any more: what changed since cannot be told." in page
        assert parent.split("/")[-1][:12] in page
    assert [1, 1] == [len(dots) for dots in dots_of(parsed(version_page(last)))]


def test_a_history_that_was_pruned_ends():
    last = line(4)
    oldest = last.log_sync()[-2].volume.locator
    manifest_path(oldest).unlink()
    page = version_page(last)
    assert "The history ends at data " in page
    assert [2, 2] == [len(dots) for dots in dots_of(parsed(page))]
    assert "changed against" in page


def test_a_version_that_was_deleted_is_told_from_its_record():
    last = line(2)
    record = last.model_dump_json()
    manifest_path(last.locator).unlink()
    again = type(last).model_validate_json(record)
    page = version_page(again)
    assert "This version is not in its store any more" in page
    assert "step 1" in page and "2 KiB" in page
    assert "not in its store any more" in version_markdown(again)


def test_a_damaged_parent_is_a_sentence():
    last = line(2)
    [parent] = last.log_sync(limit=1)[0].parents
    manifest_path(parent).write_bytes(b"{}")
    page = version_page(last)
    assert "The history cannot be read: manifest" in page
    parsed(page)


def test_torn_paths_are_a_warning():
    place = Place(f"file://{State.default().root}/store")
    store = place.store()
    with HeldIntent(store, "torn", []) as intent:
        about = About(torn=(b"a\xff|<b>", *(b"t%d" % n for n in range(30))))
        made = publish_changes(store, intent, "torn", Changes([], 0, 1), None, about)
    version = Version(Locator.parse(made.locator), made.manifest, place)
    torn = Volume._of_version(version)
    page = version_page(torn)
    assert "kept changing while they were read" in words(parsed(page))
    assert "&lt;b&gt;" in page and "and 11 more" in page
    text = version_markdown(torn)
    assert "### Torn" in text
    assert {token.type for token in inline(text)} <= {"text", "text_special"}


def test_several_fragments_are_one_document():
    page = version_page(line(1))
    whole = document([page, page], "<two>")
    assert whole.startswith("<!DOCTYPE html>")
    root = ET.fromstring(whole.removeprefix("<!DOCTYPE html>"))
    assert root.find("head/title").text == "<two>"
    assert len(root.findall("body/div")) == 2


def test_what_a_merge_changed_is_told_against_the_first():
    base = line(1)
    forks = [following(base, {name: b"x"}) for name in ("one", "two")]
    page = version_page(Volume.merge_sync(forks, "data"))
    assert "What changed against its first parent" in page and "Parents" in page
    assert [["added", "/two", "–", "1 B"]] == [row for row in rows_of(parsed(page)) if row[0] == "added"]

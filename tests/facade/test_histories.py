"""Histories by path and with names, tags, and heads moved on purpose."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import pytest

from volume_core import ConflictError, InvalidNameError, NotFoundError, ROVolume, Tag, Volume
from volume_core.facade.histories import head_moves, set_head
from volume_core.facade.versions import Place
from volume_core.format.names import Locator, version_name
from volume_core.parts.heads import move_head, read_head
from volume_core.plugins.hookspecs import hookimpl
from volume_core.plugins.manager import plugins


class Story:
    """A line of versions, each made by something that was done to the tree."""

    def __init__(self, name: str = "data") -> None:
        self.volume = Volume.new(name)

    def then(self, message: str, *does) -> ROVolume:
        with self.volume.mounted_sync(driver="copy", message=message) as path:
            for each in does:
                each(path)
        return self.volume.committed


def writes(name: str, text: str = ""):
    def write(path: Path) -> None:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text or os.urandom(4).hex())

    return write


def removes(name: str):
    def remove(path: Path) -> None:
        if (path / name).is_dir():
            shutil.rmtree(path / name)
        else:
            (path / name).unlink()

    return remove


def told(version: ROVolume, path: str | bytes, **options: object) -> list[str]:
    return [entry.volume.message for entry in version.log_sync(path=path, **options)]


def as_merge(ours: ROVolume, *others: ROVolume) -> ROVolume:
    """A version with further parents that shows what *ours* shows."""
    manifest = dataclasses.replace(
        ours._existing().manifest,
        parents=tuple(each.locator for each in (ours, *others)),
        delta=None,
        message="merged",
        created_at="2100-01-01T00:00:00.000000Z",
    )
    store = ours._place().store()
    store.put_new(version_name(manifest.volume, manifest.version), manifest.to_bytes())
    return Volume.from_locator_sync(str(Locator(store.url, manifest.volume, manifest.version)))


def test_the_versions_that_touched_a_path():
    story = Story()
    story.then("begin", writes("a/b/c"), writes("other"), writes("file"))
    story.then("elsewhere", writes("other"))
    story.then("change", writes("a/b/c"))
    story.then("beside", writes("a/b/d"))
    story.then("remove all", removes("a"))
    story.then("remove what has none", removes("file"))
    story.then("a file of that name", writes("a"))
    last = story.then("make again", removes("a"), writes("a/b/c"))

    assert ["make again", "remove all", "change", "begin"] == told(last, "a/b/c")
    assert ["make again", "remove all", "beside", "change", "begin"] == told(last, "/a/b/")
    assert ["make again", "a file of that name", "remove all", "beside", "change", "begin"] == told(last, b"a")
    assert ["remove what has none", "begin"] == told(last, Path("file"))
    assert ["elsewhere", "begin"] == told(last, "other")
    assert [] == told(last, "file/below") == told(last, "nowhere")
    assert ["remove all", "beside"] == told(last, "a/b/d")
    assert ["make again", "remove all"] == told(last, "a/b/c", limit=2)
    assert 8 == len(told(last, ""))


def test_odd_names_have_a_history_too():
    names = [os.fsdecode(b"no text \xff"), "n" * 255, "new\nline", ".wh.x", "a%b"]
    story = Story()
    story.then("begin", writes("plain"))
    for number, name in enumerate(names):
        story.then(str(number), writes(name))
    last = story.then("end", writes("plain"))

    assert [[str(number)] for number in range(len(names))] == [told(last, name) for name in names]


def test_a_compacted_stack_tells_the_same():
    story = Story()
    story.then("begin", writes("kept"), *(writes(f"many/{number}") for number in range(20)))
    for number in range(12):
        story.then(str(number), writes("kept" if number == 5 else f"many/{number}"))
    last = story.volume.committed

    assert len(last._existing().manifest.stack) < 8
    assert ["5", "begin"] == told(last, "kept")


def test_a_fork_that_changed_nothing_touched_nothing():
    first = Story().then("begin", writes("a"))
    fork = first.fork_sync("other")
    line = fork.commit_sync("fork", even_if_unchanged=True)

    assert ["begin"] == told(line, "a")
    assert ["begin"] == told(line, "")


def test_without_its_parent_a_removal_above_counts(tmp_path):
    story = Story()
    first = story.then("begin", writes("a/b"))
    last = story.then("remove", removes("a"))
    store = first._place().store()
    store.delete(version_name("data", first.version))

    assert ["remove"] == told(last, "a/never")


def test_a_merge_is_asked_against_its_first_parent():
    story = Story()
    first = story.then("begin", writes("a"))
    fork = first.fork_sync("other")
    with fork.mounted_sync(driver="copy", message="fork") as path:
        writes("b")(path)
    ours = story.then("ours", writes("a"))
    merged = as_merge(ours, fork.committed)

    assert ["ours", "begin"] == told(merged, "a")
    assert ["fork"] == told(merged, "b")


# -- names


def test_a_version_is_given_a_tag():
    version = Story().then("begin", writes("a"))
    made = version.tag_sync("v1", "the first")

    assert isinstance(made, Tag)
    assert ("data", "v1", version.version, "the first") == (made.volume, made.tag, made.version, made.message)
    assert [made] == version.tags_sync() == Volume.from_locator_sync(version.locator).tags_sync()
    assert made == version.tag_sync("v1")


def test_a_tag_does_not_move():
    story = Story()
    first, second = story.then("1", writes("a")), story.then("2", writes("a"))
    first.tag_sync("v1")

    with pytest.raises(ConflictError, match="of another version"):
        second.tag_sync("v1")
    with pytest.raises(InvalidNameError):
        first.tag_sync("a/b")
    assert [] == second.tags_sync()


def test_names_are_shown_where_they_are_asked_for():
    story = Story()
    first, second = story.then("1", writes("a")), story.then("2", writes("a"))
    third = story.then("3", writes("a"))
    for tag in ("v1", "best", "a"):
        first.tag_sync(tag)
    third.tag_sync("latest")
    move_head(second._place().store(), "data", read_head(second._place().store(), "data"), second.version, "create")

    assert [(("latest",), False), ((), True), (("a", "best", "v1"), False)] == [
        (entry.tags, entry.is_head) for entry in third.log_sync(names=True)
    ]
    assert {((), False)} == {(entry.tags, entry.is_head) for entry in third.log_sync()}


async def both_spellings(version: ROVolume) -> list[object]:
    return [await version.tag("v1"), await version.tags(), await version.log(names=True, path="a")]


def test_each_is_awaited_as_well():
    import asyncio

    version = Story().then("begin", writes("a"))
    tag, tags, [entry] = asyncio.run(both_spellings(version))

    assert [tag] == tags
    assert ("v1",) == entry.tags


# -- heads


def place_of(version: ROVolume) -> Place:
    return Place(Locator.parse(version.locator).store)


def test_a_head_is_set_by_whatever_names_a_version():
    story = Story()
    first, second = story.then("1", writes("a")), story.then("2", writes("a"))
    first.tag_sync("v1")
    place = place_of(first)

    with pytest.raises(NotFoundError, match=r"has no head; `volume head data --set VERSION`"):
        head_moves(place, "data")
    for text, wanted in (("v1", first), (second.version[:12], second), (first.version, first)):
        assert wanted.locator == str(set_head(place, "data", text)[0].locator)
    before = head_moves(place, "data")
    assert before == set_head(place, "data", "v1")  # it stands there

    assert [first.version, second.version, first.version] == [found.move.version for found in before]
    assert ["set"] * 3 == [found.move.why for found in before]
    assert [second.locator, first.locator, None] == [found.previous and str(found.previous) for found in before]


def test_it_is_said_which_task_moved_it():
    version = Story().then("begin", writes("a"))
    action = dataclasses.replace(plugins().current_task() or _action(), run="a-run")

    class Engine:
        @hookimpl
        def volume_current_task(self) -> object:
            return action

    engine = Engine()
    plugins().register(engine, "engine")
    try:
        assert action == set_head(place_of(version), "data", version.version)[0].move.action
    finally:
        plugins().unregister(engine)


def _action():
    from volume_core import ActionRef

    return ActionRef(engine="engine")


@pytest.mark.parametrize("text", ["0" * 64, "nothing", "0000"])
def test_a_head_is_not_set_to_what_is_not_there(text):
    version = Story().then("begin", writes("a"))
    place = place_of(version)

    with pytest.raises(NotFoundError):
        set_head(place, "data", text)
    assert read_head(place.store(), "data") is None

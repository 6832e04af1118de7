"""A volume as the value of a task's parameter: what may stand for it, and what handing one over does."""

from __future__ import annotations

import json
import threading

import pytest
from facade_kit import committed, contents, objects, working_copies, write
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError

from volume_core import ActionRef, InvalidNameError, NotFoundError, ROVolume, RWVolume, Volume, hookimpl
from volume_core.fs import url_of
from volume_core.passing import hand_over
from volume_core.plugins.manager import register


@pytest.fixture
def version() -> ROVolume:
    return committed()


@pytest.fixture
def in_a_task():
    """This process runs a task of an engine."""

    class Engine:
        @hookimpl
        def volume_current_task(self) -> ActionRef:
            return ActionRef(engine="e", run="r")

    forget = register(Engine(), "an engine")
    yield
    forget()


SPELLINGS = {
    "a volume": lambda version: version,
    "a record": lambda version: version.model_dump(),
    "a record's JSON": lambda version: version.model_dump_json(),
    "the locator's JSON": lambda version: json.dumps(version.locator),
    "a locator": lambda version: version.locator,
    "a locator with blanks": lambda version: f" {version.locator}\n",
    "a mapping with a locator": lambda version: {"locator": version.locator},
    "a mapping with an index": lambda version: {"index": version.locator},
    "a mapping with an uri": lambda version: {"uri": version.locator},
    "a name": lambda version: version.name,
    "a name and a version": lambda version: f"{version.name}:{version.version[:10]}",
    "a name and a tag": lambda version: f"{version.name}:{version.tag_sync('good') and 'good'}",
    "a URL": lambda version: url_of(version.locator),
    "a URL of the default store": lambda version: f"vol://{version.name}~{version.version}",
}


def test_a_locator_goes_before_the_record_that_it_was_put_over(version):
    """Command lines complete what was given from a parameter's default, which is a record."""
    default = committed("default").model_dump()

    assert version == ROVolume.model_validate({**default, "locator": version.locator})
    assert version == ROVolume.model_validate({**default, "locator": version.name})


@pytest.mark.parametrize("spelled", SPELLINGS.values(), ids=SPELLINGS)
def test_what_stands_for_a_version_is_that_version(version, spelled):
    given = spelled(version)

    for cls in (ROVolume, Volume):
        got = cls.model_validate(given)
        assert (ROVolume, version) == (type(got), got)
        assert version.model_dump_json() == got.model_dump_json()


@pytest.mark.parametrize("spelled", SPELLINGS.values(), ids=SPELLINGS)
def test_where_a_writer_is_wanted_it_is_a_fork_of_the_same_name(version, spelled):
    got = RWVolume.model_validate(spelled(version))

    assert (RWVolume, version.name, version.locator) == (type(got), got.name, got.index)
    assert [] == working_copies()
    assert version == got.commit_sync()  # nobody wrote to it


def test_a_writer_given_where_a_version_is_wanted_is_committed(driver):
    writer = Volume.new("data")
    with writer.mounted_sync(driver=driver) as path:
        write(path, {"a.txt": "a"})
        got = ROVolume.model_validate(writer)

        assert {"a.txt": "a"} == contents(got)
        assert writer is RWVolume.model_validate(writer)
        assert got == hand_over(writer)
    assert got == writer.committed


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("a b", "names no volume.*locator"),
        ("", "names no volume"),
        ("data:", "names no volume"),
        ("{", "not the JSON of a volume's record"),
        ('"x', "not the JSON"),
        ("s3://bucket/some/file", "is not a locator"),
        ("s3://key:secret@bucket/x", r"is not a locator"),
        ("vol://data/a.txt", "is no volume's root"),
        ("vol://", "is no volume's root"),
    ],
)
def test_text_that_names_no_volume_is_refused_with_what_to_write(given, why):
    for cls in (Volume, ROVolume, RWVolume):
        with pytest.raises((InvalidNameError, ValidationError), match=why) as caught:
            cls.model_validate(given)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("given", [3, None, ["data"], {"name": "data"}, {}, {"locator": 3}])
def test_a_value_that_is_no_volume_is_refused(given):
    for cls in (Volume, ROVolume, RWVolume):
        with pytest.raises(ValidationError):
            cls.model_validate(given)


def test_what_does_not_exist_is_not_found(version):
    gone = version.locator.replace(version.version, "0" * 64)

    for given in (gone, {"locator": gone}, "nothing", "data:nothing", "vol://nothing", "vol://data~nothing"):
        with pytest.raises(NotFoundError):
            ROVolume.model_validate(given)


class Result(BaseModel):
    """What a task returns."""

    best: ROVolume
    more: list[RWVolume] = []


def test_a_field_of_a_model_takes_all_that_a_parameter_does(version):
    got = Result.model_validate({"best": version.locator, "more": ["data", version.model_dump()]})

    assert version == got.best
    assert [version.locator] * 2 == [each.index for each in got.more]
    assert Result.model_validate_json(got.model_dump_json()).best == version


def test_in_a_task_a_writer_that_becomes_json_is_committed(version, in_a_task, driver):
    fork = version.fork_sync("fork")
    result = Result(best=version, more=[fork])
    with fork.mounted_sync(driver=driver) as path:
        write(path, {"new.txt": "new"})
        record = json.loads(result.model_dump_json())["more"][0]

        assert fork.committed.model_dump(mode="json") == record
        assert "new" == contents(ROVolume.model_validate(record))["new.txt"]
        before = objects()
        assert record == json.loads(result.model_dump_json())["more"][0]
        assert before == objects()


def test_in_a_task_a_fork_that_nobody_wrote_to_becomes_the_json_of_its_version(version, in_a_task):
    class Held(BaseModel):
        data: RWVolume

    class Read(BaseModel):
        data: ROVolume

    [text] = {Held(data=version.fork_sync(name)).model_dump_json() for name in ("one", "other", version.name)}

    assert version == Read.model_validate_json(text).data
    assert version.model_dump(mode="json") == json.loads(text)["data"]
    assert {"kind": "volume/v1"} == version.fork_sync("other").model_dump(mode="json", include={"kind"})


def test_elsewhere_a_writer_with_changes_refuses_to_become_json(version):
    fork = version.fork_sync("fork")
    with fork.mounted_sync(driver="copy") as path:
        assert version.locator == json.loads(fork.model_dump_json())["index"]
        write(path, {"new.txt": "new"})
        before = objects()

        with pytest.raises(PydanticSerializationError, match=r"not committed.*commit first"):
            fork.model_dump_json()
        assert before == objects()
        assert "fork" == fork.model_dump()["name"]  # what stays in the process may be looked at


def test_two_threads_that_hand_over_one_writer_get_one_version(driver):
    writer = Volume.new("data")
    with writer.mounted_sync(driver=driver) as path:
        write(path, {"a.txt": "a"})
        got = []
        threads = [threading.Thread(target=lambda: got.append(hand_over(writer))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert 4 == len(got)
    assert 1 == len(set(got))


def test_a_version_is_handed_over_as_it_is_and_nothing_else_is(version):
    assert version is hand_over(version)
    with pytest.raises(TypeError, match="not a str"):
        hand_over(version.locator)

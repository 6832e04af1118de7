"""What tasks and flows take: whatever stands for a volume becomes what the parameter is annotated as."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import pytest
from prefect import task
from prefect_kit import made, texts, written

from volume_core import InvalidNameError, NotFoundError, ROVolume, RWVolume, Volume
from volume_prefect import volumes

if TYPE_CHECKING:
    from volume_core import Volume as OnlyForTypeCheckers


@volumes
@task
def kind_of(
    ro: ROVolume | None = None,
    rw: RWVolume | None = None,
    several: list[RWVolume] = [],  # noqa: B006
    noted: Annotated[RWVolume, "a note"] | None = None,
    hidden: OnlyForTypeCheckers | None = None,
    other: Any = None,
) -> list[tuple[type, str | None]]:
    given = [ro, rw, *several, noted, hidden, other]
    return [(type(each), each.index if isinstance(each, Volume) else None) for each in given if each is not None]


@pytest.mark.parametrize(
    "as_given",
    [
        lambda version: version,
        lambda version: version.model_dump(mode="json"),
        lambda version: version.model_dump_json(),
        lambda version: version.locator,
        lambda version: {"locator": version.locator},
        lambda version: version.name,
        lambda version: f"{version.name}:{version.version}",
        lambda version: f"vol://{version.name}",
    ],
    ids=["version", "record", "json", "locator", "mapping", "name", "reference", "url"],
)
def test_a_parameter_takes_whatever_stands_for_a_volume(as_given):
    version = made(a="1")
    given = as_given(version)

    assert [(ROVolume, version.locator)] == kind_of.fn(ro=given)
    assert [(RWVolume, version.locator)] == kind_of.fn(rw=given)
    assert [(RWVolume, version.locator)] * 2 == kind_of.fn(several=[given, given])
    assert [(RWVolume, version.locator)] == kind_of.fn(noted=given)


def test_a_name_that_only_a_type_checker_imports_is_no_volume_but_no_error():
    assert [(str, None)] == kind_of.fn(hidden="text")


def test_task_parameters_that_are_no_volumes_are_left_as_they_are():
    assert [(dict, None)] == kind_of.fn(other={"name": "x", "bucket": "b", "storage": "file"})


def test_variable_arguments_are_taken_one_by_one():
    version = made()

    @volumes
    @task
    def count(*several: ROVolume, **named: RWVolume) -> list[type]:
        return [type(each) for each in (*several, *named.values())]

    assert [ROVolume, ROVolume, RWVolume] == count.fn(version.locator, version, x=version)


def test_a_default_stands_for_a_volume_too():
    made("standing")

    @volumes
    @task
    def look(data: ROVolume = "standing") -> str:  # type: ignore[assignment]
        return data.name

    assert "standing" == look.fn()


def test_what_stands_for_no_volume_is_refused_by_the_parameters_name():
    with pytest.raises(InvalidNameError, match=r"parameter 'ro' of kind_of: .*names no volume"):
        kind_of.fn(ro="no volume/at all")
    with pytest.raises(InvalidNameError, match="parameter 'several' of kind_of"):
        kind_of.fn(several=[3])


def test_a_volume_that_is_not_there_is_not_found_and_the_parameter_noted():
    with pytest.raises(NotFoundError) as failed:
        kind_of.fn(ro="nowhere")

    assert ["this is parameter 'ro' of kind_of"] == failed.value.__notes__


def test_a_call_that_does_not_fit_fails_as_it_would_without_volumes():
    with pytest.raises(TypeError, match="unexpected keyword argument 'nothing'"):
        kind_of.fn(nothing=1)


def test_each_call_forks_and_the_version_stays_as_it_was():
    version = made(a="1")

    @volumes
    @task
    def edit(data: RWVolume, text: str) -> RWVolume:
        return written(data, {"b": text})

    one, two = edit.fn(version, "x"), edit.fn(version, "y")

    assert {"a": "1"} == texts(version)
    assert ["x", "y"] == [texts(each)["b"] for each in (one, two)]
    assert [version.locator] * 2 == [each.log_sync()[1].volume.locator for each in (one, two)]


def test_a_fork_that_nobody_wrote_to_is_the_version_itself():
    version = made(a="1")

    @volumes
    @task
    def look(data: RWVolume) -> RWVolume:
        return data

    assert version == look.fn(version)


@pytest.mark.loud
def test_a_fork_that_was_written_to_and_not_returned_is_kept_and_said(caplog):
    version = made(a="1")

    @volumes
    @task
    def forget(data: RWVolume) -> None:
        written(data, {"b": "2"})

    forget.fn(version)

    assert "written to and not returned" in caplog.text
    assert "kept as working copy" in caplog.text

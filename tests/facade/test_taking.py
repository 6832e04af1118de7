"""What a function takes, where an engine fills some of its parameters later."""

from __future__ import annotations

import pytest

from volume_core import InvalidNameError, ROVolume, RWVolume
from volume_core.passing import Taking


def swapped(function, *args, **kwargs):
    """The arguments with each that is a volume's as (its parameter, what was given)."""
    found = Taking(function).swapped(args, kwargs, _marked)
    return found and (list(found[0]), dict(found[1]))


def _marked(name, value):
    if isinstance(value, tuple):
        return [(name, each) for each in value]
    if isinstance(value, dict):
        return {key: (name, each) for key, each in value.items()}
    return name, value


def test_a_function_without_volumes_takes_what_it_is_given():
    def function(a, b=2): ...

    assert swapped(function, 1) is None


def test_arguments_stay_where_they_stand_and_those_that_come_later_may_be_missing():
    def function(
        ti, one: ROVolume, plain, /, other: RWVolume | None, *more: ROVolume, last: list[ROVolume], run_id
    ): ...

    args = [0, ("one", "a"), "p", ("other", "b"), ("more", "c"), ("more", "d")]
    assert (args, {"last": ("last", "e")}) == swapped(function, 0, "a", "p", "b", "c", "d", last="e")
    assert ([], {"other": ("other", "b")}) == swapped(function, other="b")


def test_what_stands_for_a_volume_by_default_is_given_by_name():
    def function(a, data: ROVolume = "x", none: RWVolume | None = None, *, last: RWVolume = "y"): ...

    assert ([1], {"data": ("data", "x"), "last": ("last", "y")}) == swapped(function, 1)


def test_further_names_are_volumes_where_they_are_annotated_so():
    def function(a=1, **more: RWVolume): ...

    assert ([], {"a": 3, "x": ("more", "s"), "y": ("more", "t")}) == swapped(function, a=3, x="s", y="t")


def test_a_call_that_does_not_fit_is_left_to_the_function():
    def function(data: ROVolume): ...

    assert swapped(function, 1, 2) is None
    assert swapped(function, other=1) is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (3, "parameter 'data' of .*: a value of type int stands for no volume: give a version"),
        (None, "parameter 'data' of .*: None stands for no volume: did what should give one return nothing"),
        (b"my-password", "a value of type bytes stands for no volume"),
    ],
)
def test_what_stands_for_no_volume_is_said_by_its_type_and_never_by_its_value(given, said):
    def function(data: ROVolume): ...

    with pytest.raises(InvalidNameError, match=said) as raised:
        Taking(function).taken("data", given)
    assert "password" not in str(raised.value)

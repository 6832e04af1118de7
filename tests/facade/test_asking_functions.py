"""Whether a function has to do with volumes is seen before it runs."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest

from volume_core import ROVolume, RWVolume, Volume, mounts
from volume_core.passing import returns_volumes, takes_volumes


def takes(number: int, data: ROVolume | None) -> int: ...


def returns(number: int) -> dict[str, RWVolume]: ...


def yields() -> Iterator[RWVolume]: ...


def neither(data: list[int], *rest: Unknown) -> str: ...  # noqa: F821


def unannotated(data): ...


@pytest.mark.parametrize(
    ("function", "asked"),
    [
        (takes, (True, False)),
        (returns, (False, True)),
        (yields, (False, True)),
        (neither, (False, False)),
        (unannotated, (False, False)),
        (functools.partial(takes, 1), (True, False)),
        (print, (False, False)),
        (type, (False, False)),
    ],
)
def test_a_functions_annotations_say_whether_it_takes_or_returns_volumes(function, asked):
    assert (takes_volumes(function), returns_volumes(function)) == asked


def test_what_mounts_has_decorated_says_so_below_other_decorators_too(tmp_path):
    @mounts({tmp_path / "data": Volume.from_name_lazy("data")})
    def train(): ...

    @functools.wraps(train)
    def outer(): ...

    assert outer.mounts_volumes is True
    assert not hasattr(takes, "mounts_volumes")

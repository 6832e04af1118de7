"""Cache hits by what is in a volume, where a version alone is too exact.

    @env.task(cache="auto")
    async def train(data: Annotated[ROVolume, VolumeHash]) -> float: ...  # again only if a file is another one

By itself a version is the key: what was committed twice, by two runs say, is two keys, though the files are the same.
It stands at the parameter: in flyte 2 the caller makes the key, from what the task that it calls declares.

Always true: equal trees have equal keys, whatever they are called and wherever they lie.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, get_args

from volume_core import ROVolume


class ContentHash(NamedTuple):
    """What makes a key of a version.  flytekit's HashMethod has the same method, and is taken as well."""

    calculate: Callable[[ROVolume], str]


VolumeHash = ContentHash(ROVolume.content_digest_sync)


def key_of(version: ROVolume, declared: Any) -> str:
    """Return the key by which *version* is known where it is *declared* so; "" where the version itself is the key."""
    for each in get_args(declared)[1:]:
        if callable(calculate := getattr(each, "calculate", None)):
            return str(calculate(version))
    return ""

"""Volumes in the fields of pydantic models, which flyte makes JSON of in its event loop.

Why flyte's own code is not enough: the writers in a model would be committed in the middle of that, so that the loop
stands still for as long as a commit takes; and a commit that fails there is an error that flyte does not know, which
ends a container without a word to the cluster.

Always true: writers are committed first, in threads, as ones that are passed by themselves; where a model holds none,
everything is flyte's own business.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

from flyte.types import TypeEngine
from flyte.types._type_engine import PydanticTransformer  # flyte has no public name for it
from flyteidl2.core import literals_pb2, types_pb2
from pydantic import BaseModel

from volume_core import RWVolume, Volume
from volume_core.facade.twins import in_thread
from volume_flyte.v2.transformer import handed_over


class Models(PydanticTransformer):
    """Flyte's own models, whose writers are committed before."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    async def to_literal(
        self, python_val: BaseModel, python_type: type[BaseModel], expected: types_pb2.LiteralType
    ) -> literals_pb2.Literal:
        """Return flyte's literal of the model, after its writers are committed."""
        for writer in writers_in(python_val):
            await in_thread(functools.partial(handed_over, writer))
        return await super().to_literal(python_val, python_type, expected)


def writers_in(value: Any) -> Iterator[RWVolume]:
    """Yield the writers in *value*: in the fields of models and dataclasses, and in collections, at any depth."""
    waiting, seen = [value], set[int]()
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, RWVolume):
            yield each
        elif not isinstance(each, Volume):
            waiting.extend(_held(each))


def _held(value: Any) -> list[Any]:
    """What *value* holds, if it is something that can hold volumes."""
    if isinstance(value, BaseModel):
        names = [name for name, field in type(value).model_fields.items() if not field.exclude]
        return [*(getattr(value, name, None) for name in names), *(value.model_extra or {}).values()]
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return list(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name, None) for field in dataclasses.fields(value)]
    return []


def register() -> None:
    """Put this in the place of flyte's; where another package has put its own there, that stays."""
    registry: dict[Any, Any] = TypeEngine._REGISTRY
    if type(registry.get(BaseModel)) is PydanticTransformer:
        TypeEngine.register_additional_type(Models(), BaseModel, override=True)

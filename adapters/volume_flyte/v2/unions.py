"""`Union[ROVolume, RWVolume]` is refused where a task declares it, and not when a run gets there.

Why: flyte tries the types of a union one by one on each value, and a version is both: at run time that ends in
"Ambiguous choice of variant", after the task before has done its work.

Always true: every other union is flyte's own business, and is handled by what flyte has registered for unions.
"""

from __future__ import annotations

import types
import typing
from typing import Any, get_args

from flyte.types import TypeEngine
from flyte.types._type_engine import UnionTransformer  # flyte has no public name for it
from flyteidl2.core import types_pb2

from volume_core import Volume

# What flyte looks a union up by: `Union[a, b]`, and `a | b`.
_UNIONS: tuple[Any, ...] = (typing.Union, types.UnionType)


class Unions(UnionTransformer[Any]):
    """Flyte's own unions, with at most one class of volumes each."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def get_literal_type(self, t: Any) -> types_pb2.LiteralType:
        """Return flyte's type of the union *t*; TypeError where two of its types are volumes."""
        volumes = [each.__name__ for each in map(_plain, get_args(_plain(t))) if _is_volume(each)]
        if len(volumes) > 1:
            raise TypeError(
                f"Union[{', '.join(volumes)}] says nothing that one of them does not: write ROVolume to be given the "
                "version itself, or RWVolume to be given a fork of it to write to; either takes what a task returns"
            )
        made: types_pb2.LiteralType = super().get_literal_type(t)
        return made


def register() -> None:
    """Put these unions in the place of flyte's; where another package has put its own there, those stay."""
    registry: dict[Any, Any] = TypeEngine._REGISTRY
    for each in _UNIONS:
        if type(registry.get(each)) is UnionTransformer:
            TypeEngine.register_additional_type(Unions(), each, override=True)


def _plain(declared: Any) -> Any:
    """*declared* without `Annotated` around it."""
    return get_args(declared)[0] if typing.get_origin(declared) is typing.Annotated else declared


def _is_volume(declared: Any) -> bool:
    return isinstance(declared, type) and issubclass(declared, Volume)

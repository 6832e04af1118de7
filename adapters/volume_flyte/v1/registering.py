"""Making volumes a type of flytekit: everything that has to be told to it, once.

Always true: a transformer that another plugin has put in the place of flytekit's own is left alone; registering twice
changes nothing.
"""

from __future__ import annotations

import types
from typing import Union

from flytekit.core.type_engine import TypeEngine, UnionTransformer
from flytekit.extras.pydantic_transformer.transformer import PydanticTransformer
from pydantic import BaseModel

from volume_flyte import fields
from volume_flyte.v1.handing import handed_over_in_a_field
from volume_flyte.v1.nesting import VolumeModelTransformer, VolumeUnionTransformer
from volume_flyte.v1.transformer import transformer


def register() -> None:
    """Make volumes a type of flytekit, by themselves and within what can hold them."""
    from volume_core.volumes import ROVolume, RWVolume, Volume  # which call this when they are loaded

    for class_ in (Volume, ROVolume, RWVolume):
        TypeEngine.register_additional_type(transformer(), class_)
    union = VolumeUnionTransformer()
    _replace(Union, UnionTransformer, union)
    _replace(types.UnionType, UnionTransformer, union)
    _replace(BaseModel, PydanticTransformer, VolumeModelTransformer())
    fields.register(handed_over_in_a_field)


def _replace(type_: object, ours_to_replace: type, by: object) -> None:
    if type(TypeEngine._REGISTRY.get(type_)) is ours_to_replace:
        TypeEngine.register_additional_type(by, type_, override=True)

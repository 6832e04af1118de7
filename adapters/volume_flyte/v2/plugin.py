"""What flyte's entry point `flyte.plugins.types` calls, in every process that converts a value.

Always true: it loads nothing of volumes, which most of these processes have nothing to do with: the classes become
types when they are loaded, or when a literal turns out to be a volume's; and to call it again changes nothing.
"""

from __future__ import annotations

from typing import Any

from flyte.types import TypeEngine, TypeTransformer
from flyteidl2.core import types_pb2

from volume_core.plugins.waiting import when_volumes_load

NAME = "Volume"  # DO NOT CHANGE: it is in the literal type of every task that is deployed
_TITLES = ("Volume", "ROVolume", "RWVolume")


def register() -> None:
    """Make volumes a type of flyte 2."""
    TypeEngine.register_additional_type(_Recognising(), _NotLoaded)
    when_volumes_load(_register_classes)


def _register_classes() -> None:
    from volume_flyte.v2 import models, transformer, unions

    transformer.register()
    unions.register()
    models.register()


class _NotLoaded:
    """Stands in flyte's registry for the classes."""


class _Recognising(TypeTransformer[Any]):
    """Knows what is a volume's by its literal type or schema alone, and loads the classes then."""

    def __init__(self) -> None:
        super().__init__(NAME, _NotLoaded)

    @property
    def python_type(self) -> type[Any]:
        """What a value is where nobody says: a volume."""
        from volume_core.volumes import Volume

        return Volume

    def get_literal_type(self, t: type[Any]) -> types_pb2.LiteralType:
        """Nothing is declared as what this stands for, so nothing has to be converted."""
        raise TypeError(f"{t} is no type of a task")

    async def to_literal(self, python_val: Any, python_type: type[Any], expected: Any) -> Any:
        """See get_literal_type."""
        raise TypeError(f"{python_type} is no type of a task")

    async def to_python_value(self, lv: Any, expected_python_type: type[Any]) -> Any:
        """See get_literal_type."""
        raise TypeError(f"{expected_python_type} is no type of a task")

    def guess_python_type(self, literal_type: types_pb2.LiteralType) -> type[Any]:
        """Return ROVolume for the literal type of volumes: a version can be read, and forked to write."""
        if literal_type.simple == types_pb2.SimpleType.STRUCT and literal_type.structure.tag == NAME:
            from volume_core.volumes import ROVolume

            return ROVolume
        raise ValueError(f"{literal_type} is not the type of volumes")

    def schema_match(self, schema: dict[str, Any]) -> bool:
        """Whether *schema*, of a field in somebody's model, is a volume's."""
        if schema.get("title") not in _TITLES:
            return False
        from volume_flyte.fields import is_schema

        return is_schema(schema)

"""Volumes on the command line of flytekit: `pyflyte run workflow.py task --data my-data`.

    --data my-data, --data my-data:tag            in the default store
    --data s3://.../versions/my-data/<id>.json    a locator
    --data vol://...                              a URL of a volume's root
    --data '{"name": ...}', --data file.json      a record; a file is one whose name ends so
    --data '["a", "b"]'                           where a list of volumes is declared

flytekit's own parameter takes the last two alone, and there is nothing to register another one with: what chooses
between its kinds is wrapped.

Always true: parameters without volumes are flytekit's own.
"""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Callable
from typing import Annotated, Any, Union, get_args, get_origin

from volume_flyte.fields import is_volume

_MODULE = "flytekit.interaction.click_types"
_FILES = (".json", ".yaml", ".yml")


def register() -> None:
    """Extend the command line, where this process is one: it is loaded before the tasks whose types it asks for."""
    module = sys.modules.get(_MODULE)
    original = getattr(module, "literal_type_to_click_type", None)
    if original is not None and not hasattr(original, "volume_flyte_original"):
        module.literal_type_to_click_type = _chooser(original)  # type: ignore[union-attr]


def holds_only_volumes(declared: Any) -> bool:
    """Whether *declared* is a volume's class, or a list, dictionary or Optional of it."""
    if get_origin(declared) is Annotated:
        return holds_only_volumes(get_args(declared)[0])
    if is_volume(declared):
        return True
    arguments = [found for found in get_args(declared) if found is not type(None)]
    if get_origin(declared) in (Union, types.UnionType, list):
        return bool(arguments) and all(map(holds_only_volumes, arguments))
    return get_origin(declared) is dict and len(arguments) == 2 and holds_only_volumes(arguments[1])


def _chooser(original: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def literal_type_to_click_type(lt: Any, python_type: Any) -> Any:
        return _parameter(python_type) if holds_only_volumes(python_type) else original(lt, python_type)

    literal_type_to_click_type.volume_flyte_original = original  # type: ignore[attr-defined]
    return literal_type_to_click_type


def _parameter(declared: Any) -> Any:
    import rich_click as click
    from flytekit.core.artifact import ArtifactQuery
    from flytekit.interaction.click_types import JsonParamType
    from pydantic import TypeAdapter, ValidationError

    class VolumeParameter(JsonParamType):
        """What is written there, made what the task declares."""

        name = "volume: NAME, NAME:REF, locator, vol:// URL or JSON"

        def convert(self, value: Any, param: Any, ctx: Any) -> Any:
            """Return the volume, or what holds them."""
            if isinstance(value, ArtifactQuery):
                return value
            given = self._parse(value, param) if _is_json(value) else value
            try:
                return TypeAdapter(declared).validate_python(given)
            except ValidationError as error:
                raise click.BadParameter("; ".join(found["msg"] for found in error.errors())) from error
            except Exception as error:
                raise click.BadParameter(f"{type(error).__name__}: {error}") from error

    return VolumeParameter(declared)


def _is_json(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    if value.strip().startswith(("{", "[", '"')) or value.strip() == "null":
        return True
    return value.endswith(_FILES) and os.path.isfile(value)

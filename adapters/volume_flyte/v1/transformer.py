"""Volumes as a type of flytekit.

    task A returns RWVolume ──committed──> a literal: the version's identity ──> task B takes ROVolume: that version
                                                                            └──> task C takes RWVolume: a fork of it

Always true:

  1. One transformer, with one name and one literal type, is that of all classes: so a value of either goes where the
     other is declared, in the cluster's checks as well.
  2. A literal holds the identity of a version and nothing else: one version is one key of every cache.
  3. To import this imports no class of a volume: they are found when a volume is converted.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
from collections.abc import Mapping
from typing import Any, get_args

import msgpack
from flytekit.core.constants import CACHE_KEY_METADATA, MESSAGEPACK, SERIALIZATION_FORMAT
from flytekit.core.context_manager import FlyteContext
from flytekit.core.type_engine import AsyncTypeTransformer, TypeTransformerFailedError, get_underlying_type
from flytekit.models.annotation import TypeAnnotation
from flytekit.models.literals import Binary, Literal, Scalar
from flytekit.models.types import LiteralType, SimpleType
from google.protobuf import json_format

log = logging.getLogger(__name__)

NAME = "Volume"
# Says of a literal type that it is a volume's.  DO NOT CHANGE: it is in every workflow that is registered.
_MARK = {"x-volume": "v1"}


class VolumeTransformer(AsyncTypeTransformer[Any]):
    """Literals of volumes, and volumes of literals."""

    def __init__(self) -> None:
        super().__init__(NAME, object)

    @property
    def python_type(self) -> type[Any]:
        """What a literal is where nobody says: a version."""
        from volume_core.volumes import ROVolume

        return ROVolume

    def get_literal_type(self, t: type[Any] | None = None) -> LiteralType:
        """Return the one literal type, whatever class *t* is."""
        from volume_flyte.fields import SCHEMA
        from volume_flyte.v1 import commandline

        commandline.register()
        annotation = TypeAnnotation({CACHE_KEY_METADATA: {SERIALIZATION_FORMAT: MESSAGEPACK}})
        return LiteralType(simple=SimpleType.STRUCT, metadata={**SCHEMA, **_MARK}, annotation=annotation)

    def guess_python_type(self, literal_type: LiteralType) -> type[Any]:
        """Return ROVolume for our literal type; ValueError for any other."""
        metadata = literal_type.metadata or {}
        if literal_type.simple == SimpleType.STRUCT and _MARK.items() <= metadata.items():
            from volume_flyte.v1 import commandline

            commandline.register()
            return self.python_type
        raise ValueError(f"{literal_type} is no volume's")

    def schema_match(self, schema: dict[str, Any]) -> bool:
        """Whether *schema* is a volume's, as a field of something."""
        from volume_flyte.fields import is_schema

        return is_schema(schema)

    def assert_type(self, t: type[Any], v: Any) -> None:
        """Take a volume of either class, whichever is declared, and a mapping that may be one's record."""
        from volume_core.volumes import Volume

        if not isinstance(v, Volume | Mapping):
            raise TypeTransformerFailedError(_no_volume(v, t))

    async def async_to_literal(
        self, ctx: FlyteContext, python_val: Any, python_type: type[Any], expected: LiteralType
    ) -> Literal:
        """Return the literal of the version that *python_val* is, or is committed as."""
        from volume_flyte.fields import identity

        version = await asyncio.to_thread(_version, python_val, _class(python_type))
        # Keys keep the record's order, which never changes: equal versions are equal bytes.
        return Literal(scalar=Scalar(binary=Binary(value=msgpack.packb(identity(version)), tag=MESSAGEPACK)))

    async def async_to_python_value(self, ctx: FlyteContext, lv: Literal, expected_python_type: type[Any]) -> Any:
        """Return the version or, where a writer is declared, a fork of it."""
        return await asyncio.to_thread(_received, _given(lv), _class(expected_python_type))

    def to_html(self, ctx: FlyteContext, python_val: Any, expected_python_type: type[Any]) -> str:
        """Return a small page about the version, for a deck."""
        from volume_flyte.v1.decks import page

        return page(python_val)


def _class(declared: Any) -> type[Any]:
    """Return the class that is declared, without what is annotated."""
    found = get_underlying_type(declared)
    return found if isinstance(found, type) else get_args(found)[0]


def _version(value: Any, declared: type[Any]) -> Any:
    from volume_core.volumes import Volume
    from volume_flyte.v1.handing import handed_over

    if isinstance(value, Mapping):
        value = _received(value, declared)
    if not isinstance(value, Volume):
        raise TypeTransformerFailedError(_no_volume(value, declared))
    return handed_over(value)


def _received(given: Any, declared: type[Any]) -> Any:
    from pydantic import ValidationError

    from volume_flyte.v1.handing import cause_of, lookup_failed

    try:
        return declared.model_validate(given)
    except ValidationError as error:
        reasons = "; ".join(found["msg"] for found in error.errors(include_url=False, include_input=False))
        raise lookup_failed(TypeTransformerFailedError(f"this is no {declared.__name__}: {reasons}")) from error
    except Exception as error:
        told = lookup_failed(error)
        raise told from cause_of(told, error)


def _given(literal: Literal) -> Any:
    """Return what *literal* says, of whichever kind it is; TypeTransformerFailedError for one that no volume can be."""
    scalar = literal.scalar
    if scalar is not None and scalar.binary is not None:
        if scalar.binary.tag != MESSAGEPACK:
            raise TypeTransformerFailedError(f"a volume's literal is {MESSAGEPACK}, and this is {scalar.binary.tag!r}")
        return msgpack.unpackb(scalar.binary.value)
    if scalar is not None and scalar.generic is not None:
        # What is typed into a form, and what older clients send.  Through text: its numbers are all fractions.
        return json.loads(json_format.MessageToJson(scalar.generic))
    if scalar is not None and scalar.blob is not None:
        return {"uri": scalar.blob.uri}  # a directory, by its vol:// URL
    raise TypeTransformerFailedError(f"a {_kind(literal)} is no volume")


def _kind(literal: Literal) -> str:
    for kind in ("collection", "map"):
        if getattr(literal, kind) is not None:
            return kind
    kinds = ("none_type", "primitive", "schema", "structured_dataset", "union", "error")
    found = (kind for kind in kinds if getattr(literal.scalar, kind, None) is not None)
    return next(found, "literal of this kind").replace("_", " ")


def _no_volume(value: Any, declared: Any) -> str:
    name = getattr(declared, "__name__", str(declared))
    hint = f": {name}.model_validate(...) makes one of a locator or a name" if isinstance(value, str) else ""
    return f"expected a volume ({name}), and this is {'None' if value is None else type(value).__name__}{hint}"


@functools.cache
def transformer() -> VolumeTransformer:
    """Return the one transformer."""
    return VolumeTransformer()

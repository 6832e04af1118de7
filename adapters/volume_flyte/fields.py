"""Volumes as fields of dataclasses, for both SDKs, which turn dataclasses into bytes with mashumaro.

    @dataclass
    class Data:
        train: ROVolume
        scratch: RWVolume | None       # also in lists, dictionaries and dataclasses within

Why hooks in mashumaro's registries: it asks a class for its methods, and the core's classes know no engine; and left
alone it would take a volume for a path, which is what a mounted one can be used as.

Always true: a field that is a writer is committed when its dataclass becomes bytes; the bytes hold the identity of a
version, like a volume's that is passed by itself; no SDK is imported here.
"""

from __future__ import annotations

import functools
import threading
import types
from collections.abc import Callable, Mapping
from typing import Any, Union, get_args, get_origin

from mashumaro.core.meta.types.common import ValueSpec
from mashumaro.core.meta.types.pack import PackerRegistry
from mashumaro.core.meta.types.unpack import UnpackerRegistry
from mashumaro.jsonschema import schema as json_schemas
from mashumaro.jsonschema.models import Context, JSONSchema, JSONSchemaInstanceType

from volume_core.passing import hand_over
from volume_core.volumes import ROVolume, Volume

Handover = Callable[[Volume], ROVolume | None]

TITLE = "Volume"
_LOCATOR = "the version's locator, NAME or NAME:REF in the default store, or a vol:// URL"
# What forms are made of, and what a type is recognised by where there is no program (`is_schema`).  DO NOT CHANGE:
# a task is compatible with those of older versions by it.
SCHEMA: dict[str, Any] = {
    "title": TITLE,
    "type": "object",
    "properties": {"locator": {"type": "string", "description": _LOCATOR}},
}

_handovers: list[Handover] = []
_lock = threading.Lock()
_is_registered = False


def register(handover: Handover) -> None:
    """Make volumes fields of dataclasses; *handover* commits those of the SDK that calls this.

    *handover* gets each volume that becomes bytes, and returns None where its SDK is not the one that does it.  It may
    be called from any thread, in an event loop's too.  The second call adds nothing but its *handover*.
    """
    global _is_registered
    with _lock:
        if handover not in _handovers:
            _handovers.append(handover)
        if not _is_registered:
            # First: the entry for paths would match.
            PackerRegistry._registry.insert(0, _packer)
            UnpackerRegistry._registry.insert(0, _unpacker)
            json_schemas.Registry._registry.insert(0, _schema)
            _is_registered = True


def identity(version: ROVolume) -> dict[str, Any]:
    """Return what an engine is given of *version*: a function of the version alone."""
    return version.model_dump(mode="json")


def is_volume(type_: object) -> bool:
    """Whether *type_* is one of the public classes, or made from one."""
    return isinstance(type_, type) and issubclass(type_, Volume)


def is_schema(schema: object) -> bool:
    """Whether *schema* is the JSON schema of a volume: ours, or pydantic's of one of the classes."""
    if not isinstance(schema, Mapping) or not isinstance(properties := schema.get("properties"), Mapping):
        return False
    if schema.get("title") == TITLE and set(properties) == set(SCHEMA["properties"]):
        return True
    kind = properties.get("kind")
    return isinstance(kind, Mapping) and kind.get("const") == "volume/v1"


def mixed_classes(union: object) -> str | None:
    """Return what is wrong with *union* if it leaves open whether a volume can be written to, None if it is fine."""
    if get_origin(union) not in (Union, types.UnionType):
        return None
    classes = [argument for argument in get_args(union) if is_volume(argument)]
    if len(classes) < 2:
        return None
    names = ", ".join(sorted(found.__name__ for found in classes))
    return (
        f"Union[{names}] leaves open what the task does with the volume: a value is the same for each of them. "
        "Declare ROVolume to read it, or RWVolume to get a fork that can be written to; a volume of either class can "
        "be passed to both (Optional[...] of one of them is fine)"
    )


def _hand_over(value: object, declared: type[Volume]) -> dict[str, Any]:
    # A mapping or text: from a command line or a form, by way of a library that leaves fields as they are.
    volume = value if isinstance(value, Volume) else declared.model_validate(value)
    for handover in _handovers:
        if (version := handover(volume)) is not None:
            return identity(version)
    return identity(hand_over(volume))


def _packer(spec: ValueSpec) -> str | None:
    return _expression(spec, "pack", lambda declared: functools.partial(_hand_over, declared=declared))


def _unpacker(spec: ValueSpec) -> str | None:
    return _expression(spec, "unpack", lambda declared: declared.model_validate)


def _expression(spec: ValueSpec, verb: str, function: Callable[[type[Volume]], Callable[..., Any]]) -> str | None:
    """Return the source of a call of *function*, made for the class that *spec* is about."""
    declared = spec.origin_type
    if not is_volume(declared):
        return None
    if problem := mixed_classes(spec.owner):
        raise TypeError(f"field {spec.field_ctx.name!r} of {spec.builder.cls.__name__}: {problem}")
    name = f"__volume_{verb}_{declared.__module__}_{declared.__qualname__}".replace(".", "_").replace("<locals>", "")
    spec.builder.ensure_object_imported(function(declared), name)
    return f"{name}({spec.expression})"


def _schema(instance: json_schemas.Instance, _context: Context) -> JSONSchema | None:
    if not is_volume(instance.origin_type):
        return None
    locator = JSONSchema(type=JSONSchemaInstanceType.STRING, description=_LOCATOR)
    return JSONSchema(type=JSONSchemaInstanceType.OBJECT, title=TITLE, properties={"locator": locator})

"""Volumes as fields of dataclasses, for both SDKs, which turn dataclasses into bytes with mashumaro.

    @dataclass
    class Data:
        train: ROVolume
        scratch: RWVolume | None       # also in lists, dictionaries and dataclasses within

Why hooks in mashumaro's registries: it asks a class for its methods, and the core's classes know no engine; and left
alone it would take a volume for a path, which is what a mounted one can be used as.

Always true: within a task a field that is a writer is committed when its dataclass becomes bytes, and elsewhere one
with changes is an error; the bytes hold the identity of a version, like a volume's that is passed by itself; no SDK is
imported here, and no class of a volume: this is imported when they are loaded.
"""

from __future__ import annotations

import functools
import threading
import types
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, Union, get_args, get_origin

from mashumaro.core.meta.types.common import ValueSpec
from mashumaro.core.meta.types.pack import PackerRegistry
from mashumaro.core.meta.types.unpack import UnpackerRegistry
from mashumaro.jsonschema import schema as json_schemas
from mashumaro.jsonschema.models import Context, JSONSchema, JSONSchemaInstanceType

from volume_core.errors import VolumeError
from volume_core.plugins.manager import plugins

if TYPE_CHECKING:
    from pydantic import ValidationError

    from volume_core.volumes import ROVolume, RWVolume, Volume

    Handover: TypeAlias = Callable[[Volume], ROVolume | None]

TITLE = "Volume"
_LOCATOR = "the version's locator, NAME or NAME:REF in the default store, or a vol:// URL"
# What forms are made of, and what a type is recognised by where there is no program (`is_schema`).  DO NOT CHANGE:
# a task is compatible with those of older versions by it.
SCHEMA: dict[str, Any] = {
    "title": TITLE,
    "type": "object",
    "properties": {"locator": {"type": "string", "description": _LOCATOR}},
}

_UNIONS = (Union, types.UnionType)
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
    from volume_core.volumes import Volume

    return isinstance(type_, type) and issubclass(type_, Volume)


def reasons(error: ValidationError) -> str:
    """Return why a value is no volume, without the value: a URL may hold a key."""
    found = (each["msg"] for each in error.errors(include_url=False, include_input=False))
    return "; ".join(reason.removeprefix("Value error, ") for reason in found)


def is_schema(schema: object) -> bool:
    """Whether *schema* is the JSON schema of a volume: ours, or pydantic's of one of the classes."""
    if not isinstance(schema, Mapping):
        return False
    if not isinstance(properties := schema.get("properties"), Mapping):
        # pydantic's says all that may stand for a volume; one of these is its record.
        spellings = schema.get("anyOf")
        return isinstance(spellings, list) and any(_is_record(found) for found in spellings)
    if schema.get("title") == TITLE and set(properties) == set(SCHEMA["properties"]):
        return True
    return _is_record(schema)


def _is_record(schema: object) -> bool:
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    kind = properties.get("kind") if isinstance(properties, Mapping) else None
    return isinstance(kind, Mapping) and kind.get("const") == "volume/v1"


def mixed_classes(union: object) -> str | None:
    """Return what is wrong with *union* if it leaves open whether a volume can be written to, None if it is fine."""
    if get_origin(union) not in _UNIONS:
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


def _hand_over(value: Any, declared: type[Volume]) -> dict[str, Any]:
    # A mapping or text: from a command line or a form, by way of a library that leaves fields as they are.
    volume = value if is_volume(type(value)) else declared.model_validate(value)
    for handover in _handovers:
        if (version := handover(volume)) is not None:
            return identity(version)
    from volume_core.passing import hand_over  # which may be half loaded when the classes are
    from volume_core.volumes import RWVolume

    if isinstance(volume, RWVolume) and plugins().current_task() is None:
        _check_committed(volume)
    return identity(hand_over(volume))


def _check_committed(volume: RWVolume) -> None:
    if volume.index is None or volume.status_sync().changed:
        lacks = "no version yet" if volume.index is None else "changes that are not committed"
        raise VolumeError(
            f"volume {volume.name!r} has {lacks}, and nothing runs here that would commit it: commit it, and give the "
            "version that commit returns"
        )


def _packer(spec: ValueSpec) -> str | None:
    if is_volume(spec.origin_type):
        _refuse_mixed(spec, spec.owner)
        return f"{_pack_function(spec, spec.origin_type)}({spec.expression})"
    if get_origin(spec.type) not in _UNIONS:
        return None
    classes = [argument for argument in get_args(spec.type) if is_volume(argument)]
    others = tuple(argument for argument in get_args(spec.type) if not is_volume(argument))
    if not classes or others in ((), (type(None),)):
        return None
    # A union is tried one type after the other, and why each of them failed is forgotten: a volume goes its own way.
    _refuse_mixed(spec, spec.type)
    spec.builder.ensure_object_imported(_is_one, "__volume_is_one")
    pack, value = _pack_function(spec, classes[0]), spec.expression
    rest = PackerRegistry.get(spec.copy(type=Union[others]))  # noqa: UP007 - a tuple of types
    return f"({pack}({value}) if __volume_is_one({value}) else {rest})"


def _unpacker(spec: ValueSpec) -> str | None:
    if not is_volume(declared := spec.origin_type):
        return None
    _refuse_mixed(spec, spec.owner)
    name = f"__volume_unpack_{declared.__name__}_{id(declared):x}"
    spec.builder.ensure_object_imported(declared.model_validate, name)
    return f"{name}({spec.expression})"


def _pack_function(spec: ValueSpec, declared: type[Volume]) -> str:
    name = f"__volume_pack_{declared.__name__}_{id(declared):x}"
    spec.builder.ensure_object_imported(functools.partial(_hand_over, declared=declared), name)
    return name


def _refuse_mixed(spec: ValueSpec, union: object) -> None:
    if problem := mixed_classes(union):
        raise TypeError(f"field {spec.field_ctx.name!r} of {spec.builder.cls.__name__}: {problem}")


def _is_one(value: object) -> bool:
    return is_volume(type(value))


def _schema(instance: json_schemas.Instance, _context: Context) -> JSONSchema | None:
    if not is_volume(instance.origin_type):
        return None
    locator = JSONSchema(type=JSONSchemaInstanceType.STRING, description=_LOCATOR)
    return JSONSchema(type=JSONSchemaInstanceType.OBJECT, title=TITLE, properties={"locator": locator})

"""How a volume crosses from one action of flyte 2 to the next.

    task returns RWVolume ──hand_over──> ROVolume ──its record──> Binary(msgpack) ──> the class that is asked for

Always true:

  1. One transformer and one literal type for the three classes, so each goes where any of them is declared.
  2. A literal is the identity of one version and nothing else: it is the cache key, the memo key and the name of the
     action that gets it.
  3. Nothing here takes a mount down: whoever holds the volume may go on with it.
  4. An error is of the class by which flyte decides whether to try again (`failure`).
"""

from __future__ import annotations

import functools
import html
import json
import logging
from collections.abc import Mapping
from typing import Any, get_args

import msgpack
from flyte._internal.runtime.convert import current_output_name  # flyte has no public name for it
from flyte.types import TypeEngine, TypeTransformer, TypeTransformerFailedError
from flyteidl2.core import literals_pb2, types_pb2
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct
from pydantic import ValidationError

from volume_core import ROVolume, RWVolume, Volume, VolumeError
from volume_core.facade.twins import in_thread
from volume_core.passing import hand_over
from volume_flyte import fields
from volume_flyte.fields import SCHEMA, identity, is_volume
from volume_flyte.v2.caching import key_of
from volume_flyte.v2.failing import failure
from volume_flyte.v2.plugin import NAME
from volume_flyte.v2.reporting import page_of
from volume_flyte.v2.running import task_context

log = logging.getLogger(__name__)

MSGPACK = "msgpack"
CLASSES = (Volume, ROVolume, RWVolume)
PASSED_ON = "passed on while it was mounted"  # the message of a version that nobody asked for by name


class VolumeTransformer(TypeTransformer[Volume]):
    """Volumes as a type of flyte 2.  What a literal is without a declaration is told by plugin.py."""

    def __init__(self) -> None:
        super().__init__(NAME, Volume)

    def get_literal_type(self, t: type[Volume] | None = None) -> types_pb2.LiteralType:
        """Return the one type of all volumes.  Its tag leads flyte here where it knows no Python type."""
        return types_pb2.LiteralType(
            simple=types_pb2.SimpleType.STRUCT,
            metadata=_as_struct(SCHEMA),
            structure=types_pb2.TypeStructure(tag=NAME),
        )

    def assert_type(self, t: type[Volume], v: object) -> None:
        """Accept a volume of any class, and what stands for one: command lines and agents hand over JSON."""
        if not isinstance(v, Volume | str | Mapping):
            raise TypeTransformerFailedError(
                f"a volume is wanted here, and this is {type(v).__name__}: give a volume, its record, locator or name"
            )

    async def to_literal(
        self, python_val: object, python_type: type[Volume], expected: types_pb2.LiteralType
    ) -> literals_pb2.Literal:
        """Return the literal of what *python_val* stands for.  A writer with changes is committed; its mount stays."""
        self.assert_type(python_type, python_val)
        given = await _received(python_val, _declared(python_type))
        version = await in_thread(functools.partial(handed_over, given))
        packed: bytes = msgpack.packb(identity(version))
        return literals_pb2.Literal(
            scalar=literals_pb2.Scalar(binary=literals_pb2.Binary(value=packed, tag=MSGPACK)),
            hash=await in_thread(functools.partial(_key_of, version, python_type)),
        )

    async def to_python_value(self, lv: literals_pb2.Literal, expected_python_type: type[Volume]) -> Volume:
        """Return the volume in the class that the task declares: the version itself, or a fork under its name."""
        return await _received(_payload(lv), _declared(expected_python_type))

    def to_html(self, python_val: Volume, expected_python_type: type[Volume]) -> str:
        """Return a page about the version that *python_val* stands at."""
        return page_of(python_val) if isinstance(python_val, ROVolume) else html.escape(repr(python_val))


def register() -> None:
    """Tell flyte of the three classes, where it does not know them, and of volumes in the fields of dataclasses."""
    transformer = VolumeTransformer()
    for each in CLASSES:
        TypeEngine.register_additional_type(transformer, each)
    fields.register(field_handed_over)


def _key_of(version: ROVolume, declared: Any) -> str:
    try:
        return key_of(version, declared)
    except (VolumeError, OSError) as error:
        raise failure(f"{version.locator} could not be read for its key in caches", error) from error


def _as_struct(value: Mapping[str, Any]) -> Struct:
    struct = Struct()
    struct.update(value)
    return struct


def _declared(python_type: Any) -> type[Volume]:
    """The class in a declaration: `Annotated` around it says more than this needs."""
    declared = get_args(python_type)[0] if get_args(python_type) else python_type
    return declared if is_volume(declared) else ROVolume


def _payload(lv: literals_pb2.Literal) -> object:
    """What a literal holds: from a task, from a form (a Struct), or from somebody who gave just text."""
    scalar = lv.scalar
    if scalar.HasField("binary") and scalar.binary.tag == MSGPACK:
        return msgpack.unpackb(scalar.binary.value)
    if scalar.HasField("generic"):
        return json.loads(json_format.MessageToJson(scalar.generic))
    if scalar.HasField("primitive") and scalar.primitive.HasField("string_value"):
        return scalar.primitive.string_value
    raise TypeTransformerFailedError(f"this literal is no volume's: {lv}")


async def _received(value: object, declared: type[Volume]) -> Volume:
    """Return the volume that *value* stands for, as *declared* if it is not a volume already."""
    if isinstance(value, Volume):
        return value
    try:
        return await in_thread(functools.partial(declared.model_validate, value))
    except ValidationError as error:
        reasons = "; ".join(each["msg"] for each in error.errors(include_input=False, include_url=False))
        raise TypeTransformerFailedError(f"this is no volume: {reasons}") from error
    except (VolumeError, OSError) as error:
        raise failure("the volume that was given could not be found", error) from error


def handed_over(volume: Volume) -> ROVolume:
    """Return the version that *volume* is handed over as: of a writer its last one, where nothing was written since.

    Outside a task nothing is committed: a volume that is a parameter's default would be, whenever the task is deployed.
    Within one a volume that is passed to another task, or to a traced call, is committed as one that is returned: the
    other end would otherwise see less than what was written.  What was committed that way is said, since nobody asked.
    """
    if not isinstance(volume, RWVolume):
        return hand_over(volume)
    if task_context() is None:
        _check_committed(volume)
    is_returned = current_output_name() is not None
    passed_on = not is_returned and volume.mount_path is not None
    before = volume.index
    try:
        version = hand_over(volume, PASSED_ON if passed_on else "")
    except (VolumeError, OSError) as error:
        what = "returned" if is_returned else "passed on"
        doing = f"volume {volume.name!r} could not be committed, so it is not {what}"
        # Flyte tries the types of a union one by one, and drops their errors.  As text: who keeps an error keeps the
        # frames it came through, and the volume in them mounted.
        log.error("%s: %s", doing, str(error))
        raise failure(doing, error) from error
    if passed_on and version.index != before:
        log.warning(
            "volume %r was mounted and had changes when it was passed on: they are committed, as %s.  Commit before, "
            "and pass on the version that commit returns, to say so yourself",
            volume.name, version.index,
        )  # fmt: skip
    return version


def field_handed_over(volume: Volume) -> ROVolume | None:
    """`handed_over` for the field of a dataclass; None where no task of flyte 2 is running, which is not ours then."""
    return handed_over(volume) if task_context() is not None else None


def _check_committed(volume: RWVolume) -> None:
    if volume.index is None or volume.status_sync().changed:
        lacks = "no version yet" if volume.index is None else "changes that are not committed"
        raise TypeTransformerFailedError(
            f"volume {volume.name!r} has {lacks}, and outside of a task nothing is committed by itself: commit it, and "
            "give the version that commit returns"
        )

"""JSON that carries its own digest: for objects whose bytes change, so that no name can be their hash.

Always true: one value has one spelling (sorted keys, no blanks, only ASCII), and bytes that are any other
are refused; so a value that was read spells the very bytes that a compare-and-swap must name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from volume_core.errors import CorruptObjectError
from volume_core.format.digests import hex_digest, is_hex_digest, verify

T = TypeVar("T")


def spell(format_: str, fields: Mapping[str, Any]) -> bytes:
    """Return *fields* as JSON, with their `format` and the `digest` of all that."""
    whole = {**fields, "format": format_}
    return _json({**whole, "digest": hex_digest(_json(whole))})


def read(format_: str, name: str, data: bytes, decode: Callable[[dict[str, Any]], T]) -> T:
    """Return what *decode* makes of the fields that the object *name*, of the format *format_*, holds.

    Raises CorruptObjectError where the bytes are not what spell() makes of these fields, and where
    *decode* raises ValueError, TypeError, KeyError or AttributeError.
    """
    try:
        fields = json.loads(data)
        if fields["format"] != format_:
            raise ValueError(f"its format is {fields['format']!r}; a newer release may read it")
        expected = fields.pop("digest")
        verify(name, _json(fields), expected)
        del fields["format"]
        if spell(format_, fields) != data:
            raise ValueError("it is not spelled as it should be")
        return decode(fields)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CorruptObjectError(f"{name}: not a {format_} object ({error})") from error


def check_texts(values: Iterable[object]) -> None:
    """Raise ValueError unless all *values* are text: JSON can say anything."""
    if not all(type(value) is str for value in values):
        raise ValueError("a field is not text")


def check_version_id(value: object) -> None:
    """Raise ValueError unless *value* is a version's id."""
    if not (isinstance(value, str) and is_hex_digest(value)):
        raise ValueError(f"{value!r} is no version's id")


def check_number(value: object, least: int) -> None:
    """Raise ValueError unless *value* is an integer, and at least *least*."""
    if type(value) is not int or value < least:
        raise ValueError(f"{value!r} is no integer from {least} on")


def _json(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()

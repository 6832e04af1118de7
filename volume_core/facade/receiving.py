"""What may stand for a volume where one is given to a task: by a program, a command line, a form, another engine.

    text       a locator; NAME or NAME:REF of the default store; a vol:// URL of a volume's root; a record's JSON
    mapping    a record; or the locator alone, as `locator`, `index`, `uri` or `url`

Always true: a record is taken as it is, without any I/O; everything else is looked up in its store once, here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from volume_core.errors import InvalidNameError
from volume_core.facade.addresses import PROTOCOL, parse, strip
from volume_core.facade.heads import existing_head
from volume_core.facade.naming import place_of
from volume_core.facade.versions import Place, Version, read_version
from volume_core.format.names import Locator, validate_name, without_secrets
from volume_core.parts.resolving import resolve
from volume_core.storage.opening import normalize

_LOCATOR_KEYS = ("locator", "index", "uri", "url")
_RECORD_KEYS = frozenset({"name", "bucket", "storage"})


def looked_up(value: str | Mapping[Any, Any]) -> Mapping[Any, Any] | Version:
    """Return the record that *value* is, or the version that it names.

    Raises InvalidNameError saying what can be given if it is neither, NotFoundError if there is no such version.
    """
    if isinstance(value, str):
        text = value.strip()
        return _from_json(text) if text.startswith(("{", '"')) else version_called(text)
    # No record has a `locator`: beside the fields of one, it was put over a parameter's default.
    if value.keys() >= _RECORD_KEYS and "locator" not in value:
        return value
    for key in _LOCATOR_KEYS:
        if isinstance(named := value.get(key), str):
            return version_called(named.strip())
    lacking = ", ".join(sorted(_RECORD_KEYS - value.keys()))
    raise InvalidNameError(
        f"a mapping that stands for a volume has a `locator`, or all that a record has, and this one lacks {lacking}"
    )


def version_called(text: str) -> Version:
    """Return the version that *text* names: a locator, NAME, NAME:REF, or a `vol://` URL of a volume's root."""
    if text.startswith(f"{PROTOCOL}://"):
        return _at_url(text)
    if "://" in text:
        locator = Locator.parse(text)
        locator = locator._replace(store=normalize(locator.store))
        return read_version(locator, Place(locator.store))
    name, mark, ref = text.partition(":")
    try:
        validate_name(name)
        if mark:
            validate_name(ref, "tag")
    except InvalidNameError as error:
        raise InvalidNameError(
            f"{without_secrets(text)!r} names no volume: give a version's locator, NAME or NAME:REF, a {PROTOCOL}:// "
            f"URL, or a record's JSON ({error})"
        ) from error
    return _named(name, ref, place_of(None))


def _from_json(text: str) -> Mapping[Any, Any] | Version:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise InvalidNameError(f"this is not the JSON of a volume's record: {error}") from error
    if not isinstance(found, str | Mapping):
        raise InvalidNameError(f"a volume's record is a JSON object, and this is {type(found).__name__}")
    return looked_up(found)


def _at_url(url: str) -> Version:
    address = parse(strip(url))
    if not address.volume or address.path:
        raise InvalidNameError(
            f"{url} is no volume's root: where a volume is wanted, the URL ends with NAME or NAME~REF, and a path "
            "below it is opened in the task"
        )
    return _named(address.volume, address.ref, place_of(address.store))


def _named(name: str, ref: str, place: Place) -> Version:
    if ref:
        store = place.store()
        return read_version(Locator(store.url, name, resolve(store, name, ref)), place)
    found = existing_head(name, place, create_if_missing=False)
    assert found is not None
    return found

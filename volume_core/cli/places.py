"""What stands for a version on the command line: LOCATOR, and LOCATOR:/path.

Always true: a locator of a local store may be typed as a path; what is parsed here is spelled as the
version itself spells it.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from volume_core.errors import InvalidNameError
from volume_core.format.names import Locator
from volume_core.storage.opening import normalize
from volume_core.versions import Place, Version, read_version

_PLACE = re.compile(r"(?P<locator>.*\.json)(?::(?P<path>.*))?", re.DOTALL)


class At(NamedTuple):
    """A version, and a path in it without a leading slash (b"" is the root)."""

    locator: Locator
    path: bytes

    def version(self) -> Version:
        """Read the version."""
        return read_version(self.locator, Place(self.locator.store))


def parse_locator(text: str) -> Locator:
    """Return the locator *text*, which may also be the path of a manifest in a local store."""
    if "://" not in text:
        text = "file://" + os.path.abspath(os.path.expanduser(text))
    parsed = Locator.parse(text)
    return parsed._replace(store=normalize(parsed.store))


def parse_at(text: str) -> At | None:
    """Return the place *text*, or None if it does not look like one."""
    match = _PLACE.fullmatch(text)
    if match is None:
        return None
    return At(parse_locator(match["locator"]), os.fsencode(match["path"] or "").strip(b"/"))


if TYPE_CHECKING:
    _LocatorType, _AtType = click.ParamType[Locator], click.ParamType[At]
else:  # not generic before click 8.2
    _LocatorType = _AtType = click.ParamType


class LocatorType(_LocatorType):
    """A version's locator."""

    name = "locator"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Locator:
        try:
            return value if isinstance(value, Locator) else parse_locator(value)
        except InvalidNameError as error:
            self.fail(str(error), param, ctx)


class AtType(_AtType):
    """A version's locator, with or without a path in it."""

    name = "locator[:/path]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> At:
        if isinstance(value, At):
            return value
        try:
            found = parse_at(value)
        except InvalidNameError as error:
            self.fail(str(error), param, ctx)
        if found is None:
            self.fail(f"{value!r} is not LOCATOR or LOCATOR:/path; a locator ends in .json", param, ctx)
        return found


LOCATOR = LocatorType()
AT = AtType()

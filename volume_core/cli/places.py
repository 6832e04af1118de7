"""What stands for a version on the command line: LOCATOR, and LOCATOR:/path.

Always true: a locator of a local store may be typed as a path; what is parsed here is spelled as the
version itself spells it.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

import click

from volume_core.errors import InvalidNameError
from volume_core.facade.versions import Place, Version, read_version
from volume_core.format.names import Locator
from volume_core.storage.opening import normalize

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


def _to_locator(_ctx: click.Context, _param: click.Parameter, value: str) -> Locator:
    try:
        return parse_locator(value)
    except InvalidNameError as error:
        raise click.BadParameter(str(error)) from error


def _to_locators(ctx: click.Context, param: click.Parameter, value: str | tuple[str, ...]) -> object:
    if isinstance(value, tuple):
        return tuple(_to_locator(ctx, param, each) for each in value)
    return _to_locator(ctx, param, value)


def _to_at(_ctx: click.Context, _param: click.Parameter, value: str | tuple[str, ...]) -> At | tuple[At, ...]:
    return tuple(map(_one_at, value)) if isinstance(value, tuple) else _one_at(value)


def _one_at(value: str) -> At:
    try:
        found = parse_at(value)
    except InvalidNameError as error:
        raise click.BadParameter(str(error)) from error
    if found is None:
        raise click.BadParameter(f"{value!r} is not LOCATOR or LOCATOR:/path; a locator ends in .json")
    return found


locator_argument = click.argument("locator", callback=_to_locator)
before_argument = click.argument("before", callback=_to_locators, metavar="LOCATOR")
after_argument = click.argument("after", callback=_to_locators, metavar="LOCATOR")
locators_argument = click.argument("locators", callback=_to_locators, metavar="LOCATOR...", nargs=-1, required=True)
to_option = click.option(
    "--to", callback=_to_locators, metavar="LOCATOR", required=True, help="The version to show again."
)
at_argument = click.argument("at", callback=_to_at, metavar="LOCATOR[:/PATH]")
ats_argument = click.argument("ats", callback=_to_at, metavar="LOCATOR:/PATH...", nargs=-1, required=True)

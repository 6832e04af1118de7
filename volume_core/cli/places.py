"""What stands for a version on the command line: LOCATOR, NAME, NAME:REF, and each of them with :/path.

    LOCATOR     the URL of a version; of a local store also the path of its manifest
    NAME        the version that the head of the volume NAME names, in the default store (volume --bucket)
    NAME:REF    a tag of it, a version's id, or the beginning of one that no other has

Always true: a locator that comes out of here is spelled as the version itself spells it; a name was looked
up once, so all of one command works on one version.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

import click

from volume_core.errors import InvalidNameError, NotFoundError
from volume_core.facade.heads import head_version
from volume_core.facade.naming import place_of
from volume_core.facade.versions import Place, Version, read_version
from volume_core.format.names import Locator
from volume_core.parts.resolving import resolve
from volume_core.storage.opening import normalize

_PLACE = re.compile(r"(?P<locator>.*\.json)(?::(?P<path>.*))?", re.DOTALL)
_NAMED = re.compile(
    r"(?P<name>[A-Za-z0-9_][A-Za-z0-9._-]*)(?::(?P<ref>[A-Za-z0-9_][A-Za-z0-9._-]*))?(?::(?P<path>/.*))?", re.DOTALL
)


class At(NamedTuple):
    """A version, and a path in it without a leading slash (b"" is the root).

    `name` is the volume's where it was given by its name alone: what is written there goes to its head.
    """

    locator: Locator
    path: bytes
    name: str | None = None

    def version(self) -> Version:
        """Read the version."""
        return read_version(self.locator, Place(self.locator.store))


def parse_locator(text: str) -> Locator:
    """Return the locator *text*, which may also be the path of a manifest in a local store, or NAME or NAME:REF.

    Raises NotFoundError where there is no volume so called, InvalidNameError where it is none of these.
    """
    return parse_version(text).locator


def parse_version(text: str) -> At:
    """Return the root of the version *text*, as parse_locator takes it."""
    match = None if text.endswith(".json") else _NAMED.fullmatch(text)
    if match is not None and match["path"] is None:
        return _named(match["name"], match["ref"], b"")
    if "://" not in text:
        text = "file://" + os.path.abspath(os.path.expanduser(text))
    parsed = Locator.parse(text)
    return At(parsed._replace(store=normalize(parsed.store)), b"")


def parse_at(text: str) -> At | None:
    """Return the place *text*, or None if it does not look like one: a bare word may be a local file's name."""
    match = _PLACE.fullmatch(text)
    if match is not None:
        return parse_version(match["locator"])._replace(path=_inside(match["path"]))
    match = _NAMED.fullmatch(text)
    if match is None or match["path"] is None:
        return None
    return _named(match["name"], match["ref"], _inside(match["path"]))


def _inside(path: str | None) -> bytes:
    return os.fsencode(path or "").strip(b"/")


def _named(name: str, ref: str | None, path: bytes) -> At:
    place = place_of(None)
    if ref is not None:
        store = place.store()
        return At(Locator(store.url, name, resolve(store, name, ref)), path)
    head = head_version(name, place)
    if head is None:
        raise NotFoundError(
            f"there is no volume {name!r} in {place.url} (and no version is so called): `volume ls` lists what there is"
        )
    return At(head.locator, path, name)


def _to_locator(_ctx: click.Context, _param: click.Parameter, value: str) -> Locator:
    try:
        return parse_locator(value)
    except InvalidNameError as error:
        raise click.BadParameter(str(error)) from error


def _to_version(_ctx: click.Context, _param: click.Parameter, value: str) -> At:
    try:
        return parse_version(value)
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
        return parse_at(value) or parse_version(value)
    except InvalidNameError as error:
        raise click.BadParameter(str(error)) from error


locator_argument = click.argument("locator", callback=_to_locators, metavar="VERSION")
version_argument = click.argument("version", callback=_to_version, metavar="VERSION")
before_argument = click.argument("before", callback=_to_locators, metavar="VERSION")
after_argument = click.argument("after", callback=_to_locators, metavar="VERSION")
locators_argument = click.argument("locators", callback=_to_locators, metavar="VERSION...", nargs=-1, required=True)
to_option = click.option(
    "--to", callback=_to_locators, metavar="VERSION", required=True, help="The version to show again."
)
at_argument = click.argument("at", callback=_to_at, metavar="VERSION[:/PATH]")
ats_argument = click.argument("ats", callback=_to_at, metavar="VERSION:/PATH...", nargs=-1, required=True)

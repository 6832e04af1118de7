"""From what a person types to a version: a tag, a version's id, or the first digits of one.

Always true: 64 hexadecimal digits are an id, for no tag is spelled so; anything else is a tag if there is one
of that name, and only then the beginning of an id, which can always be made longer.
"""

from __future__ import annotations

import re

from volume_core.errors import InvalidNameError, NotFoundError
from volume_core.format.digests import is_hex_digest
from volume_core.format.names import VERSIONS, validate_name
from volume_core.parts.tags import read_tag, tag_names
from volume_core.storage.protocol import Store

PREFIX_DIGITS_MIN = 4
_PREFIX = re.compile(rf"[0-9a-f]{{{PREFIX_DIGITS_MIN},63}}")
_SHOWN_MAX = 8


def resolve(store: Store, volume: str, text: str) -> str:
    """Return the id of the version of *volume* that *text* stands for.

    A whole id comes back as it is, without asking whether there is such a version.  Raises NotFoundError where
    nothing fits, and InvalidNameError where *text* cannot be a name or fits several versions; both name what
    there is.
    """
    validate_name(volume)
    if is_hex_digest(text):
        return text
    validate_name(text, "tag or version")
    try:
        return read_tag(store, volume, text).version
    except NotFoundError:
        pass
    found = _beginning_with(store, volume, text) if _PREFIX.fullmatch(text) else []
    if len(found) == 1:
        return found[0]
    if found:
        raise InvalidNameError(
            f"{text!r} is the beginning of {len(found)} versions of {volume!r} in {store.url}: {_some(found)}; "
            "give more digits"
        )
    tags = tag_names(store, volume)
    raise NotFoundError(
        f"volume {volume!r} in {store.url} has no tag {text!r}, and no version whose id begins so; "
        + (f"its tags: {_some(tags)}" if tags else "it has no tags")
        + f"; of an id at least {PREFIX_DIGITS_MIN} digits are needed"
    )


def _beginning_with(store: Store, volume: str, digits: str) -> list[str]:
    folder = f"{VERSIONS}{volume}/"
    ids = (info.name.removeprefix(folder).removesuffix(".json") for info in store.names(f"{folder}{digits}"))
    return sorted(filter(is_hex_digest, ids))


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN_MAX} more" if len(names) > _SHOWN_MAX else ""
    return ", ".join(names[:_SHOWN_MAX]) + more

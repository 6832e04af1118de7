"""Tags: give a version a second name, find it by that, take the name away.

Always true: a tag names one version as long as it is there; giving the same version the same name again is
success, also after a lost answer.  On a store that ignores the conditions of a write no tag is written: two
who use one name at the same time would both be told that it is theirs.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from volume_core.errors import ConflictError, NotFoundError
from volume_core.format.names import TAGS, tag_name
from volume_core.format.tag import Tag, validate_tag
from volume_core.parts.heads import require_conditions
from volume_core.parts.intents import iso_utc
from volume_core.parts.publishing import as_text
from volume_core.storage.protocol import Store


def create_tag(
    store: Store,
    volume: str,
    name: str,
    version: str,
    message: str = "",
    *,
    clock: Callable[[], int] = time.time_ns,
) -> Tag:
    """Make *name* a tag of *version*, an id, of *volume*; return it, or the one that was there for that version.

    Raises ConflictError if it is the tag of another version, InvalidNameError if it cannot be a tag.
    """
    require_conditions(store, "tags")
    tag = Tag(volume, validate_tag(name), version, iso_utc(clock()), as_text(message))
    try:
        store.put_new(tag_name(volume, name), tag.to_bytes())
    except ConflictError:
        there = read_tag(store, volume, name)
        if there.version != version:
            raise ConflictError(
                f"the tag {name!r} of {volume!r} in {store.url} is of another version, {there.version[:12]}, since "
                f"{there.created_at}; a tag does not move: choose another name, or delete it first"
            ) from None
        return there
    return tag


def read_tag(store: Store, volume: str, name: str) -> Tag:
    """Return the tag *name* of *volume*, or raise NotFoundError."""
    at = tag_name(volume, validate_tag(name))
    try:
        data = store.get(at)
    except NotFoundError:
        raise NotFoundError(f"volume {volume!r} in {store.url} has no tag {name!r}") from None
    return Tag.from_bytes(f"{store.url}/{at}", data)


def tags_of(store: Store, volume: str) -> list[Tag]:
    """Return every tag of *volume*, by name; one that is deleted meanwhile is left out."""
    found = []
    for name in tag_names(store, volume):
        try:
            found.append(read_tag(store, volume, name))
        except NotFoundError:
            continue
    return found


def tag_names(store: Store, volume: str) -> list[str]:
    """Return the names of the tags of *volume*, in order."""
    prefix = f"{TAGS}{volume}/"
    return sorted(info.name.removeprefix(prefix).removesuffix(".json") for info in store.names(prefix))


def delete_tag(store: Store, volume: str, name: str) -> None:
    """Remove the tag *name* of *volume*, or raise NotFoundError; the version stays."""
    read_tag(store, volume, name)
    store.delete(tag_name(volume, name))

"""The names of things: volumes, objects in a store, and locators.

Always true: a volume's or tag's name is safe on every store and file system (ASCII letters, digits,
dot, dash, underscore; no leading dot or dash); a locator is the URL of a version's manifest and
alone is enough to find its store, its volume and its version.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from volume_core.errors import InvalidNameError
from volume_core.format.digests import is_hex_digest

NAME_CHARACTERS_MAX = 128
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")

FORMAT_NAME = "format.json"
PACKS = "packs/"
LAYERS = "layers/"
VERSIONS = "versions/"
INTENTS = "intents/"
HEADS = "heads/"
TAGS = "tags/"
LEASES = "leases/"


def validate_name(name: str, what: str = "volume") -> str:
    """Return *name*, or raise InvalidNameError saying what a *what*'s name may be."""
    if len(name) <= NAME_CHARACTERS_MAX and _NAME.fullmatch(name):
        return name
    raise InvalidNameError(
        f"{name!r} cannot name a {what}: use 1 to {NAME_CHARACTERS_MAX} of A-Z a-z 0-9 . _ - "
        "and begin with a letter, a digit or an underscore"
    )


def pack_name(digest_hex: str) -> str:
    """Return the object name of the pack with that digest."""
    return f"{PACKS}{digest_hex[:2]}/{digest_hex}"


def layer_name(digest_hex: str) -> str:
    """Return the object name of the layer with that digest."""
    return f"{LAYERS}{digest_hex}"


def version_name(volume: str, version: str) -> str:
    """Return the object name of the manifest of *version* of *volume*."""
    return f"{VERSIONS}{volume}/{version}.json"


def intent_name(intent: str) -> str:
    """Return the object name of the intent with that id."""
    return f"{INTENTS}{intent}.json"


def head_name(volume: str) -> str:
    """Return the object name of the head of *volume*."""
    return f"{HEADS}{volume}.json"


def tag_name(volume: str, tag: str) -> str:
    """Return the object name of that *tag* of *volume*."""
    return f"{TAGS}{volume}/{tag}.json"


def lock_name(volume: str) -> str:
    """Return the object name of the exclusive lock of *volume*."""
    return f"{LEASES}{volume}/lock.json"


def without_secrets(url: str) -> str:
    """Return *url* as a message may show it: without what stands before an @ or after a ?, where people put keys."""
    return re.sub(r"\?.*", "?…", re.sub(r"(://|^).*@", r"\1…@", url, flags=re.DOTALL), flags=re.DOTALL)


class Locator(NamedTuple):
    """A version's address: `<store>/versions/<volume>/<version>.json`."""

    store: str
    volume: str
    version: str

    def __str__(self) -> str:
        return f"{self.store}/{version_name(self.volume, self.version)}"

    @classmethod
    def parse(cls, text: str) -> Locator:
        """Take a locator apart, or raise InvalidNameError saying how one looks."""
        store, found, rest = text.rpartition(f"/{VERSIONS}")
        volume, _, leaf = rest.partition("/")
        version = leaf.removesuffix(".json")
        if not (found and "://" in store and leaf.endswith(".json") and is_hex_digest(version)):
            raise InvalidNameError(
                f"{without_secrets(text)!r} is not a locator; one looks like "
                "s3://bucket/prefix/versions/<volume>/<64 hex digits>.json"
            )
        return cls(store, validate_name(volume), version)

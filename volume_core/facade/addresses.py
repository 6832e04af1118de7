"""The grammar of `vol://` URLs: text in, an address out, and back.

    vol://NAME/path                       the head of the volume NAME in the file system's own store
    vol://NAME~REF/path                   one version of it: REF is a tag, a version's id, or how one begins
    vol://s3+bucket/prefix/-/NAME~REF/path    a volume of another store: its URL with + for ://, ended by a part "-"
    vol://  and  vol://s3+bucket/prefix/-     the store itself: its volumes are its directories

Why these marks: a name, a tag and an id hold none of them, so nothing can be read in two ways; and "~" and "+" may
stand in a host's name as they are, where ":" would begin a port, which parsers of URLs check, and "@" would end a
user's name.

Always true: what is left of a URL without `vol://` is the path that fsspec knows; parts that are empty or "." are
not in it; a path within a volume is taken as it is written, nothing in it is encoded; bytes of names that are not
UTF-8 are surrogates in it, as os.fsdecode makes them.
"""

from __future__ import annotations

from typing import NamedTuple

from volume_core.errors import InvalidNameError
from volume_core.format.names import Locator, validate_name
from volume_core.storage.opening import normalize

PROTOCOL = "vol"
REF_MARK = "~"
_SCHEME_MARK = "+"
_STORE_END = "-"


class Address(NamedTuple):
    """Where a path leads.

    `root` is its text up to the volume (or the store) and begins every path below it; `store` is the store's URL,
    None for the file system's own; `volume` is "" where the address is a store's; `ref` is "" for the head;
    `path` is what lies in the volume, b"" for its root.
    """

    root: str
    store: str | None
    volume: str
    ref: str
    path: bytes

    def name(self, path: bytes) -> str:
        """Return the name, for fsspec, of *path* of the same volume."""
        return join(self.root, to_text(path))


def join(root: str, below: str) -> str:
    """Return the name of what lies *below* the directory named *root*."""
    return f"{root}/{below}" if root and below else root or below


def to_text(path: bytes) -> str:
    """Return a path, or a name, as fsspec has it."""
    return path.decode("utf-8", "surrogateescape")


def to_bytes(path: str) -> bytes:
    """Return the path, or the name, that *path* stands for."""
    return path.encode("utf-8", "surrogateescape")


def strip(url: str) -> str:
    """Return *url* as fsspec has it: without `vol://`, without parts that say nothing."""
    path = url.removeprefix(f"{PROTOCOL}://").removeprefix(f"{PROTOCOL}::")
    return "/".join(part for part in path.split("/") if part not in {"", "."})


def parse(path: str) -> Address:
    """Return the address of *path*, which strip() has returned.

    Raises InvalidNameError if it cannot be one.
    """
    parts = path.split("/") if path else []
    store, taken = None, 0
    if parts and _SCHEME_MARK in parts[0]:
        store, taken = _store(path, parts)
    if taken == len(parts):
        return Address(path, store, "", "", b"")
    volume, mark, ref = parts[taken].partition(REF_MARK)
    if mark and not ref:
        raise InvalidNameError(f"{PROTOCOL}://{path}: a tag or a version's id stands behind {REF_MARK}")
    if mark:
        validate_name(ref, "tag")
    if ".." in parts:
        raise InvalidNameError(f'{PROTOCOL}://{path}: a part ".." leads nowhere: give the path it stands for')
    root, below = "/".join(parts[: taken + 1]), "/".join(parts[taken + 1 :])
    try:
        return Address(root, store, validate_name(volume), ref, to_bytes(below))
    except UnicodeEncodeError:
        raise InvalidNameError(f"{PROTOCOL}://{path!r}: this is no text that names on Linux can have") from None


def _store(path: str, parts: list[str]) -> tuple[str, int]:
    """Return the store's URL, and how many of *parts* it takes."""
    if _STORE_END not in parts:
        raise InvalidNameError(
            f'{PROTOCOL}://{path}: where the store\'s URL ends there must be a part "{_STORE_END}", as in '
            f"{PROTOCOL}://s3{_SCHEME_MARK}bucket/prefix/{_STORE_END}/NAME/path"
        )
    end = parts.index(_STORE_END)
    scheme, _, host = parts[0].partition(_SCHEME_MARK)
    decoded = [_STORE_END if part == "%2D" else part.replace("%40", "@") for part in (host, *parts[1:end])]
    return normalize(f"{scheme}://{'/'.join(decoded)}"), end + 1


def store_root(store: str) -> str:
    """Return the path, for fsspec, of the store with that URL."""
    scheme, _, rest = normalize(store).partition("://")
    parts = ["%2D" if part == _STORE_END else part.replace("@", "%40") for part in rest.split("/")]
    return "/".join([f"{scheme}{_SCHEME_MARK}{parts[0]}", *parts[1:], _STORE_END])


def url_of(locator: str, path: str = "") -> str:
    """Return the `vol://` URL of *path* in the version at *locator*: it means the same anywhere.

    Raises InvalidNameError if *locator* is none.
    """
    found = Locator.parse(locator)
    root = f"{store_root(found.store)}/{found.volume}{REF_MARK}{found.version}"
    return f"{PROTOCOL}://{join(root, strip(path))}"

"""Three states of one path made one: what it was, and what two sides made of it.

Always true:

  1. Content, attributes (mode and owner) and extended attributes are merged each by itself; what only one
     side changed is that side's.
  2. A time never conflicts: the later wins, but for a conflict of contents, where it goes with the content.
  3. Both sides making the same change is none.
"""

from __future__ import annotations

import enum
from typing import NamedTuple, TypeVar

from volume_core.domain.changes import identity, same
from volume_core.format.entries import Entry, Kind

NAME_BYTES_MAX = 255
_EXTENSION_BYTES_MAX = 32  # what is longer is no extension
_UTF8_FOLLOWING_MAX = 3

Part = TypeVar("Part")


class Policy(enum.StrEnum):
    """What to do about a conflict."""

    ERROR = "error"
    OURS = "ours"
    THEIRS = "theirs"
    LAST_WRITE_WINS = "last-write-wins"  # ours is later: its files win; it removes only what the other side left alone
    KEEP_BOTH = "keep-both"  # theirs keeps its name, ours gets one beside it

    @property
    def prefers_ours(self) -> bool:
        """Whether ours is taken where only one of two can be."""
        return self not in {Policy.THEIRS, Policy.KEEP_BOTH}

    @property
    def removes_changed(self) -> bool:
        """Whether what ours removed goes although theirs changed it."""
        return self in {Policy.OURS, Policy.ERROR}


class Reason(enum.StrEnum):
    """Why two sides do not go together at a path."""

    CONTENT = "both sides changed the content"
    ATTRIBUTES = "both sides changed mode or owner"
    XATTRS = "both sides changed extended attributes"
    REMOVED = "one side changed it, and the other removed it or a directory above it"
    KIND = "it is a directory on one side only"


class Merged(NamedTuple):
    """What became of a path, and why that had to be decided (None: it had not)."""

    entry: Entry
    reason: Reason | None


def content_of(entry: Entry) -> tuple[object, ...]:
    """What is at a path without its attributes, wherever chunks lie; hashable."""
    return entry.kind, entry.size, entry.target, entry.rdev, tuple(map(identity, entry.content))


def same_attributes(one: Entry, other: Entry) -> bool:
    """Whether two directories are equal but for their times."""
    return same(one._replace(mtime_ns=0), other._replace(mtime_ns=0))


def merge_leaves(base: Entry | None, ours: Entry, theirs: Entry, prefer_ours: bool) -> Merged:
    """Merge what is no directory on either side; *base* is None where it was none, or nothing."""
    if same(ours, theirs):
        return Merged(theirs, None)
    if base is not None and same(base, theirs):
        return Merged(ours, None)
    if base is not None and same(base, ours):
        return Merged(theirs, None)
    preferred = ours if prefer_ours else theirs
    if ours.kind is not theirs.kind:
        return Merged(preferred, Reason.CONTENT)
    merged = _merge_attributes(base, ours, theirs, prefer_ours)
    contents = [content_of(entry) if entry is not None else None for entry in (base, ours, theirs)]
    found = _pick(*contents)
    source = (preferred, ours, theirs)[found]
    reason = merged.reason if found else Reason.CONTENT
    mtime_ns = merged.entry.mtime_ns if found else preferred.mtime_ns
    entry = merged.entry._replace(
        size=source.size, target=source.target, rdev=source.rdev, content=source.content, mtime_ns=mtime_ns
    )
    return Merged(entry, reason)


def merge_directories(base: Entry | None, ours: Entry, theirs: Entry, prefer_ours: bool) -> Merged:
    """Merge a directory's own attributes; *base* is None where both sides made it, which is never a conflict."""
    merged = _merge_attributes(base, ours, theirs, prefer_ours)
    return Merged(merged.entry._replace(kind=Kind.DIRECTORY), merged.reason if base is not None else None)


def _merge_attributes(base: Entry | None, ours: Entry, theirs: Entry, prefer_ours: bool) -> Merged:
    """Merge mode, owner, xattrs and time into *theirs*."""
    preferred = ours if prefer_ours else theirs
    attributes = _pick(base and base[1:4], ours[1:4], theirs[1:4])
    xattrs = _pick(base.xattrs if base is not None else None, ours.xattrs, theirs.xattrs)
    owner = (preferred, ours, theirs)[attributes]
    times = [entry.mtime_ns for entry in (ours, theirs) if base is None or entry.mtime_ns != base.mtime_ns]
    entry = theirs._replace(
        mode=owner.mode,
        uid=owner.uid,
        gid=owner.gid,
        xattrs=(preferred, ours, theirs)[xattrs].xattrs,
        mtime_ns=max(times, default=theirs.mtime_ns),
    )
    return Merged(entry, (not attributes and Reason.ATTRIBUTES) or (not xattrs and Reason.XATTRS) or None)


def _pick(base: Part | None, ours: Part, theirs: Part) -> int:
    """1: take ours, 2: take theirs, 0: that is a conflict."""
    if ours in (theirs, base):
        return 2
    return 1 if theirs == base else 0


def derived_name(name: bytes, mark: bytes, number: int, *, is_directory: bool) -> bytes:
    """Return a name beside *name*: `report.conflict-<mark>.txt`, from the second on `report.conflict-<mark>-2.txt`.

    It is as long as a name may be, and cut between two characters where it has to be cut.
    """
    stem, dot, extension = name.rpartition(b".")
    if is_directory or not stem or len(extension) > _EXTENSION_BYTES_MAX:
        stem, dot, extension = name, b"", b""
    tail = b".conflict-" + mark + (b"-%d" % number if number > 1 else b"") + dot + extension
    end = max(NAME_BYTES_MAX - len(tail), 0)
    for _ in range(_UTF8_FOLLOWING_MAX):
        if end < len(stem) and stem[end] & 0xC0 == 0x80:
            end -= 1
    return stem[:end] + tail

"""What of a version's attributes a plain directory could not be given, and how to read it back.

An unprivileged user can set no owner, some file systems keep no xattrs or round times, nobody but root
makes a device.  When such a tree is committed, an attribute that still is what hydrating achieved is
the version's own; only one that differs from it was changed by somebody.

Always true:
  1. What was restored in full takes no space here and is never looked at.
  2. Reading back twice is reading back once: a version's own value is left as it is.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from volume_core.domain.changes import Upper
from volume_core.errors import CorruptObjectError
from volume_core.format.entries import Entry, Kind, split
from volume_core.format.layer import pack_xattrs, unpack_xattrs

Xattrs = tuple[tuple[bytes, bytes], ...]

_SCHEMA = """
CREATE TABLE shortfall (
    id INTEGER PRIMARY KEY, mode INTEGER, uid INTEGER, gid INTEGER, mtime_ns INTEGER,
    wanted_mode INTEGER, wanted_uid INTEGER, wanted_gid INTEGER, wanted_mtime_ns INTEGER,
    lost_xattrs BLOB, extra_xattrs BLOB
);
CREATE TABLE path (path BLOB PRIMARY KEY, shortfall INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE missing (
    path BLOB PRIMARY KEY, kind INTEGER NOT NULL, mode INTEGER NOT NULL, uid INTEGER NOT NULL, gid INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL, rdev INTEGER NOT NULL, hardlink INTEGER NOT NULL, xattrs BLOB
) WITHOUT ROWID;
"""
_USER_VERSION = 1


class Values(NamedTuple):
    """Attributes of a path; None stands for "as in the version"."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    mtime_ns: int | None = None


def _values(entry: Entry) -> Values:
    return Values(entry.mode, entry.uid, entry.gid, entry.mtime_ns)


class Shortfall(NamedTuple):
    """How a path differs from its version: the attributes it got and those it should have (None in
    both where they agree), the xattrs it lacks, and those it has without having been given them."""

    got: Values
    wanted: Values
    lost: Xattrs = ()
    extra: Xattrs = ()


class Achieved:
    """Path -> Shortfall, and the paths that could not be made at all.  Filled by one thread at a time."""

    def __init__(self) -> None:
        self.shortfalls: dict[bytes, Shortfall] = {}
        self.missing: dict[bytes, Entry] = {}
        # A tree has few distinct shortfalls ("every uid is mine"): each is kept once.
        self._known: dict[Shortfall, Shortfall] = {}

    def note(self, path: bytes, wanted: Entry, got: Entry) -> None:
        """Remember that *path* has the attributes of *got*, where those of *wanted* were asked for."""
        asked, found = _values(wanted), _values(got)
        if asked == found and wanted.xattrs == got.xattrs:
            return
        differs = [one != other for one, other in zip(asked, found, strict=True)]
        shortfall = Shortfall(
            Values(*(value if d else None for value, d in zip(found, differs, strict=True))),
            Values(*(value if d else None for value, d in zip(asked, differs, strict=True))),
            tuple(pair for pair in wanted.xattrs if pair not in got.xattrs),
            tuple(pair for pair in got.xattrs if pair not in wanted.xattrs),
        )
        self.shortfalls[path] = self._known.setdefault(shortfall, shortfall)

    def copy(self, path: bytes, other: bytes) -> None:
        """Give *other*, a further name of the same file, what is known of *path*."""
        if path in self.shortfalls:
            self.shortfalls[other] = self.shortfalls[path]

    def restore(self, path: bytes, entry: Entry) -> Entry:
        """Return *entry*, scanned at *path*, in the version's terms."""
        shortfall = self.shortfalls.get(path)
        if shortfall is None or entry.kind is Kind.WHITEOUT:
            return entry
        got, wanted, lost, extra = shortfall
        changes: dict[str, object] = {
            name: original
            for name, achieved, original in zip(Values._fields, got, wanted, strict=True)
            if original is not None and getattr(entry, name) == achieved
        }
        if lost or extra:
            kept = {name: value for name, value in entry.xattrs if (name, value) not in extra}
            changes["xattrs"] = tuple(sorted({**dict(lost), **kept}.items()))
        return entry._replace(**changes) if changes else entry  # type: ignore[arg-type]  # names of its own fields

    def as_version(self, upper: Mapping[bytes, Upper]) -> Mapping[bytes, Upper]:
        """Return a whole scan in the version's terms, with what could not be made put back.

        A missing path comes back where its directory is still there and nothing else took its place.
        """
        if not self.shortfalls and not self.missing:
            return upper
        whole = {path: each._replace(entry=self.restore(path, each.entry)) for path, each in upper.items()}
        for path, entry in self.missing.items():
            above = whole.get(split(path)[0])
            if path not in whole and above is not None and above.entry.is_directory:
                whole[path] = Upper(entry)
        return whole

    def save(self, path: Path) -> None:
        """Write the whole to *path*, durably and whole or not at all."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.unlink(missing_ok=True)
        with contextlib.closing(sqlite3.connect(temporary, isolation_level=None)) as db:
            db.executescript(f"PRAGMA journal_mode = OFF; PRAGMA user_version = {_USER_VERSION};" + _SCHEMA)
            db.execute("BEGIN")
            numbers = {shortfall: number for number, shortfall in enumerate(dict.fromkeys(self.shortfalls.values()), 1)}
            db.executemany(
                "INSERT INTO shortfall VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [(n, *s.got, *s.wanted, pack_xattrs(s.lost), pack_xattrs(s.extra)) for s, n in numbers.items()],
            )
            db.executemany("INSERT INTO path VALUES (?, ?)", ((p, numbers[s]) for p, s in self.shortfalls.items()))
            db.executemany(
                "INSERT INTO missing VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (p, int(e.kind), e.mode, e.uid, e.gid, e.mtime_ns, e.rdev, e.hardlink, pack_xattrs(e.xattrs))
                    for p, e in self.missing.items()
                ],
            )
            db.execute("COMMIT")
        fd = os.open(temporary, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(temporary, path)

    @classmethod
    def load(cls, path: Path) -> Achieved:
        """Read what `save` wrote; FileNotFoundError if there is none, CorruptObjectError if it is damaged."""
        achieved = cls()
        with open(path, "rb"):
            pass  # sqlite3 would make a file that is not there
        try:
            with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
                if db.execute("PRAGMA user_version").fetchone()[0] != _USER_VERSION:
                    raise CorruptObjectError(f"{path} was written by another release")
                known = {
                    row[0]: Shortfall(
                        Values(*row[1:5]), Values(*row[5:9]), unpack_xattrs(row[9]), unpack_xattrs(row[10])
                    )
                    for row in db.execute("SELECT * FROM shortfall")
                }
                achieved._known = {shortfall: shortfall for shortfall in known.values()}
                achieved.shortfalls = {p: known[n] for p, n in db.execute("SELECT path, shortfall FROM path")}
                for p, kind, mode, uid, gid, mtime_ns, rdev, link, xattrs in db.execute("SELECT * FROM missing"):
                    achieved.missing[p] = Entry(
                        Kind(kind), mode, uid, gid, mtime_ns, rdev=rdev, hardlink=link, xattrs=unpack_xattrs(xattrs)
                    )
        except (sqlite3.DatabaseError, KeyError, ValueError) as error:
            raise CorruptObjectError(f"{path} cannot be read ({error})") from error
        return achieved

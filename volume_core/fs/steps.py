"""The steps that writing is made of: each changes the tree of a session as a call of fsspec means it.

Always true: a step raises the OSError that a local file system would, and then has changed nothing, but that parents
may have been made; done again to another tree it does the same, or raises.
"""

from __future__ import annotations

import errno
import os
import time

from volume_core.domain import paths
from volume_core.domain.edits import Edits, Spot
from volume_core.errors import ExistsError
from volume_core.facade.addresses import to_bytes
from volume_core.format.entries import Entry, Kind, join, split
from volume_core.fs.drafts import Draft, Session, Source, Step
from volume_core.fs.localtrees import LocalTree


def put(path: bytes, source: Source, *, exclusive: bool = False) -> Step:
    """Write *source* to the file *path*, after symlinks; parents are made.

    What was there keeps its mode, owner and xattrs, but where a local file of the caller's takes its place.
    """

    def step(session: Session) -> None:
        edits = session.edits
        there = _to_write(edits, path)
        if there is not None and exclusive:
            raise _error(errno.EEXIST, path)
        target = path if there is None else there.path
        if isinstance(session, Draft):
            session.put(source, target, None)
        else:
            source.put(session, target, None)
        if there is not None and there.kind == Kind.FILE and (source.ours or source.data is not None):
            before, entry = edits.entry(there), edits.entry(edits.find(target))
            kept = entry._replace(mode=before.mode, uid=before.uid, gid=before.gid, xattrs=before.xattrs)
            edits.put(target, kept, force=True)

    return step


def put_tree(path: bytes, local: LocalTree, *, exclusive: bool = False) -> Step:
    """Merge the local directory *local* into the directory *path*, with all that a mounted tree would keep.

    Files that are there are replaced, unless *exclusive*.
    """

    def step(session: Session) -> None:
        edits = session.edits
        _check_above(edits, path)
        try:
            if isinstance(session, Draft):
                session.put_tree(local, path, force=not exclusive)
            else:
                session.put_directory(local.root, path, recursive=True, force=not exclusive)
        except ExistsError as error:
            first = to_bytes(error.paths[0])
            spot = edits.resolve(first, follow=False)
            no_file = errno.EEXIST if exclusive else errno.ENOTDIR
            raise _error(errno.EISDIR if spot is not None and spot.is_directory else no_file, first) from error

    return step


def put_link(path: bytes, link: Entry) -> Step:
    """Put the symlink *link* at *path*."""

    def step(session: Session) -> None:
        _check_above(session.edits, path)
        there = session.edits.resolve(path, follow=False)
        if there is not None and there.is_directory:
            raise _error(errno.EISDIR, path)
        session.edits.put(path, link, force=True)

    return step


def touch(path: bytes) -> Step:
    """Set the time of the file *path* to now."""

    def step(session: Session) -> None:
        spot = session.edits.find(path)
        if spot.is_directory:
            raise _error(errno.EISDIR, path)
        session.edits.put(spot.path, session.edits.entry(spot)._replace(mtime_ns=time.time_ns()), force=True)

    return step


def make_directory(path: bytes, *, parents: bool, exist_ok: bool) -> Step:
    """Make the directory *path*."""

    def step(session: Session) -> None:
        there = session.edits.resolve(path)
        if there is not None:
            if not (exist_ok and there.is_directory):
                raise _error(errno.EEXIST, path)
            return
        _check_above(session.edits, path)
        if not parents and session.edits.resolve(split(path)[0]) is None:
            raise _error(errno.ENOENT, split(path)[0])
        session.edits.make_directory(path)

    return step


def remove(path: bytes, *, recursive: bool) -> Step:
    """Remove what is at *path*: a directory only with *recursive*, and of the root what is in it."""
    was_there = False

    def step(session: Session) -> None:
        nonlocal was_there
        spot = session.edits.resolve(path, follow=False)
        if spot is None and was_there:
            return  # others have removed it since this was done to the draft
        spot = session.edits.find(path, follow=False)
        was_there = True
        if spot.is_directory and not recursive:
            raise _error(errno.EISDIR, path)
        for each in [spot] if spot.path else session.edits.listing(spot):
            session.edits.remove(each.path, recursive=recursive)

    return step


def remove_directory(path: bytes) -> Step:
    """Remove the empty directory *path*."""

    def step(session: Session) -> None:
        spot = session.edits.find(path, follow=False)
        if not spot.is_directory:
            raise _error(errno.ENOTDIR, path)
        if not spot.path:
            raise _error(errno.EBUSY, path)
        if session.edits.listing(spot):
            raise _error(errno.ENOTEMPTY, path)
        session.edits.remove(path, recursive=True)

    return step


def copy(source: bytes, target: bytes) -> Step:
    """Make the file *target* what *source* is, or a directory if that is one; no data is moved."""

    def step(session: Session) -> None:
        edits = session.edits
        spot = edits.find(source)
        if spot.is_directory:
            make_directory(target, parents=True, exist_ok=True)(session)
            return
        there = _to_write(edits, target)
        if there is None or there.path != spot.path:
            edits.put(target if there is None else there.path, edits.entry(spot), force=True)

    return step


def copy_tree(source: bytes, target: bytes) -> Step:
    """Merge the directory *source* into *target*, which is made if it is not there; symlinks are copied as such."""

    def step(session: Session) -> None:
        edits = session.edits
        spot = edits.find(source)
        if edits.resolve(target) is None:
            _check_above(edits, target)
            if above := split(target)[0]:
                edits.make_directory(above)
            edits.copy([spot.path], target, recursive=True)
            return
        for child in edits.listing(spot):
            edits.copy([join(spot.path, child.name)], target, recursive=True)

    return step


def move(source: bytes, target: bytes) -> Step:
    """Rename *source* to *target*, which is no directory."""

    def step(session: Session) -> None:
        _check_above(session.edits, target)
        session.edits.move(source, target)

    return step


def _to_write(edits: Edits, path: bytes) -> Spot | None:
    """Return what is at *path* and may be written; None if nothing is."""
    _check_above(edits, path)
    spot = edits.resolve(path)
    if spot is None:
        return None
    if spot.is_directory:
        raise _error(errno.EISDIR, path)
    return spot


def _check_above(edits: Edits, path: bytes) -> None:
    """Raise NotADirectoryError if something above *path* is there and no directory."""
    above = path
    while above:
        above = split(above)[0]
        spot = edits.resolve(above)
        if spot is not None:
            if not spot.is_directory:
                raise _error(errno.ENOTDIR, above)
            return


def _error(number: int, path: bytes) -> OSError:
    return OSError(number, os.strerror(number), paths.shown(path))

"""Every error a caller may catch, grouped by what the caller would do about it.

    VolumeError
    ├── ConflictError        somebody else moved what this call wanted to move: merge or retry; `.paths` names
    │                        what both changed
    ├── NotFoundError        no such volume, version, path or object (also a KeyError)
    │   └── NoSuchPathError  no such path in a version (also a FileNotFoundError)
    ├── ExistsError          something is there already: `.paths` names it (also a FileExistsError)
    ├── CorruptObjectError   bytes do not match their name or their format: run verify
    ├── StorageError         the store failed: `.transient` says whether to retry
    ├── MountError           the machine lacks something: the text says what and how to grant it
    ├── ReadOnlyError        this volume was opened to read
    ├── BusyError            files are in use or keep changing: `.paths` names them
    └── InvalidNameError     a name no store can hold (also a ValueError)

Always true: the text says what was being done to what, and what to do next; it
never holds a credential.  One table, in `mount/`, maps these to errno.
"""

from __future__ import annotations

from collections.abc import Sequence


class VolumeError(Exception):
    """Base of every error this package raises on purpose."""


class ConflictError(VolumeError):
    """Somebody else moved what this call wanted to move: nothing was changed; merge or retry.

    `paths` names what both sides changed, where it is about files: relative to the volume's root, as text
    (undecodable bytes escaped as by `os.fsdecode`).
    """

    def __init__(self, message: str, paths: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.paths = tuple(paths)


class NotFoundError(VolumeError, KeyError):
    """There is no such volume, version, path or object."""

    def __str__(self) -> str:
        # KeyError prints the repr of its argument; a sentence for a person needs none.
        return Exception.__str__(self)


class NoSuchPathError(NotFoundError, FileNotFoundError):
    """There is no such path in a version."""


class ExistsError(VolumeError, FileExistsError):
    """Something is there already, and the call may not replace it.

    `paths` names it, relative to the volume's root, as text (undecodable bytes escaped as by
    `os.fsdecode`).
    """

    def __init__(self, message: str, paths: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.paths = tuple(paths)


class CorruptObjectError(VolumeError):
    """Bytes do not match their name or their format: never use them; run verify."""


class StorageError(VolumeError):
    """The store failed.

    `transient` is True when the same call may succeed later (time-outs, 5xx, throttling)
    and False when something must be changed first (credentials, region, bucket, disk space).
    """

    def __init__(self, message: str, *, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


class MountError(VolumeError):
    """The machine cannot mount, or a mount broke: the text says what it lacks and how to grant it."""


class ReadOnlyError(VolumeError):
    """This volume was opened to read."""


class BusyError(VolumeError):
    """Files are in use or keep changing.

    `paths` names them, relative to the volume's root, as text (undecodable bytes escaped as by
    `os.fsdecode`).
    """

    def __init__(self, message: str, paths: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.paths = tuple(paths)


class InvalidNameError(VolumeError, ValueError):
    """A name that no store can hold: raised where the name is given."""

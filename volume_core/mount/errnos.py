"""The one table from our errors to errno, for every door that speaks it.

Always true: an error of ours has an errno, the one of the nearest class in the table; StorageError and
CorruptObjectError are EIO, for a reader of a file can only learn that its bytes cannot be had.
"""

from __future__ import annotations

import errno

from volume_core.errors import (
    BusyError,
    ConflictError,
    CorruptObjectError,
    ExistsError,
    InvalidNameError,
    MountError,
    NoSuchPathError,
    NotFoundError,
    ReadOnlyError,
    StorageError,
    VolumeError,
)

ERRNO: dict[type[VolumeError], int] = {
    BusyError: errno.EBUSY,
    ConflictError: errno.ESTALE,
    CorruptObjectError: errno.EIO,
    ExistsError: errno.EEXIST,
    InvalidNameError: errno.EINVAL,
    MountError: errno.ENODEV,
    NoSuchPathError: errno.ENOENT,
    NotFoundError: errno.ENOENT,
    ReadOnlyError: errno.EROFS,
    StorageError: errno.EIO,
    VolumeError: errno.EIO,
}


def errno_of(error: BaseException) -> int:
    """Return the errno that stands for *error*: its own if it is an OSError, EIO if it is none of ours."""
    if isinstance(error, VolumeError):
        return next(ERRNO[kind] for kind in type(error).__mro__ if kind in ERRNO)
    if isinstance(error, OSError) and error.errno:
        return error.errno
    return errno.EIO

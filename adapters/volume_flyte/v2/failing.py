"""Which of flyte 2's errors an error of ours becomes: by its class flyte decides whether another attempt is worth it.

    RuntimeSystemError    the store or the machine failed, and may not the next time: tried again
    RuntimeUserError      of the volume itself (files kept changing, a conflict): tried again, with the body's new work
    NonRecoverableError   something must be changed first (credentials, a bucket, a name): not tried again

Why this is needed only where values are converted: what a task's body raises flyte tries again whatever it is, but an
error out of a conversion that is none of these ends the process without a word to the cluster.

Always true: the text is the error's own, with what was being done before it; the code is the name of its class.
"""

from __future__ import annotations

from flyte.errors import NonRecoverableError, RuntimeSystemError, RuntimeUserError

from volume_core import InvalidNameError, ReadOnlyError, StorageError, VolumeError

_HOPELESS = (InvalidNameError, ReadOnlyError)


def failure(doing: str, error: VolumeError | OSError) -> RuntimeSystemError | RuntimeUserError:
    """Return the error of flyte's that stands for *error*, which ended what *doing* says."""
    text, code = f"{doing}: {error}", type(error).__name__
    notes = "\n".join(getattr(error, "__notes__", ()))
    text = f"{text}\n{notes}" if notes else text
    if (isinstance(error, StorageError) and not error.transient) or isinstance(error, _HOPELESS):
        return NonRecoverableError(text, code)
    if isinstance(error, StorageError) or not isinstance(error, VolumeError):
        return RuntimeSystemError(code, text)
    return RuntimeUserError(code, text)

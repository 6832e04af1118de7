"""Flyte's settings for S3, which a demo cluster and many an own one give to every pod, for volumes too.

Why by the environment: mount servers are processes of their own, which inherit it and import no SDK; and into
variables that volumes alone read, since the task's own clients read AWS_*.

Always true: where anything says AWS_* for S3, or VOLUME_S3_*, nothing is done.
"""

from __future__ import annotations

import os

# Both SDKs read these.
_LENT = {
    "FLYTE_AWS_ENDPOINT": "VOLUME_S3_ENDPOINT",
    "FLYTE_AWS_ACCESS_KEY_ID": "VOLUME_S3_ACCESS_KEY_ID",
    "FLYTE_AWS_SECRET_ACCESS_KEY": "VOLUME_S3_SECRET_ACCESS_KEY",
}
_OTHERS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_PROFILE", *_LENT.values())


def lend() -> None:
    """Set VOLUME_S3_* to what Flyte's own variables say, unless somebody has said something else."""
    if any(map(os.environ.get, _OTHERS)):
        return
    for theirs, ours in _LENT.items():
        if value := os.environ.get(theirs):
            os.environ[ours] = value

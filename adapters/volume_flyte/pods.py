"""`fuse_pod_template` of whichever SDK a program uses.

Always true: it imports no SDK that the program has not imported.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Unpack

from volume_core import VolumeError
from volume_core.pods import PodOptions


def fuse_pod_template(
    base: Any = None,
    *,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    **options: Unpack[PodOptions],
) -> Any:
    """Return a pod template whose primary container can mount volumes: flytekit's, or flyte 2's.

    It is of the SDK that *base*, a pod template, is of; without *base*, of the one that is imported.  Everything else
    is as volume_flyte.v1.pods.fuse_pod_template and volume_flyte.v2.pods.fuse_pod_template have it, which have types,
    too.  Raises VolumeError where it cannot be known which SDK is meant.
    """
    if _sdk(base) == "flytekit":
        from volume_flyte.v1.pods import fuse_pod_template as made_by_flytekit

        return made_by_flytekit(base, labels=labels, annotations=annotations, **options)
    from volume_flyte.v2.pods import fuse_pod_template as made_by_flyte

    return made_by_flyte(base, labels=labels, annotations=annotations, **options)


def _sdk(base: Any) -> str:
    if base is not None:
        found = type(base).__module__.partition(".")[0]
        if found in {"flytekit", "flyte"}:
            return found
        raise VolumeError(f"base is a {type(base).__name__}: give a PodTemplate of flytekit or of flyte")
    imported = [name for name in ("flytekit", "flyte") if name in sys.modules]
    if len(imported) == 1:
        return imported[0]
    which = "both flytekit and flyte are imported" if imported else "neither flytekit nor flyte is imported"
    raise VolumeError(
        f"{which}: give a PodTemplate of the one that is meant, or use fuse_pod_template of volume_flyte.v1.pods "
        "(flytekit) or volume_flyte.v2.pods (flyte)"
    )

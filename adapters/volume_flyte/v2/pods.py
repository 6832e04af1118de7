"""Pod templates of flyte 2 for tasks that mount volumes.

    env = flyte.TaskEnvironment("train", pod_template=fuse_pod_template(cache_size="50Gi"), resources=Resources(...))

`flyte.PodTemplate().allow_fuse()` gives a container the device and the capability; here it gets a disk for uncommitted
work and the cache besides, the user that can mount, and what the site wants of it.

Always true: what allow_fuse() gives is given, whichever of the two comes first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Unpack

from flyte import PodTemplate

from volume_core import pods
from volume_core.pods import PodOptions
from volume_flyte.podspecs import from_fields, to_fields

# What allow_fuse() leaves on a pod, for those who look who may mount.
_CAPABILITY = {"flyte.org/capability-fuse": "true"}


def fuse_pod_template(
    base: PodTemplate | None = None,
    *,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    **options: Unpack[PodOptions],
) -> PodTemplate:
    """Return a pod template whose primary container can mount volumes, made from *base* where one is given.

    *options* are those of volume_core.pods.PodOptions.  The environment's `resources` are merged with its requests and
    limits by flyte, name by name, and go before them.  *labels* and *annotations* are added to those of *base*, which
    stays as it is.

    Raises VolumeError, naming what is in the way, where *base* says the contrary of what a mount needs, or a quantity
    is none, or the package kubernetes is missing.
    """
    base = base or PodTemplate()
    fields = to_fields(base.pod_spec)
    primary = base.primary_container_name
    if not any(each["name"] == primary for each in fields["containers"]):
        fields["containers"].append({"name": primary})
    spec, needed = pods.prepared(fields, primary, **options)
    return dataclasses.replace(
        base,
        pod_spec=from_fields(spec),
        labels={**(base.labels or {}), **(labels or {})} or None,
        annotations={**(base.annotations or {}), **(annotations or {}), **needed, **_CAPABILITY},
    )

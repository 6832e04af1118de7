"""Pod templates of flytekit for tasks that mount volumes.

    @task(pod_template=fuse_pod_template(cache_size="50Gi"), requests=Resources(cpu="2", mem="8Gi"))
    def train(data: ROVolume) -> RWVolume: ...

Always true: the device stays.  Where a task has `requests`, `limits` or `resources` of its own, flytekit puts them in
the place of all that its pod template's container asks for, the device too; the container here merges them instead.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cache
from typing import Any, Unpack, cast

from flytekit import PodTemplate, Resources

from volume_core import pods
from volume_core.pods import PodOptions
from volume_flyte.podspecs import from_fields, to_fields

# By the names that Kubernetes has for them; Flyte itself says which vendor's a gpu is.
_NAMES = {"cpu": "cpu", "mem": "memory", "gpu": "nvidia.com/gpu", "ephemeral_storage": "ephemeral-storage"}


def fuse_pod_template(
    base: PodTemplate | None = None,
    *,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    **options: Unpack[PodOptions],
) -> PodTemplate:
    """Return a pod template whose primary container can mount volumes, made from *base* where one is given.

    *options* are those of volume_core.pods.PodOptions; `requests` and `limits` may be flytekit's Resources, too.  A
    task's own `requests`, `limits` and `resources` are merged with these, name by name, and go before them.
    *labels* and *annotations* are added to those of *base*, which stays as it is.

    Raises VolumeError, naming what is in the way, where *base* says the contrary of what a mount needs, or a quantity
    is none, or the package kubernetes is missing.
    """
    base = base or PodTemplate()
    fields = to_fields(base.pod_spec)
    primary = base.primary_container_name
    if not any(each["name"] == primary for each in fields["containers"]):
        fields["containers"].append({"name": primary})  # as flytekit does
    given = cast("PodOptions", {name: _by_kubernetes_names(value) for name, value in options.items()})
    spec, needed = pods.prepared(fields, primary, **given)
    pod_spec = from_fields(spec)
    pod_spec.containers = [_merging(each) if each.name == primary else each for each in pod_spec.containers]
    return dataclasses.replace(
        base,
        pod_spec=pod_spec,
        labels=_together(base.labels, labels),
        annotations=_together(base.annotations, annotations, needed),
    )


def _by_kubernetes_names(value: object) -> object:
    if not isinstance(value, Resources):
        return value
    given = {name: getattr(value, field) for field, name in _NAMES.items()}
    return {name: amount for name, amount in given.items() if amount is not None}


def _together(*given: Mapping[str, str] | None) -> dict[str, str] | None:
    return {name: value for each in given for name, value in (each or {}).items()} or None


def _merging(container: Any) -> Any:
    """Return *container* as one that merges the resources it is given with those it has."""
    kind: Any = type(container)
    return _merging_class(kind)(**_set_fields(container))


def _set_fields(model: Any) -> dict[str, Any]:
    """Return what is set of *model*, an object of the package kubernetes, by the names it has in Python."""
    names = getattr(type(model), "model_fields", None) or type(model).attribute_map
    return {name: found for name in names if (found := getattr(model, name)) is not None}


@cache
def _merging_class(base: Any) -> Any:
    def set_attribute(self: Any, name: str, value: Any) -> None:
        if name == "resources" and (there := getattr(self, "resources", None)) is not None and value is not None:
            value = type(value)(**pods.merged_resources(_set_fields(there), _set_fields(value)))
        base.__setattr__(self, name, value)

    # flytekit looks for images in containers by the name of their class.
    return type(base.__name__, (base,), {"__setattr__": set_attribute, "__module__": __name__, "__doc__": base.__doc__})

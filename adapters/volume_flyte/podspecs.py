"""PodSpecs of the package `kubernetes` as dictionaries, and back, whatever version of it is installed.

Up to version 36 its classes have attribute tables and know nothing of dictionaries; from 37 on they are pydantic
models.

Always true: `kubernetes`, which takes a second to import, is imported when a pod is made, never before.
"""

from __future__ import annotations

import copy
import json
from types import SimpleNamespace
from typing import Any, NoReturn

from volume_core import VolumeError


def to_fields(pod_spec: Any) -> dict[str, Any]:
    """Return the V1PodSpec *pod_spec* (None: an empty one) as its JSON would be.

    An image that is not text (flytekit's ImageSpec) stays the object it is.
    """
    if pod_spec is None:
        return {"containers": []}
    client = _client()
    bare = copy.copy(pod_spec)
    bare.containers = [copy.copy(each) for each in pod_spec.containers or []]
    images = [each.image for each in bare.containers]
    for each in bare.containers:
        each.image = None
    fields: dict[str, Any] = client.ApiClient().sanitize_for_serialization(bare)
    for container, image in zip(fields["containers"], images, strict=True):
        if image is not None:
            container["image"] = image
    return fields


def from_fields(fields: dict[str, Any]) -> Any:
    """Return the V1PodSpec that *fields* are the JSON of."""
    client = _client()
    images = [each.get("image") for each in fields["containers"]]
    bare = {**fields, "containers": [{k: v for k, v in each.items() if k != "image"} for each in fields["containers"]]}
    if hasattr(client.V1PodSpec, "from_dict"):
        pod_spec = client.V1PodSpec.from_dict(bare)
    else:
        pod_spec = client.ApiClient().deserialize(SimpleNamespace(data=json.dumps(bare)), "V1PodSpec")
    for container, image in zip(pod_spec.containers, images, strict=True):
        if image is not None:
            container.image = image
    return pod_spec


def _client() -> Any:
    try:
        import kubernetes.client
    except ModuleNotFoundError as error:
        _explain(error)
    return kubernetes.client


def _explain(error: ModuleNotFoundError) -> NoReturn:
    raise VolumeError(
        "pod templates are made with the package kubernetes, which is not installed: "
        "pip install 'volume-core[kubernetes]', in one call with the SDK"
    ) from error

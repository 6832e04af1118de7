"""What the tests of pods share: the pod as each SDK would send it, and Kubernetes' own opinion of it."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

with warnings.catch_warnings():  # flyte imports it later, and defines models in a way that pydantic warns of
    warnings.simplefilter("ignore")
    import flyte.io  # noqa: F401

# The oldest schema there is, the last without AppArmor's field, some in between, and the newest.
KUBERNETES_VERSIONS = ("1.25", "1.29", "1.31", "1.34", "1.37")


def refusals(spec: Mapping[str, Any], annotations: Mapping[str, str] | None = None, *, versions=KUBERNETES_VERSIONS):
    """What Kubernetes' schemas, in strict mode, have against *spec*: a message by version."""
    validator = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate: it has the schemas")
    metadata = {"name": "pod", "annotations": dict(annotations or {})}
    whole = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": dict(spec)}
    found = {}
    for version in versions:
        try:
            assert version == validator.validate(whole, version, strict=True)
        except validator.ValidationError as error:
            found[version] = error.message
    return found


def pod_of_flytekit(entity: Any) -> Any:
    """The K8sPod that flytekit registers for a task: `.pod_spec`, `.metadata`."""
    from flytekit.configuration import Image, ImageConfig, SerializationSettings
    from flytekit.tools.translator import get_serializable

    image = ImageConfig(default_image=Image("default", "registry/image", "1"))
    settings = SerializationSettings(project="p", domain="d", version="v", image_config=image)
    return get_serializable(OrderedDict(), settings, entity).template.k8s_pod


def pod_of_flyte(task: Any) -> dict[str, Any]:
    """The K8sPod that flyte 2 sends for a task, as its JSON."""
    from flyte._internal.runtime.task_serde import translate_task_to_wire
    from flyte.models import SerializationContext
    from google.protobuf.json_format import MessageToDict

    context = SerializationContext(version="1", root_dir=Path(__file__).parent)
    pod: dict[str, Any] = MessageToDict(translate_task_to_wire(task, context).task_template.k8s_pod)
    return pod


def container(spec: Mapping[str, Any], name: str = "primary") -> dict[str, Any]:
    """The container *name* of a PodSpec."""
    [found] = [each for each in spec["containers"] if each["name"] == name]
    return found

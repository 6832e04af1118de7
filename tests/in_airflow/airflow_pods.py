"""Pods as Airflow's executor and its pod operator make them, and Kubernetes' own opinion of them."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any
from unittest import mock

import airflow.providers.cncf.kubernetes as provider
import kubernetes_validate
from airflow import settings
from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator

TEMPLATES = Path(provider.__file__).parent / "pod_template_file_examples"
# Releases whose schema has all fields; AppArmor's came with 1.30.
RELEASES = ("1.31", "1.34", kubernetes_validate.latest_version())


def with_policy(task: Any) -> Any:
    """*task*, as it is after its DAG's file was read: the policies that are installed have seen it."""
    settings.task_policy(task)
    return task


@functools.cache
def _template(name: str) -> Any:
    return PodGenerator.deserialize_model_file(str(TEMPLATES / name))


def made_by_executor(task: Any, template: Any = "dags_in_image_template.yaml") -> dict[str, Any]:
    """The pod in which KubernetesExecutor runs *task*, as it goes to the cluster."""
    pod = PodGenerator.construct_pod(
        dag_id=task.dag_id, task_id=task.task_id, pod_id="a-pod", try_number=1, kube_image="repo/image:1", date=None,
        args=["run"], pod_override_object=PodGenerator.from_obj(task.executor_config),
        base_worker_pod=_template(template) if isinstance(template, str) else template, namespace="ns",
        scheduler_job_id="1", run_id="a-run", map_index=-1, with_mutation_hook=True,
    )  # fmt: skip
    return judged(PodGenerator.serialize_pod(pod))


def made_by_operator(operator: Any, context: Any = None) -> dict[str, Any]:
    """The pod that a KubernetesPodOperator asks the cluster for."""
    hook = mock.Mock(is_in_cluster=True)
    hook.get_namespace.return_value = "ns"
    hook.get_xcom_sidecar_container_image.return_value = "alpine"
    hook.get_xcom_sidecar_container_resources.return_value = None
    hook.get_xcom_sidecar_container_security_context.return_value = None
    operator.__dict__["hook"] = hook  # else it looks for a cluster
    return judged(PodGenerator.serialize_pod(operator.build_pod_request_obj(context)))


def judged(pod: dict[str, Any]) -> dict[str, Any]:
    """*pod*, once Kubernetes' own schemas have been asked, in strict mode."""
    for release in RELEASES:
        kubernetes_validate.validate({"apiVersion": "v1", "kind": "Pod", **pod}, release, strict=True)
    return pod


def base(pod: dict[str, Any], name: str = "base") -> dict[str, Any]:
    """The container *name* of *pod*."""
    [found] = [each for each in pod["spec"]["containers"] if each["name"] == name]
    return found


def can_mount(pod: dict[str, Any], name: str = "base") -> bool:
    """Whether *pod* has what a mount takes: the device, the capability, and a disk."""
    container = base(pod, name)
    security = container.get("securityContext", {})
    device = container.get("resources", {}).get("limits", {}).get("smarter-devices/fuse") == "1"
    capable = "SYS_ADMIN" in security.get("capabilities", {}).get("add", [])
    disk = [each for each in pod["spec"].get("volumes", []) if each["name"] == "volume-state" and "emptyDir" in each]
    return (device or security.get("privileged", False)) and capable and bool(disk)


def env_of(container: dict[str, Any]) -> dict[str, Any]:
    """The variables of *container*."""
    return {each["name"]: each.get("value") for each in container.get("env", [])}

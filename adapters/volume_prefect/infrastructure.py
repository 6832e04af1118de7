"""What flow runs need so that they can mount: in pods of a Kubernetes work pool, in containers of a Docker one.

    base job template ──with_volumes──> one whose pods have the device (or privilege), the capability and a disk
    job variables     <──docker_variables── the same for a container

Why a template and not job variables: Prefect's has none for devices, capabilities and disks of a pod, and ignores the
ones that it does not know in silence.

Always true: what is given is never changed; placeholders stay placeholders; done twice is done once.  What a pod needs
is decided in volume_core.pods, and the site's plugins (volume_pod) see it last.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Unpack

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolUpdate

from volume_core import VolumeError
from volume_core.pods import DEVICE, STATE_DIR, PodOptions, prepared

_AMOUNTS = ("requests", "limits")


def with_volumes(template: Mapping[str, Any], **options: Unpack[PodOptions]) -> dict[str, Any]:
    """Return a Kubernetes base job template made from *template*, whose pods can mount volumes.

    *options* are those of volume_core.pods.PodOptions: `privileged=True` where the cluster has no device plugin,
    `cache_size`, `requests` and `limits` (which go before the placeholders of the same name), and so on.  Raises
    VolumeError where *template* is none for Kubernetes, or says the contrary of what a mount needs.
    """
    made: dict[str, Any] = copy.deepcopy(dict(template))
    pod = _pod_of(made)
    container = _container_of(pod["spec"])
    _check_device(container, options)
    aside = _taken_aside(container)
    env_text = container.pop("env", None)
    container["env"] = list(env_text) if isinstance(env_text, list) else _defaults_of_env(made)
    ready = prepared(pod["spec"], container["name"], **options)
    pod["spec"] = ready.spec
    container = ready.spec["containers"][0]
    for kind, placeholders in aside.items():
        amounts = container.setdefault("resources", {}).setdefault(kind, {})
        container["resources"][kind] = {**placeholders, **amounts}
    if not isinstance(env_text, list):
        # A deployment's own `env` is merged with a variable's default, and replaces what a template says.
        _set_defaults_of_env(made, container["env"])
        container["env"] = env_text if env_text is not None else "{{ env }}"
    _annotate(pod, ready.annotations)
    return made


def docker_variables(*, privileged: bool = False, state: str = STATE_DIR, apparmor: bool = False) -> dict[str, Any]:
    """Return job variables for a Docker work pool whose containers can mount volumes.

    The container gets /dev/fuse and CAP_SYS_ADMIN, or all privileges with *privileged*.  *state* is where uncommitted
    work and the cache lie: a path in the container, which goes with it, or `host/path:path` or `name:path`, which
    stays, and is then for one container at a time.  With *apparmor* its default profile, which forbids mount(2), stays.
    """
    inside = state.rpartition(":")[2]
    if not inside.startswith("/"):
        raise VolumeError(f"state is {state!r}: give a path in the container, or what lies there, like /disk:{inside}")
    variables: dict[str, Any] = {"volumes": [state], "env": {"VOLUME_STATE_DIR": inside}}
    if privileged:
        return {**variables, "privileged": True}
    needed: dict[str, Any] = {"devices": ["/dev/fuse:/dev/fuse:rwm"], "cap_add": ["SYS_ADMIN"]}
    if not apparmor:
        needed["security_opt"] = ["apparmor:unconfined"]
    return {**variables, "container_create_kwargs": needed}


def enable_work_pool(name: str, **options: Unpack[PodOptions]) -> dict[str, Any]:
    """Let the flow runs of the Kubernetes work pool *name* mount volumes; return its base job template.

    What its template says besides stays.  Once more, with other options, changes what these say alone.
    """
    with get_client(sync_client=True) as client:
        pool = client.read_work_pool(name)
        if pool.type != "kubernetes":
            raise VolumeError(f"the work pool {name!r} is of type {pool.type!r}: only those of Kubernetes have pods")
        template = with_volumes(pool.base_job_template, **options)
        client.update_work_pool(name, WorkPoolUpdate(base_job_template=template))
    return template


# -- templates


def _pod_of(template: dict[str, Any]) -> dict[str, Any]:
    try:
        pod: dict[str, Any] = template["job_configuration"]["job_manifest"]["spec"]["template"]
        pod["spec"]["containers"][0]["name"]
    except (KeyError, IndexError, TypeError) as error:
        raise VolumeError(
            f"this is no base job template of a Kubernetes work pool: {type(error).__name__}: {error} on the way to "
            "job_configuration.job_manifest.spec.template.spec.containers[0].name"
        ) from error
    return pod


def _container_of(spec: dict[str, Any]) -> dict[str, Any]:
    """Return the container that Prefect runs flows in: the first."""
    container: dict[str, Any] = spec["containers"][0]
    for where, fields in ((spec, ("volumes",)), (container, ("securityContext", "resources", "volumeMounts"))):
        for field in fields:
            if isinstance(where.get(field), str):
                raise VolumeError(
                    f"the template has the placeholder {where[field]!r} for all of {field}: what a mount needs cannot "
                    "be added to it; write the field out"
                )
    return container


def _check_device(container: dict[str, Any], options: PodOptions) -> None:
    device = options.get("device", DEVICE)
    limits = (container.get("resources") or {}).get("limits") or {}
    if options.get("privileged") and device in limits:
        # Left there, no node without the plugin would take the pod, and such nodes are what privilege is for.
        raise VolumeError(
            f"the template asks for the device {device} already: begin with one that does not, to use privilege instead"
        )


def _is_placeholder(value: object) -> bool:
    return isinstance(value, str) and "{{" in value


def _taken_aside(container: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Take the placeholders out of the container's resources, where only quantities are understood."""
    resources = container.get("resources") or {}
    aside: dict[str, dict[str, str]] = {}
    for kind in _AMOUNTS:
        amounts = resources.get(kind) or {}
        aside[kind] = {name: value for name, value in amounts.items() if _is_placeholder(value)}
        if kind in resources:
            resources[kind] = {name: value for name, value in amounts.items() if name not in aside[kind]}
    return aside


def _env_variable(template: dict[str, Any]) -> dict[str, Any]:
    properties = template.setdefault("variables", {}).setdefault("properties", {})
    variable: dict[str, Any] = properties.setdefault("env", {"type": "object", "title": "Environment Variables"})
    return variable


def _defaults_of_env(template: dict[str, Any]) -> list[dict[str, str]]:
    defaults = _env_variable(template).get("default") or {}
    return [{"name": name, "value": value} for name, value in defaults.items()]


def _set_defaults_of_env(template: dict[str, Any], env: list[dict[str, str]]) -> None:
    _env_variable(template)["default"] = {each["name"]: each["value"] for each in env}


def _annotate(pod: dict[str, Any], annotations: Mapping[str, str]) -> None:
    if not annotations:
        return
    metadata = pod.setdefault("metadata", {})
    there = metadata.get("annotations") or {}
    if isinstance(there, str):
        raise VolumeError(f"the pod's annotations are the placeholder {there!r}, and these are needed: {annotations}")
    metadata["annotations"] = {**there, **annotations}

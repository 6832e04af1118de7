"""What a Kubernetes pod needs so that a task in it can mount volumes, as changes to its PodSpec.

    PodSpec (a dictionary, as its JSON) ──prepared──> another one, and the pod's annotations

Why here: which device, capability, user and disk a mount needs is a fact about mounts, not about an engine.  Engines'
adapters turn their own templates into a dictionary and back.

Always true:

  1. What is given is never changed; what it says stays, or there is an error: nothing is overruled in silence.
  2. Prepared twice alike, or the second time without options, a pod is as it was prepared once.
  3. The plugins (volume_pod) see the spec last, so a site has the last word.
"""

from __future__ import annotations

import copy
import posixpath
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NamedTuple, TypedDict, Unpack

from volume_core.errors import VolumeError
from volume_core.parts.state import STATE_DIR_VARIABLE
from volume_core.plugins.manager import plugins

PRIMARY = "primary"
DEVICE = "smarter-devices/fuse"
STATE_DIR = "/var/lib/volumes"
CACHE_SIZE = "20Gi"

_CACHE_LIMIT_VARIABLE = "VOLUME_CACHE_LIMIT"
_STATE_VOLUME, _DEVICE_VOLUME = "volume-state", "fuse-device"
_DEVICE_PATH = "/dev/fuse"
# The first makes a mount; by the others what is in it is read, copied up and removed, whatever its owners and modes.
_MOUNTS, _REACHES = "SYS_ADMIN", ("CHOWN", "DAC_OVERRIDE", "FOWNER")
_APPARMOR_ANNOTATION = "container.apparmor.security.beta.kubernetes.io/"

# The quantities of Kubernetes: a decimal number, then a binary or a decimal unit or an exponent.
_QUANTITY = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE]|[eE][+-]?\d+)?")
_UNITS = {
    **{unit + "i": Decimal(1 << (10 * power)) for power, unit in enumerate("KMGTPE", 1)},
    **{unit: Decimal(1000) ** power for power, unit in zip((-3, -2, -1, 1, 2, 3, 4, 5, 6), "numkMGTPE", strict=True)},
}
_PLAIN_RESOURCES = {"cpu", "memory", "ephemeral-storage"}  # any other name has a domain before a slash
_QUALIFIED = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-\w.]*[A-Za-z0-9])?")

Quantity = str | int | float


class PodOptions(TypedDict, total=False):
    """What a pod is prepared with.

    device: the extended resource by which the cluster's device plugin hands out /dev/fuse (`smarter-devices/fuse`)
    privileged: where there is no such plugin: a privileged container, and the node's /dev/fuse.  (The node's
        device alone, without privilege, is of no use: the container's device rules forbid to open it.)
    cache_size: of the emptyDir for uncommitted work and the cache, a quantity of bytes (`20Gi`).  Kubernetes evicts
        the pod that exceeds it, so the cache is told to keep to half of it.  None: as much as the node has.  By
        default what the pod says already, else 20Gi
    state_dir: where that emptyDir is mounted, and VOLUME_STATE_DIR points; by default where the container's own
        VOLUME_STATE_DIR points, else /var/lib/volumes.  If something is mounted there already it is left as it is
    run_as_user: the user id of the container.  By default what the pod says, else 0: for anybody else
        CAP_SYS_ADMIN is not effective, and mounts are made by the setuid programs of the package fuse3.  None: the
        image's user
    apparmor_unconfined: whether to lift AppArmor's profile, where the node's default one forbids mount(2)
    requests, limits: quantities by Kubernetes' names of resources, merged with those of the container
    """

    device: str
    privileged: bool
    cache_size: str | int | None
    state_dir: str
    run_as_user: int | None
    apparmor_unconfined: bool
    requests: Mapping[str, Quantity]
    limits: Mapping[str, Quantity]


class PreparedPod(NamedTuple):
    """A PodSpec as a dictionary, and the annotations that its pod needs besides."""

    spec: dict[str, Any]
    annotations: dict[str, str]


def prepared(spec: Mapping[str, Any], container: str = PRIMARY, **options: Unpack[PodOptions]) -> PreparedPod:
    """Return *spec* with all that its *container* needs to mount volumes.

    Raises VolumeError, naming what is in the way, where *spec* has no such container, says the contrary of what is
    needed, or a quantity is none; TypeError for an option there is not.
    """
    if unknown := options.keys() - PodOptions.__annotations__.keys():
        raise TypeError(f"there is no option {', '.join(sorted(unknown))} of a pod")
    pod: dict[str, Any] = copy.deepcopy(dict(spec))
    mine = _found(pod, container)
    _with_resources(mine, options)
    if options.get("privileged", False):
        _with_privilege(pod, mine)
    else:
        _with_device(mine, options.get("device", DEVICE))
    _with_capability(mine)
    _with_user(pod, mine, options)
    _with_state(pod, mine, options)
    annotations = _without_apparmor(mine) if options.get("apparmor_unconfined", False) else {}
    plugins().pod(pod)
    _with_text_for_quantities(pod)
    return PreparedPod(pod, annotations)


def quantity(value: object, what: str) -> Decimal:
    """Return the number that *value*, a quantity of Kubernetes, stands for.

    Raises VolumeError, naming *what* it is of, where it is none or less than nothing.
    """
    text = str(value)
    match = None if isinstance(value, bool) else _QUANTITY.fullmatch(text)
    if match is None:
        raise VolumeError(f"{what} is {value!r}: give a quantity of Kubernetes, such as 2, 500m, 4Gi")
    unit = match[2] or ""
    factor = Decimal(f"1{unit}") if unit[:1] in {"e", "E"} and unit[1:] else _UNITS.get(unit, Decimal(1))
    return Decimal(match[1]) * factor


def _found(spec: dict[str, Any], name: str) -> dict[str, Any]:
    containers = spec.get("containers") or []
    for each in containers:
        if each.get("name") == name:
            found: dict[str, Any] = each
            return found
    there = ", ".join(repr(each.get("name")) for each in containers) or "none"
    raise VolumeError(f"the pod has no container {name!r}; there is {there}")


# -- resources


def merged_resources(there: Mapping[str, Any] | None, asked: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a container's resources: what is *there*, overruled by what is *asked*, name by name.

    Raises VolumeError where a request would be more than its limit.
    """
    there, asked = there or {}, asked or {}
    merged = {**there, **asked}
    for kind in ("requests", "limits"):
        merged[kind] = {**(there.get(kind) or {}), **(asked.get(kind) or {})}
    for name, value in merged["requests"].items():
        limit = merged["limits"].get(name, value)
        if quantity(value, f"requests[{name!r}]") > quantity(limit, f"limits[{name!r}]"):
            raise VolumeError(f"requests[{name!r}] is {value}, more than its limit of {limit}")
    return merged


def _with_resources(mine: dict[str, Any], options: PodOptions) -> None:
    asked = {"requests": options.get("requests") or {}, "limits": options.get("limits") or {}}
    for kind, amounts in asked.items():
        for name, value in amounts.items():
            _check_resource_name(name, kind)
            quantity(value, f"{kind}[{name!r}]")
    mine["resources"] = merged_resources(mine.get("resources"), asked)


def _check_resource_name(name: str, kind: str) -> None:
    if name in _PLAIN_RESOURCES or name.startswith("hugepages-") or _QUALIFIED.fullmatch(name):
        return
    raise VolumeError(
        f"{kind}[{name!r}]: Kubernetes knows no such resource; there are {', '.join(sorted(_PLAIN_RESOURCES))}, "
        "and those of device plugins, such as nvidia.com/gpu"
    )


def _with_device(mine: dict[str, Any], device: str) -> None:
    if not _QUALIFIED.fullmatch(device):
        raise VolumeError(
            f"device is {device!r}: give the resource that the cluster's device plugin advertises, such as {DEVICE}"
        )
    for kind in ("requests", "limits"):
        # Kubernetes wants both to be the same for what a device plugin hands out.
        mine["resources"][kind].setdefault(device, "1")
    amounts = {quantity(mine["resources"][kind][device], device) for kind in ("requests", "limits")}
    if len(amounts) > 1 or min(amounts) < 1:
        raise VolumeError(f"the container's requests and limits of {device} differ, or are less than 1: leave them out")


# -- privileges


def _security(mine: dict[str, Any]) -> dict[str, Any]:
    if mine.get("securityContext") is None:
        mine["securityContext"] = {}
    security: dict[str, Any] = mine["securityContext"]
    return security


def _with_privilege(spec: dict[str, Any], mine: dict[str, Any]) -> None:
    security = _security(mine)
    for field in ("privileged", "allowPrivilegeEscalation"):
        if security.get(field) is False:
            raise VolumeError(
                f"the container's securityContext says {field}: false, which a privileged one cannot have: "
                "leave it out, or use a device plugin (device=) instead of privileged=True"
            )
    security["privileged"] = True
    if _mounted_at(mine, _DEVICE_PATH) in {None, _DEVICE_VOLUME}:
        _mount(spec, mine, _DEVICE_VOLUME, _DEVICE_PATH, hostPath={"path": _DEVICE_PATH, "type": "CharDevice"})


def _with_capability(mine: dict[str, Any]) -> None:
    """Add what a container does not have by itself; where it drops everything, also what it would have had."""
    capabilities = _security(mine).setdefault("capabilities", {})
    added, dropped = list(capabilities.get("add") or []), set(capabilities.get("drop") or [])
    for name in (_MOUNTS, *_REACHES) if "ALL" in dropped else (_MOUNTS,):
        if not {name, f"CAP_{name}", "ALL"}.intersection(added):
            added.append(name)
    for name in (_MOUNTS, *_REACHES):
        if not dropped.isdisjoint({name, f"CAP_{name}"}):
            raise VolumeError(f"the container drops the capability {name}, and a mount needs it: leave that out")
    capabilities["add"] = added


def _with_user(spec: dict[str, Any], mine: dict[str, Any], options: PodOptions) -> None:
    security, of_pod = _security(mine), spec.get("securityContext") or {}
    user = options.get("run_as_user", security.get("runAsUser", of_pod.get("runAsUser", 0)))
    if user is not None and (isinstance(user, bool) or not isinstance(user, int) or user < 0):
        raise VolumeError(f"run_as_user is {user!r}: give a user id, such as 0 or 1000, or None for the image's user")
    if user is None:
        security.pop("runAsUser", None)
    else:
        security["runAsUser"] = user
    if user == 0:
        if security.get("runAsNonRoot", of_pod.get("runAsNonRoot")):
            raise VolumeError(
                "the pod says runAsNonRoot: true, and root is to make the mounts: leave it out, or give run_as_user= "
                "with the id of a user, for whom the setuid program of the package fuse3 mounts"
            )
    elif security.get("allowPrivilegeEscalation") is False:
        raise VolumeError(
            "the container says allowPrivilegeEscalation: false, so that fusermount3 gets no privilege and a user who "
            "is not root cannot mount: leave it out, or give run_as_user=0"
        )
    else:
        security["allowPrivilegeEscalation"] = True


def _without_apparmor(mine: dict[str, Any]) -> dict[str, str]:
    """Lift the profile by the field, which Kubernetes knows from 1.30 on, and by the annotation of older ones."""
    profile = _security(mine).setdefault("appArmorProfile", {"type": "Unconfined"})
    if profile.get("type") != "Unconfined":
        raise VolumeError(
            f"the container asks for the AppArmor profile {profile}, and for none (apparmor_unconfined): which is it?"
        )
    return {_APPARMOR_ANNOTATION + mine["name"]: "unconfined"}


# -- the disk


def _with_state(spec: dict[str, Any], mine: dict[str, Any], options: PodOptions) -> None:
    state_dir = _state_dir(mine, options.get("state_dir"))
    if _mounted_at(mine, state_dir) not in {None, _STATE_VOLUME}:
        return  # somebody's own disk
    there = next((each["emptyDir"] for each in spec.get("volumes") or [] if _is_state(each)), None)
    before = CACHE_SIZE if there is None else there.get("sizeLimit")
    size = options.get("cache_size", before)
    disk: dict[str, Any] = {}
    if size is not None:
        size_bytes = quantity(size, "cache_size")
        _check_disk(mine, size, size_bytes)
        disk["sizeLimit"] = str(size)
        _set_variable(mine, _CACHE_LIMIT_VARIABLE, _half_of(size), instead_of=before and _half_of(before))
    _mount(spec, mine, _STATE_VOLUME, state_dir, emptyDir=disk)


def _state_dir(mine: dict[str, Any], asked: str | None) -> str:
    """Return where the state lies, absolute; have the container know it."""
    there = next((each for each in mine.get("env") or [] if each["name"] == STATE_DIR_VARIABLE), None)
    said = there.get("value") if there else None
    if there and said is None:
        raise VolumeError(f"the container takes ${STATE_DIR_VARIABLE} from elsewhere: give its value as state_dir=")
    state_dir = asked or said or STATE_DIR
    if not state_dir.startswith("/") or _normal(state_dir) == "/":
        raise VolumeError(f"state_dir is {state_dir!r}: give an absolute path")
    if said is not None and _normal(said) != _normal(state_dir):
        raise VolumeError(f"state_dir is {state_dir!r}, and the container's ${STATE_DIR_VARIABLE} {said!r}")
    _set_variable(mine, STATE_DIR_VARIABLE, state_dir)
    return _normal(state_dir)


def _normal(path: str) -> str:
    """Return the absolute *path* in one spelling (POSIX lets two slashes at its beginning be)."""
    return "/" + posixpath.normpath(path).strip("/")


def _check_disk(mine: dict[str, Any], size: object, size_bytes: Decimal) -> None:
    if size_bytes < 1:
        raise VolumeError(f"cache_size is {size!r}: uncommitted work needs room")
    # What is in an emptyDir counts towards the container's disk.
    if (limit := mine["resources"]["limits"].get("ephemeral-storage")) is None:
        return
    if quantity(limit, "limits['ephemeral-storage']") < size_bytes:
        raise VolumeError(
            f"limits['ephemeral-storage'] is {limit}, less than cache_size, {size}: the pod would be evicted before "
            "its cache is full"
        )


def _is_state(volume: Mapping[str, Any]) -> bool:
    return volume["name"] == _STATE_VOLUME and "emptyDir" in volume


def _half_of(size: object) -> str:
    """Return half of *size*, in bytes."""
    return str(int(quantity(size, "cache_size") / 2))


def _set_variable(mine: dict[str, Any], name: str, value: str, instead_of: str | None = None) -> None:
    """Give the container a variable, if it has none of that name or one that says *instead_of*."""
    env = [each for each in mine.get("env") or [] if each != {"name": name, "value": instead_of}]
    if not any(each["name"] == name for each in env):
        env.append({"name": name, "value": value})
    mine["env"] = env


def _mounted_at(mine: dict[str, Any], path: str) -> str | None:
    """Return the name of the pod's volume that *mine* has at *path*; None if there is none."""
    at = {_normal(each["mountPath"]): each["name"] for each in mine.get("volumeMounts") or []}
    return at.get(path)


def _mount(spec: dict[str, Any], mine: dict[str, Any], name: str, path: str, **source: dict[str, Any]) -> None:
    """Give the pod the volume *name* from *source*, and *mine* its mount at *path*."""
    volumes = list(spec.get("volumes") or [])
    for at, each in enumerate(volumes):
        if each["name"] == name:
            if each.keys() != {"name", *source}:
                raise VolumeError(f"the pod has another volume called {name!r}: give that another name")
            volumes[at] = {"name": name, **source}
            break
    else:
        volumes.append({"name": name, **source})
    spec["volumes"] = volumes
    if _mounted_at(mine, path) is None:
        mine["volumeMounts"] = [*(mine.get("volumeMounts") or []), {"name": name, "mountPath": path}]


def _with_text_for_quantities(spec: dict[str, Any]) -> None:
    """Kubernetes reads numbers too, but its schema, and what is made from it, knows text alone."""
    for container in (*(spec.get("initContainers") or []), *(spec.get("containers") or [])):
        resources = container.get("resources") or {}
        for kind in ("requests", "limits"):
            if resources.get(kind):
                resources[kind] = {name: str(value) for name, value in resources[kind].items()}
            else:
                resources.pop(kind, None)

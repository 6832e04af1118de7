"""Container images in which tasks can mount volumes, for flytekit's ImageSpec and for flyte.Image.

    image = with_volume_deps(ImageSpec(name="train", registry="ghcr.io/team", packages=["torch"]))

What a mount needs of an image: this package; the package fuse3, whose setuid program mounts for users who are not root;
and fuse-overlayfs, with which they write.  Both SDKs' images end as such a user.  The rest is the pod's
(fuse_pod_template).

Always true: what is given is not changed, and what it has already is not added again; neither SDK is imported here.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from volume_core import VolumeError

Image = TypeVar("Image")

_APT = ("fuse3", "fuse-overlayfs")
# So that other users of the container, too, see what one who is not root has mounted.
_ALLOW_OTHER = "grep -qx user_allow_other /etc/fuse.conf || echo user_allow_other >> /etc/fuse.conf"
_EXTRAS = {"flytekit": "flyte", "flyte": "flyte2"}
_LOCKED = ("uv.lock", "poetry.lock")


def with_volume_deps(image: Image, *, package: str | None = "") -> Image:
    """Return *image*, an ImageSpec of flytekit or a flyte.Image, with all that tasks need to mount volumes in it.

    That is: the Debian packages fuse3 and fuse-overlayfs, `user_allow_other` in /etc/fuse.conf, and volume-core with
    what pod templates need, in the version that is installed here.  *package* is what pip shall install instead: a
    requirement, a URL, a wheel; None for nothing, where *image* has it already.

    Raises VolumeError for any other object, and for an ImageSpec whose `requirements` are a lock file, if *package*
    is not None: flytekit adds nothing to what is locked.
    """
    return _extended(image, package, {})


def with_high_throughput_volume_deps(image: Image, *, package: str | None = "", cache_limit: str = "100G") -> Image:
    """Return *image* as with_volume_deps does, for tasks that shall be fast or not start.

    No package makes a mount faster: what with_volume_deps installs is all there is.  Two settings are added, as
    environment variables that the pod's own go before:

    VOLUME_DRIVER=kernel: writes go at the speed of the pod's disk, through the kernel's overlay alone.  A pod that
        lacks what this takes (CAP_SYS_ADMIN and its being effective, which is root; a disk for VOLUME_STATE_DIR) gets a
        MountError which says so, where it would otherwise be served by slower drivers.
    VOLUME_CACHE_LIMIT=*cache_limit*: what was read once is read from the pod's disk afterwards, up to this size
        (10G without it).  fuse_pod_template sets one of its own, half of its `cache_size`: that is then what to raise.
    """
    return _extended(image, package, {"VOLUME_DRIVER": "kernel", "VOLUME_CACHE_LIMIT": cache_limit})


def _extended(image: Image, package: str | None, env: Mapping[str, str]) -> Image:
    sdk = type(image).__module__.partition(".")[0]
    if sdk not in _EXTRAS or not hasattr(image, "with_apt_packages"):
        raise VolumeError(f"image is a {type(image).__name__}: give an ImageSpec of flytekit, or a flyte.Image")
    if package is not None:
        package = package or _this_package(_EXTRAS[sdk])
    made = _of_flytekit(image, package, env) if sdk == "flytekit" else _of_flyte(image, package, env)
    return cast("Image", made)


def _this_package(extra: str) -> str:
    return f"volume-core[{extra},kubernetes]=={importlib.metadata.version('volume-core')}"


def _of_flytekit(image: Any, package: str | None, env: Mapping[str, str]) -> Any:
    locked = os.path.basename(image.requirements or "")
    if package is not None and locked in _LOCKED:
        raise VolumeError(
            f"the image's packages are those of {locked}, to which flytekit adds none: have {package} in there, "
            "and give package=None"
        )
    image = image.with_apt_packages([name for name in _APT if name not in (image.apt_packages or ())])
    if _ALLOW_OTHER not in (image.commands or ()):
        image = image.with_commands([_ALLOW_OTHER])
    if package is not None and package not in (image.packages or ()):
        image = image.with_packages([package])
    return dataclasses.replace(image, env={**env, **(image.env or {})} or None)


def _of_flyte(image: Any, package: str | None, env: Mapping[str, str]) -> Any:
    def has(field: str, value: str) -> bool:
        return any(value in (getattr(layer, field, None) or ()) for layer in image._layers)

    if missing := [name for name in _APT if not has("packages", name)]:
        image = image.with_apt_packages(*missing)
    if not has("commands", _ALLOW_OTHER):
        image = image.with_commands([_ALLOW_OTHER])
    if package is not None and not has("packages", package):
        image = image.with_pip_packages(package)
    said = {name for layer in image._layers for name, _ in getattr(layer, "env_vars", ())}
    if missing_env := {name: value for name, value in env.items() if name not in said}:
        image = image.with_env_vars(missing_env)
    return image

"""What the section `[volume]` of Airflow's configuration says of pods.

    [volume]
    pod_override = True              # tasks that use volumes get pods that can mount
    pod_privileged = False           # no device plugin: privileged, and the node's device
    pod_device = smarter-devices/fuse
    pod_cache_size = 20Gi            # `none`: as much as the node has
    pod_state_dir = /var/lib/volumes
    pod_run_as_user = 50000          # `image`: the image's user
    pod_apparmor_unconfined = False

Always true: what is not said, or is empty, is left to volume_core.pods; to ask loads no volumes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from volume_core.errors import VolumeError

if TYPE_CHECKING:
    from volume_core.pods import PodOptions

SECTION = "volume"
_TRUTHS = {"true": True, "t": True, "1": True, "yes": True, "false": False, "f": False, "0": False, "no": False}


def pods_are_marked() -> bool:
    """Whether tasks that use volumes get marked pods: an executor here makes pods, and nobody has said no."""
    return _makes_pods(_text("core", "executor")) and _boolean("pod_override", default=True)


def pod_options() -> PodOptions:
    """Return what pods are prepared with, unless a task says something else.

    Raises VolumeError for a setting that is of no use.
    """
    options: PodOptions = {}
    if _boolean("pod_privileged", default=False):
        options["privileged"] = True
    if device := _text(SECTION, "pod_device"):
        options["device"] = device
    if state_dir := _text(SECTION, "pod_state_dir"):
        options["state_dir"] = state_dir
    if size := _text(SECTION, "pod_cache_size"):
        options["cache_size"] = None if size.lower() == "none" else size
    if user := _text(SECTION, "pod_run_as_user"):
        options["run_as_user"] = None if user.lower() == "image" else _user(user)
    if _boolean("pod_apparmor_unconfined", default=False):
        options["apparmor_unconfined"] = True
    return options


def _makes_pods(executors: str) -> bool:
    # It is a list with aliases, modules and teams in it, and a site may have an executor that derives from Airflow's.
    return any(word in executors.lower() for word in ("kubernetes", "k8s"))


def _text(section: str, key: str) -> str:
    from airflow.configuration import conf

    found: Any = conf.get(section, key, fallback="")
    return str(found or "").strip()


def _boolean(key: str, *, default: bool) -> bool:
    text = _text(SECTION, key).lower()
    if text and text not in _TRUTHS:
        raise VolumeError(f"[{SECTION}] {key} is {text!r} in Airflow's configuration: give True or False")
    return _TRUTHS.get(text, default)


def _user(text: str) -> int:
    if not text.isdecimal():
        raise VolumeError(
            f"[{SECTION}] pod_run_as_user is {text!r} in Airflow's configuration: give a user's id, such as 50000, or "
            "image for the image's user"
        )
    return int(text)

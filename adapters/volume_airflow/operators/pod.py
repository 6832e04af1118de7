"""KubernetesPodOperator for commands that work on volumes.

    versions={"DATA": version}    the container's $DATA is the version's locator, and its pod can mount it: for images
                                  that have this package
    files={"/data": version}      the version's files are there before the container starts: for every image
    return.json: {"volume": ...}  what the container made, as a locator, is a version for the next task

Why an init container copies files, and no sidecar mounts them: a mount reaches another container only from a
privileged one, and a container beside the main one keeps the pod from ending.

Always true: the task's own process mounts nothing; locators, never credentials, are handed to the pod; what the
operator was given is not changed by making a pod of it, so a second try makes the same pod.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from kubernetes.client import models  # type: ignore[import-untyped]
from pydantic import ValidationError

from volume_airflow.pods import annotation
from volume_core import InvalidNameError, ROVolume, VolumeError
from volume_core.pods import PodOptions

MARKER = "volume"
_STATE_DIR = "/tmp/volumes"  # of an init container: any user can write there


class VolumePodOperator(KubernetesPodOperator):
    """Run a command in a pod, with volumes.

    What stands for a volume is what a task with an ROVolume parameter takes: the output of a task, a locator, a name, a
    `vol://` URL; each may be a template.

    :param versions: by names of environment variables: the container has the locator in it, and can mount it, for
        example by `volume mount $DATA /data --detach`. (templated)
    :param files: by absolute paths: the files of the version are copied to them, into an emptyDir, before the container
        starts. What is changed there is nobody's. (templated)
    :param volume_image: an image with this package and its command `volume`, for *files*; it gets the container's
        environment variables, so that it has the same credentials. (templated)
    :param pod_options: what volume_core.pods.PodOptions says of a pod that mounts; without it what the section
        `[volume]` of Airflow's configuration says. Given and empty, it prepares a pod whose command opens volumes by
        itself

    With `do_xcom_push`, an object `{"volume": WHAT}` in the container's return.json, alone or within others, is that
    version for the tasks downstream.

    Raises InvalidNameError, NotFoundError or StorageError for what stands for no volume, before there is a pod;
    VolumeError where *files* are to be copied and there is no *volume_image*.
    """

    template_fields = (*KubernetesPodOperator.template_fields, "versions", "files", "volume_image")
    mounts_volumes = False

    def __init__(
        self,
        *,
        versions: Mapping[str, Any] | None = None,
        files: Mapping[str, Any] | None = None,
        volume_image: str | None = None,
        pod_options: PodOptions | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.versions = versions
        self.files = files
        self.volume_image = volume_image
        self.pod_options = pod_options

    def build_pod_request_obj(self, *args: Any, **kwargs: Any) -> Any:
        """Return the V1Pod; see KubernetesPodOperator."""
        with self._with_volumes():
            return super().build_pod_request_obj(*args, **kwargs)

    def extract_xcom(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the container has written to return.json, with versions for markers."""
        return versions_for_markers(super().extract_xcom(*args, **kwargs))

    @contextlib.contextmanager
    def _with_volumes(self) -> Iterator[None]:
        """Have the fields that a pod is made from say what the volumes need as well."""
        names = ("env_vars", "annotations", "init_containers", "volumes", "volume_mounts")
        before = {name: getattr(self, name) for name in names}
        try:
            handed = {name: _version(value, f"versions[{name!r}]") for name, value in (self.versions or {}).items()}
            env = [models.V1EnvVar(name=name, value=version.locator) for name, version in handed.items()]
            for at, (path, value) in enumerate(sorted((self.files or {}).items())):
                self._copy(path, _version(value, f"files[{path!r}]"), f"volume-files-{at}")
            self.env_vars = [*_variables(self.env_vars), *env]
            if self.versions or self.pod_options is not None:
                options = self.pod_options or PodOptions()
                self.annotations = {**(self.annotations or {}), **annotation(self.base_container_name, **options)}
            yield
        finally:
            for name, value in before.items():
                setattr(self, name, value)

    def _copy(self, path: str, version: ROVolume, name: str) -> None:
        if not path.startswith("/") or path.strip("/") == "":
            raise VolumeError(f"files[{path!r}]: give an absolute path of the container, such as /data")
        if not self.volume_image:
            raise VolumeError(
                f"files[{path!r}]: give volume_image=, an image in which this package is installed, to copy them with"
            )
        env, env_from = self._credentials()
        self.init_containers = [
            *(self.init_containers or []),
            models.V1Container(
                name=name,
                image=self.volume_image,
                command=["volume", "get", "--force", f"{version.locator}:/", path],
                env=[*env, models.V1EnvVar(name="VOLUME_STATE_DIR", value=_STATE_DIR)],
                env_from=env_from,
                volume_mounts=[models.V1VolumeMount(name=name, mount_path=path)],
                security_context=self.container_security_context,
            ),
        ]
        self.volumes = [*(self.volumes or []), models.V1Volume(name=name, empty_dir=models.V1EmptyDirVolumeSource())]
        self.volume_mounts = [*(self.volume_mounts or []), models.V1VolumeMount(name=name, mount_path=path)]

    def _credentials(self) -> tuple[list[Any], list[Any]]:
        """Return what the container has of environment variables: its own, and those from secrets."""
        like = models.V1Container(name="like", env=_variables(self.env_vars), env_from=list(self.env_from or []))
        pod = models.V1Pod(spec=models.V1PodSpec(containers=[like]))
        for secret in self.secrets or []:
            if secret.deploy_type == "env":
                pod = secret.attach_to_pod(pod)
        made = pod.spec.containers[0]
        return [each for each in made.env if each.name != "VOLUME_STATE_DIR"], made.env_from


def versions_for_markers(value: Any) -> Any:
    """Return *value*, of JSON, with an ROVolume for each object `{"volume": WHAT}` in it.

    Raises InvalidNameError or NotFoundError where WHAT stands for no volume.
    """
    if isinstance(value, dict):
        if value.keys() == {MARKER} and isinstance(value[MARKER], str):
            return _version(value[MARKER], "the container's return.json")
        return {key: versions_for_markers(each) for key, each in value.items()}
    if isinstance(value, list):
        return [versions_for_markers(each) for each in value]
    return value


def _version(value: Any, what: str) -> ROVolume:
    try:
        return ROVolume.model_validate(value)
    except ValidationError as error:
        said = "; ".join(each["msg"] for each in error.errors(include_input=False, include_url=False))
        raise InvalidNameError(f"{what}: {said}") from error
    except VolumeError as error:
        error.add_note(f"this is {what}")
        raise


def _variables(given: Any) -> list[Any]:
    """Return an operator's env_vars, a dictionary or a list, as a list."""
    if isinstance(given, Mapping):
        return [models.V1EnvVar(name=name, value=value) for name, value in given.items()]
    return list(given or [])

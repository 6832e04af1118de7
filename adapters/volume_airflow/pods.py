"""Which tasks' pods are prepared for mounts, and how; of KubernetesExecutor as of KubernetesPodOperator.

A pod that shall be able to mount has an annotation, `volume-core/pod`, whose JSON says what is special about it (mostly
nothing).  `mark` gives it to tasks that use volumes, `volume_pod_override` to those that somebody chooses, and
`prepare` sees it when the pod is about to be created, with all that templates and overrides say in it.

Always true: what a pod needs is decided in volume_core.pods, and what the pod says already stays, or the task fails
with the reason; what a DAG is serialized as does not depend on the site's settings; done twice is done once; objects
that a DAG's author has made are never changed.
"""

from __future__ import annotations

import copy
import importlib.util
import inspect
import json
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Unpack

from volume_airflow.podsettings import pod_options
from volume_core.errors import VolumeError

if TYPE_CHECKING:
    from volume_core.pods import PodOptions

ANNOTATION = "volume-core/pod"
BASE = "base"  # the container in which Airflow runs a task, whatever the template calls it

# What the options are called here: volume_core.pods knows its own names for them.
_SETTINGS = (
    "(These options are pod_... in the section [volume] of Airflow's configuration. A task that mounts nothing, or has "
    "enough with the driver copy, runs in an ordinary pod with executor_config={'volume_pod': False}.)"
)
_OWN_POD = "KubernetesPodOperator"
_MACRO = "macros.volume."


def volume_pod_override(base: Any = None, **options: Unpack[PodOptions]) -> Any:
    """Return a V1Pod for a task's `executor_config={"pod_override": ...}`, so that its pod can mount volumes.

    Tasks whose annotations say that they use volumes need none.  *options* go before those of the section `[volume]`
    of Airflow's configuration; *base* is what the override says besides, and stays as it is.

    Raises VolumeError where an option is of no use, or the package kubernetes is missing; TypeError for an option
    there is not.
    """
    return _marked(base, annotation(**options))


def annotation(container: str = BASE, **options: Unpack[PodOptions]) -> dict[str, str]:
    """Return the annotation of a pod whose *container* shall be able to mount volumes.

    Raises what `volume_pod_override` does.
    """
    if options:
        from volume_core.pods import prepared

        prepared({"containers": [{"name": container}]}, container, **options)  # says what is wrong where it is written
    said = {name: dict(value) if name in {"requests", "limits"} else value for name, value in options.items()}  # type: ignore[call-overload]
    if container != BASE:
        said["container"] = container
    return {ANNOTATION: json.dumps(said, sort_keys=True)}


# -- tasks


def mark(task: Any) -> None:
    """Have the pod of *task* prepared, if *task* uses volumes."""
    if importlib.util.find_spec("kubernetes") is None or not uses_volumes(task):
        return
    config = dict(task.executor_config or {})
    override = config.get("pod_override")
    if config.get("volume_pod") is False or "KubernetesExecutor" in config:
        return
    if override is not None and (not hasattr(override, "metadata") or ANNOTATION in _annotations(override)):
        return  # Airflow says what is wrong with it; or somebody has said what is special
    config["pod_override"] = _marked(override, annotation())
    if hasattr(task, "partial_kwargs"):
        task.partial_kwargs["executor_config"] = config
    else:
        task.executor_config = config


def uses_volumes(task: Any) -> bool:
    """Whether *task*, as its DAG's file has it, mounts volumes where it runs.

    An operator says so by an attribute `mounts_volumes`, True or False.  Else a task uses volumes if its function is
    annotated with them or is decorated with `mounts`, if it is given the output of a task that returns them (which an
    operator says by an attribute `returns_volumes`), or if a template of it mounts them.
    """
    kind = _class_of(task)
    said = getattr(kind, "mounts_volumes", None)
    if said is not None:
        return bool(said)
    if any(each.__name__ == _OWN_POD for each in kind.__mro__):
        return False  # its function, or its command, runs in another pod than the task
    function = _function_of(task)
    if function is not None and (getattr(function, "mounts_volumes", False) or _takes(function) or _returns(function)):
        return True
    return any(_gives_volumes(each) for each in _given_by(task)) or any(_mounts(each) for each in _fields(task))


def _class_of(task: Any) -> type:
    kind = getattr(task, "operator_class", None)  # of a mapped one
    return kind if isinstance(kind, type) else type(task)


def _function_of(task: Any) -> Callable[..., Any] | None:
    given = getattr(task, "partial_kwargs", {}).get("python_callable", getattr(task, "python_callable", None))
    return given if callable(given) else None


def _gives_volumes(task: Any) -> bool:
    if getattr(_class_of(task), "returns_volumes", False):
        return True
    function = _function_of(task)
    return function is not None and _returns(function)


def _takes(function: Callable[..., Any]) -> bool:
    if not _may_be_annotated(function):
        return False
    from volume_core.passing import takes_volumes

    return takes_volumes(function)


def _returns(function: Callable[..., Any]) -> bool:
    if not _may_be_annotated(function):
        return False
    from volume_core.passing import returns_volumes

    return returns_volumes(function)


def _may_be_annotated(function: Callable[..., Any]) -> bool:
    """Whether an annotation of *function* may be a volume.  Where these are not loaded, only text can."""
    annotations = getattr(inspect.unwrap(function), "__annotations__", {}).values()
    return "volume_core.volumes" in sys.modules or any(
        "Volume" in each for each in annotations if isinstance(each, str)
    )


def _given_by(task: Any) -> Iterator[Any]:
    """Yield the tasks whose outputs *task* is given."""
    try:
        from airflow.sdk.definitions.xcom_arg import XComArg
    except ImportError:
        from airflow.models.xcom_arg import XComArg

    if hasattr(task, "partial_kwargs"):
        yield from task.iter_mapped_dependencies()
    for value in _fields(task):
        for operator, _key in XComArg.iter_xcom_references(value):
            yield operator


def _fields(task: Any) -> list[Any]:
    """Return what *task*'s templates are, or of a mapped one all that its instances have in common."""
    if hasattr(task, "partial_kwargs"):
        return list(task.partial_kwargs.values())
    return [getattr(task, field, None) for field in task.template_fields]


def _mounts(field: Any) -> bool:
    """Whether a template in *field* calls the macro that mounts."""
    if isinstance(field, str):
        return _MACRO in field
    if isinstance(field, dict):
        return any(_mounts(each) for each in field.values())
    return isinstance(field, list | tuple) and any(_mounts(each) for each in field)


# -- pods


def prepare(pod: Any) -> None:
    """Change the V1Pod *pod*, if it is marked, into one whose container can mount.

    Raises VolumeError, naming what is in the way: Airflow then fails the task and says so.
    """
    text = _annotations(pod).get(ANNOTATION)
    if text is None:
        return
    from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator

    from volume_core.pods import prepared

    options = {**pod_options(), **_said(text)}
    container = options.pop("container", BASE)
    fields = PodGenerator.serialize_pod(pod)
    try:
        made = prepared(fields["spec"], container, **options)
    except VolumeError as error:  # the scheduler logs the text alone
        raise VolumeError(f"{error} {_SETTINGS}") from error
    pod.spec = PodGenerator.deserialize_model_dict({**fields, "spec": made.spec}).spec
    pod.metadata.annotations = {**_annotations(pod), **made.annotations}


def _said(text: str) -> dict[str, Any]:
    from volume_core.pods import PodOptions

    try:
        said = json.loads(text)
    except ValueError:
        said = None
    if not isinstance(said, dict) or (unknown := said.keys() - {"container", *PodOptions.__annotations__}):
        wrong = "is no JSON object" if not isinstance(said, dict) else f"has {', '.join(sorted(unknown))}"
        raise VolumeError(
            f"the pod's annotation {ANNOTATION} {wrong}: give options of volume_core.pods.PodOptions, or leave it to "
            "volume_airflow.pods.annotation"
        )
    return said


def _annotations(pod: Any) -> dict[str, str]:
    return (pod.metadata and pod.metadata.annotations) or {}


def _marked(pod: Any, marks: dict[str, str]) -> Any:
    """Return a copy of the V1Pod *pod*, or an empty one, with *marks*."""
    try:
        from kubernetes.client import models  # type: ignore[import-untyped]
    except ModuleNotFoundError as error:
        raise VolumeError(
            "pods are described with the package kubernetes, which is not installed: "
            "pip install 'volume-core[airflow,kubernetes]'"
        ) from error
    made = models.V1Pod() if pod is None else copy.deepcopy(pod)
    if made.metadata is None:
        made.metadata = models.V1ObjectMeta()
    made.metadata.annotations = {**(made.metadata.annotations or {}), **marks}
    return made

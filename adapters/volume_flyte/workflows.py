"""`workflow_mounts`: one decorator that has volumes mounted in all tasks of a workflow, or of an environment.

Always true: neither SDK is imported here; what is decorated is of one that is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, Unpack, cast

from volume_core import BlockOptions, LazyVolume, Volume, VolumeError
from volume_core.facade.mounts import StrPath
from volume_flyte.mounting import Mounting

T = TypeVar("T")


class workflow_mounts:
    """Have volumes mounted in every task of a workflow (flytekit) or of an environment (flyte 2).

        @workflow_mounts({"/volumes/logs": Volume.from_name_lazy("logs", create_if_missing=True)})
        @workflow
        def pipeline() -> int: ...

        env = workflow_mounts({...})(flyte.TaskEnvironment("pipeline"))

    *volumes* are named ones and versions, by the path at which each task has them; *options* those of
    volume_core.mounts.  Each task commits what it wrote when it has ended well.  *pod_template* is for the tasks that
    have none.

    Raises VolumeError for a writer (RWVolume), which is one process's, for paths that lie in one another, and for what
    is neither a workflow nor an environment.
    """

    def __init__(
        self,
        volumes: Mapping[StrPath, Volume | LazyVolume],
        *,
        pod_template: Any = None,
        **options: Unpack[BlockOptions],
    ) -> None:
        self._mounting = Mounting(volumes, **options)
        self._pod_template = pod_template

    def __call__(self, target: T) -> T:
        """Return *target*, which is changed."""
        kinds = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(target).__mro__}
        if "flytekit.PythonFunctionWorkflow" in kinds:
            from volume_flyte.v1.workflows import mounting_workflow

            return cast("T", mounting_workflow(target, self._mounting, self._pod_template))
        if "flyte.TaskEnvironment" in kinds:
            from volume_flyte.v2.environments import mounting_environment

            return cast("T", mounting_environment(cast("Any", target), self._mounting, self._pod_template))
        raise VolumeError(
            f"{getattr(target, '__name__', None) or type(target).__name__} is neither a workflow of flytekit nor a "
            "TaskEnvironment of flyte: put workflow_mounts above @workflow, or call it with the environment; for one "
            "task there is volume_core.mounts, below its decorator"
        )

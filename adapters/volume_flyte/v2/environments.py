"""Volumes that every task of an environment of flyte 2 has mounted, though none of the tasks says so.

Always true: a container imports the module of the task, so what mounts them is in the environment that is made there;
tasks that were defined before are found and changed, those defined afterwards are made with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self, cast

from flyte import PodTemplate, TaskEnvironment

from volume_core import VolumeError
from volume_flyte.mounting import Mounting


class MountingEnvironment(TaskEnvironment):
    """An environment whose tasks have volumes mounted."""

    mounting: Mounting

    @classmethod
    def made_of(cls, environment: TaskEnvironment, mounting: Mounting) -> Self:
        """Make *environment* itself one: tasks and other environments refer to it."""
        environment.__class__ = cls
        made = cast("Self", environment)
        made.mounting = mounting
        for task in made.tasks.values():
            if not hasattr(task, "func"):
                raise VolumeError(f"task {task.name} is no function, so nothing can be mounted while it runs")
            task.func = mounting.around(task.func)
        return made

    def task(self, _func: Callable[..., Any] | None = None, **options: Any) -> Any:
        """Make a function a task, as TaskEnvironment.task does."""
        make = super().task
        if _func is not None:
            return make(self.mounting.around(_func))
        return lambda function: make(**options)(self.mounting.around(function))


def mounting_environment(
    environment: TaskEnvironment, mounting: Mounting, pod_template: PodTemplate | None = None
) -> MountingEnvironment:
    """Make *environment* one whose tasks have *mounting*, in pods of *pod_template* where it has none itself.

    Raises VolumeError for one that mounts volumes already, or has tasks that are no functions.
    """
    if isinstance(environment, MountingEnvironment):
        raise VolumeError(f"environment {environment.name} mounts volumes already: name them all in one call")
    if pod_template is not None and environment.pod_template is None:
        environment.pod_template = pod_template
        for task in environment.tasks.values():
            task.pod_template = task.pod_template or pod_template
    return MountingEnvironment.made_of(environment, mounting)

"""What becomes of tasks and pods before they run: the entry point `airflow.policy`.

    a task that uses volumes ──task_policy──> its executor_config has a pod_override with a mark
    template + executor + override = a pod ──pod_mutation_hook──> if it has the mark: one that can mount

Why in two steps: what an override says of a container's resources and security context takes the place of what the
pod template says of them, in silence, so only the whole pod can be added to.

Always true: for tasks and pods that have nothing to do with volumes this loads nothing, and where no executor makes
pods for anyone; the package kubernetes is imported for pods alone.  A site's own policies (airflow_local_settings.py)
come after these and have the last word.
"""

from __future__ import annotations

from typing import Any

from airflow.policies import hookimpl


@hookimpl(tryfirst=True)
def task_policy(task: Any) -> None:
    """A task of a DAG that was read: if it uses volumes and may run in a pod of its own, that pod is marked."""
    from volume_airflow import podsettings

    if podsettings.pods_are_marked():
        from volume_airflow import pods

        pods.mark(task)


@hookimpl(tryfirst=True)
def pod_mutation_hook(pod: Any) -> None:
    """A pod that is about to be created: a marked one gets what a mount needs."""
    if pod.metadata and pod.metadata.annotations:
        from volume_airflow import pods

        pods.prepare(pod)

"""`@task.volume`: the function gets a volume that is mounted; what it has written is committed when it has returned.

    @task.volume(volume="my-dataset")
    def train(epochs: int, vol: RWVolume = None) -> float:
        (vol / "model.bin").write_bytes(...)
        return 0.93

    train(3)              what the function returns; if that is nothing, the version
    train(3)["volume"]    the version

Always true: after an error, or where the task was told to end, nothing is committed, and what was written is kept; it
holds whether or not the plugin's listener is there.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from volume_airflow import calling, taskvolumes
from volume_airflow.compat import DecoratedOperator, PythonOperator, TaskDecorator, task_decorator_factory
from volume_airflow.operators.volume import LINKS, described
from volume_core import RWVolume, VolumeError
from volume_core.facade.blocks import OnTerminate
from volume_core.parts.landing import LandingPolicy

PARAMETER = "vol"
KEY = "volume"


class VolumeDecoratedOperator(DecoratedOperator, PythonOperator):
    """
    Calls a function with a volume that is mounted, and commits it.

    :param volume: the name of a volume, which is made if it is not there; a version, or what stands for one, of which
        it is a fork; or `Volume.from_name_lazy(...)` (templated). Without it, it is named after the DAG and the task
    :param mount_path: where; without it a path of its own
    :param message: of the commit (templated); without it the DAG, the task, the run and the try
    :param driver: the way to mount; without it the one that this machine can
    :param on_conflict: where others have changed the same files meanwhile: `last-write-wins`, `error`, `keep-both`
    :param on_terminate: what SIGTERM does to what was written: `commit` or `keep`
    :param checkpoint_every_s: so often it is committed while the function runs, in seconds
    :param volume_conn_id: the connection of type `volume`; without one where volumes lie by default (templated)
    """

    template_fields: Sequence[str] = (*PythonOperator.template_fields, "volume", "message", "volume_conn_id")
    template_fields_renderers = PythonOperator.template_fields_renderers
    custom_operator_name = "@task.volume"
    operator_extra_links = LINKS
    mounts_volumes = True
    returns_volumes = True

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        volume: Any = None,
        mount_path: str | None = None,
        message: str = "",
        driver: str | None = None,
        on_conflict: LandingPolicy = "last-write-wins",
        on_terminate: OnTerminate | None = None,
        checkpoint_every_s: float | None = None,
        volume_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        _check(python_callable)
        super().__init__(
            kwargs_to_upstream={"python_callable": python_callable, "op_args": op_args, "op_kwargs": op_kwargs},
            python_callable=python_callable,
            op_args=op_args,
            op_kwargs=op_kwargs,
            **kwargs,
        )
        self.volume = volume
        self.mount_path = mount_path
        self.message = message
        self.driver = driver
        self.on_conflict = on_conflict
        self.on_terminate = on_terminate
        self.checkpoint_every_s = checkpoint_every_s
        self.volume_conn_id = volume_conn_id

    def execute(self, context: Any) -> Any:
        """Mount, call the function, commit; return what it has returned, or the version."""
        writer = self._writer(context)
        block: dict[str, Any] = {"message": self.message or described(context)}
        given = {
            "driver": self.driver,
            "on_terminate": self.on_terminate,
            "checkpoint_every": self.checkpoint_every_s,
        }
        block |= {name: value for name, value in given.items() if value is not None}
        with writer.mounted_sync(self.mount_path, **block):
            self.op_kwargs = {**self.op_kwargs, PARAMETER: writer}
            result = super().execute(context)
            if (call := calling.current_call()) is not None:
                # Not left to the end of the block: what a body has committed stays, whatever becomes of its task.
                call.hand_over(writer, block["message"])
            if result is writer:
                result = None
        version = writer.committed or writer.commit_sync(block["message"])
        context["ti"].xcom_push(key=KEY, value=version)
        return version if result is None else result

    def _writer(self, context: Any) -> RWVolume:
        value = self.volume
        if value is None:
            ti = context["ti"]
            value = f"{ti.dag_id}.{ti.task_id}"
        return taskvolumes.opened(value, self.volume_conn_id, on_conflict=self.on_conflict)


def _check(function: Callable[..., Any]) -> None:
    """Say what is wrong with the parameter that the volume is given as, when the DAG is parsed."""
    parameter = inspect.signature(function).parameters.get(PARAMETER)
    name = getattr(function, "__name__", repr(function))
    if parameter is None:
        raise VolumeError(f"@task.volume gives {name} its volume as the parameter {PARAMETER!r}, and it has none")
    if parameter.default is inspect.Parameter.empty:
        raise VolumeError(
            f"the parameter {PARAMETER!r} of {name} needs a default, {PARAMETER}: RWVolume = None, for Airflow binds "
            "the function's arguments when the DAG is parsed"
        )


def volume_task(
    python_callable: Callable[..., Any] | None = None, multiple_outputs: bool | None = None, **kwargs: Any
) -> TaskDecorator:
    """
    Make a task of a function that works on a volume.

    :param python_callable: the function; its parameter `vol` is the volume, mounted, and needs the default None
    :param multiple_outputs: whether each value of a dictionary that it returns is an XCom of its own

    The arguments of VolumeDecoratedOperator, and those of any operator, may be given as well.
    """
    return task_decorator_factory(
        python_callable=python_callable,
        multiple_outputs=multiple_outputs,
        decorated_operator_class=VolumeDecoratedOperator,
        **kwargs,
    )

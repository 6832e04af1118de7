"""What a task's function takes: forks and versions in this run's arguments, before the function is looked at.

Why in the arguments and not around the function: Airflow reads the function's source (for another interpreter), asks
whether it is a coroutine function or a generator, and fills parameters by its signature.

Always true: only the arguments of this run's copy of the operator are changed; each try has forks of its own.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from volume_core import RWVolume
from volume_core.facade.lazies import LazyVolume
from volume_core.passing import Taking, replaced

if TYPE_CHECKING:
    from volume_airflow.calling import Call

_LAZY = frozenset({"LazyXComSequence", "LazyXComSelectSequence"})  # of 3, and before


def taken(call: Call, function: Callable[..., Any]) -> None:
    """Make volumes of what stands for them in the arguments that *call*'s task has for *function*.

    Raises what Taking.taken does.
    """
    task, taking = call.task, Taking(function)

    def swap(name: str, given: Any) -> Any:
        own: dict[int, RWVolume] = {}  # writers of the DAG itself

        def opened(each: Any) -> Any:
            if isinstance(each, LazyVolume):
                each = each.open_sync()
            elif isinstance(each, RWVolume):
                each = copy.copy(each)  # of this try: the one in the DAG may have been another's
            if isinstance(each, RWVolume):
                own[id(each)] = each
            return each

        def ours(each: Any) -> Any:
            if isinstance(each, RWVolume) and id(each) not in own:
                return call.begun(name, each)
            return each

        return replaced(taking.taken(name, replaced(_listed(given), opened)), ours)

    if (swapped := taking.swapped(task.op_args, task.op_kwargs, swap)) is not None:
        args, kwargs = swapped
        object.__setattr__(task, "op_args", args)
        object.__setattr__(task, "op_kwargs", kwargs)


def _listed(given: Any) -> Any:
    """Return *given*; what all of a mapped task returned is a list, for Airflow has it as a sequence of its own."""
    return list(given) if type(given).__name__ in _LAZY else given

"""Volumes as values of a function that another interpreter runs: `@task.external_python`, `@task.virtualenv`.

Airflow sends the function's source there, and what it returns comes back as a pickle; what a writer has not committed
cannot go that way.  So the source that is sent has its function handed over where it runs, by `handing_over` below.

Always true: source that has nothing to do with volumes is sent as it is; where this package is not installed the
function runs as it would without us; nothing here imports Airflow.
"""

from __future__ import annotations

import ast
import functools
import json
import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from volume_airflow.calling import Call
from volume_airflow.running import from_environment

if TYPE_CHECKING:
    from volume_core import ROVolume, RWVolume
    from volume_core.facade.attempts import Attempt
    from volume_core.facade.versions import Version

log = logging.getLogger(__name__)

_MARKS = frozenset({"volumes"})

_TAIL = """
try:
    from volume_airflow.elsewhere import handing_over as _handing_over
except ImportError:
    pass
else:
    {name} = _handing_over({name}, {terms!r})
"""


def source_of(call: Call, source: str) -> str:
    """Return *source*, of the function of *call*'s task, with its volumes as values.  Raises what options are wrong."""
    if "volume" not in source.lower():
        return source
    terms: dict[str, Any] = {"message": call.message, "on_failure": call.options.on_failure}
    if call.options.on_terminate is not None:
        terms["on_terminate"] = call.options.on_terminate
    if bucket := _bucket():
        terms["bucket"] = bucket
    plain, name = _without_marks(source)
    if not name:
        return source
    call.elsewhere = terms["told"] = _new_file()
    return plain + _TAIL.format(name=name, terms=terms)


def _new_file() -> str:
    handle, path = tempfile.mkstemp(prefix="volumes-handed-over-")
    os.close(handle)
    return path


class _Telling(Call):
    """A try whose task is in another process: that is told of each version as soon as it was handed over."""

    path: str | None = None

    def hand_over(self, volume: RWVolume, message: str = "") -> ROVolume:
        """Commit *volume*, as ever, and write down for the task's own process what was handed over so far."""
        version = super().hand_over(volume, message)
        if self.path is not None and self.attempt is not None:
            _tell(self.path, self.attempt)
        return version


def _tell(path: str, attempt: Attempt) -> None:
    text = json.dumps([(str(each.locator), each.place.region) for each in attempt.published()])
    try:
        with open(f"{path}.new", "w") as file:
            file.write(text)
        os.replace(f"{path}.new", path)
    except OSError as error:
        log.warning("the task is not told of what was handed over (%s): no head goes back if it fails later", error)


def told(path: str) -> list[Version]:
    """Return the versions that the other interpreter has handed over, and remove what it has written of that."""
    from volume_core.facade.versions import Place, read_version
    from volume_core.format.names import Locator

    with open(path) as file:
        text = file.read()
    os.unlink(path)
    found = [(Locator.parse(locator), region) for locator, region in json.loads(text or "[]")]
    return [read_version(locator, Place(locator.store, region)) for locator, region in found]


def _bucket() -> str | None:
    """Return where volumes lie by Airflow's settings, which the other interpreter may not be able to read."""
    from volume_airflow.hookimpls import volume_default_bucket

    return volume_default_bucket()


def _without_marks(source: str) -> tuple[str, str]:
    """Return *source* without the decorator `volumes`, which Airflow leaves there, and the function's name."""
    lines = source.splitlines(keepends=True)
    functions = [each for each in ast.parse(source).body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
    if not functions:
        return source, ""
    for decorator in reversed(functions[0].decorator_list):
        called = decorator.func if isinstance(decorator, ast.Call) else decorator
        if getattr(called, "attr", getattr(called, "id", "")) in _MARKS:
            assert decorator.end_lineno is not None
            del lines[decorator.lineno - 1 : decorator.end_lineno]
    return "".join(lines).rstrip("\n") + "\n", functions[0].name


def handing_over(function: Callable[..., Any], terms: Mapping[str, Any]) -> Callable[..., Any]:
    """Return *function* with what it returns handed over, by the task whose environment this process has."""
    from volume_core.passing.options import Choices, Options

    given = dict(terms)
    path = cast("str | None", given.pop("told", None))
    if (bucket := given.pop("bucket", None)) is not None:
        os.environ.setdefault("VOLUME_BUCKET", bucket)
    task = SimpleNamespace(task_id="", dag_id="", run_id="", try_number="", map_index=-1)
    call = _Telling(SimpleNamespace(**{**vars(task), **from_environment()}, task=task))
    call.path = path
    call.options = Options.of(cast("Choices", given))

    parent = os.getppid()

    @functools.wraps(function)
    def handed_over(*args: Any, **kwargs: Any) -> Any:
        def executed() -> Any:
            result = function(*args, **kwargs)
            if os.getppid() != parent:  # the task was killed, and what it has started lives on
                call.is_to_end()
            return result

        return call.executes(executed)

    return handed_over

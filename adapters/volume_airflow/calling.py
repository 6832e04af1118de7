"""One try of a task: what goes into it, what comes out, and what becomes of its volumes however it ends.

    take ──> the operator executes ──> hand over ──> finish: unmounted
      │           │ fails                 │ fails
      ├───────────┴───────────────────────┴──> fail: unmounted; work kept or dropped; heads back; the log says where
      └───────────┴ is deferred, rescheduled, skipped ──> leave: unmounted; work kept; heads stay

Why around the operator of this run: it is what every kind of task goes through (TaskFlow, classic, asynchronous,
deferrable, in another interpreter), and only an error in it fails the try.

Always true:

  1. What is returned or pushed holds no writer: each was committed, once, and the version is in its place.
  2. A try that fails, or was told to end (SIGTERM), publishes nothing; what was written is kept, and the log says
     where.
  3. What has to do with no volume is passed on as it is, the same object; a process that has not loaded
     volume_core.volumes does not load it here.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from volume_airflow import running
from volume_core.plugins.waiting import when_volumes_load

if TYPE_CHECKING:
    from volume_airflow.resuming import Tries
    from volume_core import ROVolume, RWVolume
    from volume_core.facade.attempts import Attempt
    from volume_core.facade.terminating import Hearing
    from volume_core.passing.options import Options

log = logging.getLogger(__name__)

# By name, for they are elsewhere in each release, and some releases have not got them all.
_GOES_ON = frozenset({"TaskDeferred", "TaskAwaitingInput", "AirflowRescheduleException"})
_HAS_NO_RESULT = frozenset({"AirflowSkipException", "DownstreamTasksSkipped", "DagRunTriggerException"})


class Slot(NamedTuple):
    """A fork that a task is given: the parameter, and which of the forks of this try."""

    parameter: str
    number: int


_call: Call | None = None  # that which this process executes
_wrapped: Call | None = None  # the last one that it was to execute


def current_call() -> Call | None:
    """Return the try that this process executes; None where it executes none."""
    return _call


def committed(version: ROVolume) -> None:
    """*version* was committed in this process."""
    if _call is not None and _call._may_be_resumed:
        _call.tries.committed(version)


def _volumes_are_loaded() -> bool:
    return "volume_core.volumes" in sys.modules


def _when_volumes_load() -> None:
    if _call is not None:
        _call.attend()


when_volumes_load(_when_volumes_load)


class Call:
    """One try of a task in this process.  `attempt` is None as long as no volumes are loaded."""

    def __init__(self, ti: Any) -> None:
        self.ti = ti
        self.task = ti.task
        self.context: Mapping[str, Any] = {}
        self.attempt: Attempt | None = None
        self.forks: dict[Slot, tuple[RWVolume, str | None]] = {}  # with the version that each began with
        self._hearing: Hearing | None = None
        self._everywhere: contextlib.ExitStack | None = None
        self.finished: Attempt | None = None  # which has ended well
        self.elsewhere: str | None = None  # the file in which another interpreter says what it has handed over
        self._outer: Call | None = None
        self._is_to_end = False
        self._goes_on = False  # after a deferral: an earlier process may have noted what it began with

    @functools.cached_property
    def options(self) -> Options:
        """The task's options.  Raises ValueError where the site's settings are none."""
        from volume_airflow.options import options_of

        return options_of(self.task)

    @functools.cached_property
    def tries(self) -> Tries:
        """The tries of this task instance; they are asked about when there is something to go on from."""
        from volume_airflow.resuming import Tries

        return Tries(self)

    @property
    def _may_be_resumed(self) -> bool:
        return "tries" in vars(self)

    @functools.cached_property
    def message(self) -> str:
        """Of the commits."""
        return self.options.message or running.described(self.ti)

    def is_of(self, ti: Any) -> bool:
        """Whether this is a try of the task instance *ti*, which may be another object by now."""
        key = ("dag_id", "run_id", "task_id", "map_index")
        return all(getattr(self.ti, name) == getattr(ti, name) for name in key)

    # -- around the operator

    def executes(self, inner: Callable[[], Any], context: Mapping[str, Any] | None = None) -> Any:
        """Return what *inner* does, with versions in it; *inner* is the operator's execution, and takes nothing."""
        if _call is self:  # a task that goes on may do so by being executed from its beginning
            return inner()
        self.context = context or {}
        with running.runs(self.ti, self.context):
            self._begin()
            try:
                handed = self.handed_over(inner())
                self._finish()
                return handed
            except BaseException as error:
                self._ended_by_all(error)
                raise
            finally:
                self._end()

    def _begin(self) -> None:
        global _call
        self._outer, _call = _call, self
        if _volumes_are_loaded():
            self.attend()

    def attend(self) -> None:
        """Be told from now on what the task does with volumes, in whatever thread."""
        from volume_core.facade.attempts import Attempt
        from volume_core.facade.handles import mounting_on_demand

        if self.attempt is not None:
            return
        try:
            on_terminate, message = self.options.on_terminate, self.message
        except ValueError:  # raised again as soon as there is a volume: other tasks need not fail for it
            on_terminate, message = None, ""
        self.attempt = Attempt(on_terminate, message)
        self._everywhere = contextlib.ExitStack()
        self._everywhere.enter_context(self.attempt.running_everywhere())
        self._everywhere.enter_context(mounting_on_demand())
        if on_terminate is not None:
            self._hear()

    def _hear(self) -> None:
        from volume_core.facade.terminating import Hearing

        self._hearing = Hearing()
        if not self._hearing:
            log.warning(
                "SIGTERM is not heard in this thread, so on_terminate has no effect on %s: call "
                "volume_core.listen_for_sigterm() in the main thread",
                self.message,
            )

    def _end(self) -> None:
        global _call
        _call = self._outer
        if self._everywhere is not None:
            self._everywhere.close()
        if self._hearing is not None:
            self._hearing.stop()
        self.attempt = self._everywhere = self._hearing = None
        if (templating := sys.modules.get("volume_airflow.templating")) is not None:
            templating.release()

    # -- in

    def take(self) -> None:
        """Make volumes of what stands for them, in this run's arguments of the task's function."""
        function = getattr(self.task, "python_callable", None)
        if function is None or not hasattr(self.task, "op_kwargs") or not _may_take(function):
            return
        from volume_airflow.taking import taken

        taken(self, function)

    def tell_given(self) -> None:
        """Have lineage look at what the task is given."""
        if self.attempt is not None:
            from volume_airflow import lineage

            lineage.given(self.ti)

    def begun(self, parameter: str, given: RWVolume) -> RWVolume:
        """Return the fork that this try begins with; *given* is one of what the task was given."""
        slot = Slot(parameter, len(self.forks))
        volume = given.fork_sync(given.name) if given.index is not None else given
        if self.options.retry == "resume" and not _runs_elsewhere(self.task):
            volume = self.tries.begun(slot, volume)
        self.forks[slot] = (volume, volume.index)
        return volume

    def woken(self, carried: Any) -> Any:
        """Return *carried*, the arguments with which a task goes on, with writers for what crossed a deferral."""
        from volume_airflow import crossing

        self._goes_on = True
        if not carried or not crossing.has_crossed(carried):
            return carried
        return crossing.woken(carried, self)

    # -- out

    def handed_over(self, value: Any) -> Any:
        """Return *value* with a version in the place of each writer in it.  Raises what committing does."""
        if not _volumes_are_loaded():
            return value
        from volume_core import RWVolume
        from volume_core.passing import replaced

        return replaced(value, lambda each: self.hand_over(each) if isinstance(each, RWVolume) else each)

    def hand_over(self, volume: RWVolume, message: str = "") -> ROVolume:
        """Commit *volume* on behalf of the task, and return the version; its head goes back if the try fails after it.

        Raises VolumeError where the task was told to end, and what committing does.
        """
        from volume_core.passing import hand_over

        self.check_goes_on()
        message = message or self.message
        if self.attempt is None:  # before or after it is executed: in a callback
            with running.runs(self.ti, self.context):
                return hand_over(volume, message)
        before = self.attempt.handed_over(volume.name)
        version = self.attempt.hand_over(volume, message)
        self.check_goes_on()  # it may have been told meanwhile; then the head goes back
        if len(self.attempt.handed_over(version.name)) > len(before):
            log.info("volume %s is committed: %s", version.name, version.locator)
        return version

    def check_goes_on(self) -> None:
        """Raise VolumeError where the task was told to end, and so may publish nothing any more."""
        from volume_core import VolumeError

        if self._is_to_end:
            raise VolumeError(
                f"{self.message} was told to end, or killed, so its volumes are not committed: what it has written is "
                f"kept, see the log"
            )

    # -- the ends

    def _listen_to_the_other(self) -> None:
        """Take what another interpreter has handed over for this task for what this process has."""
        path, self.elsewhere = self.elsewhere, None
        if path is None:
            return
        try:
            if os.path.getsize(path) == 0:  # it has nothing to do with volumes, or did not end
                os.unlink(path)
                return
            from volume_airflow.elsewhere import told

            found = told(path)
        except Exception as error:  # what it has written, or a store
            log.warning("what the other interpreter has handed over is not known: %s", error)
            return
        self.attend()
        assert self.attempt is not None
        for version in found:
            self.attempt.go_on_from(version)

    def _finish(self) -> None:
        self._listen_to_the_other()
        if self.attempt is None:
            return
        self.attempt.finish()
        _settle()
        for kept in self.attempt.leave():
            log.warning("written to and not returned, so not committed: %s", kept)
        self.finished = self.attempt
        self._ended_well()

    def _ended_well(self) -> None:
        if self._may_be_resumed or self._goes_on:
            self.tries.ended_well()
        self.forks.clear()

    def _ended_by_all(self, error: BaseException) -> None:
        """See to the volumes after *error*, to the end, also where a timeout comes while that is done."""
        try:
            self._ended_by(error)
        except BaseException as other:
            if self.attempt is not None:
                self._fail(other)  # what is done already is not done again
            raise

    def _ended_by(self, error: BaseException) -> None:
        """What becomes of the volumes; raises an error that Airflow takes for what it is, if *error* is none."""
        names = {each.__name__ for each in type(error).__mro__}
        self._listen_to_the_other()
        if self.attempt is None:
            return
        _settle()
        if names & _GOES_ON:
            self._go_on_later(error)
        elif names & _HAS_NO_RESULT:
            self._leave()
            self._ended_well()
        else:
            self._fail(error)

    def _go_on_later(self, error: BaseException) -> None:
        from volume_airflow import crossing

        try:
            crossing.cross(error, self)
        except BaseException as failure:
            self._fail(failure)
            raise
        self._leave()

    def _leave(self) -> None:
        assert self.attempt is not None
        for kept in self.attempt.leave():
            log.warning("%s", kept)
        self.forks.clear()

    def _fail(self, error: BaseException) -> None:
        from volume_core import StorageError

        assert self.attempt is not None
        drop = self._says_drop()
        for note in self.attempt.fail(error, drop=drop):
            error.add_note(note)
            log.warning("%s", note)
        if self._may_be_resumed:
            self.tries.failed()
        self.forks.clear()
        if isinstance(error, StorageError) and not error.transient and sys.modules.get("airflow") is not None:
            raise _never_again(error) from error

    def _says_drop(self) -> bool:
        try:
            return self.options.on_failure == "drop"
        except ValueError:  # what is said wrongly drops nothing
            return False

    def fail_later(self, error: BaseException | None) -> None:
        """The try has failed by *error* after its operator was executed: its result is no XCom, for one."""
        if self.finished is not None:
            for note in self.finished.fail_later(error):
                log.warning("%s", note)

    def is_to_end(self) -> None:
        """The task was told to end: nothing is handed over from now on.  A handler of signals calls this."""
        self._is_to_end = True
        if self.attempt is not None:
            for left in self.attempt.at_work():
                log.warning(
                    "this task is to end, and commits nothing: what it has written into volume %s is kept as working "
                    "copy %s (volume commit %s, or Volume.recover)",
                    left.name, left.work_id, left.work_id,
                )  # fmt: skip


def _settle() -> None:
    """See that handles which nobody has any more have let go, and have said so: Airflow's processes end abruptly."""
    from volume_core.facade.releasing import settle

    settle()


def _never_again(error: BaseException) -> BaseException:
    """Return what Airflow fails a task with at once, whatever tries are left."""
    try:
        from airflow.sdk.exceptions import AirflowFailException
    except ImportError:
        from airflow.exceptions import AirflowFailException  # type: ignore[no-redef]

    return AirflowFailException(f"{error} (no retry cures this)")


def _may_take(function: Callable[..., Any]) -> bool:
    """Whether *function* may have parameters that are volumes: it is looked at more closely if so."""
    if _volumes_are_loaded():
        return True
    annotations = getattr(inspect.unwrap(function), "__annotations__", {})
    return any(isinstance(each, str) and "Volume" in each for each in annotations.values())


def wrap(ti: Any) -> None:
    """Have volumes as values of *ti*'s task: of this run's copy of its operator, and of what it pushes."""
    global _wrapped
    call = _wrapped = Call(ti)
    task = ti.task
    object.__setattr__(task, "execute", _executing(call, task.execute))
    if (resumes := getattr(task, "resume_execution", None)) is not None:
        object.__setattr__(task, "resume_execution", _resuming(call, resumes))
    object.__setattr__(task, "on_kill", _ending(call, task.on_kill))
    if _runs_elsewhere(task):
        object.__setattr__(task, "get_python_source", _sending(call, task.get_python_source))
    object.__setattr__(ti, "xcom_push", _pushing(call, ti.xcom_push))
    if (push := getattr(ti, "axcom_push", None)) is not None:
        object.__setattr__(ti, "axcom_push", _pushing(call, push))


def failed(ti: Any, error: BaseException | None) -> None:
    """The try *ti* has failed: what it has handed over, if it got so far, is taken back."""
    if _wrapped is not None and _wrapped.is_of(ti):
        _wrapped.fail_later(error)


def _runs_elsewhere(task: Any) -> bool:
    """Whether *task* is a function that another interpreter of this machine runs: its source is sent there."""
    return any(each.__name__ == "_BasePythonVirtualenvOperator" for each in type(task).__mro__)


def _executing(call: Call, inner: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(inner)
    def execute(context: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        def executed() -> Any:
            call.take()
            call.tell_given()
            return inner(context, *args, **kwargs)

        return call.executes(executed, context)

    return execute


def _resuming(call: Call, inner: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(inner)
    def resume_execution(next_method: str, next_kwargs: Any, context: Mapping[str, Any]) -> Any:
        def resumed() -> Any:
            kwargs = call.woken(next_kwargs)
            call.tell_given()
            return inner(next_method, kwargs, context)

        return call.executes(resumed, context)

    return resume_execution


def _sending(call: Call, inner: Callable[[], str]) -> Callable[[], str]:
    @functools.wraps(inner)
    def get_python_source() -> str:
        from volume_airflow.elsewhere import source_of

        return source_of(call, inner())

    return get_python_source


def _ending(call: Call, inner: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(inner)
    def on_kill(*args: Any, **kwargs: Any) -> Any:
        # A log that the signal has interrupted may refuse; what the operator has to end is more urgent.
        with contextlib.suppress(Exception):
            call.is_to_end()
        return inner(*args, **kwargs)

    return on_kill


def _pushing(call: Call, inner: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(inner)
    def push(key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        return inner(key, call.handed_over(value), *args, **kwargs)

    return push

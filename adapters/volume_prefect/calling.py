"""One call of a task's or flow's function: what goes in, what comes out, and what becomes of its volumes if it fails.

    take ──> the body runs ──> hand over ──> finish: unmounted
      │           │ fails          │ fails
      └───────────┴────────────────┴──> fail: unmounted; work kept or dropped; heads back; the error says where

Why around the function and not in Prefect's hooks: only what the function returns is seen by everybody, whichever way
the task is called; and only an error in it fails the run, counts as an attempt and rolls its transaction back.

Always true:

  1. What is returned or yielded holds no writer: each was committed, once, and the version is in its place.
  2. Where one of several volumes cannot be committed, the run fails, and the heads of the others are back.
  3. If the transaction around the run is rolled back later, the heads that the run moved go back, unless others have
     built on them.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import OrderedDict
from typing import Any, NamedTuple

from prefect.transactions import BaseTransaction, get_transaction

from volume_core import ROVolume, RWVolume, Volume, VolumeError
from volume_core.facade.heads import head_version
from volume_core.facade.terminating import Hearing
from volume_core.format.names import Locator
from volume_core.parts.heads import is_ancestor
from volume_core.passing import Attempt, Taking, replaced
from volume_core.passing.options import Options
from volume_prefect.running import contexts, described, is_again, is_mine

log = logging.getLogger(__name__)


class Slot(NamedTuple):
    """A fork that a run was given: the run's id, the parameter, and which of the forks within it."""

    run: str
    parameter: str
    number: int


class Rest(NamedTuple):
    """What a failed attempt left of a fork: its working copy on this machine, its last commit."""

    work_id: str | None
    locator: str | None


_RESTS_MAX = 1024
_rests: OrderedDict[Slot, Rest] = OrderedDict()
_rests_lock = threading.Lock()
# Of an attempt of a flow run and a version: which run goes on from it.
_claims: OrderedDict[tuple[str, int, str], str] = OrderedDict()


def _claimed(locator: str) -> bool:
    """Whether the version is this run's to go on from: that of the first to ask in this attempt of the flow run."""
    flow, task = contexts()
    if flow is None or flow.flow_run is None:
        return True
    claim = (str(flow.flow_run.id), flow.flow_run.run_count, locator)
    me = str(task.task_run.id) if task is not None else claim[0]
    with _rests_lock:
        owner = _claims.setdefault(claim, me)
        while len(_claims) > _RESTS_MAX:
            _claims.popitem(last=False)
    return owner == me


class Call:
    """One attempt.  `args` and `kwargs` are what the body gets, once `take` was called."""

    def __init__(
        self, taking: Taking, options: Options, args: tuple[Any, ...], kwargs: dict[str, Any], *, of_flow: bool
    ) -> None:
        self.args, self.kwargs = self._given = args, kwargs
        self._taking = taking
        self._options = options
        self._of_flow = of_flow
        self._message = options.message or described()
        self._attempt = Attempt(options.on_terminate, self._message)
        self._forks: dict[Slot, tuple[RWVolume, str | None]] = {}  # with the version that each began with
        self._run = self._run_id()
        self._hearing: Hearing | None = None
        self._hooked: BaseTransaction | None = None
        self._deadline_s, self._timeout_s = self._deadline()

    def _run_id(self) -> str:
        flow, task = contexts()
        if task is not None and not self._of_flow:
            return str(task.task_run.id)
        return str(flow.flow_run.id) if flow is not None and flow.flow_run is not None else ""

    def _deadline(self) -> tuple[float, float]:
        """Return when the run times out (by time.monotonic), after how many seconds; infinite where it interrupts."""
        if threading.current_thread() is threading.main_thread():
            return float("inf"), 0.0
        flow, task = contexts()
        is_task = task is not None and not self._of_flow
        runs = task.task if task is not None and is_task else flow.flow if flow is not None else None
        seconds = getattr(runs, "timeout_seconds", None)
        return (time.monotonic() + seconds, seconds) if seconds else (float("inf"), 0.0)

    def running(self) -> Any:
        """In this `with` statement the body runs."""
        return self._attempt.running()

    # -- SIGTERM: in the thread that runs the body

    def hear(self) -> None:
        """Hear SIGTERM, if that was asked for."""
        if self._options.on_terminate is None:
            return
        self._hearing = Hearing()
        if not self._hearing:
            log.warning(
                "SIGTERM is not heard in this thread, so on_terminate has no effect on %s: give it to the flow too, "
                "which runs in the main thread, or call volume_core.listen_for_sigterm() there",
                self._message or "this call",
            )

    def stop_hearing(self) -> None:
        """Be done with `hear`."""
        if self._hearing is not None:
            self._hearing.stop()

    # -- in

    def take(self) -> None:
        """Make volumes of what stands for them.  Raises what Taking.taken does."""
        call = self._taking.bound(self.args, self.kwargs)
        if call is None:
            return
        for name in self._taking.names():
            if name in call.arguments:
                call.arguments[name] = self._taken(name, call.arguments[name])
        self.args, self.kwargs = call.args, call.kwargs

    def _taken(self, name: str, given: Any) -> Any:
        own: set[int] = set()  # the caller's writers: they are his

        def note(each: Any) -> Any:
            if isinstance(each, RWVolume):
                own.add(id(each))
            return each

        def ours(each: Any) -> Any:
            if not isinstance(each, RWVolume):
                return each
            if id(each) in own and (not self._of_flow or not _is_fork(each)):
                return each
            slot = Slot(self._run, name, len(self._forks))
            begun = self._begun(slot, each)
            self._forks[slot] = (begun, begun.index)
            return begun

        replaced(given, note)
        return replaced(self._taking.taken(name, given), ours)

    def _begun(self, slot: Slot, given: RWVolume) -> RWVolume:
        """Return the fork that this attempt begins with; *given* is one of what the run was given."""
        if self._options.retry == "resume":
            with _rests_lock:
                rest = _rests.pop(slot, None)
            rest = rest or Rest(None, self._committed_before(given))
            if rest != (None, None) and (resumed := self._resumed(rest, given.name)) is not None:
                return resumed
        return given.fork_sync(given.name) if given.index is not None else given

    def _committed_before(self, given: RWVolume) -> str | None:
        """Return what an earlier attempt of this run, in another process, has committed last of *given*'s line."""
        if not is_again() or given.index is None:
            return None
        try:
            head = head_version(given.name, given._place())
            if head is None or not (made := head.manifest.produced_by) or not is_mine(made, head.manifest.created_at):
                return None
            began = Locator.parse(given.index)
            if began == head.locator or not is_ancestor(given._place().store(), began, head.locator):
                return None
            if not _claimed(str(head.locator)):
                return None
        except VolumeError as error:
            log.warning("what an earlier attempt has committed of volume %s is not known: %s", given.name, error)
            return None
        return str(head.locator)

    def _resumed(self, rest: Rest, name: str) -> RWVolume | None:
        try:
            if rest.work_id is not None:
                with self.running():
                    return Volume.recover_sync(rest.work_id)
            if rest.locator is not None:
                return Volume.from_locator_sync(rest.locator).fork_sync(name)
        except VolumeError as error:
            log.warning("this attempt begins afresh, volume %s cannot be resumed: %s", name, error)
        return None

    # -- out

    def handed_over(self, result: Any) -> Any:
        """Return *result* with a version in the place of each writer in it.  Raises what committing does."""

        def swap(each: Any) -> Any:
            if not isinstance(each, RWVolume):
                return each
            self._check_time()
            self._undo_with_transaction()
            return self._attempt.hand_over(each, self._message)

        return replaced(result, swap)

    def _check_time(self) -> None:
        # In a worker thread a timeout cannot interrupt the body; it fails the run only when that has returned.
        if time.monotonic() > self._deadline_s:
            raise TimeoutError(
                f"this run took longer than {self._timeout_s:g} s, so it is failed, and its volumes are not committed"
            )

    def _undo_with_transaction(self) -> None:
        transaction = get_transaction()
        if transaction is None or self._hooked is transaction:
            return
        attempt = self._attempt

        def volume_heads_go_back(_: Any) -> None:
            if isinstance(sys.exc_info()[1], GeneratorExit):
                return  # the consumer has had enough, and has what was yielded: Prefect calls that completed
            try:
                attempt.take_back()
            except (VolumeError, OSError) as error:  # the rest of the transaction is to be rolled back all the same
                log.warning("a head could not be moved back in a rollback: %s", error)

        volume_heads_go_back.log_on_run = False  # type: ignore[attr-defined]
        transaction.on_rollback_hooks.append(volume_heads_go_back)
        self._hooked = transaction

    # -- the ends

    def finish(self) -> None:
        """The body has ended well, and what it returned is handed over."""
        if self._attempt.has_committed:
            self._undo_with_transaction()
        self._attempt.finish()
        for volume, _ in self._forks.values():
            with self.running():
                if (kept := volume._leave()) is not None:
                    log.warning(
                        "volume %s was written to and not returned, so it is not committed: %s", volume.name, kept
                    )
        self._forks.clear()

    def fail(self, error: BaseException) -> None:
        """The body, or handing over, has ended with *error*, which gets notes of where the work lies."""
        # A version is the same object for all tasks of a process that get it, and so is its mount.
        shared: set[int] = set()

        def note_shared(each: Any) -> Any:
            if isinstance(each, ROVolume):
                shared.add(id(each))
            return each

        replaced(self._given, note_shared)
        for note in self._attempt.fail(error, drop=self._options.on_failure == "drop", spare=shared):
            error.add_note(note)
            if isinstance(error, GeneratorExit):  # nobody reads its notes
                log.warning("closed before its end: %s", note)
        if self._options.retry == "resume":
            self._remember()
        self._forks.clear()

    def _remember(self) -> None:
        left = {each.handle: each.work_id for each in self._attempt.left}
        with _rests_lock:
            for slot, (volume, began) in self._forks.items():
                rest = Rest(left.get(id(volume)), volume.index if volume.index != began else None)
                if self._run and rest != (None, None):
                    _rests[slot] = rest
            while len(_rests) > _RESTS_MAX:
                _rests.popitem(last=False)


def _is_fork(volume: RWVolume) -> bool:
    """Whether *volume* is a line of its own at rest, as a flow's parameter is made of a version."""
    handle = volume._handle
    return handle.policy is None and handle.held is None and volume.index is not None

"""A retry goes on from what the tries before have left of the same task instance.

    try 1: a fork ──written, not committed──> its working copy says whose it is      (this machine)
                  ──committed───────────────> its last version is noted              (wherever Airflow keeps that)
    try 2: that working copy, else that version, else a fork of what the task is given; the log says which

What is noted, and where:

    3.3 and later   the task's state (`task_state_store`): since which try, and of each fork the last version
    2.11            nothing: the database has each try's end, and the head of the name whose try has moved it
    3.0 to 3.2      nothing: only the try just before counts, and only what it has left on this machine

Always true:

  1. A task instance goes on from its own work alone: the same DAG, run, task, index of a mapped task, parameter, and
     version that it is given.
  2. After a try that ended well nothing is gone on from: a task that is cleared begins afresh.
  3. A working copy that somebody has, or had by hand, is left to him.
  4. What cannot be read or noted costs the resuming, and a line in the log, and never the try; but a store of volumes
     that does not answer now fails it, for that passes and work is at stake.
"""

from __future__ import annotations

import json
import logging
import os
import platform
from typing import TYPE_CHECKING, Any, NamedTuple

from volume_airflow import compat
from volume_core import ROVolume, RWVolume, StorageError, Volume, VolumeError
from volume_core.facade.heads import head_version
from volume_core.format.names import Locator
from volume_core.parts.heads import is_ancestor
from volume_core.passing import purposes

if TYPE_CHECKING:
    from volume_airflow.calling import Call, Slot

log = logging.getLogger(__name__)

KEY = "volume"  # in the task's state


class Purpose(NamedTuple):
    """What a working copy of a task is for, as text in its record."""

    dag: str
    run: str
    task: str
    mapped: int
    attempt: int
    slot: str
    given: str

    def __str__(self) -> str:
        return json.dumps(["airflow", *self])

    @classmethod
    def parse(cls, text: str) -> Purpose | None:
        """Return what *text* says; None if it is another's."""
        try:
            engine, *fields = json.loads(text)
            return cls(*fields) if engine == "airflow" else None
        except (ValueError, TypeError):
            return None


class Noted(NamedTuple):
    """What is known of a fork: the version it began with, its last one, and what a failed try left, on which host."""

    given: str
    locator: str | None = None
    work_id: str | None = None
    host: str | None = None


class Tries:
    """The tries of one task instance, as the one that runs sees them.  Any thread may call `committed`."""

    def __init__(self, call: Call) -> None:
        self._call = call
        index = -1 if call.ti.map_index is None else call.ti.map_index
        self._me = Purpose(
            call.ti.dag_id, call.ti.run_id, call.ti.task_id, index, int(call.ti.try_number), "", ""
        )  # fmt: skip
        self._state = call.context.get("task_state_store")
        self._pid = os.getpid()
        self._since = self._me.attempt
        self._before: dict[str, Noted] = {}
        self._noted: dict[str, Noted] = {}
        self._volumes: dict[str, RWVolume] = {}
        self._claimed: set[str] = set()
        self._look_back()

    def _look_back(self) -> None:
        """Find out since which try nothing has ended well, and what has been noted since."""
        me = self._me.attempt
        if self._state is not None:
            try:
                found = self._state.get(KEY)
                if found is not None:
                    self._since, self._before = _decoded(found)
                return
            except Exception as error:  # whatever the state's backend raises
                log.warning("what the tries before have noted cannot be read: %s: %s", type(error).__name__, error)
        since = compat.first_try_of_these(self._call.ti) if me > 1 and not compat.IS_3 else None
        self._since = since if since is not None else max(1, me - 1)

    # -- the beginning

    def begun(self, slot: Slot, fresh: RWVolume) -> RWVolume:
        """Return what this try begins with: *fresh*, a fork of what it is given, or what the tries before have left.

        Raises StorageError where that lies in a store which does not answer now.
        """
        return self._begun(f"{slot.parameter}/{slot.number}", fresh, fresh.index or "")

    def resumed(self, fresh: RWVolume) -> RWVolume:
        """Return the same for a volume of the task's own, of which there is one of a name."""
        if (slot := f":{fresh.name}") in self._volumes:
            raise VolumeError(f"this task has resumed a volume {fresh.name!r} already: give the other one another name")
        return self._begun(slot, fresh, "")

    def _begun(self, slot: str, fresh: RWVolume, given: str) -> RWVolume:
        mine = self._me._replace(slot=slot, given=given)
        before = self._before.get(slot)
        volume = self._taken_up(mine) or self._gone_on(mine, before, fresh) or fresh
        if volume is fresh:
            purposes.is_for(fresh, str(mine))
            if self._me.attempt > 1:
                log.info("volume %s begins afresh: the tries before have left nothing of it here", fresh.name)
        last = volume.index if volume.index != fresh.index else None
        self._noted[slot], self._volumes[slot] = Noted(given, last), volume
        self._note()
        return volume

    def _taken_up(self, mine: Purpose) -> RWVolume | None:
        """Return the working copy that one of the tries before has left on this machine."""

        def concerns(text: str) -> bool:
            other = Purpose.parse(text)
            return (
                other is not None
                and other._replace(attempt=mine.attempt) == mine
                and self._since <= other.attempt <= mine.attempt
            )

        for work in reversed(purposes.left(concerns)):
            try:
                volume = purposes.go_on(work.work_id, str(mine))
            except StorageError as error:
                if error.transient:
                    raise
                log.warning("volume %s: what an earlier try has left is not taken up: %s", work.name, error)
            except (VolumeError, OSError) as error:
                log.warning("volume %s: what an earlier try has left is not taken up: %s", work.name, error)
            else:
                log.info("volume %s goes on from what an earlier try has left: %s", work.name, work.work_id)
                return volume
        return None

    def _gone_on(self, mine: Purpose, before: Noted | None, fresh: RWVolume) -> RWVolume | None:
        """Return a fork of the version that the tries before have committed last."""
        if before is not None and before.given != mine.given:
            log.info("volume %s begins afresh: the task is given another version than before", fresh.name)
            return None
        if before is not None and before.work_id is not None:
            log.warning(
                "volume %s: what was not committed is not here but in working copy %s on %s",
                fresh.name, before.work_id, before.host,
            )  # fmt: skip
        if fresh._handle.policy is not None:  # its head has every commit
            return None
        try:
            locator = before.locator if before is not None else self._landed(fresh)
            if locator is None:
                return None
            volume = Volume.from_locator_sync(locator).fork_sync(fresh.name)
        except VolumeError as error:
            if isinstance(error, StorageError) and error.transient:
                raise
            log.warning("volume %s: what an earlier try has committed is not gone on from: %s", fresh.name, error)
            return None
        purposes.is_for(volume, str(mine))
        log.info("volume %s goes on from what an earlier try has committed last: %s", fresh.name, locator)
        return volume

    def _landed(self, fresh: RWVolume) -> str | None:
        """Return the head's version, if one of these tries made it of what the task is given."""
        if compat.IS_3 or self._since >= self._me.attempt:
            return None
        head = head_version(fresh.name, fresh._place())
        if head is None or (made := head.manifest.produced_by) is None or str(head.locator) in self._claimed:
            return None
        from volume_airflow import running

        me = running.current_task()
        same = me is not None and (made.engine, made.project, made.run, made.action) == (
            me.engine, me.project, me.run, me.action,
        )  # fmt: skip
        if not same or not self._since <= int(made.attempt or 0) < self._me.attempt:
            return None
        began = Locator.parse(fresh.index) if fresh.index is not None else None
        if began is not None and not is_ancestor(fresh._place().store(), began, head.locator):
            return None
        self._claimed.add(str(head.locator))
        return str(head.locator)

    # -- what comes of it

    def committed(self, version: ROVolume) -> None:
        """*version* was committed in this process."""
        changed = [slot for slot, volume in self._volumes.items() if volume.index == version.index]
        for slot in changed:
            self._noted[slot] = self._noted[slot]._replace(locator=version.index, work_id=None, host=None)
        if changed:
            self._note()

    def failed(self) -> None:
        """This try has failed; what it has left is in its attempt."""
        assert self._call.attempt is not None
        left, before = {each.handle: each.work_id for each in self._call.attempt.left}, dict(self._noted)
        for slot, volume in self._volumes.items():
            noted = self._noted[slot]
            if (work_id := left.get(id(volume))) is not None:
                self._noted[slot] = noted._replace(work_id=work_id, host=platform.node())
            elif volume.index not in (None, noted.locator, noted.given):  # a commit that was interrupted at its end
                self._noted[slot] = noted._replace(locator=volume.index)
        if self._noted != before:
            self._note()

    def ended_well(self) -> None:
        """This try needs no other: if the task is cleared it begins afresh."""
        if self._call.attempt is not None:
            for each in self._call.attempt.left:
                purposes.is_for_nothing(each.work_id)
        if self._state is not None:
            try:
                self._state.delete(KEY)
            except Exception as error:
                log.warning("what this task has noted for a retry cannot be deleted: %s", error)

    def _note(self) -> None:
        if self._state is None or os.getpid() != self._pid:  # two processes at one socket mix up its answers
            return
        slots = {slot: list(noted) for slot, noted in {**self._before, **self._noted}.items()}
        try:
            self._state.set(KEY, {"since": self._since, "forks": slots})
        except Exception as error:
            log.warning("a retry on another machine will not know what this try does: %s", error)


def _decoded(found: Any) -> tuple[int, dict[str, Noted]]:
    """Return what *found*, the task's state, says.  Raises ValueError if it is not what is noted here."""
    try:
        since, forks = found["since"], {str(slot): Noted(*noted) for slot, noted in found["forks"].items()}
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"the task's state has something else under {KEY!r}: {found!r:.200}") from error
    texts = [each for noted in forks.values() for each in noted]
    if not isinstance(since, int) or not all(each is None or isinstance(each, str) for each in texts):
        raise ValueError(f"the task's state has something else under {KEY!r}: {found!r:.200}")
    return since, forks


def resume(volume: RWVolume) -> RWVolume:
    """Return *volume*, or in a retry a writer that goes on from what the tries before have left of it.

    For volumes that a task makes or opens itself; parameters annotated RWVolume are resumed without it.  Call it before
    *volume* is mounted, and use what it returns.  Outside of a task, and in one whose option is retry="fresh", *volume*
    comes back as it is.  Raises VolumeError if it is mounted or has changes already, and if the task has resumed
    another volume of its name.
    """
    from volume_airflow import calling

    if not isinstance(volume, RWVolume):
        raise VolumeError(f"a writer is resumed, an RWVolume, and not a {type(volume).__name__}")
    status = volume.status_sync()
    if status.mount_path is not None or status.changed:
        raise VolumeError(f"volume {volume.name!r} is mounted or has changes already: resume it before")
    call = calling.current_call()
    if call is None or call.options.retry != "resume":
        return volume
    return call.tries.resumed(volume)

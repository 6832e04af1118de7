"""One attempt of a task: what it has mounted, what it has committed, what work it leaves behind.

Why: who runs a task hears of an error only after the body is left, when nobody can name its volumes any more; yet the
frames of the error keep them mounted.  So while an attempt runs, the handles used in its context tell it.

    running ──ends well──> finish: what was handed over is unmounted
       │    └─fails──────> fail: everything is unmounted; work is kept or dropped, heads that were moved by handing
       │                   over go back
       ├─goes on elsewhere, or has no result──> leave: everything is unmounted; work is kept, and heads stay
       └ (afterwards) ───> take_back: heads go back, if they still name what the attempt committed

Always true:

  1. Nothing that was committed is deleted: a version that is taken back is only not named by its head any more.
  2. What the body has committed itself stays when it fails; and so does a working copy that it has taken over.
  3. A head goes back only from a version of this attempt, to where it stood before: nobody else's work is lost.
  4. An attempt is in the context of its body alone: a generator's is not in that of who consumes it.  An engine that
     gives each task a process has it in all of the process, threads that know no context of the body's included.
  5. A process that the body has forked undoes nothing that its parent has done.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import weakref
from collections.abc import Collection
from contextvars import ContextVar, Token
from types import TracebackType
from typing import TYPE_CHECKING, Literal, NamedTuple, cast

from volume_core.errors import VolumeError
from volume_core.facade.heads import step_back
from volume_core.facade.writers import Writer

if TYPE_CHECKING:
    from volume_core.facade.handles import HandledRecord
    from volume_core.facade.versions import Version
    from volume_core.volumes import ROVolume, RWVolume

log = logging.getLogger(__name__)


class Left(NamedTuple):
    """Work that a handle of the volume *name* left: in the working copy *work_id*, for Volume.recover."""

    name: str
    work_id: str
    handle: int  # id() of the handle


_attempts: weakref.WeakSet[Attempt] = weakref.WeakSet()


class Attempt:
    """See the head of this file.  Any thread may call any method."""

    def __init__(self, on_terminate: Literal["commit", "keep"] | None = None, message: str = "") -> None:
        """With *on_terminate*, SIGTERM does this to each writer, as in a block: see BlockOptions."""
        self._on_terminate, self._message = on_terminate, message
        self._saved = contextlib.ExitStack()
        self._lock = threading.RLock()  # a handler of signals asks what is held, wherever the main thread is
        self._held: list[weakref.ref[HandledRecord]] = []
        self._works: set[str] = set()
        self._handed: dict[int, RWVolume] = {}
        self._published: list[Version] = []  # by handing over
        self._committed: list[Version] = []  # all of them
        self.left: list[Left] = []
        _attempts.add(self)

    def _begin_anew(self) -> None:
        """In a forked child: what is held, handed over and committed is the parent's, and so is its end.

        The thread that held the lock while another one forked does not exist here.
        """
        self._lock = threading.RLock()
        self._saved = contextlib.ExitStack()
        self._held, self._works, self._handed, self.left = [], set(), {}, []
        self._published, self._committed = [], []

    def running(self) -> Running:
        """In this `with` statement what the current context does is done by the attempt."""
        return Running(self)

    def running_everywhere(self) -> RunningEverywhere:
        """In this `with` statement what this process does is done by the attempt, but in contexts of other attempts."""
        return RunningEverywhere(self)

    def hand_over(self, volume: RWVolume, message: str = "") -> ROVolume:
        """Commit *volume* and return the version, as volume_core.passing.hand_over does."""
        with volume._handle.lock:  # what others commit of it meanwhile, a checkpoint perhaps, is not handed over
            with self._lock:
                before = len(self._committed)
            try:
                with self.running():
                    version = volume.commit_sync(message)
            except BaseException:  # a timeout or a signal may come when the head has been moved
                self._publish(volume, before)
                self._publish_landed(volume)
                raise
            with self._lock:
                self._handed[id(volume)] = volume
                # What the body committed itself, and is handed over as it is, stays whatever becomes of the attempt.
                self._publish(volume, before)
        return version

    def _publish(self, volume: RWVolume, before: int) -> None:
        """Take what *volume* has committed, since there were *before* commits, for what was handed over."""
        with self._lock:
            self._published += [each for each in self._committed[before:] if str(each.locator) == volume.index]

    def _publish_landed(self, volume: RWVolume) -> None:
        """The same for a commit that has moved the head and was interrupted before it could say so."""
        writer = volume._handle.held
        if isinstance(writer, Writer):
            with contextlib.suppress(VolumeError, OSError):
                if (found := writer.landed()) is not None:
                    self._note_committed(found[0])
                    self._published.append(found[0])

    @property
    def has_committed(self) -> bool:
        """Whether a version was made, by handing over or by the body itself."""
        return bool(self._committed)

    # -- the ends

    def finish(self) -> None:
        """After all was handed over: unmount what was, if the attempt mounted it."""
        self._saved.close()
        for volume in self._alive():
            if id(volume) in self._handed:
                self._handed[id(volume)]._finish()
        self._handed.clear()

    def fail(self, error: BaseException, *, drop: bool, spare: Collection[int] = ()) -> list[str]:
        """After *error*: unmount everything; keep what is not committed, or *drop* it; return what there is to say.

        Heads that handing over has moved go back; not where a generator is closed, whose consumer has what was yielded.
        *spare*: id() of versions that stay mounted, since others use these
        very handles.
        """
        self._saved.close()
        said: list[str] = []
        with self.running():
            for handle in self._alive():
                if id(handle) not in spare or isinstance(handle._handle.held, Writer):
                    said += self._end(handle, drop)
        if drop:
            for work_id in self._works:  # those of blocks that are left, and of handles that are collected
                with contextlib.suppress(VolumeError, OSError):
                    Writer.drop(work_id)
            self.left.clear()
        if not isinstance(error, GeneratorExit):
            said += self.fail_later(error)
            self._committed.clear()  # a rollback that follows has nothing to take back
        self._handed.clear()
        return said

    def fail_later(self, error: BaseException | None) -> list[str]:
        """*error* came after the attempt had finished: heads go back as `fail` says, if others have not moved on from
        there; return what there is to say.
        """
        return self._back(self._published, error)[0]

    def _end(self, handle: HandledRecord, drop: bool) -> list[str]:
        writes = isinstance(handle._handle.held, Writer)
        volume = cast("RWVolume", handle)
        try:
            if writes and (not drop or handle._handle.is_taken_over):
                return [f"volume {handle.name!r}: {kept}"] if (kept := volume._leave()) is not None else []
            if writes:
                volume.abandon_sync()
            else:
                cast("ROVolume", handle).close_sync()
        except (VolumeError, OSError) as failure:
            return [f"what became of volume {handle.name!r} could not be found out ({failure}): volume status"]
        return []

    def leave(self) -> list[str]:
        """The body has ended without a result, or goes on elsewhere: unmount everything, keep what is not committed.

        Returns what there is to say of that; heads stay where they are.
        """
        self._saved.close()
        said: list[str] = []
        with self.running():
            for handle in self._alive():
                said += self._end(handle, drop=False)
        self._handed.clear()
        return said

    def go_on_from(self, version: Version) -> None:
        """An earlier part of this attempt, in another process perhaps, has handed *version* over."""
        with self._lock:
            self._published.append(version)
            self._committed.append(version)

    def published(self) -> list[Version]:
        """Return what was committed by handing over, oldest first."""
        with self._lock:
            return list(self._published)

    def handed_over(self, name: str) -> list[str]:
        """Return the locators of what was committed of the volume *name* by handing over, oldest first."""
        with self._lock:
            return [str(each.locator) for each in self._published if each.locator.volume == name]

    def at_work(self) -> list[Left]:
        """What is mounted to write, now, newest first; it may be unchanged.  A handler of signals may ask."""
        held = [(handle, handle._handle.held) for handle in self._alive()]
        return [Left(handle.name, writer.work_id, id(handle)) for handle, writer in held if isinstance(writer, Writer)]

    def take_back(self, why: str = "rollback") -> None:
        """Undo what can be undone of an attempt that has ended well: each head it moved goes back, if others have
        not moved on from there.  Raises StorageError where the store fails.
        """
        _, failures = self._back(self._committed, why)
        if failures:
            raise failures[0]

    def _back(self, versions: list[Version], why: BaseException | str | None) -> tuple[list[str], list[Exception]]:
        """Move back each head that can be; return what there is to say of that, and what has failed."""
        word = why if isinstance(why, str) else "failure"
        lines: dict[tuple[str, str], list[Version]] = {}
        for version in reversed(versions):
            lines.setdefault((version.place.url, version.locator.volume), []).append(version)
        said: list[str] = []
        failures: list[Exception] = []
        for (_, name), made in lines.items():
            try:
                moved = step_back(made[0].place, name, {each.locator.version for each in made}, word)
            except (VolumeError, OSError) as failure:
                failures.append(failure)
                said.append(f"a head that this attempt moved could not be moved back: {failure}")
            else:
                if moved is not None:
                    said.append(f"volume {name!r}: its head went back; what was handed over is {made[0].locator}")
        versions.clear()
        return said, failures

    def _alive(self) -> list[HandledRecord]:
        """What was mounted and still is, newest first."""
        with self._lock:
            found = [handle for held in reversed(self._held) if (handle := held()) is not None]
        seen: dict[int, HandledRecord] = {id(handle): handle for handle in found}
        return [handle for handle in seen.values() if handle._handle.held is not None]

    # -- told by handles

    def _note_held(self, owner: HandledRecord) -> None:
        with self._lock:
            self._held = [held for held in self._held if held() is not None]
            self._held.append(weakref.ref(owner))
            writer = owner._handle.held
            if not isinstance(writer, Writer):
                return
            if not writer.options.detach and not owner._handle.is_taken_over:
                self._works.add(writer.work_id)
            if self._on_terminate is not None:
                from volume_core.facade.blocks import Block, Terms
                from volume_core.facade.terminating import saved_on_sigterm

                terms = Terms({}, self._message, self._on_terminate)
                self._saved.enter_context(saved_on_sigterm(Block(cast("RWVolume", owner), terms)))

    def _note_left(self, owner: HandledRecord, work_id: str) -> None:
        with self._lock:
            self.left.append(Left(owner.name, work_id, id(owner)))

    def _note_committed(self, version: Version) -> None:
        with self._lock:
            self._committed.append(version)


def _in_child() -> None:
    for attempt in _attempts:
        attempt._begin_anew()


os.register_at_fork(after_in_child=_in_child)

_current: ContextVar[Attempt | None] = ContextVar("volume_attempt", default=None)
_everywhere: Attempt | None = None


def _noting() -> Attempt | None:
    return _current.get() or _everywhere


class Running:
    """A `with` statement in which an attempt runs."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._token: Token[Attempt | None] | None = None

    def __enter__(self) -> None:
        self._token = _current.set(self._attempt)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._token is not None
        _current.reset(self._token)


class RunningEverywhere:
    """A `with` statement in which an attempt runs, in all threads."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._before: Attempt | None = None

    def __enter__(self) -> None:
        global _everywhere
        self._before, _everywhere = _everywhere, self._attempt

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        global _everywhere
        _everywhere = self._before


def note_held(owner: HandledRecord) -> None:
    """*owner* has something mounted, or a working copy."""
    if (attempt := _noting()) is not None:
        attempt._note_held(owner)


def note_left(owner: HandledRecord, work_id: str) -> None:
    """*owner* has left work that is not committed in the working copy *work_id*."""
    if (attempt := _noting()) is not None:
        attempt._note_left(owner, work_id)


def note_committed(version: Version) -> None:
    """*version* was made."""
    if (attempt := _noting()) is not None:
        attempt._note_committed(version)

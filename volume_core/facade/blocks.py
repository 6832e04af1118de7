"""Blocks: a writer that is mounted for the length of a `with` statement, and what becomes of its work at the end.

    enter ──> the body runs; checkpoints, if wanted
                 │ ends well   -> commit, unmount; the working copy is gone
                 │ fails       -> unmount; what was written is kept, and the error says where
                 └ SIGTERM     -> on_terminate: as after either of these, then the process ends

Always true:

  1. A block commits once at its end, whoever asks: the end of its body and SIGTERM take turns, and who comes
     second finds nothing to do.
  2. An error of the body goes on as it is, with a note where the work lies, also if that could not be found out.
  3. In a forked child the parent's block is left without touching anything.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Generator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, Self, TypeVar, Unpack, cast, get_args

from volume_core.errors import BusyError, VolumeError
from volume_core.facade.attempts import note_left
from volume_core.facade.checkpoints import Checkpoints
from volume_core.facade.handles import HandledRecord
from volume_core.facade.mounts import MountOptions, StrPath
from volume_core.facade.terminating import Hearing, saved_on_sigterm
from volume_core.facade.twins import AsyncContext, awaitable_context
from volume_core.facade.writers import Writer

if TYPE_CHECKING:
    from volume_core.volumes import ROVolume, RWVolume

log = logging.getLogger(__name__)

R = TypeVar("R")
OnTerminate = Literal["commit", "keep"]

_BUSY_TRIES = 5  # of the commit on SIGTERM; other threads may go on writing meanwhile
_LOCK_PATIENCE_S = 0.5


class BlockOptions(MountOptions, total=False):
    """What `mounted` and `mounts` take besides the options of a mount; all but these two only matter to writers.

    message: of the commit at the end, and of checkpoints
    on_terminate: what SIGTERM does while the body runs: `commit` what is there, or `keep` it and say where; then
        the process ends by it.  Without this option SIGTERM is not touched: what is written is kept, as when the
        process dies in any other way
    checkpoint_every: seconds; so often the tree is committed in the background, if anything changed
    """

    message: str
    on_terminate: OnTerminate
    checkpoint_every: float


class Terms(NamedTuple):
    """BlockOptions taken apart: what becomes of the work, and the options of the mount."""

    options: MountOptions
    message: str = ""
    on_terminate: OnTerminate | None = None
    checkpoint_every_s: float | None = None

    @classmethod
    def of(cls, given: BlockOptions) -> Self:
        """Take *given* apart.  Raises TypeError for an option there is not, VolumeError for a value that is none."""
        if unknown := given.keys() - BlockOptions.__annotations__.keys():
            raise TypeError(f"there is no option {', '.join(sorted(unknown))} of a mount")
        on_terminate, every_s = given.get("on_terminate"), given.get("checkpoint_every")
        if on_terminate not in {None, *get_args(OnTerminate)}:
            raise VolumeError(f"on_terminate is {on_terminate!r}: give 'commit' or 'keep'")
        if every_s is not None and not every_s > 0:
            raise VolumeError(f"checkpoint_every is {every_s!r}: give a number of seconds above 0")
        options = {name: value for name, value in given.items() if name in MountOptions.__annotations__}
        return cls(cast("MountOptions", options), given.get("message", ""), on_terminate, every_s)


class Block:
    """One writer's block.  Entered and left once."""

    def __init__(self, volume: RWVolume, terms: Terms) -> None:
        self.volume = volume
        self.version: ROVolume | None = None  # what it has committed at its end
        self._terms = terms
        self._pid = os.getpid()
        self._heard = ExitStack()
        self._points: Checkpoints | None = None
        self._is_left = self._saved = False
        self._was_terminated = False

    def enter(self, mount_path: StrPath | None) -> Path:
        """Mount, and begin what was asked for; return where."""
        path = self.volume.mount_sync(mount_path, **self._terms.options)
        try:
            if self._terms.on_terminate is not None:
                self._heard.enter_context(saved_on_sigterm(self))
            if self._terms.checkpoint_every_s is not None:
                self._points = Checkpoints(self.volume.name, self._terms.checkpoint_every_s, self._checkpoint)
        except BaseException as error:
            self.keep(error)
            raise
        return path

    def commit(self) -> ROVolume:
        """Commit the work, and unmount.  Until that is done SIGTERM waits for it."""
        self._stop_checkpoints()
        with self._lock:
            self.version = self.volume.finalize_sync(self._terms.message)
            self._is_left = True
        self._heard.close()
        return self.version

    def end_after(self, error: BaseException) -> str | None:
        """After *error* of the body: keep what was written, or commit it if SIGTERM came; return which, and where."""
        failed = ""
        if self._was_terminated and self._terms.on_terminate == "commit":
            try:
                return f"what was there on SIGTERM is committed: {self.commit().locator}"
            except (VolumeError, OSError) as failure:
                failed = f"what was there on SIGTERM could not be committed ({failure}); "
        kept = self.keep(error)
        return failed + kept if kept is not None else None

    def keep(self, error: BaseException) -> str | None:
        """After *error*: unmount, keep what was written, and return where it is; None if there is nothing of that."""
        if self._pid != os.getpid():
            return None
        self._stop_checkpoints()
        try:
            with self._lock:
                self._is_left = True
                return self.volume._leave()
        except (VolumeError, OSError) as failure:
            if failure is error:
                return None
            return f"what became of volume {self.volume.name!r} could not be found out ({failure}): volume status"
        finally:
            self._heard.close()

    @property
    def _lock(self) -> threading.RLock:
        return self.volume._handle.lock  # another one in a forked child

    def _stop_checkpoints(self) -> None:
        if self._points is not None:
            self._points.stop()

    def _checkpoint(self) -> None:
        self.volume.commit_sync(self._terms.message)

    # -- on SIGTERM: see volume_core.facade.terminating.Terminable

    def save(self, let_main_go_on: Callable[[], None]) -> None:
        """Commit what is there, if that was asked for; the volume is this thread's afterwards."""
        if not self._lock.acquire(timeout=_LOCK_PATIENCE_S):
            let_main_go_on()  # it may have the lock
            self._lock.acquire()
        self._was_terminated = True
        if self._is_left or self._terms.on_terminate != "commit":
            return
        for tries_left in reversed(range(_BUSY_TRIES)):
            try:
                version = self.volume.commit_sync(self._terms.message)
            except BusyError as error:
                if tries_left:
                    continue
                log.error("volume %s is not committed on SIGTERM: %s", self.volume.name, error)
            except (VolumeError, OSError) as error:
                log.error("volume %s is not committed on SIGTERM: %s", self.volume.name, error)
            else:
                log.info("volume %s is committed on SIGTERM: %s", self.volume.name, version.locator)
                self._saved = True
            return

    def free(self) -> None:
        """Let others have the volume again."""
        self._lock.release()

    def end(self) -> None:
        """Unmount: the process dies now."""
        if self._is_left:
            return
        if self._saved:
            self.volume._finish()
        elif (kept := self.volume._leave()) is not None:
            log.warning("SIGTERM: volume %s: %s", self.volume.name, kept)


class BothContexts(AbstractContextManager[R], AbstractAsyncContextManager[R], Generic[R]):
    """A context manager for `with` and, entered and left in threads, for `async with`; once.

    With *hears*, SIGTERM is heard meanwhile, if the thread that enters is the main thread.
    """

    def __init__(self, context: AbstractContextManager[R], *, hears: bool) -> None:
        self._context = context
        self._async = AsyncContext(context)
        self._hears = hears
        self._hearing: Hearing | None = None

    def _hear(self) -> None:
        if not self._hears:
            return
        self._hearing = Hearing()
        if not self._hearing:
            log.warning(
                "SIGTERM is not heard here, so on_terminate has no effect: Python handles signals in the main thread "
                "alone; call volume_core.listen_for_sigterm() there first"
            )

    def _stop_hearing(self) -> None:
        if self._hearing is not None:
            self._hearing.stop()

    def __enter__(self) -> R:
        self._hear()
        try:
            return self._context.__enter__()
        except BaseException:
            self._stop_hearing()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        try:
            return self._context.__exit__(kind, error, trace)
        finally:
            self._stop_hearing()

    async def __aenter__(self) -> R:
        self._hear()
        try:
            return await self._async.__aenter__()
        except BaseException:
            self._stop_hearing()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        try:
            return await self._async.__aexit__(kind, error, trace)
        finally:
            self._stop_hearing()


class WritesInBlocks(HandledRecord):
    """What an RWVolume does for the length of a block, and at its end."""

    def mounted_sync(
        self, mount_path: StrPath | None = None, **options: Unpack[BlockOptions]
    ) -> AbstractContextManager[Path]:
        """Mount for the length of a `with` statement; commit when it ends well.

        After an error nothing is committed; what was written is kept, and the error says where.  Checkpoints,
        and what SIGTERM does: see BlockOptions.
        """
        terms = Terms.of(options)
        context = _writing(cast("RWVolume", self), mount_path, terms)
        return BothContexts(context, hears=terms.on_terminate is not None)

    mounted = awaitable_context(mounted_sync)

    def _writer(self) -> Writer | None:
        self._handle.check_process(self.name)
        held = self._handle.held
        return held if isinstance(held, Writer) else None

    def _finish(self) -> None:
        """After a commit: unmount, and be done with the working copy unless something was written since."""
        with self._handle.lock:
            writer = self._writer()
            if writer is not None:
                self._handle.let_go()
                writer.finish()

    def _leave(self) -> str | None:
        """Unmount; return where what is not committed is kept, or None if there is nothing of that."""
        with self._handle.lock:
            writer = self._writer()
            if writer is None:
                return None
            self._handle.let_go()
            kept = writer.leave()
            if kept is not None:
                note_left(self, writer.work_id)
            return kept


@contextmanager
def _writing(volume: RWVolume, mount_path: StrPath | None, terms: Terms) -> Generator[Path, Any, None]:
    block = Block(volume, terms)
    path = block.enter(mount_path)
    try:
        yield path
        block.commit()
    except BaseException as error:
        if block.version is None and (note := block.end_after(error)) is not None:
            error.add_note(note)
        raise

"""What a mount is asked for, and what comes back.

The one vocabulary between the facade and the drivers: plain values, so that a request can be
written to a supervisor in another process.

Always true: a reader has no upper; a writer has a working copy, and its upper is mounted only over
the base recorded beside it (the layers of this request are that base); nothing here is a secret.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from volume_core.parts.state import State
    from volume_core.parts.workcopies import WorkingCopy

# Long enough for a cold Python on a busy machine to start twice; a mount of a warm one takes a tenth of a second.
MOUNT_TIMEOUT_S = 30.0
CACHE_LIMIT_BYTES = 10 << 30


class MountRequest(NamedTuple):
    """One mount: which view, where, and for whom.

    `layers` are verified index files, oldest first; () is a brand-new volume, which has no server.
    `locator` names the version shown (None for a brand-new volume), `volume` is the name that `df` shows.
    `working_copy` gives a writer's upper and work directories and is None for a reader.  Its work directory
    is scratch: a mount empties it.  Whether an upper left by another boot may be trusted is for the caller to judge.
    `region` is the store's, where one was given.
    `detach`: the mount has no owner and stays until it is unmounted; otherwise it goes when this process does.
    `allow_other`: None means "where it is permitted" (always for root; for others if /etc/fuse.conf says so).
    """

    state: State
    mount_path: Path
    store_url: str
    locator: str | None = None
    layers: tuple[Path, ...] = ()
    volume: str = "volume"
    used_bytes: int = 0
    inode_count: int = 0
    working_copy: WorkingCopy | None = None
    cache_limit_bytes: int = CACHE_LIMIT_BYTES
    detach: bool = False
    allow_other: bool | None = None
    timeout_s: float = MOUNT_TIMEOUT_S
    region: str | None = None

    @property
    def writable(self) -> bool:
        """Whether the mount takes writes."""
        return self.working_copy is not None


class Mounted(Protocol):
    """A live mount.  Every method may be called from any thread, and again after it succeeded."""

    @property
    def id(self) -> str:
        """The name of the mount's directory below `state/mounts`."""
        ...

    @property
    def path(self) -> Path:
        """Where the tree is."""
        ...

    @property
    def driver(self) -> str:
        """`kernel`, `fuse-overlay` or `copy`."""
        ...

    @property
    def dialect(self) -> str:
        """The name of the dialect (parts/dialects.py) of the upper's markers."""
        ...

    def is_alive(self) -> bool:
        """Whether the tree is mounted and answers; never blocks on the mount."""
        ...

    def settle(self) -> None:
        """Bring what a driver still caches into the upper; called before a scan and before its final comparison.

        Raises StorageError when the kernel reports a write-back that was lost.
        """
        ...

    def unmount(self, *, lazy: bool = False) -> None:
        """Take the tree away; a writer's upper stays.

        Strict: raises BusyError naming what is open, and changes nothing.  Lazy: the path is free at once, and
        files that are still open go on working until they are closed.
        """
        ...


class Driver(Protocol):
    """One way to put a view under a path."""

    @property
    def name(self) -> str:
        """What `driver=` calls it."""
        ...

    def mount(self, request: MountRequest) -> Mounted:
        """Mount and return when the tree answers, or raise MountError (what the machine lacks) and leave nothing."""
        ...

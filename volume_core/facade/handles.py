"""What a handle holds besides its record: a lock, its store, its version, and what it has mounted.

Always true:

  1. What is held is taken down when the handle is collected or its process ends, unless it was let go.
  2. In a forked child nothing is held: the path of the parent's mount is known, and used, but only the
     parent takes it down.
  3. Nothing is mounted without having been told to: by a call, or by whoever runs the code (`mounting_on_demand`).
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from pydantic import PrivateAttr

from volume_core.errors import BusyError, InvalidNameError, NotFoundError, VolumeError
from volume_core.facade.addresses import PROTOCOL, store_root, url_of
from volume_core.facade.attempts import note_held
from volume_core.facade.browsing import Browsers
from volume_core.facade.mounts import Options, StrPath
from volume_core.facade.readers import Reading
from volume_core.facade.records import Record
from volume_core.facade.releasing import release_with
from volume_core.facade.versions import Place, Version, read_version
from volume_core.facade.writers import Writer
from volume_core.format.names import Locator

if TYPE_CHECKING:
    from volume_core.parts.landing import LandingPolicy
    from volume_core.volumes import ROVolume


class Held(Protocol):
    """A reader's mount, or a writer."""

    @property
    def path(self) -> Path | None:
        """Where it is mounted."""
        ...

    @property
    def driver(self) -> str | None:
        """By which driver it is mounted."""
        ...

    def is_alive(self) -> bool:
        """Whether it is mounted and answers."""
        ...

    def unmount(self, *, lazy: bool) -> None:
        """Take the mount down."""
        ...

    def release(self) -> None:
        """Take everything down: nobody will use it any more."""
        ...


class Handle:
    """The state of one handle.  Its methods are called with `lock` held."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.place: Place | None = None
        self.version: Version | None = None
        self.policy: LandingPolicy | None = None  # of a writer that was opened by name
        self.purpose = ""  # of the working copies that it makes
        self.is_taken_over = False  # what it holds was there before: an attempt that fails drops only its own
        self.landing: str | None = None  # the version that a batch was about to land, where its end is not known
        self._session: Held | None = None
        self._pid = 0
        self._call_off: Callable[[], None] = _nothing
        self._browsers: Browsers | None = None
        self._keep_browsers: Callable[[], None] = _nothing
        _handles.add(self)

    def browsers(self, version: Version | None, place: Place, name: str) -> Browsers:
        """Return what looks into *version* (None: nothing is committed yet); open until `close_browsers`."""
        if self._browsers is None or not self._browsers.shows(version):
            self.close_browsers()
            where = str(version.locator) if version else f"volume {name!r}, of which nothing is committed"
            self._browsers = Browsers(version, place, where)
            self._keep_browsers = release_with(self, self._browsers)
        return self._browsers

    def close_browsers(self) -> None:
        """Close what is open to look into a version; reads that go on keep it until they are done."""
        if self._browsers is not None:
            self._keep_browsers()
            self._browsers.close()
        self._browsers, self._keep_browsers = None, _nothing

    @property
    def held(self) -> Held | None:
        """What this process holds."""
        return self._session if self._pid == os.getpid() else None

    @property
    def path(self) -> Path | None:
        """Where it is mounted, by this process or by the one that this process was forked from."""
        return self._session.path if self._session is not None else None

    @property
    def driver(self) -> str | None:
        """By which driver it is mounted."""
        return self._session.driver if self._session is not None else None

    def hold(self, owner: HandledRecord, session: Held, *, is_taken_over: bool = False) -> None:
        """Keep *session* until *owner* is collected."""
        self._session, self._pid, self.is_taken_over = session, os.getpid(), is_taken_over
        self._call_off = release_with(owner, session)
        note_held(owner)

    def let_go(self) -> None:
        """Leave what is held to the caller."""
        if self.held is not None:
            self._call_off()
        self._session, self._call_off = None, _nothing

    def check_process(self, name: str) -> None:
        """Raise VolumeError in a forked child of the process that holds something."""
        if self._session is not None and self.held is None:
            raise VolumeError(
                f"volume {name!r} is open in process {self._pid}, which this one was forked from: "
                "commit, unmount or abandon it there; its mount can be used here"
            )

    def mounted_at(self, wanted: StrPath | None) -> Path | None:
        """Return where it is mounted, if it is; BusyError if that is not the path *wanted*."""
        path = self.path
        if self._session is None or path is None or not self._session.is_alive():
            return None
        if wanted is not None and os.path.realpath(wanted) != os.path.realpath(path):
            raise BusyError(f"already mounted at {path}: unmount it before it is mounted at {os.fspath(wanted)}")
        return path

    def mount_reader(self, owner: HandledRecord, version: Version, wanted: StrPath | None, options: Options) -> Path:
        """Mount *version* to read, unless it is mounted; return where."""
        if (path := self.mounted_at(wanted)) is not None:
            return path
        self.unmount(lazy=True)  # what is left of a mount that died
        reading = Reading.open(version, wanted, options)
        self.hold(owner, reading)
        return reading.path

    def mount_writer(self, owner: HandledRecord, writer: Writer, wanted: StrPath | None, options: Options) -> Path:
        """Mount *writer*'s working copy; one that could not be mounted for the first time is dropped."""
        if self.held is writer:
            return writer.mount(wanted, options)
        try:
            path = writer.mount(wanted, options)
        except BaseException:
            writer.discard()
            raise
        self.hold(owner, writer)
        return path

    def unmount(self, *, lazy: bool) -> None:
        """Take a reader's mount down."""
        if (held := self.held) is not None:
            held.unmount(lazy=lazy)
        self.let_go()


def _nothing() -> None:
    pass


_demanders = 0  # statements of mounting_on_demand() that this process is in


@contextmanager
def mounting_on_demand() -> Iterator[None]:
    """For the length of a `with` statement a volume that this process uses as a path is mounted where it is not.

    For engines whose own tasks take paths and know no volumes.  Who opens the statement takes down what was mounted.
    """
    global _demanders
    _demanders += 1
    try:
        yield
    finally:
        _demanders -= 1


_handles: weakref.WeakSet[Handle] = weakref.WeakSet()


def _renew_locks() -> None:
    # The thread that held a lock while another forked does not exist in the child.
    for handle in _handles:
        handle.lock = threading.RLock()


os.register_at_fork(after_in_child=_renew_locks)


class HandledRecord(Record):
    """A record, and the handle through which it is used.  A copy, or what is unpickled, has a handle of its own."""

    _handle: Handle = PrivateAttr(default_factory=Handle)

    @property
    def locator(self) -> str | None:
        """The URL of the version's manifest; None before the first commit."""
        return self.index

    @property
    def mount_path(self) -> Path | None:
        """Where this handle is mounted; None if it is not."""
        return self._handle.path

    @property
    def driver(self) -> str | None:
        """The name of the driver that mounted it; None if it is not mounted."""
        return self._handle.driver

    def __str__(self) -> str:
        """The `vol://` URL of its version, or of the volume while it has none: the same wherever it is made."""
        if self.index is not None and Locator.parse(self.index).volume == self.name:
            return url_of(self.index)
        return f"{PROTOCOL}://{store_root(self.store_url)}/{self.name}"

    def __fspath__(self) -> str:
        """Where this handle is mounted, so that it can be passed where a path can."""
        return os.fspath(self._mounted_path())

    def __truediv__(self, name: StrPath) -> Path:
        """Return the path of *name*, which is relative to the volume's root, below the mount."""
        root = self._mounted_path()
        if os.path.isabs(name):
            raise InvalidNameError(f"{os.fspath(name)!r} leads out of the volume {self.name!r}: give a relative path")
        return root / name

    def _mounted_path(self) -> Path:
        if self.mount_path is not None:
            return self.mount_path
        if _demanders:
            return self._to_mount()
        raise VolumeError(
            f"volume {self.name!r} is not mounted, so it has no path: mount() it, or use it within "
            "`with volume.mounted_sync()`"
        )

    def _to_mount(self) -> Path:
        """Mount what the handle is of, and return where.  Only the public classes can, and they say so."""
        raise TypeError(f"{self.name}: a record alone is not mounted")

    def _place(self) -> Place:
        if self._handle.place is None:
            self._handle.place = Place(self.store_url, self.region)
        return self._handle.place

    def _version(self) -> Version | None:
        """The version that `index` names, read and verified; None before the first commit."""
        if self._handle.version is None and self.index is not None:
            self._handle.version = read_version(Locator.parse(self.index), self._place())
        return self._handle.version

    @staticmethod
    def _of_version(version: Version) -> ROVolume:
        """Return a handle of *version*.  Only the public classes know of which class, and they say so."""
        raise TypeError(f"{version.locator}: a record alone has no handles to give")

    def _existing(self) -> Version:
        version = self._version()
        if version is None:
            raise NotFoundError(f"volume {self.name!r} has no version yet")
        return version

    def _locked_version(self) -> Version:
        """The version that `index` names; VolumeError where a writer has changes that are not in it."""
        with self._handle.lock:
            held = self._handle.held
            if isinstance(held, Writer) and held.has_changes():
                raise VolumeError(
                    f"volume {self.name!r} has changes that are not committed: commit first, and use the version "
                    "that commit returns"
                )
            return self._existing()

    def __copy__(self) -> Self:
        """Another handle of the same volume, not mounted."""
        return self.__deepcopy__()

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Another handle of the same volume, not mounted."""
        rebuild, arguments = self.__reduce__()
        copy: Self = rebuild(*arguments)
        return copy

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        """A pickled volume is its record: mounts stay where they are."""
        return _from_record, (type(self), self.model_dump())


def _from_record(cls: type[HandledRecord], fields: dict[str, Any]) -> HandledRecord:
    return cls.model_validate(fields)

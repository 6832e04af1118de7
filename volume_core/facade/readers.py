"""A version that is mounted to read."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from volume_core.facade.mounts import LiveMount, Mounting, Options, StrPath, mount
from volume_core.facade.versions import Version
from volume_core.plugins.manager import plugins


class Reading:
    """A reader's mount: gone with its handle."""

    def __init__(self, live: LiveMount) -> None:
        self._live = live

    @classmethod
    def open(cls, version: Version, wanted: StrPath | None, options: Options) -> Self:
        """Mount *version* at *wanted*, or at a path of its own."""
        what = Mounting(
            version.manifest.volume, version.place.url, version.place.region, version, plugins().current_task()
        )
        return cls(mount(what, wanted, options))

    @property
    def path(self) -> Path:
        """Where the tree is."""
        return self._live.path

    @property
    def driver(self) -> str:
        """By which driver it is mounted."""
        return self._live.mounted.driver

    def is_alive(self) -> bool:
        """Whether the tree is mounted and answers."""
        return self._live.mounted.is_alive()

    def unmount(self, *, lazy: bool) -> None:
        """Take it down; BusyError while files are open and it is not *lazy*."""
        self._live.unmount(lazy=lazy)

    def release(self) -> None:
        """Take it down, whoever has files open, unless it was asked to stay."""
        if not self._live.detached:
            self._live.unmount(lazy=True)

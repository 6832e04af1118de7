"""Where this machine keeps what is not in a store: one directory, `$VOLUME_STATE_DIR` or `~/.volumes`.

    store/                   the default store, for those who configure none
    cache/layers, cache/packs   what was fetched; may be deleted at any time, even under live mounts
    work/<id>/               one working copy: the only place where uncommitted work lies
    mounts/<id>/             one live mount: sockets, records and the view's mount point
    copies/<id>/             one tree made by the copy driver: its record
    uploads/<volume>-<id>    what a batch has uploaded so far: removed when it is committed

Always true: everything but `cache` is readable by its owner alone, since files keep the modes they
have in their volumes; two States with one root see the same working copies and mounts, whatever
process made them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import quote_from_bytes

from volume_core.errors import VolumeError

STATE_DIR_VARIABLE = "VOLUME_STATE_DIR"


def absolute(path: str | os.PathLike[str], variable: str) -> Path:
    """Return *path* absolute, `~` expanded.

    Raises VolumeError, naming the environment *variable* to set, where there is no home to expand it to: a
    container's user without an entry in /etc/passwd.  A directory called "~" is what nobody wants.
    """
    expanded = os.path.expanduser(os.fspath(path))
    if expanded.startswith("~"):
        raise VolumeError(f"{expanded}: no such home directory is known here: set ${variable}, or $HOME")
    return Path(os.path.abspath(expanded))


@dataclass(frozen=True, slots=True)
class State:
    """The local state below `root` (absolute).  Making the value makes no directory; `prepare` does."""

    root: Path

    @classmethod
    def default(cls) -> Self:
        """Return the state that `$VOLUME_STATE_DIR` names; `~/.volumes` where it is unset or empty."""
        return cls.at(os.environ.get(STATE_DIR_VARIABLE) or "~/.volumes")

    @classmethod
    def at(cls, root: str | os.PathLike[str]) -> Self:
        """Return the state below *root*; `~` is expanded and a relative path made absolute."""
        return cls(absolute(root, STATE_DIR_VARIABLE))

    @property
    def cache(self) -> Path:
        """Fetched indexes and windows of packs: bounded, shared by all mounts."""
        return self.root / "cache"

    @property
    def layers(self) -> Path:
        """Unpacked, verified indexes by the digest of their content."""
        return self.cache / "layers"

    @property
    def packs(self) -> Path:
        """Windows of packs of remote stores."""
        return self.cache / "packs"

    @property
    def work(self) -> Path:
        """One directory per working copy."""
        return self.root / "work"

    @property
    def mounts(self) -> Path:
        """One directory per live mount."""
        return self.root / "mounts"

    @property
    def copies(self) -> Path:
        """One directory per tree of the copy driver."""
        return self.root / "copies"

    @property
    def uploads(self) -> Path:
        """One journal per batch that is being uploaded, or was not finished."""
        return self.root / "uploads"

    @property
    def store(self) -> Path:
        """Where the default store is."""
        return self.root / "store"

    @property
    def default_store_url(self) -> str:
        """The URL of the store for volumes that name no bucket."""
        return "file://" + quote_from_bytes(os.fsencode(self.store), safe="/")

    def prepare(self) -> Self:
        """Make the directories that are not there yet, for their owner alone; return self.

        Raises OSError where the root cannot be made.
        """
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            for directory in (
                self.store,
                self.cache,
                self.layers,
                self.packs,
                self.work,
                self.mounts,
                self.copies,
                self.uploads,
            ):
                directory.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            error.add_note(
                f"volumes keep their working copies and cache in {self.root}: ${STATE_DIR_VARIABLE} says where"
            )
            raise
        return self

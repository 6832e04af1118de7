"""What is told of a writer and of a version's history: plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from volume_core.format.manifest import Manifest

if TYPE_CHECKING:
    from volume_core.volumes import ROVolume


@dataclass(frozen=True, slots=True)
class Status:
    """Where a writer stands.

    `locator` is its last commit, or what it was forked from; `working_copy` is the id under which its
    uncommitted work is found after a crash (None: it has not written anything yet); `changed` says
    whether anything differs from `locator`; `upper_bytes` is the disk space that its changes take.
    """

    name: str
    locator: str | None = None
    mount_path: Path | None = None
    driver: str | None = None
    working_copy: str | None = None
    upper_bytes: int = 0
    changed: bool = False


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One version of a history, with what its record does not say.

    `created_at` is ISO 8601 in UTC; `parents` are locators; `torn` names the paths that kept changing
    while they were read (a commit with allow_torn), as text.  `tags` and `is_head` are its names, where the
    log was asked for them.
    """

    volume: ROVolume
    created_at: str
    parents: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    torn: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    is_head: bool = False

    @classmethod
    def of(
        cls, volume: ROVolume, manifest: Manifest, tags: tuple[str, ...] = (), is_head: bool = False
    ) -> HistoryEntry:
        """Return the entry of *volume*, whose manifest is *manifest*."""
        return cls(volume, manifest.created_at, manifest.parents, dict(manifest.labels), manifest.torn, tags, is_head)

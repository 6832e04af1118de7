"""What a page says of a version, gathered before anything is written.

Always true: what is read is bounded (HISTORY_MAX manifests, and what facade/telling.py allows); what cannot be had
is a remark, never an error.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from volume_core.domain.diff import ChangeKind
from volume_core.errors import NotFoundError, VolumeError
from volume_core.facade.comparing import Difference
from volume_core.facade.telling import Changed, Line, changed, line_of
from volume_core.facade.versions import Version
from volume_core.pages.spelling import shell_word, short

if TYPE_CHECKING:
    from volume_core.volumes import ROVolume

HISTORY_MAX = 50
CHANGES_MAX = 50
COUNTED_MAX = 10_000  # to count is to find: 30 us a path


class Point(NamedTuple):
    """One version of the history."""

    version: str
    created_at: str
    message: str
    used_bytes: int
    inode_count: int


@dataclass(frozen=True)
class Changes:
    """What changed against the first parent: the first paths, and how many of each kind, `is_all` of them."""

    paths: list[Difference] = field(default_factory=list)
    counts: dict[ChangeKind, int] = field(default_factory=dict)
    is_all: bool = True

    @classmethod
    def of(cls, found: Changed, paths_max: int) -> Changes:
        """Return *found*, with *paths_max* of its paths: those whose metadata alone changed come last."""
        paths = sorted(found.paths, key=lambda each: each.kind is ChangeKind.METADATA)
        return cls(paths[:paths_max], Counter(each.kind for each in found.paths), found.is_all)

    @property
    def total(self) -> int:
        """How many paths were counted."""
        return sum(self.counts.values())


@dataclass(frozen=True)
class Facts:
    """All that a page says.

    `history` is oldest first and ends with the version itself; `earlier`: there is more before it.  `changes` is None
    where they cannot be told; `remarks` are sentences that say what is not here, and why.
    """

    volume: ROVolume
    created_at: str
    parents: tuple[str, ...]
    labels: dict[str, str]
    torn: tuple[str, ...]
    history: list[Point]
    earlier: bool
    changes: Changes | None
    remarks: list[str]

    @property
    def parent(self) -> Point | None:
        """The first parent, where it could be read."""
        return self.history[-2] if len(self.history) > 1 else None

    @property
    def first_parent(self) -> str:
        """What to call the version that the changes are told against."""
        return "first parent" if len(self.parents) > 1 else "parent"

    @property
    def command(self) -> str:
        """What mounts the version, for a shell."""
        return f"volume mount {shell_word(self.volume.locator)} DIR"

    @property
    def python(self) -> str:
        """The same in two lines of Python."""
        locator = ascii(self.volume.locator)
        return f"from volume_core import Volume\npath = Volume.from_locator_sync({locator}).mount_sync()"


def gather(volume: ROVolume, history_max: int, changes_max: int) -> Facts:
    """Return what there is to say of *volume*; raises no VolumeError."""
    try:
        version = volume._locked_version()
    except VolumeError as error:
        here = Point(volume.version, "", volume.message, volume.used_bytes, volume.inode_count)
        return Facts(volume, "", (), {}, (), [here], False, None, [_unreadable(error)])
    manifest = version.manifest
    remarks: list[str] = []
    line = _line(version, max(history_max, 2 if changes_max else 1), remarks)
    changes = _changes(version, line, changes_max, remarks) if changes_max else None
    shown = line.versions[: max(history_max, 1)]
    return Facts(
        volume,
        manifest.created_at,
        manifest.parents,
        dict(manifest.labels),
        manifest.torn,
        [_point(each) for each in reversed(shown)],
        line.more or len(shown) < len(line.versions),
        changes,
        remarks,
    )


def _point(version: Version) -> Point:
    manifest = version.manifest
    name = version.locator.version
    return Point(name, manifest.created_at, manifest.message, manifest.used_bytes, manifest.inode_count)


def _unreadable(error: VolumeError) -> str:
    if isinstance(error, NotFoundError):
        return "This version is not in its store any more; what is known of it is what its record says."
    return f"What is in the store cannot be read: {error}"


def _line(version: Version, limit: int, remarks: list[str]) -> Line:
    try:
        line = line_of(version, limit)
    except VolumeError as error:
        remarks.append(f"The history cannot be read: {error}")
        return Line([version], more=bool(version.manifest.parents))
    if line.pruned is not None and len(line.versions) > 1:
        remarks.append(f"The history ends at {short(line.pruned)}, which is not in the store any more.")
    return line


def _changes(version: Version, line: Line, limit: int, remarks: list[str]) -> Changes | None:
    if not version.manifest.parents:
        return None
    if len(line.versions) < 2:
        if line.pruned is not None:
            remarks.append(
                f"Its parent {short(line.pruned)} is not in the store any more: what changed since cannot be told."
            )
        return None
    try:
        found = changed(version, line.versions[1], max(COUNTED_MAX, limit))
    except VolumeError as error:
        remarks.append(f"What changed cannot be told: {error}")
        return None
    if found is None:
        remarks.append("What changed is not told here: too much would have to be fetched. `volume diff` tells it.")
        return None
    return Changes.of(found, limit)

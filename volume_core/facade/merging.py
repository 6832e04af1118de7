"""Several versions made one.

Three-way, from the left: each version's changes since the nearest version that it and those before it came
from, on top of what these came to.

Always true:

  1. No file data is read or written: a merge is a layer of rows, and a manifest that names all its parents.
  2. With conflicts that nobody has decided nothing is published.
  3. A version that another one of them came from is in it already and changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from volume_core.domain.changes import Changes
from volume_core.domain.diff import LayerRow, rows_between, rows_of
from volume_core.domain.merge import Conflict, Policy, merge
from volume_core.domain.view import View
from volume_core.errors import ConflictError, InvalidNameError, VolumeError
from volume_core.facade.comparing import Opened, about_of, keep_indexes, require_one_store
from volume_core.facade.handles import HandledRecord
from volume_core.facade.heads import announce
from volume_core.facade.lines import renamed
from volume_core.facade.twins import awaitable_of_class
from volume_core.facade.versions import Version
from volume_core.format.layer import LayerReader
from volume_core.format.names import Locator, validate_name
from volume_core.parts.intents import HeldIntent
from volume_core.parts.publishing import Parent, path_text, publish_changes
from volume_core.plugins.manager import plugins

if TYPE_CHECKING:
    from volume_core.volumes import ROVolume

OnConflict = Literal["error", "ours", "theirs", "last-write-wins", "keep-both"]
# Each version is put on top of those before it: there what comes on top is "ours", here the first version is.
_POLICIES = {
    "error": Policy.ERROR,
    "ours": Policy.THEIRS,
    "theirs": Policy.OURS,
    "last-write-wins": Policy.LAST_WRITE_WINS,
    "keep-both": Policy.KEEP_BOTH,
}
_STEPS_MAX = 8  # layers of a merge that is going on, before they are made one
_PATHS_SHOWN_MAX = 10
_MARK_CHARACTERS = 8  # of a version's id, in the name of a file that is kept beside another


def policy_of(on_conflict: str) -> Policy:
    """Return the policy called *on_conflict*, or raise InvalidNameError naming those there are."""
    if on_conflict not in _POLICIES:
        raise InvalidNameError(f"on_conflict {on_conflict!r} is not one of {', '.join(_POLICIES)}")
    return _POLICIES[on_conflict]


def mark_of(version: Version) -> bytes:
    """Return what files of *version* are called by where they are kept beside others."""
    return f"{version.manifest.volume}-{version.locator.version[:_MARK_CHARACTERS]}".encode()


def conflict_error(what: str, conflicts: Sequence[Conflict], advice: str) -> ConflictError:
    """Return the error that tells of *conflicts*; *what* was being done, and *advice* says what to do."""
    shown = [f"{_shown(each.path)} ({each.reason})" for each in conflicts[:_PATHS_SHOWN_MAX]]
    more = f", and {len(conflicts) - len(shown)} more" if len(conflicts) > len(shown) else ""
    return ConflictError(
        f"{what}: {len(conflicts)} {'path' if len(conflicts) == 1 else 'paths'} in conflict: {', '.join(shown)}{more}; "
        f"{advice}",
        [os.fsdecode(each.path) for each in conflicts],
    )


def _shown(path: bytes) -> str:
    """A path for a message: no name can end its line."""
    text = path_text(path) if path else ""
    return "/" + "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def merged(
    versions: Sequence[Version],
    name: str | None = None,
    on_conflict: str = "error",
    message: str = "",
    labels: Mapping[str, str] | None = None,
) -> tuple[Version, bool]:
    """Return what *versions* come to as a version of the volume *name* (default: the first's), and whether it is new.

    It is not where one of *versions* came from all others, and is of that volume.  To tell the hooks of a
    new one is the caller's.
    """
    policy = policy_of(on_conflict)
    if len(versions) < 2:
        raise VolumeError(f"{len(versions)} version given: to merge takes at least two")
    require_one_store(versions)
    volume = validate_name(name) if name is not None else versions[0].manifest.volume
    if policy is Policy.LAST_WRITE_WINS:
        versions = sorted(versions, key=lambda version: version.manifest.created_at)
    with Opened() as opened:
        tips = opened.ancestry.independent(versions)
        if len(tips) > 1:
            return _Fold(opened, tips, policy).publish(volume, message, labels or {}), True
        if tips[0].manifest.volume == volume or name is None:
            return tips[0], False
        return renamed(tips[0], volume, message, labels or {}, plugins().current_task()), True


class _Fold:
    """Merges *tips*, of which none came from another, from the left."""

    def __init__(self, opened: Opened, tips: Sequence[Version], policy: Policy) -> None:
        self._opened = opened
        self._tips = tips
        self._policy = policy
        self._bases = [self._base(tips[:number], tips[number]) for number in range(1, len(tips))]
        opened.prepare([tips[0], *self._bases])
        self._first = opened.view(tips[0])
        self._steps: list[LayerReader] = []
        self._rows: list[LayerRow] = []  # against the first
        self._totals = tips[0].manifest.used_bytes, tips[0].manifest.inode_count

    def _base(self, before: Sequence[Version], version: Version) -> Version:
        found = self._opened.ancestry.common(before, version)
        if found is None:
            raise ConflictError(
                f"{version.locator} and {before[0].locator} have no version in common that is still there, so what "
                "each of them changed cannot be told: fork both from one version, or copy files from one to the other"
            )
        return found

    def publish(self, volume: str, message: str, labels: Mapping[str, str]) -> Version:
        """Publish the merge as a version of *volume*."""
        conflicts: dict[bytes, Conflict] = {}
        for version, base in zip(self._tips[1:], self._bases, strict=True):
            for found in self._add(version, base):
                conflicts.setdefault(found.path, found)
        if conflicts and self._policy is Policy.ERROR:
            what = "merging " + ", ".join(str(version.locator) for version in self._tips)
            advice = (
                f"nothing was published; say with on_conflict which is to be taken: {', '.join(list(_POLICIES)[1:])}"
            )
            raise conflict_error(what, sorted(conflicts.values()), advice)
        return self._published(volume, message, labels)

    def _add(self, version: Version, base: Version) -> list[Conflict]:
        """Put what *version* changed since *base* on top of what there is."""
        trees = self._opened.trees(base, self._tips[0], step_by_step=True)
        found = merge(
            self._changes(version, base),
            trees.before,
            View([*self._first.layers, *self._steps]),
            self._policy,
            totals=self._totals,
            shared=trees.shared,
            within=None if trees.within is None else (*trees.within, *self._steps),
            mark=mark_of(version),
        )
        self._totals = found.used_bytes, found.inode_count
        if found.rows:
            if self._steps:
                self._steps.append(self._opened.own(found.rows))
                if len(self._steps) >= _STEPS_MAX:
                    self._steps = [self._opened.own(self._against_first())]
            else:
                self._rows = found.rows
                self._steps.append(self._opened.own(found.rows))
        return found.conflicts

    def _changes(self, version: Version, base: Version) -> list[LayerRow]:
        """What *version* changed since *base*."""
        manifest = version.manifest
        if manifest.parents[:1] == (str(base.locator),):
            layers = self._opened.layers(version, [manifest.delta]) if manifest.delta else []
            return [row for layer in layers for row in rows_of(layer)]
        return self._opened.trees(base, version, step_by_step=True).rows()

    def _against_first(self) -> list[LayerRow]:
        if len(self._steps) < 2:
            return self._rows
        after = View([*self._first.layers, *self._steps])
        self._rows = rows_between(self._first, after, len(self._first.layers))
        return self._rows

    def _published(self, volume: str, message: str, labels: Mapping[str, str]) -> Version:
        first, *others = self._tips
        rows = self._against_first()
        further = tuple(str(version.locator) for version in others)
        if not rows:
            return renamed(first, volume, message, labels, plugins().current_task(), further)
        store = first.place.store()
        about = about_of(self._tips, message, labels)
        with HeldIntent(store, volume, [str(first.locator), *further]) as intent:
            published = publish_changes(
                store,
                intent,
                volume,
                Changes(rows, *self._totals),
                Parent(str(first.locator), first.manifest, self._first),
                about,
                further_parents=further,
            )
        keep_indexes(published.indexes)
        return Version(Locator.parse(published.locator), published.manifest, first.place)


class Merges(HandledRecord):
    """How to get a volume from several."""

    @classmethod
    def merge_sync(
        cls,
        versions: Sequence[ROVolume],
        name: str | None = None,
        *,
        on_conflict: OnConflict = "error",
        message: str = "",
        labels: Mapping[str, str] | None = None,
    ) -> ROVolume:
        """Return a version of the volume *name* (default: the first's) with what each of *versions* changed.

        They lie in one store and came from one version.  Where two of them changed the same, *on_conflict*
        decides: "error" raises ConflictError with the paths, and publishes nothing; "ours" takes the version
        that comes first in *versions*, "theirs" the one that comes later, "last-write-wins" the one that was
        committed later; "keep-both" leaves the first's file where it is and puts the other's beside it.
        Where one of *versions* came from all others, it comes back as it is.
        """
        found, is_new = merged([each._locked_version() for each in versions], name, on_conflict, message, labels)
        volume = cls._of_version(found)
        if is_new:
            announce(volume, found)
        return volume

    merge = awaitable_of_class(merge_sync)

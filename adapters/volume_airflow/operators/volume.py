"""Operators on volumes: to put files into one, to merge, to publish and to tag versions.

Always true: each returns the version that it has made or named; one that fails has moved no head; what stands for a
version where one is wanted is what a parameter annotated ROVolume takes (docs/tasks.md), and a template.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from volume_airflow import taskvolumes
from volume_airflow.compat import IS_3, BaseOperator
from volume_airflow.links.volume import VolumeLink
from volume_core import ConflictError, NotFoundError, ROVolume, Volume, VolumeError
from volume_core.facade.lines import renamed
from volume_core.facade.merging import OnConflict
from volume_core.facade.versions import read_version
from volume_core.format.names import Locator, validate_name
from volume_core.parts.heads import is_ancestor, move_head, read_head
from volume_core.parts.landing import LandingPolicy
from volume_core.parts.tags import read_tag
from volume_core.plugins.manager import plugins

# From 3 on the plugin's link is on every task that has returned a version.
LINKS: tuple[Any, ...] = () if IS_3 else (VolumeLink(),)
_TRIES = 8  # whoever loses so many races for a head in a row leaves it to those who win them


class VolumeCommitOperator(BaseOperator):
    """
    Puts files into a volume and commits them, without a mount; returns the version.

    :param volume: the name of a volume, which is made if it is not there, or what stands for a version: then it is a
        fork of that (templated)
    :param source: a file or directory of the worker, or a version whose tree is put there (templated); without one the
        head is committed once more, with the message and labels of this task
    :param target: where in the volume (templated); what is in a directory is merged with what is there
    :param replace: whether files that are there may be replaced; else they are an error that names them
    :param message: of the commit (templated); without it the DAG, the task, the run and the try
    :param labels: of the version, text to text (templated)
    :param on_conflict: where others have changed the same files meanwhile: `last-write-wins`, `error`, `keep-both`
    :param volume_conn_id: the connection of type `volume`; without one where volumes lie by default (templated)
    """

    template_fields: Sequence[str] = ("volume", "source", "target", "message", "labels", "volume_conn_id")
    ui_color = "#e3ecf7"
    returns_volumes = True
    operator_extra_links = LINKS

    def __init__(
        self,
        *,
        volume: Any,
        source: Any = None,
        target: str = "/",
        replace: bool = True,
        message: str = "",
        labels: Mapping[str, str] | None = None,
        on_conflict: LandingPolicy = "last-write-wins",
        volume_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.volume = volume
        self.source = source
        self.target = target
        self.replace = replace
        self.message = message
        self.labels = labels
        self.on_conflict = on_conflict
        self.volume_conn_id = volume_conn_id

    def execute(self, context: Any) -> ROVolume:
        """Put, commit, and return the version."""
        writer = taskvolumes.opened(self.volume, self.volume_conn_id, on_conflict=self.on_conflict)
        message = self.message or described(context)
        if self.source is None:
            return writer.commit_sync(message, labels=self.labels, even_if_unchanged=True)
        source, mounted = self._source()
        before = writer.index
        try:
            with writer.batch_upload_sync(force=self.replace, message=message, labels=self.labels) as batch:
                if os.path.isdir(source):
                    batch.put_directory(source, self.target)
                else:
                    batch.put_file(source, _file_in(self.target, source))
        finally:
            if mounted is not None:
                mounted.close_sync()
        if not self.labels or batch.version.index != before:
            return batch.version
        return writer.commit_sync(message, labels=self.labels, even_if_unchanged=True)  # the files were there already

    def _source(self) -> tuple[str, ROVolume | None]:
        """Return a path of this machine, and the version that is mounted there, if it is one's."""
        given = self.source
        if isinstance(given, str) and "://" not in given:
            if not os.path.exists(given):
                raise VolumeError(f"{given} is not there, on {os.uname().nodename}, to be put into {self.volume}")
            return given, None
        if isinstance(given, os.PathLike) and not isinstance(given, Volume):
            return os.fspath(given), None
        version = taskvolumes.versioned(given, self.volume_conn_id).model_copy()
        return os.fspath(version.mount_sync()), version


def _file_in(target: str, source: str) -> str:
    return f"{target.rstrip('/')}/{os.path.basename(source)}" if target.endswith("/") else target


class VolumeMergeOperator(BaseOperator):
    """
    Merges versions into the head of a named volume, and returns the version that it then names.

    :param versions: what one or several tasks have returned: versions, in lists too (templated). None, of a task that
        was skipped, is passed over
    :param name: the volume whose head it becomes, with what is there already; without it that of the first (templated)
    :param on_conflict: where two have changed the same file: `error` (nothing is published), `ours` (the one that comes
        first; the head goes before all), `theirs`, `last-write-wins`, `keep-both`
    :param message: of the version (templated); without it the DAG, the task, the run and the try
    :param labels: of the version, text to text (templated)
    :param volume_conn_id: the connection of type `volume`; without one where volumes lie by default (templated)
    """

    template_fields: Sequence[str] = ("versions", "name", "message", "labels", "volume_conn_id")
    ui_color = "#e3ecf7"
    mounts_volumes = False
    returns_volumes = True
    operator_extra_links = LINKS

    def __init__(
        self,
        *,
        versions: Any,
        name: str | None = None,
        on_conflict: OnConflict = "error",
        message: str = "",
        labels: Mapping[str, str] | None = None,
        volume_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.versions = versions
        self.name = name
        self.on_conflict = on_conflict
        self.message = message
        self.labels = labels
        self.volume_conn_id = volume_conn_id

    def execute(self, context: Any) -> ROVolume:
        """Merge, and return the version."""
        given = [taskvolumes.versioned(each, self.volume_conn_id) for each in _flat(self.versions)]
        if not given:
            raise VolumeError(f"{self.task_id} was given no version to merge: no task before it has returned one")
        message = self.message or described(context)
        for _ in range(_TRIES):
            merged = self._merged(given, message)
            if merged is not None:
                return merged
        raise ConflictError(
            f"the head of {self.name or given[0].name!r} moved {_TRIES} times during the merge: try again"
        )

    def _merged(self, given: Sequence[ROVolume], message: str) -> ROVolume | None:
        """Return the version that the head names after a merge; None where others have moved it meanwhile."""
        first = given[0]
        name, place = self.name or first.name, first._place()
        head = read_head(place.store(), name)
        merged = self._published(given, name, None if head is None else head.version, message)
        now = read_head(place.store(), name)
        if now is not None and _came_from(place.store(), merged.locator, now.version):
            return merged
        if (now.version if now else None) != (head.version if head else None):
            return None
        try:  # it was there already, so nobody has moved the head to it
            move_head(place.store(), name, now, merged.version, "merge", action=plugins().current_task())
        except ConflictError:
            return None
        return merged

    def _published(self, given: Sequence[ROVolume], name: str, head: str | None, message: str) -> ROVolume:
        """Return *given* and the version that the head names as one version of the volume *name*."""
        first = given[0]
        if head is not None:
            at_head = Locator(first._place().store().url, name, head)
            given = [ROVolume.of_version(read_version(at_head, first._place())), *given]
        distinct = list(dict.fromkeys(given))
        if len(distinct) == 1 and distinct[0].name == name:
            return distinct[0]
        # Of one version alone it is that version under the other name.
        return Volume.merge_sync(
            distinct if len(distinct) > 1 else distinct * 2,
            name,
            on_conflict=self.on_conflict,
            message=message,
            labels=self.labels,
        )


def _came_from(store: Any, locator: str, version: str) -> bool:
    parsed = Locator.parse(locator)
    return parsed.version == version or is_ancestor(store, parsed, parsed._replace(version=version))


def _flat(given: Any) -> Iterable[Any]:
    """Yield the versions in *given*: lists of a mapped task's results are sequences of Airflow's own."""
    if given is None:
        return
    if isinstance(given, str | Mapping | Volume):
        yield given
    elif isinstance(given, Iterable):
        for each in given:
            yield from _flat(each)
    else:
        yield given


class VolumePromoteOperator(BaseOperator):
    """
    Makes the head of a volume name a version: to publish what was checked, or to go back; returns the version.

    :param version: the version, or what stands for one (templated)
    :param name: another volume that it becomes a version of; without it its own (templated)
    :param tag: a second, immutable name for it (templated)
    :param volume_conn_id: the connection of type `volume`; without one where volumes lie by default (templated)
    """

    template_fields: Sequence[str] = ("version", "name", "tag", "volume_conn_id")
    ui_color = "#e3ecf7"
    mounts_volumes = False
    returns_volumes = True
    operator_extra_links = LINKS

    def __init__(
        self,
        *,
        version: Any,
        name: str | None = None,
        tag: str | None = None,
        volume_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.version = version
        self.name = name
        self.tag = tag
        self.volume_conn_id = volume_conn_id

    def execute(self, context: Any) -> ROVolume:
        """Promote, and return the version."""
        version = taskvolumes.versioned(self.version, self.volume_conn_id)
        if not self.tag:
            return version.promote_sync(self.name)
        is_new = self.name is not None and self.name != version.name
        named = self._named(version, str(self.name), self.tag) if is_new else version
        named.tag_sync(self.tag)  # a tag that is another version's moves no head
        named.promote_sync()
        if is_new:
            plugins().committed(named, named.produced_by)
        return named

    def _named(self, version: ROVolume, name: str, tag: str) -> ROVolume:
        """Return *version* as one of the volume *name*: the one that a try before has made and given the *tag*."""
        place = version._place()
        try:
            tagged = read_tag(place.store(), validate_name(name), tag)
        except NotFoundError:
            made = renamed(version._locked_version(), name, version.message, {}, plugins().current_task())
            return ROVolume.of_version(made)
        found = read_version(Locator(place.store().url, name, tagged.version), place)
        if (
            version.locator not in found.manifest.parents
            or found.manifest.stack != version._locked_version().manifest.stack
        ):
            raise ConflictError(f"{tag!r} is the tag of another version of {name!r}, {found.locator}: give another tag")
        return ROVolume.of_version(found)


def described(context: Any) -> str:
    """Return what a commit's message says where the user gives none."""
    from volume_airflow import running

    return running.described(context["ti"])

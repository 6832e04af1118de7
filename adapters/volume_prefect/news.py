"""What people see of a commit in Prefect: a page, an event, an asset; and how far one is that takes long.

    volume_committing ──5 s──> a progress artifact, updated until the commit has ended
    volume_committed  ──┬────> the page: a Markdown artifact; all versions of one volume are one history
                        ├────> the event `volume.committed`, which automations wait for
                        └────> an asset of the task, with what the task was given and mounted upstream
    volume_mounted    ───────> upstream of what the task commits

Always true: outside a run nothing is made and no API is asked; what fails here is one line in the log, and the others
are made all the same; a commit waits for the page, for a few seconds at most, and never for its progress.
"""

from __future__ import annotations

import contextlib
import contextvars
import hashlib
import logging
import os
import re
import threading
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.context import FlowRunContext, TaskRunContext
from prefect.events import emit_event
from prefect.utilities.context import get_task_and_flow_run_ids

from volume_core import ActionRef, HistoryEntry, ROVolume, VolumeError
from volume_core.facade.addresses import PROTOCOL, store_root, url_of
from volume_core.format.names import Locator
from volume_core.pages import version_markdown
from volume_core.parts.progress import Progress
from volume_prefect import lineage

log = logging.getLogger(__name__)

EVENT = "volume.committed"
VARIABLE = "VOLUME_PREFECT_NEWS"
KINDS = ("page", "progress", "event", "asset")
LONG_S = 5.0  # a commit that takes longer has a progress artifact
_EVERY_S = 2.0
_PATIENCE_S = 10.0  # so long a commit waits for its page
_PARENTS_MAX = 50  # an event takes 100 related resources, the run's own included
_NOT_IN_KEYS = re.compile(r"[^a-z0-9]+")


def wanted() -> frozenset[str]:
    """Return which of KINDS `$VOLUME_PREFECT_NEWS` asks for: all without it, none where it is `none`."""
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return frozenset(KINDS)
    found = {part.strip() for part in text.split(",")} - {"none"}
    if unknown := sorted(found.difference(KINDS)):
        raise VolumeError(f"${VARIABLE} names {unknown[0]!r}; there are {', '.join(KINDS)} and none")
    return frozenset(found)


def resource_of(store: str, name: str) -> str:
    """Return the `vol://` URL of the volume *name* in *store*: its resource in events, its key as an asset."""
    return f"{PROTOCOL}://{store_root(store)}/{name}"


def committed(version: ROVolume, action: ActionRef | None) -> None:
    """Make what people see of *version*, which *action* has committed."""
    if action is None or action.engine != "prefect":
        return
    kinds = wanted()
    entry = version.log_sync(limit=1)[0]
    if "asset" in kinds:
        with _sparing("asset"):
            lineage.produced(resource_of(version.store_url, version.name), entry)
    if "event" in kinds:
        with _sparing("event"):
            _tell(version, entry, action)
    if "page" in kinds:
        with _sparing("page"):
            _show(version, action)


def mounted(locator: str, action: ActionRef) -> None:
    """The version at *locator* is read by *action*."""
    if action.engine == "prefect" and "asset" in wanted():
        with _sparing("asset"):
            lineage.used(locator)


@contextlib.contextmanager
def _sparing(what: str) -> Iterator[None]:
    """The version exists: whatever an API or its client raises, no task fails for what is only seen."""
    try:
        yield
    except Exception as error:
        log.warning("the %s about a commit could not be made: %s: %s", what, type(error).__name__, error)


# -- the event


def _tell(version: ROVolume, entry: HistoryEntry, action: ActionRef) -> None:
    resource = {
        "prefect.resource.id": resource_of(version.store_url, version.name),
        "prefect.resource.name": version.name,
        "volume.name": version.name,
        "volume.store": version.store_url,
        "volume.version": version.version,
        "volume.locator": version.locator,
        "volume.url": url_of(version.locator),
    }
    payload = {
        "message": version.message,
        "used_bytes": version.used_bytes,
        "inode_count": version.inode_count,
        "created_at": entry.created_at,
        "parents": list(entry.parents[:_PARENTS_MAX]),
        "labels": entry.labels,
        "torn": list(entry.torn),
    }
    related = [_parent(locator) for locator in entry.parents[:_PARENTS_MAX]]
    if FlowRunContext.get() is None and TaskRunContext.get() is None:  # a thread of ours: Prefect cannot know the run
        related.append({"prefect.resource.id": f"prefect.flow-run.{action.run}", "prefect.resource.role": "flow-run"})
    emit_event(EVENT, resource=resource, related=related, payload=payload)


def _parent(locator: str) -> dict[str, str]:
    parent = Locator.parse(locator)
    return {
        "prefect.resource.id": resource_of(parent.store, parent.volume),
        "prefect.resource.role": "volume-parent",
        "volume.version": parent.version,
        "volume.locator": locator,
    }


# -- the page


def artifact_key(store: str, name: str) -> str:
    """Return the key under which the pages of a volume are: of lowercase letters, digits and dashes, one a volume."""
    readable = _NOT_IN_KEYS.sub("-", name.lower()).strip("-")
    told_apart = hashlib.sha256(f"{store}/{name}".encode()).hexdigest()[:8]
    return "-".join(filter(None, ("volume", readable, told_apart)))


def _show(version: ROVolume, action: ActionRef) -> None:
    page = ArtifactCreate(
        key=artifact_key(version.store_url, version.name),
        type="markdown",
        description=f"Volume {version.name}: {version.message or 'a new version'}",
        data=version_markdown(version, picture=True),
        **_run(action),
    )

    def make() -> None:
        with _sparing("page"), get_client(sync_client=True) as client:
            client.create_artifact(page)

    thread = threading.Thread(target=contextvars.copy_context().run, args=(make,), name="volume-page", daemon=True)
    thread.start()
    thread.join(_PATIENCE_S)
    if thread.is_alive():
        log.warning("the API has not taken the page about a commit in %g s, and is not waited for", _PATIENCE_S)


def _run(action: ActionRef) -> dict[str, Any]:
    """Return the runs that an artifact belongs to; in a thread of ours it is the flow run that *action* names."""
    task_run, flow_run = get_task_and_flow_run_ids()
    if flow_run is None:
        with contextlib.suppress(ValueError):
            flow_run = UUID(action.run)
    found = {"task_run_id": task_run, "flow_run_id": flow_run}
    return {name: value for name, value in found.items() if value is not None}


# -- progress


def committing(progress: Progress, action: ActionRef | None) -> None:
    """Watch a commit, and show how far it is once it takes long."""
    if action is not None and action.engine == "prefect" and "progress" in wanted():
        watch = contextvars.copy_context().run
        threading.Thread(target=watch, args=(_watch, progress, action), name="volume-progress").start()


def _watch(progress: Progress, action: ActionRef) -> None:
    if progress.wait(LONG_S):
        return
    with _sparing("progress"), get_client(sync_client=True) as client:
        shown = ArtifactCreate(
            type="progress",
            description=f"Commit of the volume {progress.volume}: contents that are in the store",
            data=_percent(progress),
            **_run(action),
        )
        artifact = client.create_artifact(shown)
        ended = False
        while not ended:
            ended = progress.wait(_EVERY_S)
            client.update_artifact(artifact.id, ArtifactUpdate(data=_percent(progress)))


def _percent(progress: Progress) -> Any:
    if not progress.total_bytes:  # it is still being scanned; or that has ended, and there was nothing to be stored
        return 100.0 if progress.wait(0) else 0.0
    return round(100 * progress.done_bytes / progress.total_bytes, 1)

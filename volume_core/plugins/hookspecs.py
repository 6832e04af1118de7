"""The hooks: everything another package can add to or hear from this one.

Two sorts.  A question has one answer: implementations are asked one after the other and the first
that returns something else than None wins; an exception reaches the caller with the name of the
adapter in it.  News are told to everyone after the fact: nothing can be decided there, and an
exception is logged with the adapter's name and stops nobody.

Always true: arguments are named, so an implementation takes those it wants, in any order, and goes
on working when a hook gains one; docs/hooks.md has a heading with the exact arguments of each.

`Any` stands where a value's class belongs to a higher stair (the facade's versions, the drivers'
requests); each docstring says which.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pluggy

from volume_core.format.manifest import Action
from volume_core.storage.protocol import Store

if TYPE_CHECKING:
    from volume_core.parts.progress import Progress

PROJECT = "volume_core"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class MountDriver(Protocol):
    """A way to put a view under a path.  volume_core.testing's DriverContract checks one.

    `mount` takes a volume_core.mount.request.MountRequest and returns a volume_core.mount.request.Mounted.
    """

    @property
    def name(self) -> str:
        """What `mount(driver=...)` calls it."""
        ...

    def mount(self, request: Any) -> Any:
        """Mount what *request* describes and return it; MountError says what the machine lacks."""
        ...


@hookspec(firstresult=True)
def volume_current_task() -> Action | None:
    """Return the task that this process is running, or None if it is not one of yours.

    A question, asked when a volume is mounted, or committed without a mount: it becomes `produced_by`
    of what is committed.  Must not import the engine if the engine is not already imported.

    Example::

        @hookimpl
        def volume_current_task():
            if "flytekit" not in sys.modules:
                return None
            task = sys.modules["flytekit"].current_context().execution_id
            return ActionRef(engine="flyte", project=task.project, domain=task.domain, run=task.name)
    """


@hookspec(firstresult=True)
def volume_default_bucket() -> str | None:
    """Return the URL of the store for a volume that names no bucket, or None to leave it to others.

    A question, asked once for each such volume.  When nobody answers it is `$VOLUME_BUCKET`, else the
    store below `$VOLUME_STATE_DIR`.

    Example::

        @hookimpl
        def volume_default_bucket():
            return "s3://team-data/volumes" if "TEAM_RUN" in os.environ else None
    """


@hookspec(firstresult=True)
def volume_open_store(url: str, options: Mapping[str, str]) -> Store | None:
    """Return the store at *url*, or None if its scheme is not yours.

    A question, asked before the built-in schemes (s3, gs, az, abfs, file, memory) are tried, once for
    each store and process.  *options* holds nothing secret (`region`): an implementation finds its own
    credentials.  Mount servers are processes of their own, so a scheme that shall be mounted comes from
    an installed entry point, not from `register()`.  volume_core.testing's StoreContract checks a store.

    Example::

        @hookimpl
        def volume_open_store(url, options):
            if url.startswith("ftp://"):
                return FtpStore(url)
    """


@hookspec(firstresult=True)
def volume_reference(url: str, is_directory: bool) -> Any:
    """Return what tasks of the running engine hand on as a directory, or a file, or None if none of yours runs.

    A question, asked by `as_directory()` and `as_file()` of a volume.  *url* is a `vol://` URL that means the same
    anywhere: it names a version, which does not change, and its store.  Must not import the engine if the engine is
    not already imported.

    Example::

        @hookimpl
        def volume_reference(url, is_directory):
            if "flytekit" not in sys.modules:
                return None
            return FlyteDirectory.from_source(url) if is_directory else FlyteFile.from_source(url)
    """


@hookspec
def volume_mount_driver() -> MountDriver | None:
    """Return one more way to mount, which `mount(driver="its name")` then takes, or None.

    A question to all: every answer counts.  The names of the built-in drivers are taken; "auto" never
    chooses a driver from here.

    Example::

        @hookimpl
        def volume_mount_driver():
            return NfsDriver(name="nfs")
    """


@hookspec
def volume_committing(progress: Progress, action: Action | None) -> None:
    """News: a commit of a working copy begins; *progress* says how far it is, for as long as it takes.

    Told by the thread that commits, before it scans, also where it then turns out that nothing has changed.  To
    watch, ask *progress* from a thread of your own: `wait(timeout_s)` returns True when the commit has ended,
    `done_bytes` of `total_bytes` are in the store.

    Example::

        @hookimpl
        def volume_committing(progress):
            threading.Thread(target=show, args=[progress]).start()
    """


@hookspec
def volume_committed(version: Any, action: Action | None) -> None:
    """News: *version* (an ROVolume) exists, committed by the task *action* or by none.

    Told after the commit, by the process that made it, once for each new version; a commit in which
    nothing had changed makes none and is not told.

    Example::

        @hookimpl
        def volume_committed(version, action):
            emit_event("volume.committed", resource={"volume": version.name, "locator": version.locator})
    """


@hookspec
def volume_mounted(
    name: str, locator: str | None, path: Path, driver: str, writable: bool, action: Action | None
) -> None:
    """News: the volume *name* is mounted at *path*.

    *locator* is the version that shows through (None: a volume without any yet), *driver* the name of
    the driver that did it.  Told after the mount, in the process that asked for it.

    Example::

        @hookimpl
        def volume_mounted(name, locator, path, driver):
            log.info("%s (%s) is at %s, by the %s driver", name, locator, path, driver)
    """


@hookspec
def volume_pod(spec: dict[str, Any]) -> None:
    """Change *spec*, the Kubernetes PodSpec (as its JSON would be) of a task that mounts volumes.

    Told to every plugin by an engine's adapter before it hands the pod over, so that a site can put
    its own nodes, tolerations or cache directory in one place for all engines.  What a mount needs is there
    already (volume_core.pods).  Change the dictionary in place, in a way that changes nothing the second time: a
    template may be made from another one.  Unlike with news, an exception reaches the caller: a pod that lacks
    what the site requires must not start.

    Example::

        @hookimpl
        def volume_pod(spec):
            spec["nodeSelector"] = {**(spec.get("nodeSelector") or {}), "team.example/disk": "nvme"}
    """

"""Steps of a deployment's `pull` section: what is there before the flow is imported.

    pull:
      - volume_prefect.steps.mount_volume:
          id: code
          volume: pipelines:release-7
          path: /srv/pipelines
      - prefect.deployments.steps.set_working_directory:
          directory: "{{ code.directory }}"

Always true: what is mounted here is read-only, and stays until the process of the flow run ends.
"""

from __future__ import annotations

from typing import TypedDict

from volume_core import ROVolume, RWVolume, VolumeError
from volume_core.facade.mounts import MountOptions
from volume_prefect.blocks import VolumeStore, load_store

_mounted: list[ROVolume] = []  # a mount is taken down when its handle is collected


class MountedVolume(TypedDict):
    """What later steps can use: `{{ id.directory }}`."""

    directory: str
    locator: str
    version: str


def mount_volume(
    volume: str, path: str | None = None, store: str | None = None, driver: str | None = None
) -> MountedVolume:
    """Mount a version to read, before the flow is imported.

    *volume* is NAME or NAME:REF (a tag or a version), a `vol://` URL, or a locator.  *store* is the name of a block
    `volume-store`; by default it is `default`, if there is one.  *path* and *driver* as in ROVolume.mount.  Raises
    NotFoundError where there is no such volume, VolumeError where there is no such store.
    """
    block = load_store(store or "default")
    if block is None and store is not None:
        raise VolumeError(f"there is no block volume-store/{store}: save it, or leave `store` out")
    version = _version(volume.strip(), block)
    options: MountOptions = {"driver": driver} if driver else {}
    directory = version.mount_sync(path, **options)
    _mounted.append(version)
    return {"directory": str(directory), "locator": version.locator, "version": version.version}


def _version(volume: str, block: VolumeStore | None) -> ROVolume:
    if block is None:
        return ROVolume.model_validate(volume)
    block.use()
    if "://" in volume:
        return ROVolume.model_validate(volume)
    name, _, ref = volume.partition(":")
    found = block.from_name_sync(name, version=ref or None)
    if isinstance(found, RWVolume):
        assert found.committed is not None  # without a head from_name has raised
        return found.committed
    return found

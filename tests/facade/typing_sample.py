"""Read by mypy, never run: what a type checker sees of the public classes."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import assert_type

from volume_core import (
    Difference,
    FileEntry,
    FileEntryType,
    HistoryEntry,
    Problem,
    ROVolume,
    RWVolume,
    Status,
    Volume,
    mounts,
)


def synchronous(volume: RWVolume, version: ROVolume) -> None:
    assert_type(Volume.new("x"), RWVolume)
    assert_type(Volume.empty("x"), RWVolume)
    assert_type(Volume.from_locator_sync("x"), ROVolume)
    assert_type(Volume.recover_sync("x", allow_torn=True), RWVolume)
    assert_type(volume.mount_sync("/x", driver="copy", timeout=3.0), Path)
    assert_type(volume.commit_sync("message", labels={"a": "b"}), ROVolume)
    assert_type(volume.finalize_sync(), ROVolume)
    assert_type(volume.status_sync(), Status)
    assert_type(version.fork_sync("x"), RWVolume)
    assert_type(version.log_sync(), list[HistoryEntry])
    assert_type(version.verify_sync(), list[Problem])
    assert_type(version.locator, str)
    assert_type(volume.locator, str | None)
    assert_type(volume / "x", Path)
    assert_type(os.fspath(version), str)
    with mounts({"/x": volume, Path("/y"): version}, driver="copy", checkpoint_every=3.0) as mounted:
        assert_type(mounted.paths, dict[str, Path])
        assert_type(mounted.versions, dict[str, ROVolume])
    with volume.mounted_sync(message="x") as path, version.mounted_sync("/x") as other:
        assert_type(path, Path)
        assert_type(other, Path)


def files(volume: RWVolume, version: ROVolume) -> None:
    assert_type(version.listdir_sync("/"), list[FileEntry])
    assert_type(version.iterdir_sync("/"), Iterator[FileEntry])
    assert_type(version.read_file_sync("/x", offset=1), Iterator[bytes])
    assert_type(volume.stat_sync("/x").type, FileEntryType)
    assert_type(volume.copy_files_sync(["a"], "b", recursive=True), ROVolume)
    with volume.batch_upload_sync(force=True) as batch:
        assert_type(batch.version, ROVolume)


async def awaited_files(volume: RWVolume, version: ROVolume) -> None:
    assert_type(await version.listdir("/"), list[FileEntry])
    assert_type(version.iterdir("/"), AsyncGenerator[FileEntry, None])
    async for block in version.read_file("/x"):
        assert_type(block, bytes)
    assert_type(await volume.remove_file("a", recursive=True), ROVolume)
    async with volume.batch_upload() as batch:
        assert_type(batch.version, ROVolume)
    version.remove_file_sync("a")  # type: ignore[attr-defined]  # a version does not change


async def awaited(volume: RWVolume, version: ROVolume) -> None:
    assert_type(await Volume.from_locator("x"), ROVolume)
    assert_type(await Volume.recover("x", allow_torn=True), RWVolume)
    assert_type(await volume.mount("/x", driver="copy", timeout=3.0), Path)
    assert_type(await volume.commit("message", labels={"a": "b"}), ROVolume)
    assert_type(await volume.finalize(), ROVolume)
    assert_type(await volume.abandon(), None)
    assert_type(await volume.unmount(lazy=True), None)
    assert_type(await volume.status(), Status)
    assert_type(await volume.close(), str | None)
    assert_type(await version.fork("x"), RWVolume)
    assert_type(await version.log(limit=3), list[HistoryEntry])
    assert_type(await version.verify(), list[Problem])
    assert_type(await version.unmount(), None)
    assert_type(await version.diff(version), list[Difference])
    assert_type(await version.revert(version, message="back"), ROVolume)
    assert_type(await Volume.merge([version, version], "x", on_conflict="ours"), ROVolume)
    async with volume.mounted(message="x") as path, version.mounted("/x", driver="copy") as other:
        assert_type(path, Path)
        assert_type(other, Path)


@mounts({"/x": Volume.from_name_lazy("x", version="v1")}, on_terminate="commit")
async def decorated(number: int) -> str:
    return str(number)


async def of_decorated() -> None:
    assert_type(await decorated(3), str)
    await decorated("3")  # type: ignore[arg-type]  # not a number


async def refused(volume: RWVolume, version: ROVolume) -> None:
    await volume.mount(3)  # type: ignore[arg-type]  # not a path
    await volume.mount("/x", colour="blue")  # type: ignore[call-arg]  # no such option
    await volume.commit(7)  # type: ignore[arg-type]  # not a message
    volume.mounted_sync(on_terminate="ignore")  # type: ignore[arg-type]  # neither commit nor keep
    mounts({"/x": "data"})  # type: ignore[dict-item]  # no volume
    version.commit_sync()  # type: ignore[attr-defined]  # a version has no commit
    volume.mount_sync("/x", driver=3)  # type: ignore[arg-type]  # not a name
    async with version.mounted(colour="blue"):  # type: ignore[call-arg]  # no such option
        pass

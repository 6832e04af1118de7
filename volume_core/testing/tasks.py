"""The tasks that the suite for adapters gives an engine to run.

Module-level, since engines find tasks by their names; annotated, since engines convert by that.

Always true: a task that writes leaves its writer mounted, with what it wrote not committed; `held` has the writers that
tasks had in hand, newest last, for the test that ran them.
"""

from __future__ import annotations

import json
from typing import Any, Optional

from volume_core.volumes import ROVolume, RWVolume, Volume

held: list[RWVolume] = []


def _write(volume: RWVolume, **files: str) -> RWVolume:
    held.append(volume)
    root = volume.mount_sync()
    for name, text in files.items():
        (root / name).write_text(text)
    return volume


def make(name: str) -> RWVolume:
    """Return a writer with something in it that is not committed."""
    return _write(Volume.new(name), made=name)


def add(data: RWVolume) -> RWVolume:
    """Write one file more."""
    return _write(data, added=data.name)


def pass_on(data: RWVolume) -> RWVolume:
    """Take a writer and do not touch it."""
    return data


def mount_and_pass_on(data: RWVolume) -> RWVolume:
    """Look at it through a mount, and write nothing."""
    (data.mount_sync() / "made").read_text()
    return data


def fail_after_writing(data: RWVolume) -> RWVolume:
    """Write, and raise."""
    if _write(data, half="half").mount_path is not None:
        raise ValueError("the body of this task always raises")
    return data


def make_two(name: str) -> tuple[RWVolume, RWVolume]:
    """Return one writer twice."""
    volume = make(name)
    return volume, volume


def make_list(name: str) -> list[RWVolume]:
    """Return three writers, the first of them three times over."""
    first = make(f"{name}-0")
    return [first, make(f"{name}-1"), first, make(f"{name}-2"), first]


def make_dict(name: str) -> dict[str, RWVolume]:
    """Return writers by name."""
    return {each: make(f"{name}-{each}") for each in ("a", "b")}


def make_optional(name: str) -> Optional[RWVolume]:  # noqa: UP045 (engines tell the two spellings apart)
    """Return a writer, or None where *name* is empty."""
    return make(name) if name else None


def tell(data: ROVolume) -> str:
    """Return what a task is given."""
    return json.dumps(told(data))


def tell_fork(data: RWVolume) -> str:
    """Return what a task is given that writes."""
    return json.dumps(told(data))


def tell_two(one: ROVolume, other: ROVolume) -> str:
    """Return what a task with two parameters is given."""
    return json.dumps([told(one), told(other)])


def tell_list(data: list[ROVolume]) -> str:
    """Return what is in a list."""
    return json.dumps([told(each) for each in data])


def tell_dict(data: dict[str, ROVolume]) -> str:
    """Return what is in a dictionary."""
    return json.dumps({name: told(each) for name, each in data.items()})


def tell_optional(data: Optional[ROVolume] = None) -> str:  # noqa: UP045
    """Return what is there, or null."""
    return json.dumps(data if data is None else told(data))


def told(volume: Volume) -> dict[str, Any]:
    """Return what there is to know of *volume*, as values of JSON."""
    names = [entry.path for entry in volume.listdir_sync("/")]
    files = {name: b"".join(volume.read_file_sync(name)).decode() for name in names}
    return {"class": type(volume).__name__, "name": volume.name, "index": volume.index, "files": files}

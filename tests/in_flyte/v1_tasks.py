"""Tasks as a container finds them: by module and name.  v1_container.py runs them as the entry point does."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass

from flytekit import dynamic, task
from pydantic import BaseModel
from v1_kit import contents, failing, fill

from volume_core import ROVolume, RWVolume, Volume
from volume_core.plugins.manager import plugins


@dataclass
class Data:
    data: RWVolume


class Model(BaseModel):
    data: RWVolume


@task
def make(name: str) -> RWVolume:
    return fill(Volume.new(name), a=name)


@task
def mounted(name: str) -> RWVolume:
    volume = Volume.new(name)
    (volume.mount_sync(driver=os.environ["TEST_DRIVER"]) / "a").write_text(name)
    return volume


@task
def add(data: RWVolume) -> tuple[RWVolume, str]:
    return fill(data, b="b"), ",".join(contents(data))


@task
def read(data: ROVolume) -> str:
    return contents(data)["a"]


@task(enable_deck=True)
def shown(data: RWVolume) -> tuple[RWVolume, RWVolume | None]:
    return fill(data, b="b"), None


@task
def body_fails(name: str) -> RWVolume:
    volume = fill(Volume.new(name), a=name)
    if name:
        raise ValueError("the body")
    return volume


@dynamic
def dynamically(name: str) -> str:
    return read(data=fill(Volume.new(name), a=name))


@task
def who() -> list[str]:
    action = plugins().current_task()
    return [str(action), plugins().default_bucket()]


@dynamic
def who_dynamically() -> str:
    action = plugins().current_task()
    return read(data=fill(Volume.new(f"{action.run} {action.action}".replace(" ", "-").replace(".", "-")), a="a"))


def _unstored(name: str) -> RWVolume:
    """Return a writer whose store does not answer; for the rest of this process."""
    context = failing("transient" if name != "permanent" else "permanent")
    context.__enter__()
    try:
        volume = fill(Volume.new(name), a=name)
        volume._place().store()
        return volume
    finally:
        context.__exit__(None, None, None)


@task
def unstored(name: str) -> RWVolume:
    return _unstored(name)


@task
def unstored_maybe(name: str) -> RWVolume | None:
    return _unstored(name)


@task
def unstored_field(name: str) -> Data:
    return Data(_unstored(name))


@task
def unstored_model(name: str) -> Model:
    return Model(data=_unstored(name))


# What is made while a container imports its module, before flytekit says who runs.
AT_IMPORT = Volume.new("at-import").store_url


@task
def where() -> list[str]:
    """The default store: of the body, of a thread of its own, and of the import of its module."""
    found = [Volume.new("body").store_url]
    thread = threading.Thread(target=lambda: found.append(Volume.new("thread").store_url))
    thread.start()
    thread.join()
    return [*found, AT_IMPORT]

"""One run publishes a version, another one, any time later, opens it: all that goes between them is a line of text.

A locator is the URL of one version, and enough to find everything in it, from anywhere that can read the store.

Run it: python examples/flyte/across_runs.py
"""

import flyte

from volume_core import Volume
from volume_flyte import fuse_pod_template, with_volume_deps

env = flyte.TaskEnvironment(
    "across-runs",
    image=with_volume_deps(flyte.Image.from_debian_base(name="volumes")),
    pod_template=fuse_pod_template(),
)


@env.task
async def publish() -> str:
    """Commit a data set, and return where it is."""
    volume = Volume.new(name="colours")
    data = await volume.mount()
    for colour in ("red", "green", "blue"):
        (data / f"{colour}.txt").write_text(colour)
    version = await volume.finalize(message="v1")
    return version.locator  # for a configuration file, a message queue, a colleague


@env.task
async def consume(address: str) -> int:
    """Count the files of the version at *address*."""
    version = await Volume.from_locator(address)
    data = await version.mount()
    return len(list(data.glob("**/*.txt")))


@env.task
async def extend(address: str) -> str:
    """Add a file, on a branch of its own."""
    version = await Volume.from_locator(address)
    branch = await version.fork(name="more-colours")
    (await branch.mount() / "violet.txt").write_text("violet")
    return (await branch.finalize(message="v2")).locator


if __name__ == "__main__":
    flyte.init()
    first = flyte.run(publish).outputs()[0]
    second = flyte.run(extend, address=first).outputs()[0]
    for address in (first, second):
        print(flyte.run(consume, address=address).outputs()[0], address.rpartition("/versions/")[2].split("/")[0])

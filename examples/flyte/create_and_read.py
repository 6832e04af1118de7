"""The life of a volume: made, mounted and written in one task, returned, and mounted to read in the next.

Run it here:        python examples/flyte/create_and_read.py
Run it on a cluster: flyte run examples/flyte/create_and_read.py main
"""

import flyte

from volume_core import ROVolume, RWVolume, Volume
from volume_flyte import fuse_pod_template, with_volume_deps

# What a task that mounts needs on a cluster; a local run takes the machine as it is.
env = flyte.TaskEnvironment(
    "create-and-read",
    image=with_volume_deps(flyte.Image.from_debian_base(name="volumes")),
    pod_template=fuse_pod_template(cache_size="10Gi"),
    resources=flyte.Resources(cpu=1, memory="1Gi"),
)


@env.task
async def create() -> RWVolume:
    """Write a few files."""
    volume = Volume.new(name="weather")
    data = await volume.mount()  # a directory like any other, until the task ends
    (data / "stations").mkdir()
    for station in ("harbour", "hill", "airport"):
        (data / "stations" / f"{station}.csv").write_text("hour,celsius\n6,11.5\n12,19.0\n18,16.5\n")
    return volume  # what is returned is committed: the next task has this version, for good


@env.task
async def warmest(weather: ROVolume) -> str:
    """Read them."""
    data = await weather.mount()  # read-only: a version never changes
    found = []
    for file in sorted((data / "stations").glob("*.csv")):
        lines = file.read_text().splitlines()[1:]
        found.append(f"{file.stem} {max(float(line.split(',')[1]) for line in lines)}")
    return ", ".join(found)


@env.task
async def main() -> str:
    """Make a version, and hand it on."""
    weather = await create()
    return await warmest(weather)


if __name__ == "__main__":
    flyte.init()
    print(flyte.run(main).outputs()[0])

"""What a mount can be told, and what it finds out by itself: many small files, where they go, and how fast.

Run it: python examples/flyte/tuning.py
"""

import tempfile
import time
from pathlib import Path

import flyte

from volume_core import ROVolume, Volume
from volume_flyte import fuse_pod_template, with_high_throughput_volume_deps

FILES = 2_000
env = flyte.TaskEnvironment(
    "tuning",
    # Writes at the speed of the pod's disk, or an error that says what the pod lacks for it.
    image=with_high_throughput_volume_deps(flyte.Image.from_debian_base(name="fast-volumes"), cache_limit="40G"),
    pod_template=fuse_pod_template(cache_size="80Gi"),
)


@env.task
async def write_many(where: str) -> ROVolume:
    """Write thousands of small files, as an installer or a compiler does."""
    volume = Volume.new(name="many-files")
    data = await volume.mount(
        mount_path=Path(where) / "data",  # where a tool wants its files; else it is below $VOLUME_MOUNT_ROOT
        max_uploads=16,  # of a commit, at once
        attr_cache=120.0,  # accepted, from programs for other volumes: here the kernel keeps what it saw for ever
        entry_cache=120.0,
        dir_entry_cache=120.0,
    )
    started = time.perf_counter()
    for number in range(FILES):
        directory = data / f"{number % 20:02}"
        directory.mkdir(exist_ok=True)
        (directory / f"{number}.txt").write_text(f"file {number}\n")
    print(f"{FILES / (time.perf_counter() - started):.0f} files a second, by the driver {volume.driver}")
    return await volume.finalize(message=f"{FILES} files")


@env.task
async def read_many(volume: ROVolume, where: str) -> int:
    """Walk over them twice: the second time the kernel asks nobody."""
    data = await volume.mount(cache_dir=Path(where) / "cache")  # a fast disk with room for what is read
    for turn in ("first", "second"):
        started = time.perf_counter()
        count = sum(1 for file in data.rglob("*.txt") if file.stat().st_size)
        print(f"{count / (time.perf_counter() - started):.0f} files a second the {turn} time")
    return count


@env.task
async def main() -> int:
    """Write, and read."""
    with tempfile.TemporaryDirectory() as where:
        return await read_many(await write_many(where), where)


if __name__ == "__main__":
    flyte.init()
    print(flyte.run(main).outputs()[0], "files")

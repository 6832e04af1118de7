"""Eight tasks write at once: each to a fork of its own, and their work becomes one version in the end.

A mounted writer is one task's.  Forks need no locks and no turns: what each wrote is a version by itself, which can be
read, kept or thrown away; files that only one of them touched merge without a question.

Run it: python examples/flyte/fan_out.py
"""

import asyncio

import flyte

from volume_core import ROVolume, Volume
from volume_flyte import fuse_pod_template, with_volume_deps

SHARDS = 8
env = flyte.TaskEnvironment(
    "fan-out",
    image=with_volume_deps(flyte.Image.from_debian_base(name="volumes")),
    pod_template=fuse_pod_template(),
)


@env.task
async def ingest() -> ROVolume:
    """Commit the numbers that the shards work on."""
    numbers = Volume.new(name="numbers")
    data = await numbers.mount()
    (data / "numbers.txt").write_text("\n".join(map(str, range(1, 10_001))))
    return await numbers.finalize(message=f"for {SHARDS} shards")


@env.task
async def process_shard(base: ROVolume, shard: int) -> ROVolume:
    """Write the sum of every eighth number to a file that no other shard writes."""
    branch = await base.fork(name=f"shard-{shard}")
    data = await branch.mount()
    numbers = [int(line) for line in (data / "numbers.txt").read_text().split()]
    (data / f"sum-{shard}.txt").write_text(str(sum(numbers[shard::SHARDS])))
    return await branch.finalize(message=f"shard {shard}")


@env.task
async def fan_out(base: ROVolume) -> list[ROVolume]:
    """Have all shards processed, each as an action of its own."""
    return list(await asyncio.gather(*(process_shard(base, shard) for shard in range(SHARDS))))


@env.task
async def total(shards: list[ROVolume]) -> str:
    """Merge what they made, and add it up."""
    merged = await Volume.merge(shards, name="sums", message="all shards")
    data = await merged.mount()
    sums = [int(file.read_text()) for file in sorted(data.glob("sum-*.txt"))]
    return f"{len(sums)} shards, {sum(sums)} in all"


@env.task
async def main() -> str:
    """Fan out, and in again."""
    return await total(await fan_out(await ingest()))


if __name__ == "__main__":
    flyte.init()
    print(flyte.run(main).outputs()[0])

"""A long loop that commits now and then, so that what was done by then is there whatever happens to the task.

A commit leaves the mount alone: the loop goes on where it was.  Every commit is a version with a message: to go on
from, to compare, or to go back to.

Run it: python examples/flyte/checkpoint_loop.py
"""

import json
import random
from pathlib import Path

import flyte

from volume_core import ROVolume, Volume
from volume_flyte import fuse_pod_template, with_volume_deps

EPOCHS, EVERY = 30, 10
env = flyte.TaskEnvironment(
    "checkpoint-loop",
    image=with_volume_deps(flyte.Image.from_debian_base(name="volumes")),
    pod_template=fuse_pod_template(),
)


@env.task
async def points() -> ROVolume:
    """Commit points that lie about y = 3x + 1."""
    rng = random.Random(7)
    made = [(x / 50, 3 * x / 50 + 1 + rng.gauss(0, 0.05)) for x in range(50)]
    volume = Volume.new(name="points")
    (await volume.mount() / "points.json").write_text(json.dumps(made))
    return await volume.finalize(message="fifty points")


def train_one_epoch(data: Path) -> float:
    """Improve the line in *data* a little; return its mean error."""
    made, file = json.loads((data / "points.json").read_text()), data / "line.json"
    slope, height = json.loads(file.read_text()) if file.exists() else (0.0, 0.0)
    errors = [slope * x + height - y for x, y in made]
    slope -= 0.8 * sum(error * x for error, (x, _) in zip(errors, made, strict=True)) / len(made)
    height -= 0.8 * sum(errors) / len(made)
    file.write_text(json.dumps((slope, height)))
    return sum(error * error for error in errors) / len(made)


@env.task(report=True)  # its report shows each version: what changed, and how the volume grew
async def train(base: ROVolume) -> ROVolume:
    """Fit a line, and commit it every few epochs."""
    run = await base.fork(name="training-run")
    data = await run.mount()
    for epoch in range(1, EPOCHS + 1):
        error = train_one_epoch(data)
        if epoch % EVERY == 0:
            await run.commit(message=f"epoch {epoch}: {error:.3f}")
    return await run.finalize(message="trained")  # nothing was written since: the last commit it is


@env.task
async def main() -> list[str]:
    """Train, and list what there is to go back to."""
    return [entry.volume.message for entry in await (await train(await points())).log()]


if __name__ == "__main__":
    flyte.init()
    print(*flyte.run(main).outputs()[0], sep="\n")

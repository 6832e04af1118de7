"""One data set, many processes: each works in a fork of its own, and the forks become one version again.

    base ──fork──> shard 0 ─┐
         ──fork──> shard 1 ─┼──merge──> one version, whose parents are all of them
         ──fork──> shard 2 ─┘

A fork is a record: nothing is copied, however large the base is.

Run it: python examples/prefect/fan_out_and_merge.py
"""

import os

from prefect import flow, task, unmapped
from prefect.task_runners import ProcessPoolTaskRunner

from volume_core import ROVolume, RWVolume, Volume
from volume_prefect import volumes

SHARDS = 3


@volumes
@task
def prepare(count: int) -> RWVolume:
    """Write the numbers that the shards share out among themselves."""
    base = Volume.new("numbers")
    (base.mount_sync() / "numbers.txt").write_text(" ".join(map(str, range(count))))
    return base


@volumes
@task
def square(numbers: RWVolume, shard: int) -> RWVolume:
    """Work on every third number, in a process of its own; *numbers* is a fork of what was given."""
    path = numbers.mount_sync()
    mine = [int(each) for each in (path / "numbers.txt").read_text().split()][shard::SHARDS]
    (path / f"squares-{shard}.txt").write_text(" ".join(str(each**2) for each in mine))
    (path / f"process-{shard}.txt").write_text(str(os.getpid()))
    return numbers


@volumes
@task
def join(shards: list[ROVolume]) -> ROVolume:
    """Make one version of all; a path that two of them had changed differently would be an error."""
    return Volume.merge_sync(shards, name="squares", message=f"{len(shards)} shards")


@flow(task_runner=ProcessPoolTaskRunner(max_workers=2))
def pipeline(count: int) -> ROVolume:
    """Prepare, fan out, join."""
    base = prepare(count)
    # A volume is one value and no list of values: unmapped() says so to map().
    shards = square.map(unmapped(base), list(range(SHARDS)))
    return join(shards.result())


def main() -> None:
    """Run it, and add up what the processes found."""
    joined = pipeline(12)
    found = {entry.path: b"".join(joined.read_file_sync(entry.path)).decode() for entry in joined.listdir_sync("/")}
    squares = [int(each) for path, text in found.items() if path.startswith("squares") for each in text.split()]
    processes = {text for path, text in found.items() if path.startswith("process")}
    print(sorted(squares), "by", len(processes), "processes; parents:", len(joined.log_sync(limit=1)[0].parents))
    assert sorted(squares) == [each**2 for each in range(12)]
    assert str(os.getpid()) not in processes


if __name__ == "__main__":
    main()

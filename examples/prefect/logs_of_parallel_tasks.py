"""Tasks that run at once write their logs into one named volume; each run of the flow adds three files.

The volume workflow of Covalent's documentation, as a Prefect flow: what docs/coming-from-covalent.md says in general.
Every task mounts the volume for itself, and what they commit meets at the volume's head.

Run it: python examples/prefect/logs_of_parallel_tasks.py
"""

from prefect import flow, task
from prefect.futures import wait
from prefect.runtime import flow_run

from volume_core import Volume

logs = Volume.from_name_lazy("logs", create_if_missing=True)


@task
def compute(number: int, run: str) -> int:
    """Square a number, and write down what was done."""
    result = number**2
    with logs.mounted_sync(message=f"{run}: task {number}") as path:  # commits when it ends well
        (path / f"{run}-{number}.log").write_text(f"{number} squared is {result}\n")
    return result


@task
def written() -> list[str]:
    """Return the names of all logs, of this run and of those before."""
    with logs.mounted_sync() as path:
        return sorted(file.name for file in path.glob("*.log"))


@flow
def workflow() -> list[str]:
    """Three tasks at once, then a look at what is there."""
    wait([compute.submit(number, flow_run.name) for number in range(3)])
    return written()


def main() -> None:
    """Run the workflow twice, and show that the second run adds to what the first one left."""
    first = workflow()
    second = workflow()
    print(len(first), "logs, then", len(second))
    assert set(first) < set(second) and len(second) == len(first) + 3
    history = Volume.from_name_sync("logs", version=None).committed
    assert history is not None
    for entry in history.log_sync(limit=6):
        print(entry.volume.version[:12], entry.volume.message)


if __name__ == "__main__":
    main()

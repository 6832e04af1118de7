"""A data set that grows by a day at a time: its partitions are fetched side by side, and land on one volume.

    head of `events` ──fork──> eu ─┐
                     ──fork──> us ─┼──merge──> the new head of `events`
                     ──fork──> ap ─┘

Each partition is a mapped task with a fork of its own: no locks, nothing half-done is ever seen, and a partition that
fails is fetched again alone.  A day that is run again replaces its files and no others, and days that run at once land
one after the other.  The volume's history is that of its days: `volume log events`.
"""

import csv
import datetime
import random

from airflow.sdk import dag, task

from volume_airflow.operators.volume import VolumeMergeOperator
from volume_core import ROVolume, RWVolume, Volume


def fetched(region: str, day: str) -> list[tuple[str, int]]:
    """Stand in for the service from which a day's events of one region come."""
    numbers = random.Random(f"{region} {day}")
    return [(f"{region}-{number}", numbers.randrange(100)) for number in range(1000)]


@dag(schedule="@daily", start_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC), catchup=False)
def daily_ingest() -> None:
    """Fetch a day."""

    @task
    def today() -> RWVolume:
        """Return the volume as it stands; nothing is written, so the version that is passed on is its head."""
        return Volume.from_name_sync("events", create_if_missing=True)

    @task
    def regions() -> list[str]:
        """Return what there is to be fetched: it may be another list each day."""
        return ["eu", "us", "ap"]

    @task(retries=2)
    def fetch(events: ROVolume, region: str, day: str) -> RWVolume:
        """Write one partition into a fork, which has a name of its own, so that it is nobody's head but its own."""
        partition = events.fork_sync(f"events-{region}")
        file = partition.mount_sync() / f"day={day}" / f"{region}.csv"
        file.parent.mkdir(exist_ok=True)
        with file.open("w", newline="") as out:
            csv.writer(out).writerows(fetched(region, day))
        return partition

    partitions = fetch.partial(events=today(), day="{{ ds }}").expand(region=regions())
    # One version of all of them, on top of what the head names by then; no data is moved.
    VolumeMergeOperator(task_id="land", versions=partitions, name="events", message="{{ ds }}")


daily_ingest()

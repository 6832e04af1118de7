"""A data set that grows by a day at a time: its partitions are fetched side by side, and land on one volume.

    head of `events` ──fork──> eu ─┐
                     ──fork──> us ─┼──merge──> the new head of `events`
                     ──fork──> ap ─┘

Each partition is a mapped task with a fork of its own: no locks, nothing half-done is ever seen, and a partition that
fails is fetched again alone.  A day that is run again replaces its files and no others.  The volume's history is the
history of its days: `volume log events`; that of one region: `volume log events-eu`.
"""

import csv
import datetime
import random

from airflow.sdk import dag, task

from volume_core import ROVolume, RWVolume, Volume


def fetched(region: str, day: str) -> list[tuple[str, int]]:
    """Stand in for the service from which a day's events of one region come."""
    numbers = random.Random(f"{region} {day}")
    return [(f"{region}-{number}", numbers.randrange(100)) for number in range(1000)]


# One run at a time: a merge moves the head only from where its partitions began.
@dag(schedule="@daily", start_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC), catchup=False, max_active_runs=1)
def daily_ingest():
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

    @task
    def land(partitions: list[ROVolume], day: str) -> ROVolume:
        """Make one version of all partitions; no data is moved."""
        return Volume.merge_sync(list(partitions), name="events", message=f"{day}: {len(partitions)} regions")

    day = "{{ ds }}"
    land(fetch.partial(events=today(), day=day).expand(region=regions()), day)


daily_ingest()

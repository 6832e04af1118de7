"""The last of three engines: a flytekit workflow takes what the DAG has made, by its locator.

Run it: python examples/handover/report_with_flyte.py LOCATOR
"""

import sys

from flytekit import task, workflow

from volume_core import ROVolume, RWVolume


@task
def add_up(pages: RWVolume) -> RWVolume:
    """Write a report beside what is there; *pages* is a fork of what was given."""
    path = pages.mount_sync()
    total = sum(int(each.read_text()) for each in path.glob("*.count"))
    (path / "report.md").write_text(f"{total} words\n")
    return pages


@task
def locator_of(report: ROVolume) -> str:
    """Return where it is."""
    return report.locator


@workflow
def main(pages: ROVolume) -> str:
    """Add up; return the locator."""
    return locator_of(report=add_up(pages=pages))


if __name__ == "__main__":
    print(main(pages=ROVolume.from_locator_sync(sys.argv[1])))
